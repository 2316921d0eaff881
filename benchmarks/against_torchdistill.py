"""Every loss that edgekd shares with torchdistill, on the same arrays: value and gradient.

    python3.11 -m venv td
    td/bin/pip install torch numpy
    td/bin/pip install --no-deps torchdistill==1.1.5 torchvision
    python benchmarks/against_torchdistill.py --python td/bin/python --out torchdistill.json

Their side runs in an environment of its own: this file, started with ``--there``, reads the arrays
that ours wrote and writes what torchdistill makes of them; it imports nothing of edgekd. Compared
are the value and the gradient that the student gets, in double and single precision, over three
draws; beside them defects of theirs that ours must not have, each of them provoked, not quoted.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BATCH, CLASSES, SAMPLES, NEGATIVES, WIDTH = 16, 10, 32, 12, 8
DRAWS = 3
LOSSES = "torchdistill.losses.mid_level"
DTYPES = {"float64": torch.float64, "float32": torch.float32}
BOUND = {"float64": 1e-6, "float32": 1e-5}
"""Largest difference, as a share of the largest number of theirs."""


@dataclass(frozen=True)
class Case:
    """One loss of both.

    Attributes:
        kind: Which arrays: ``logits``, ``vectors``, ``maps``, ``crd``.
        theirs: Class of torchdistill.
        settings: Of that class.
        ours: Preset whose whole objective it is, or ``PRESET/term`` for its teacher's terms with
            their weights divided by ``weight``; see `_ours`.
        weight: What the preset multiplies the loss by.
        args: Arguments of our terms in the place of the preset's.
        differs: Why the two are not the same; then they must differ.
    """

    kind: str
    theirs: str
    settings: Mapping[str, Any]
    ours: str
    weight: float = 1.0
    args: Mapping[str, float] | None = None
    differs: str = ""


PATHS = {
    f"{side}_module_{part}": value
    for side in ("student", "teacher")
    for part, value in (("path", "x"), ("io", "output"))
}
OUTPUTS = {"student_output_path": "x", "teacher_output_path": "x"}
ONE = {side: {"path": "x", "io": "output"} for side in ("student", "teacher")}
CASES = {
    "kd": Case("logits", "KDLoss", {**PATHS, "temperature": 4.0, "alpha": 0.1, "beta": 0.9}, "kd"),
    "lskd": Case(
        "logits", "LogitStdKDLoss", {**PATHS, "temperature": 2.0, "alpha": 0.1, "beta": 9.0}, "lskd"
    ),
    "dist": Case("logits", "DISTLoss", PATHS, "dist/term"),
    "dist, T = 4": Case(
        "logits", "DISTLoss", {**PATHS, "tau": 4.0}, "dist/term", args={"temperature": 4.0}
    ),
    "at": Case("maps", "ATLoss", {"at_pairs": {"one": ONE}}, "at/term", 1000.0),
    "sp": Case(
        "maps", "SPKDLoss", {**OUTPUTS, "reduction": "batchmean"}, "sp/term", 3000.0,
        differs="theirs passes 1 where the norm's degree is expected: rows of unit sum, not of unit"
        " length as in the paper (arXiv 1907.09682); ours meets the paper's code (tests/distill)",
    ),
    "sp, rows of unit sum": Case(
        "maps", "SPKDLoss", {**OUTPUTS, "reduction": "batchmean"}, "rows of unit sum"
    ),
    "pkt": Case("vectors", "PKTLoss", PATHS, "pkt/term", 30_000.0),
    "rkd": Case(
        "vectors",
        "RKDLoss",
        {**OUTPUTS, "dist_factor": 25.0, "angle_factor": 50.0, "reduction": "mean"},
        "rkd/term",
    ),
    "ft": Case(
        "alike", "FTLoss", {"paraphraser_path": "x", "translator_path": "x"}, "l1 of unit vectors"
    ),
    "crd": Case(
        "crd",
        "CRDLoss",
        {
            "student_norm_module_path": "x", "teacher_norm_module_path": "x",
            "student_empty_module_path": "places", "input_size": WIDTH, "output_size": SAMPLES,
            "num_negative_samples": NEGATIVES, "num_samples": SAMPLES,
        },
        "crd",
    ),
}  # fmt: skip


def arrays() -> dict[str, Any]:
    """Student and teacher of every kind and draw, labels, and what crd remembers and draws."""
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    shapes = {
        "logits": ((CLASSES,), (CLASSES,)), "vectors": ((12,), (20,)), "alike": ((12,), (12,)),
        "maps": ((6, 4, 5), (9, 4, 5)), "crd": ((WIDTH,), (WIDTH,)),
    }  # fmt: skip
    for draw in range(DRAWS):
        for kind, sides in shapes.items():
            for who, shape in zip(("student", "teacher"), sides, strict=True):
                made[f"{kind} {draw} {who}"] = 2 * rng.normal(size=(BATCH, *shape))
        made[f"labels {draw}"] = rng.integers(0, CLASSES, BATCH)
        made[f"places {draw}"] = rng.permutation(SAMPLES)[:BATCH]
        made[f"others {draw}"] = rng.integers(0, SAMPLES, (BATCH, NEGATIVES))
        for who in ("ours", "theirs"):
            rows = rng.normal(size=(SAMPLES, WIDTH))
            made[f"{who} {draw}"] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made


@dataclass(frozen=True)
class Given:
    """Arrays of one draw and precision, as tensors; the student's wants a gradient."""

    student: Tensor
    teacher: Tensor
    labels: Tensor
    places: Tensor
    others: Tensor
    memories: tuple[Tensor, Tensor]


