static inline elem_t ekd_channel_elem(const ekd_weighted_elem_t *p, int32_t sum, int32_t multiplier,
                                      int32_t right) {
  const int32_t value = ekd_result_elem(sum, multiplier, right, p->twice), low = p->low;
  return ekd_saturate_elem(value < low ? low : value);
}

/* All channels of one row x. */
static void ekd_channels_elem(const ekd_weighted_elem_t *p, const elem_t *x, elem_t *y) {
  const int8_t *w = p->weights, *right = p->right;
  const int32_t *f = p->factors;
  int32_t left;
  for (left = p->channels; left >= 4; left -= 4) {
    int32_t s[4] = {f[0], f[1], f[2], f[3]};
    w = ekd_packed_elem(w, x, p->depth, s);
    y[0] = ekd_channel_elem(p, s[0], f[4], right[0]);
    y[1] = ekd_channel_elem(p, s[1], f[5], right[1]);
    y[2] = ekd_channel_elem(p, s[2], f[6], right[2]);
    y[3] = ekd_channel_elem(p, s[3], f[7], right[3]);
    f += 8;
    right += 4;
    y += 4;
  }
  for (; left > 0; left--) {
    *y++ = ekd_channel_elem(p, f[0] + ekd_dot_elem(w, x, p->depth), f[1], *right++);
    w += p->depth;
    f += 2;
  }
}
