/* round(sqrt(factor / x) / 2); the factor is four times the real one. */
void ekd_rsqrt_s16(uint64_t factor, int32_t count, const int16_t *in, int16_t *out) {
  for (; count > 0; count--) {
    const int32_t x = *in++;
    const uint64_t quotient = x > 0 ? factor / (uint32_t)x : UINT32_MAX;
    uint32_t rest = quotient > UINT32_MAX ? UINT32_MAX : (uint32_t)quotient;
    uint32_t root = 0, bit = (uint32_t)1 << 30;
    while (bit != 0) {
      if (rest >= root + bit) {
        rest -= root + bit;
        root = (root >> 1) + bit;
      } else {
        root >>= 1;
      }
      bit >>= 2;
    }
    root = (root + 1) >> 1;
    *out++ = (int16_t)(root > 32767 ? 32767 : root);
  }
}