def given(made: Mapping[str, Any], kind: str, draw: int, dtype: torch.dtype) -> Given:
    """Take what one comparison needs."""

    def floats(name: str) -> Tensor:
        return torch.from_numpy(np.asarray(made[name])).to(dtype)

    return Given(
        floats(f"{kind} {draw} student").requires_grad_(),
        floats(f"{kind} {draw} teacher"),
        torch.from_numpy(np.asarray(made[f"labels {draw}"])),
        torch.from_numpy(np.asarray(made[f"places {draw}"])),
        torch.from_numpy(np.asarray(made[f"others {draw}"])),
        (floats(f"ours {draw}"), floats(f"theirs {draw}")),
    )


def answers(made: Mapping[str, Any], loss: Callable[[Case, Given], Tensor]) -> dict[str, Any]:
    """``CASE|DTYPE|DRAW|value`` and ``…|gradient`` of one side."""
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        for precision, dtype in DTYPES.items():
            for draw in range(DRAWS):
                one = given(made, case.kind, draw, dtype)
                value = loss(case, one)
                (gradient,) = torch.autograd.grad(value.sum(), one.student)
                key = f"{name}|{precision}|{draw}"
                found[f"{key}|value"] = float(value.detach().sum())
                found[f"{key}|gradient"] = gradient.numpy()
    return found


# Their side


def _theirs(case: Case, one: Given) -> Tensor:
    mid_level = importlib.import_module(LOSSES)

    loss = getattr(mid_level, case.theirs)(**case.settings)
    student, teacher = one.student, one.teacher
    if case.kind != "crd":
        value: Tensor = loss({"x": {"output": student}}, {"x": {"output": teacher}}, one.labels)
        return value
    loss = loss.to(student.dtype)
    loss.memory_v1.copy_(one.memories[0])
    loss.memory_v2.copy_(one.memories[1])
    chosen = torch.cat((one.places[:, None], one.others), 1)
    places = {"input": {"pos_idx": one.places, "contrast_idx": chosen}}
    ours = {"x": {"output": F.normalize(student, dim=1)}, "places": places}
    value = loss(ours, {"x": {"output": F.normalize(teacher, dim=1)}})
    return value


