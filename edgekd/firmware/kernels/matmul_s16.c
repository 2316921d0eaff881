/* Both factors are computed; the second is turned so that products run along rows. */
void ekd_matmul_s16(const ekd_matmul_t *p, const int16_t *a, const int16_t *b, int16_t *out,
                    int16_t *scratch) {
  int32_t i, r, c, k;
  for (i = 0; i < p->batch; i++) {
    const int16_t *rows = b;
    if (!p->transposed) {
      for (c = 0; c < p->columns; c++) {
        for (k = 0; k < p->depth; k++) scratch[c * p->depth + k] = b[k * p->columns + c];
      }
      rows = scratch;
    }
    for (r = 0; r < p->rows; r++) {
      for (c = 0; c < p->columns; c++) {
        const int64_t sum = ekd_dot_wide(rows + c * p->depth, a, p->depth);
        const int32_t value = ekd_scale_wide(sum, p->multiplier, p->shift);
        *out++ = (int16_t)ekd_clamp(value + p->out_zero, -32768, 32767);
      }
      a += p->depth;
    }
    b += p->depth * p->columns;
  }
}
