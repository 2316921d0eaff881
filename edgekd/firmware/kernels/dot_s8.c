/* Products of x with one row. */
static inline int32_t ekd_dot_s8(const int8_t *w, const int8_t *x, int32_t n) {
  int32_t sum = 0;
#if EKD_SIMD
  for (; n >= 4; n -= 4) {
    const uint32_t a = ekd_word(x), b = ekd_word(w);
    sum = __smlad(ekd_odd(a), ekd_odd(b), __smlad(__sxtb16(a), __sxtb16(b), sum));
    x += 4;
    w += 4;
  }
#endif
  for (; n > 0; n--) sum += (int32_t)*x++ * *w++;
  return sum;
}
