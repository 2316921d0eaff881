static inline int32_t ekd_times4(int32_t value) {
  return value > INT32_MAX / 4 ? INT32_MAX : value < INT32_MIN / 4 ? INT32_MIN : value * 4;
}

/* 1 / (1 + a) for a in [0, 1), all in Q0.31: Newton's steps from a straight line. */
static int32_t ekd_reciprocal(int32_t a) {
  const int32_t half = (int32_t)(((int64_t)a + INT32_MAX + 1) >> 1);
  int32_t x = 1515870810 + ekd_product(half, -1010580540), i;
  for (i = 0; i < 3; i++) {
    const int32_t rest = ((int32_t)1 << 29) - ekd_product(half, x);
    x += ekd_times4(ekd_product(x, rest));
  }
  return x > INT32_MAX / 2 ? INT32_MAX : x * 2;
}

/* exp[d] is exp of the scaled difference d to the row's maximum, in Q0.31; depth <= 511. */
void ekd_softmax_s8(const int32_t *exp, int32_t rows, int32_t depth, const int8_t *in,
                    int8_t *out) {
  for (; rows > 0; rows--) {
    int32_t top = -128, sum = 0, i, headroom, scale, bits;
    for (i = 0; i < depth; i++) top = in[i] > top ? in[i] : top;
    for (i = 0; i < depth; i++) sum += ((exp[top - in[i]] >> 11) + 1) >> 1;
    headroom = ekd_leading_zeros((uint32_t)sum);
    scale = ekd_reciprocal((int32_t)(((uint32_t)sum << headroom) - 0x80000000u));
    bits = 35 - headroom;
    for (i = 0; i < depth; i++) {
      const int32_t product = ekd_product(scale, exp[top - in[i]]);
      const int32_t value = ((product >> (bits - 1)) + 1) >> 1;
      out[i] = (int8_t)ekd_clamp(value - 128, -128, 127);
    }
    in += depth;
    out += depth;
  }
}