def _fails(work: Callable[[], Any]) -> str:
    """What an attempt raises; empty when it does not."""
    try:
        work()
    except (AttributeError, ImportError, RuntimeError, TypeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


def _is_nan(value: Any) -> bool:
    return bool(torch.isnan(torch.as_tensor(value)).any())


def defects() -> dict[str, dict[str, Any]]:
    """Provoke what is known to be wrong with torchdistill; ``found`` says whether it still is."""
    m = importlib.import_module(LOSSES)

    def both(one: Tensor, two: Tensor) -> tuple[Any, Any]:
        return {"x": {"output": one}}, {"x": {"output": two}}

    maps, logits = torch.randn(4, 6, 3, 3), torch.randn(4, 5)
    plus = m.DISTPlusLoss(
        *("x", "output") * 2, *("f", "output") * 2, beta=0.0, gamma=0.0, kappa=0.0
    )
    same, opposite = (
        float(plus(*({**one, "f": {"output": f}} for one, f in zip(both(logits, logits), (s, maps),
              strict=True)))) for s in (maps, -maps)
    )  # fmt: skip
    crd = CASES["crd"].settings
    fresh = m.CRDLoss(**crd)
    places = {"input": {"pos_idx": torch.arange(4)}}
    unit = F.normalize(torch.randn(4, WIDTH), dim=1)
    drawing = _fails(lambda: fresh({"x": {"output": unit}, "places": places},
                                   {"x": {"output": unit}}))  # fmt: skip
    bare = _fails(lambda: m.KDLoss(**PATHS, temperature=4.0))
    kd = m.KDLoss(**PATHS, temperature=4.0, alpha=0.0, beta=1.0)
    other = torch.randn(4, 5)
    soft = float(kd(*both(logits, other), torch.zeros(4, dtype=torch.int64)))
    whole = 16 * float(
        F.kl_div((logits / 4).log_softmax(1), (other / 4).softmax(1), reduction="batchmean")
    )
    gram = m.SPKDLoss(**CASES["sp"].settings).matmul_and_normalize(logits)
    lengths, sums = gram.norm(dim=1), gram.abs().sum(1)
    ft = m.FTLoss(paraphraser_path="x", translator_path="x")(*both(torch.zeros(2, 3), unit[:2, :3]))
    return {
        "DISTPlusLoss adds the correlation of channels in the place of 1 − it: opposite features"
        " cost less than equal ones": {
            "found": opposite < same, "equal": same, "opposite": opposite,
        },
        "CRDLoss cannot draw its negatives; it works where they are passed": {
            "found": bool(drawing), "raises": drawing,
        },
        "KDLoss without alpha, which it documents as optional, cannot be built": {
            "found": bool(bare), "raises": bare,
        },
        "KDLoss with alpha = 0 leaves out T² and beta": {
            "found": abs(soft - whole) > 1e-3 * whole, "gives": soft, "beta T² KL": whole,
        },
        "SPKDLoss scales the rows of similarities to unit sum, not to unit length as its paper": {
            "found": bool(torch.allclose(sums, torch.ones(4)) and (lengths < 0.999).any()),
        },
        "FTLoss of zero features is not a number": {"found": _is_nan(ft)},
    }  # fmt: skip


def there(arrays_in: Path, out: Path) -> None:
    """What torchdistill's own environment does."""
    torch.manual_seed(0)
    made = dict(np.load(arrays_in))
    with out.open("wb") as file:
        np.savez(file, **answers(made, _theirs))
    whole = _fails(lambda: importlib.import_module("torchdistill.models.registry"))
    told = {
        "versions": {n: version(n) for n in ("torchdistill", "torch", "numpy")},
        "python": platform.python_version(),
        "models": f"torchdistill.models.registry cannot be imported: {whole}" if whole else "",
        "defects": defects(),
        "losses": sorted(_losses()),
    }
    out.with_suffix(".json").write_text(json.dumps(told), encoding="utf-8")


def _losses() -> set[str]:
    mid_level = importlib.import_module(LOSSES)

    return {n for n in vars(mid_level) if n.endswith("Loss") and not n.startswith("_")}


# Our side


def _ours(case: Case, one: Given) -> Tensor:
    from edgekd.distill import terms
    from edgekd.distill.learned import ContrastiveMemory
    from edgekd.distill.presets import PRESETS
    from edgekd.spec import Term

    if case.kind == "crd":
        part = ContrastiveMemory((WIDTH,), (WIDTH,), torch.arange(SAMPLES), WIDTH, NEGATIVES)
        part = part.to(one.student.dtype)
        with torch.no_grad():
            for layer in (part.student, part.teacher):
                torch.nn.init.eye_(layer.weight)
                layer.bias.zero_()
            part.ours.copy_(one.memories[0])
            part.theirs.copy_(one.memories[1])
        part._others = lambda indices: one.others  # type: ignore[method-assign]
        value: Tensor = part(one.student, one.teacher, one.labels, one.places)
        return value
    if case.ours == "rows of unit sum":
        mine, goal = (
            F.normalize(x.flatten(1) @ x.flatten(1).T, p=1) for x in (one.student, one.teacher)
        )
        return F.mse_loss(mine, goal)
    name, _, how = case.ours.partition("/")
    asked = PRESETS[name].terms if name in PRESETS else (Term("features", "l1", "l2norm"),)
    total = one.student.new_zeros(())
    for term in asked:
        if not term.source:
            if not how:
                taps = {"logits": one.student}
                total = total + term.weight * F.cross_entropy(taps["logits"], one.labels)
            continue
        args = term.args if case.args is None else case.args
        one_term = Term(term.tap, term.divergence, term.transform, args=args)
        value = terms.compare(one_term, one.student, one.teacher, labels=one.labels)
        total = total + term.weight / case.weight * value
    return total


def sound() -> dict[str, bool]:
    """Whether ours is finite, value and gradient, where theirs is known not to be."""
    from edgekd.distill import terms
    from edgekd.spec import Term

    x = torch.zeros(4, 3).requires_grad_()
    value = terms.compare(Term("features", "l1", "l2norm"), x, torch.randn(4, 3))
    (gradient,) = torch.autograd.grad(value, x)
    return {"ft of zero features": bool(value.isfinite() and gradient.isfinite().all())}


def compared(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a loss and precision: the largest differences over the draws, and whether they hold."""
    rows = []
    for name, case in CASES.items():
        for precision, bound in BOUND.items():
            worst = {"value": 0.0, "gradient": 0.0}
            for draw in range(DRAWS):
                for part, before in worst.items():
                    a, b = (
                        np.asarray(side[f"{name}|{precision}|{draw}|{part}"], np.float64)
                        for side in (ours, theirs)
                    )
                    off = float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12))
                    worst[part] = max(before, off) if off == off else float("inf")
            rows.append(
                {
                    "loss": name,
                    "theirs": case.theirs,
                    "precision": precision,
                    **{part: float(f"{off:.2g}") for part, off in worst.items()},
                    "bound": bound,
                    "same": max(worst.values()) <= bound,
                    **({"differs": case.differs} if case.differs else {}),
                }
            )
    return rows


def main() -> None:
    """Write the arrays, let both sides answer, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--there", type=Path, nargs=2, metavar=("ARRAYS", "OUT"))
    parser.add_argument("--python", help="of the environment that torchdistill is in")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.there:
        there(*asked.there)
        return
    if not asked.python or not asked.out:
        parser.error("--python and --out are needed")
    torch.manual_seed(0)
    made = arrays()
    with tempfile.TemporaryDirectory() as scratch:
        file, out = Path(scratch) / "arrays.npz", Path(scratch) / "theirs.npz"
        np.savez(file, **made)
        subprocess.run([asked.python, __file__, "--there", file, out], check=True)
        theirs = dict(np.load(out))
        told = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    rows = compared(answers(made, _ours), theirs)
    shared = {case.theirs for case in CASES.values()}
    found = {
        "command": "python benchmarks/against_torchdistill.py --python td/bin/python"
        " --out benchmarks/results/torchdistill.json",
        "ours": {"torch": torch.__version__, "python": platform.python_version()},
        "theirs": {"versions": told["versions"], "python": told["python"], "note": told["models"]},
        "rows": rows,
        "defects": told["defects"],
        "ours_is_finite": sound(),
        "not_shared": sorted(set(told["losses"]) - shared),
    }
    asked.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1, ensure_ascii=False))
    if any(row["same"] == ("differs" in row) for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
