/* Bilinear; positions in 1/1024 of a pixel. */
static void ekd_position(int32_t index, int32_t step, int32_t half, int32_t size, int32_t *low,
                         int32_t *high, int32_t *part) {
  const int32_t at = index * step + (half ? step / 2 - 512 : 0);
  *low = ekd_clamp(at / 1024, 0, size - 1);
  *high = (at + 1023) / 1024 < size - 1 ? (at + 1023) / 1024 : size - 1;
  *part = at - 1024 * *low;
}

void ekd_resize_elem(const ekd_resize_t *p, const elem_t *in, elem_t *out) {
  int32_t y, x, c, y0, y1, x0, x1, dy, dx;
  for (y = 0; y < p->out_h; y++) {
    ekd_position(y, p->step_y, p->half_pixel, p->in_h, &y0, &y1, &dy);
    for (x = 0; x < p->out_w; x++) {
      ekd_position(x, p->step_x, p->half_pixel, p->in_w, &x0, &x1, &dx);
      for (c = 0; c < p->channels; c++) {
        const int64_t a = in[(y0 * p->in_w + x0) * p->channels + c];
        const int64_t b = in[(y1 * p->in_w + x0) * p->channels + c];
        const int64_t e = in[(y0 * p->in_w + x1) * p->channels + c];
        const int64_t f = in[(y1 * p->in_w + x1) * p->channels + c];
        const int64_t sum = a * (1024 - dy) * (1024 - dx) + b * dy * (1024 - dx) +
                            e * (1024 - dy) * dx + f * dy * dx;
        const int64_t value = (sum + (sum > 0 ? 1 << 19 : -(1 << 19))) / (1 << 20);
        *out++ = (elem_t)ekd_clamp((int32_t)value, ELEM_MIN, ELEM_MAX);
      }
    }
  }
}
