/* 16-bit values with 8-bit weights: at most 256 products keep the sums in 32
   bits. */
static inline void ekd_dot4_s16(const int8_t *w0, int32_t stride, const int16_t *x, int32_t n,
                                int32_t sum[4]) {
  const int8_t *w1 = w0 + stride, *w2 = w1 + stride, *w3 = w2 + stride;
  int32_t s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3];
  for (; n >= 4; n -= 4) {
#if EKD_SIMD
    const int16x2_t even = ekd_even(x), odd = ekd_other(x);
    uint32_t w = ekd_word(w0);
    s0 = __smlad(ekd_odd(w), odd, __smlad(__sxtb16(w), even, s0));
    w = ekd_word(w1);
    s1 = __smlad(ekd_odd(w), odd, __smlad(__sxtb16(w), even, s1));
    w = ekd_word(w2);
    s2 = __smlad(ekd_odd(w), odd, __smlad(__sxtb16(w), even, s2));
    w = ekd_word(w3);
    s3 = __smlad(ekd_odd(w), odd, __smlad(__sxtb16(w), even, s3));
#else
    const int32_t x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
    s0 += x0 * w0[0] + x1 * w0[1] + x2 * w0[2] + x3 * w0[3];
    s1 += x0 * w1[0] + x1 * w1[1] + x2 * w1[2] + x3 * w1[3];
    s2 += x0 * w2[0] + x1 * w2[1] + x2 * w2[2] + x3 * w2[3];
    s3 += x0 * w3[0] + x1 * w3[1] + x2 * w3[2] + x3 * w3[3];
#endif
    x += 4;
    w0 += 4;
    w1 += 4;
    w2 += 4;
    w3 += 4;
  }
  for (; n > 0; n--) {
    const int32_t value = *x++;
    s0 += value * *w0++;
    s1 += value * *w1++;
    s2 += value * *w2++;
    s3 += value * *w3++;
  }
  sum[0] = s0;
  sum[1] = s1;
  sum[2] = s2;
  sum[3] = s3;
}
