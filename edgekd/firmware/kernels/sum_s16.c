static inline int32_t ekd_sum_s16(const int16_t *x, int32_t n) {
  int32_t sum = 0;
#if EKD_SIMD
  for (; n >= 2; n -= 2) {
    sum = __smlad((int16x2_t)ekd_word(x), 0x00010001, sum);
    x += 2;
  }
#endif
  for (; n > 0; n--) sum += *x++;
  return sum;
}
