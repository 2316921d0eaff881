void ekd_pool_max_elem(const ekd_pool_t *p, const elem_t *in, elem_t *out) {
  const ekd_window_t *w = &p->window;
  int32_t y, x, c, ky, kx;
  for (y = 0; y < w->out_h; y++) {
    for (x = 0; x < w->out_w; x++) {
      for (c = 0; c < w->in_c; c++) out[c] = (elem_t)p->low;
      for (ky = 0; ky < w->kernel_h; ky++) {
        const int32_t row = y * w->stride_h - w->pad_top + ky;
        if (row < 0 || row >= w->in_h) continue;
        for (kx = 0; kx < w->kernel_w; kx++) {
          const int32_t column = x * w->stride_w - w->pad_left + kx;
          const elem_t *pixel;
          if (column < 0 || column >= w->in_w) continue;
          pixel = in + (row * w->in_w + column) * w->in_c;
          for (c = 0; c < w->in_c; c++) {
            if (pixel[c] > out[c]) out[c] = pixel[c];
          }
        }
      }
      for (c = 0; c < w->in_c; c++) {
        if (out[c] > p->high) out[c] = (elem_t)p->high;
      }
      out += w->in_c;
    }
  }
}
