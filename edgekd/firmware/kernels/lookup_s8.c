void ekd_lookup_s8(const int8_t *table, int32_t count, const int8_t *in, int8_t *out) {
  for (; count > 0; count--) *out++ = table[(uint8_t)*in++];
}
