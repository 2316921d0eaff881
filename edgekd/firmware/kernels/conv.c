void ekd_conv_elem(const ekd_weighted_elem_t *p, const ekd_window_t *w, const elem_t *in,
                   elem_t *out, elem_t *scratch) {
  int32_t y, x;
  for (y = 0; y < w->out_h; y++) {
    for (x = 0; x < w->out_w; x++) {
      const elem_t *column =
          ekd_column_elem(w, in, y * w->stride_h - w->pad_top, x * w->stride_w - w->pad_left,
                          p->in_zero, scratch);
      ekd_channels_elem(p, column, out);
      out += p->channels;
    }
  }
}
