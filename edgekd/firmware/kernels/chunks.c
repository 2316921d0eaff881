/* Copies chunks of bytes to places `stride` apart: one input of a concatenation. */
void ekd_chunks(int32_t outer, int32_t chunk, int32_t stride, const void *in, void *out) {
  const uint8_t *from = (const uint8_t *)in;
  uint8_t *to = (uint8_t *)out;
  for (; outer > 0; outer--) {
    memcpy(to, from, (size_t)chunk);
    from += chunk;
    to += stride;
  }
}
