/* Gathers by strides: transposition and slices. */
void ekd_move_elem(const ekd_move_t *p, const elem_t *in, elem_t *out) {
  const int32_t *d = p->dims, *s = p->strides;
  const int32_t inner = d[5], step = s[5];
  int32_t a, b, c, e, f, i;
  for (a = 0; a < d[0]; a++) {
    for (b = 0; b < d[1]; b++) {
      for (c = 0; c < d[2]; c++) {
        for (e = 0; e < d[3]; e++) {
          const elem_t *from = in + a * s[0] + b * s[1] + c * s[2] + e * s[3];
          for (f = 0; f < d[4]; f++) {
            if (step == 1) {
              memcpy(out, from, (size_t)inner * sizeof(elem_t));
              out += inner;
            } else {
              const elem_t *at = from;
              for (i = 0; i < inner; i++) {
                *out++ = *at;
                at += step;
              }
            }
            from += s[4];
          }
        }
      }
    }
  }
}
