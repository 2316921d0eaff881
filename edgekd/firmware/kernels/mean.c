void ekd_mean_elem(const ekd_mean_t *p, const elem_t *in, elem_t *out) {
  const int32_t count = p->count, inner = p->inner, offset = -count * p->in_zero;
  int32_t o, i, k;
  for (o = 0; o < p->outer; o++) {
    for (i = 0; i < inner; i++) {
      const elem_t *value = in + i;
      int32_t sum = offset;
      if (inner == 1) {
        sum += ekd_sum_elem(in, count);
      } else {
        for (k = count; k > 0; k--) {
          sum += *value;
          value += inner;
        }
      }
      sum = ekd_scale(sum, p->multiplier, p->shift) + p->out_zero;
      *out++ = ekd_saturate_elem(sum);
    }
    in += count * inner;
  }
}
