/* All channels of one row x. */
static void ekd_channels_s8x(const ekd_weighted_s8x_t *p, const int8_t *x, int8_t *y) {
  const int8_t *row = p->weights;
  int32_t o;
  for (o = 0; o < p->channels; o++) {
    const int32_t sum = p->bias[o] + ekd_dot_s8(row, x, p->depth);
    const int32_t value = ekd_scale(sum, p->multiplier[o], p->shift[o]);
    y[o] = (int8_t)ekd_clamp(value + p->out_zero, p->low, p->high);
    row += p->depth;
  }
}
