# ruff: noqa: B905
"""The formulas again, slow and obvious: loops over NumPy arrays. Tests compare with these."""

import math

import numpy as np


def softmax(row):
    top = max(row)
    e = [math.exp(v - top) for v in row]
    return [v / sum(e) for v in e]


def soft(x, t=1.0):
    return np.array([softmax([v / t for v in row]) for row in x])


def unit(row):
    return row / max(np.sqrt((row**2).sum()), 1e-12)


def kl_rows(p, q):
    return np.mean([sum(a * math.log(a / b) for a, b in zip(r, s) if a > 0) for r, s in zip(p, q)])


def mse(s, t):
    return np.mean([(a - b) ** 2 for a, b in zip(s.ravel(), t.ravel())])


def sse(s, t):
    return sum((a - b) ** 2 for a, b in zip(s.ravel(), t.ravel())) / len(s)


def l1(s, t):
    return np.mean([abs(a - b) for a, b in zip(s.ravel(), t.ravel())])


def smooth_l1(s, t, beta=1.0):
    total = []
    for a, b in zip(s.ravel(), t.ravel()):
        d = abs(a - b)
        total.append(d * d / (2 * beta) if d < beta else d - beta / 2)
    return np.mean(total)


def cosine(s, t):
    return np.mean([1 - unit(a) @ unit(b) for a, b in zip(s, t)])


def kl(s, t, temperature=4.0):
    return temperature**2 * kl_rows(soft(t, temperature), soft(s, temperature))


def reverse_kl(s, t, temperature=1.0):
    return temperature**2 * kl_rows(soft(s, temperature), soft(t, temperature))


def jsd(s, t, beta=0.5, temperature=1.0):
    p, q = soft(s, temperature), soft(t, temperature)
    m = (1 - beta) * p + beta * q
    return temperature**2 * (beta * kl_rows(q, m) + (1 - beta) * kl_rows(p, m))


def dkd(s, t, labels, alpha=1.0, beta=8.0, temperature=4.0):
    total = 0.0
    for a, b, y in zip(s, t, labels):
        p, q = softmax(a / temperature), softmax(b / temperature)
        total += alpha * (q[y] * math.log(q[y] / p[y])
                          + (1 - q[y]) * math.log((1 - q[y]) / (1 - p[y])))  # fmt: skip
        rest = [i for i in range(len(a)) if i != y]
        p, q = softmax(a[rest] / temperature), softmax(b[rest] / temperature)
        total += beta * sum(v * math.log(v / u) for u, v in zip(p, q))
    return temperature**2 * total / len(s)


def pearson(a, b):
    a, b = a - a.mean(), b - b.mean()
    return unit(a) @ unit(b)


def dist(s, t, temperature=1.0):
    p, q = soft(s, temperature), soft(t, temperature)
    rows = np.mean([1 - pearson(a, b) for a, b in zip(p, q)])
    columns = np.mean([1 - pearson(a, b) for a, b in zip(p.T, q.T)])
    return temperature**2 * (rows + columns)


def hard(s, t):
    return -np.mean([math.log(softmax(a)[int(np.argmax(b))]) for a, b in zip(s, t)])


def wsld(s, t, labels, temperature=2.0):
    total = 0.0
    for a, b, y in zip(s, t, labels):
        mine, theirs = -math.log(softmax(a)[y]), -math.log(softmax(b)[y])
        p, q = softmax(a / temperature), softmax(b / temperature)
        cross = -sum(v * math.log(u) for u, v in zip(p, q))
        total += (1 - math.exp(-mine / theirs)) * cross
    return temperature**2 * total / len(s)


def lskd(s, t, temperature=2.0):
    s, t = (np.array([(r - r.mean()) / (r.std(ddof=1) + 1e-7) for r in x]) for x in (s, t))
    return kl(s, t, temperature)


def haar(x, sign):
    result = []
    for row in x:
        row = [*row, row[-1]] if len(row) % 2 else list(row)
        result.append([(row[i] + sign * row[i + 1]) / math.sqrt(2) for i in range(0, len(row), 2)])
    return np.array(result)


def figkd(s, t):
    return sse(haar(s, -1), haar(t, -1))


