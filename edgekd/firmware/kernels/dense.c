void ekd_dense_elem(const ekd_weighted_elem_t *p, int32_t rows, const elem_t *in, elem_t *out) {
  for (; rows > 0; rows--) {
    ekd_channels_elem(p, in, out);
    in += p->depth;
    out += p->channels;
  }
}
