/* All channels of one row x. */
static void ekd_channels_s8(const ekd_weighted_s8_t *p, const int8_t *x, int8_t *y) {
  const int8_t *row = p->weights;
  int32_t o = 0, k;
  for (; o + 4 <= p->channels; o += 4) {
    int32_t sum[4];
    memcpy(sum, p->bias + o, sizeof sum);
    ekd_dot4_s8(row, p->depth, x, p->depth, sum);
    for (k = 0; k < 4; k++) {
      const int32_t value = ekd_scale(sum[k], p->multiplier[o + k], p->shift[o + k]);
      y[o + k] = (int8_t)ekd_clamp(value + p->out_zero, p->low, p->high);
    }
    row += 4 * p->depth;
  }
  for (; o < p->channels; o++) {
    const int32_t sum = p->bias[o] + ekd_dot_s8(row, x, p->depth);
    const int32_t value = ekd_scale(sum, p->multiplier[o], p->shift[o]);
    y[o] = (int8_t)ekd_clamp(value + p->out_zero, p->low, p->high);
    row += p->depth;
  }
}
