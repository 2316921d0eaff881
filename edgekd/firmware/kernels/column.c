/* What the window sees from (y, x), as one row: in the image itself where it lies in one piece,
   else gathered; outside the image is the zero point. */
static const elem_t *ekd_column_elem(const ekd_window_t *w, const elem_t *image, int32_t y,
                                     int32_t x, int32_t zero, elem_t *scratch) {
  const int32_t run = w->in_c;
  elem_t *to = scratch;
  int32_t ky, kx;
  if (w->kernel_h == 1 && w->dilation_w == 1 && y >= 0 && y < w->in_h && x >= 0 &&
      x + w->kernel_w <= w->in_w) {
    return image + (y * w->in_w + x) * run;
  }
  for (ky = 0; ky < w->kernel_h; ky++) {
    const int32_t row = y + ky * w->dilation_h;
    for (kx = 0; kx < w->kernel_w; kx++) {
      const int32_t column = x + kx * w->dilation_w;
      if (row >= 0 && row < w->in_h && column >= 0 && column < w->in_w) {
        memcpy(to, image + (row * w->in_w + column) * run, (size_t)run * sizeof(elem_t));
      } else {
        memset(to, (int)zero, (size_t)run * sizeof(elem_t)); /* 16-bit zero points are 0 */
      }
      to += run;
    }
  }
  return scratch;
}
