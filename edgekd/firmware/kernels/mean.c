void ekd_mean_elem(const ekd_mean_t *p, const elem_t *in, elem_t *out) {
  int32_t o, i, k;
  for (o = 0; o < p->outer; o++) {
    for (i = 0; i < p->inner; i++) {
      const elem_t *value = in + i;
      int32_t sum = -p->count * p->in_zero;
      for (k = 0; k < p->count; k++) sum += value[k * p->inner];
      sum = ekd_scale(sum, p->multiplier, p->shift) + p->out_zero;
      *out++ = (elem_t)ekd_clamp(sum, ELEM_MIN, ELEM_MAX);
    }
    in += p->count * p->inner;
  }
}
