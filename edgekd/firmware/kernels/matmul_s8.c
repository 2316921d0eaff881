/* Both factors are computed; the second is turned so that products run along rows. */
void ekd_matmul_s8(const ekd_matmul_t *p, const int8_t *a, const int8_t *b, int8_t *out,
                   int32_t *scratch) {
  int32_t *correction = scratch; /* per column */
  int8_t *turned = (int8_t *)(scratch + p->columns);
  int32_t i, r, c, k;
  for (i = 0; i < p->batch; i++) {
    const int8_t *rows = b;
    if (!p->transposed) {
      for (c = 0; c < p->columns; c++) {
        for (k = 0; k < p->depth; k++) turned[c * p->depth + k] = b[k * p->columns + c];
      }
      rows = turned;
    }
    for (c = 0; c < p->columns; c++) {
      const int32_t sum = ekd_sum_s8(rows + c * p->depth, p->depth);
      correction[c] = p->a_zero * (p->depth * p->b_zero - sum);
    }
    for (r = 0; r < p->rows; r++) {
      const int8_t *row = rows;
      const int32_t base = -p->b_zero * ekd_sum_s8(a, p->depth);
      for (c = 0; c < p->columns; c += 4) {
        const int32_t some = p->columns - c < 4 ? p->columns - c : 4;
        int32_t sum[4] = {0, 0, 0, 0};
        if (some == 4) {
          ekd_dot4_s8(row, p->depth, a, p->depth, sum);
        } else {
          for (k = 0; k < some; k++) sum[k] = ekd_dot_s8(row + k * p->depth, a, p->depth);
        }
        for (k = 0; k < some; k++) {
          const int32_t value =
              ekd_scale(sum[k] + base + correction[c + k], p->multiplier, p->shift);
          *out++ = (int8_t)ekd_clamp(value + p->out_zero, -128, 127);
        }
        row += 4 * p->depth;
      }
      a += p->depth;
    }
    b += p->depth * p->columns;
  }
}
