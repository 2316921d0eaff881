void ekd_rescale_FROM_TO(const ekd_rescale_t *p, const from_t *in, to_t *out) {
  int32_t i;
  for (i = 0; i < p->count; i++) {
    const int32_t value = ekd_scale(in[i] - p->in_zero, p->multiplier, p->shift);
    out[i] = (to_t)ekd_clamp(value + p->out_zero, p->low, p->high);
  }
}
