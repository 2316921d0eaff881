void ekd_KIND_down_elem(const ekd_down_t *p, const elem_t *a, const elem_t *b, elem_t *out) {
  const int32_t step_a = p->strides_a[3], step_b = p->strides_b[3];
  const int32_t a_offset = p->a_offset, b_offset = p->b_offset;
  CONSTANTS
  const int32_t multiplier = p->multiplier, round = p->round, bits = p->bits;
  int32_t i, j, k, l;
  for (i = 0; i < p->dims[0]; i++) {
    for (j = 0; j < p->dims[1]; j++) {
      for (k = 0; k < p->dims[2]; k++) {
        const elem_t *left = a + i * p->strides_a[0] + j * p->strides_a[1] + k * p->strides_a[2];
        const elem_t *right = b + i * p->strides_b[0] + j * p->strides_b[1] + k * p->strides_b[2];
        for (l = p->dims[3]; l > 0; l--) {
          OPERATION
          value = (value + round + (value >> 31)) >> bits;
          *out++ = ekd_saturate_elem(value);
          left += step_a;
          right += step_b;
        }
      }
    }
  }
}
