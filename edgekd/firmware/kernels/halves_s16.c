#if EKD_SIMD
/* Values 0 and 2 of four, and values 1 and 3: what weights are split into. */
static inline int16x2_t ekd_even(const int16_t *x) {
  return (int16x2_t)((ekd_word(x) & 0xffffu) | (ekd_word(x + 2) << 16));
}

static inline int16x2_t ekd_other(const int16_t *x) {
  return (int16x2_t)((ekd_word(x + 2) & 0xffff0000u) | (ekd_word(x) >> 16));
}
#endif
