void ekd_pool_average_elem(const ekd_pool_t *p, const elem_t *in, elem_t *out) {
  const ekd_window_t *w = &p->window;
  int32_t y, x, c, ky, kx;
  for (y = 0; y < w->out_h; y++) {
    for (x = 0; x < w->out_w; x++) {
      for (c = 0; c < w->in_c; c++) {
        int32_t sum = 0, count = 0;
        for (ky = 0; ky < w->kernel_h; ky++) {
          const int32_t row = y * w->stride_h - w->pad_top + ky;
          if (row < 0 || row >= w->in_h) continue;
          for (kx = 0; kx < w->kernel_w; kx++) {
            const int32_t column = x * w->stride_w - w->pad_left + kx;
            if (column < 0 || column >= w->in_w) continue;
            sum += in[(row * w->in_w + column) * w->in_c + c];
            count++;
          }
        }
        sum = sum > 0 ? (sum + count / 2) / count : (sum - count / 2) / count;
        *out++ = (elem_t)ekd_clamp(sum, p->low, p->high);
      }
    }
  }
}
