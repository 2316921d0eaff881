/* Two rows of 16-bit values. */
static inline int64_t ekd_dot_wide(const int16_t *a, const int16_t *b, int32_t n) {
  int64_t sum = 0;
#if EKD_SIMD
  for (; n >= 4; n -= 4) {
    sum = __smlald((int16x2_t)ekd_word(a), (int16x2_t)ekd_word(b), sum);
    sum = __smlald((int16x2_t)ekd_word(a + 2), (int16x2_t)ekd_word(b + 2), sum);
    a += 4;
    b += 4;
  }
#endif
  for (; n > 0; n--) sum += (int32_t)*a++ * *b++;
  return sum;
}
