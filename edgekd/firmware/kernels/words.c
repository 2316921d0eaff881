#if EKD_SIMD
static inline uint32_t ekd_word(const void *from) {
  uint32_t word;
  memcpy(&word, from, 4);
  return word;
}

/* Packed weights lie on addresses that are multiples of four. */
static inline void ekd_words(const int8_t *from, uint32_t words[4]) {
  memcpy(words, __builtin_assume_aligned(from, 4), 16);
}

/* Bytes 1 and 3 as signed halfwords. */
static inline int16x2_t ekd_odd(uint32_t word) {
  int16x2_t halves;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(halves) : "r"(word));
  return halves;
}
#endif
