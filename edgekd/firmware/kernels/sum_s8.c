static inline int32_t ekd_sum_s8(const int8_t *x, int32_t n) {
  int32_t sum = 0;
#if EKD_SIMD
  for (; n >= 4; n -= 4) {
    const uint32_t word = ekd_word(x);
    sum = __smlad(__sxtb16(word), 0x00010001, __smlad(ekd_odd(word), 0x00010001, sum));
    x += 4;
  }
#endif
  for (; n > 0; n--) sum += *x++;
  return sum;
}
