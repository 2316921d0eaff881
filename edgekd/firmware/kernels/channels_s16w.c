/* All channels of one row x. */
static void ekd_channels_s16w(const ekd_weighted_s16w_t *p, const int16_t *x, int16_t *y) {
  const int8_t *row = p->weights;
  int32_t o, k, at;
  for (o = 0; o < p->channels; o += 4) {
    const int32_t some = p->channels - o < 4 ? p->channels - o : 4;
    int64_t sum[4];
    for (k = 0; k < some; k++) sum[k] = p->bias[o + k];
    for (at = 0; at < p->depth; at += 256) {
      const int32_t n = p->depth - at < 256 ? p->depth - at : 256;
      int32_t part[4] = {0, 0, 0, 0};
      if (some == 4) {
        ekd_dot4_s16(row + at, p->depth, x + at, n, part);
      } else {
        for (k = 0; k < some; k++) part[k] = ekd_dot_s16(row + k * p->depth + at, x + at, n);
      }
      for (k = 0; k < some; k++) sum[k] += part[k];
    }
    for (k = 0; k < some; k++) {
      const int32_t value = ekd_scale_wide(sum[k], p->multiplier[o + k], p->shift[o + k]);
      y[o + k] = (int16_t)ekd_clamp(value + p->out_zero, p->low, p->high);
    }
    row += 4 * p->depth;
  }
}