def attention(x, power=2.0):
    result = []
    for sample in x:
        total = np.zeros(sample.shape[1:])
        for channel in sample:
            total += np.abs(channel) ** power
        result.append(unit((total / len(sample)).ravel()))
    return np.array(result)


def at(s, t):
    return mse(attention(s), attention(t))


def similarity(x):
    x = x.reshape(len(x), -1)
    return np.array([unit(np.array([a @ b for b in x])) for a in x])


def sp(s, t):
    return mse(similarity(s), similarity(t))


def affinity(x):
    rows = [unit(r) for r in x]
    table = np.array([[(a @ b + 1) / 2 for b in rows] for a in rows])
    return table / table.sum(1, keepdims=True)


def pkt(s, t):
    p, q = affinity(s), affinity(t)
    return np.mean([b * math.log((b + 1e-7) / (a + 1e-7)) for a, b in zip(p.ravel(), q.ravel())])


def distances(x):
    table = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in x] for a in x])
    positive = table[table > 1e-6]
    return table / positive.mean() if len(positive) else table


def angles(x):
    n = len(x)
    result = []
    for i in range(n):  # the corner
        for j in range(n):
            for k in range(n):
                result.append(unit(x[j] - x[i]) @ unit(x[k] - x[i]))
    return np.array(result)


def rkd(s, t, distance=25.0, angle=50.0):
    return distance * smooth_l1(distances(s), distances(t)) + angle * smooth_l1(
        angles(s), angles(t)
    )


def nst(s, t):
    def kernel(a, b):
        return np.mean([(p @ q) ** 2 for u, v in zip(a, b) for p in u for q in v])

    s, t = ([[unit(c.ravel()) for c in sample] for sample in x] for x in (s, t))
    return kernel(s, s) + kernel(t, t) - 2 * kernel(s, t)


def cwd(s, t, temperature=1.0):
    flat = [x.reshape(-1, x.shape[2] * x.shape[3]) for x in (s, t)]
    return kl(*flat, temperature)


def pkd(s, t):
    def standard(x):
        result = x.copy()
        for c in range(x.shape[1]):
            values = x[:, c].ravel()
            result[:, c] = (x[:, c] - values.mean()) / (values.std(ddof=1) + 1e-6)
        return result

    return mse(standard(s), standard(t))


def towers(x):
    half = x.shape[1] // 2
    return [np.array([unit(r) for r in part]) for part in (x[:, :half], x[:, half:])]


def ckd(s, t, scale=1 / 0.07):
    total = 0.0
    (v, u), (tv, tu) = towers(s), towers(t)
    for a, b, c, d in ((v, u, tv, tu), (u, v, tu, tv)):
        total += kl_rows(soft(scale * c @ d.T), soft(scale * a @ b.T)) / 2
    return total


def fd(s, t):
    return mse(np.concatenate(towers(s), 1), np.concatenate(towers(t), 1))


def icl(s, t, scale=1 / 0.07):
    (v, u), (tv, tu) = towers(s), towers(t)
    total = 0.0
    for a, b in ((v, tu), (u, tv)):
        p = soft(scale * a @ b.T)
        total -= np.mean([math.log(p[i, i]) for i in range(len(s))]) / 2
    return total


def symmetric(a, b):
    return (kl_rows(soft(a), soft(b)) + kl_rows(soft(b), soft(a))) / 2


def vrd(s, t, scale=10.0):
    (v, u), (tv, tu) = towers(s), towers(t)
    return symmetric(scale * v @ tv.T, scale * u @ tu.T)


def xrd(s, t, scale=10.0):
    (v, u), (tv, tu) = towers(s), towers(t)
    return symmetric(scale * v @ tu.T, scale * u @ tv.T)


def mlkd_class(s, t, temperature=4.0):
    p, q = soft(s, temperature), soft(t, temperature)
    return ((p.T @ p - q.T @ q) ** 2).sum() / s.shape[1]


def mlkd_batch(s, t, temperature=4.0):
    p, q = soft(s, temperature), soft(t, temperature)
    return ((p @ p.T - q @ q.T) ** 2).sum() / len(s)


def contrastive(x, scale=1 / 0.07):
    v, u = towers(x)
    total = 0.0
    for a, b in ((v, u), (u, v)):
        p = soft(scale * a @ b.T)
        total -= np.mean([math.log(p[i, i]) for i in range(len(x))]) / 2
    return total
