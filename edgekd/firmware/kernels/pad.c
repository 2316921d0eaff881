void ekd_pad_elem(const ekd_pad_t *p, const elem_t *in, elem_t *out) {
  int32_t a, b, c, i;
  for (a = 0; a < p->out_dims[0]; a++) {
    for (b = 0; b < p->out_dims[1]; b++) {
      for (c = 0; c < p->out_dims[2]; c++) {
        const int32_t x = a - p->before[0], y = b - p->before[1], z = c - p->before[2];
        const int inside = x >= 0 && x < p->in_dims[0] && y >= 0 && y < p->in_dims[1] && z >= 0 &&
                           z < p->in_dims[2];
        for (i = 0; i < p->out_dims[3]; i++) out[i] = (elem_t)p->value;
        if (inside) {
          memcpy(out + p->before[3],
                 in + ((x * p->in_dims[1] + y) * p->in_dims[2] + z) * p->in_dims[3],
                 (size_t)p->in_dims[3] * sizeof(elem_t));
        }
        out += p->out_dims[3];
      }
    }
  }
}
