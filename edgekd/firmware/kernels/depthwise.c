/* Weights (taps, channels); channel c sees channel c / several of the input. */
void ekd_depthwise_elem(const ekd_weighted_elem_t *p, const ekd_window_t *w, const elem_t *in,
                        elem_t *out, elem_t *scratch) {
  const int32_t taps = w->kernel_h * w->kernel_w, several = p->channels / w->in_c;
  int32_t y, x, c, m, t;
  for (y = 0; y < w->out_h; y++) {
    for (x = 0; x < w->out_w; x++) {
      const elem_t *column =
          ekd_column_elem(w, in, y * w->stride_h - w->pad_top, x * w->stride_w - w->pad_left,
                          p->in_zero, scratch);
      for (c = 0; c < w->in_c; c++) {
        for (m = 0; m < several; m++) {
          const int32_t o = c * several + m;
          const int8_t *weight = p->weights + o;
          const elem_t *value = column + c;
          sum_t sum = p->bias[o];
          for (t = 0; t < taps; t++) {
            sum += (int32_t)value[t * w->in_c] * weight[t * p->channels];
          }
          out[o] = (elem_t)ekd_clamp(
              ekd_scale_sum(sum, p->multiplier[o], p->shift[o]) + p->out_zero, p->low, p->high);
        }
      }
      out += p->channels;
    }
  }
}
