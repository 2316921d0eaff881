void ekd_lookup_s16(const int16_t *table, int32_t count, const int16_t *in, int16_t *out) {
  for (; count > 0; count--) *out++ = (int16_t)ekd_interpolate(table, *in++);
}
