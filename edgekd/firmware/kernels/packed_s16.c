/* Adds to four sums the products of x with four packed rows; returns where the next ones begin. */
static inline const int8_t *ekd_packed_s16(const int8_t *w, const int16_t *x, int32_t n,
                                           int32_t sum[4]) {
  int32_t s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3];
  for (; n >= 4; n -= 4) {
#if EKD_SIMD
    const int16x2_t first = (int16x2_t)ekd_word(x), last = (int16x2_t)ekd_word(x + 2);
    uint32_t rows[4];
    ekd_words(w, rows);
    s0 = __smlad(ekd_odd(rows[0]), last, __smlad(__sxtb16(rows[0]), first, s0));
    s1 = __smlad(ekd_odd(rows[1]), last, __smlad(__sxtb16(rows[1]), first, s1));
    s2 = __smlad(ekd_odd(rows[2]), last, __smlad(__sxtb16(rows[2]), first, s2));
    s3 = __smlad(ekd_odd(rows[3]), last, __smlad(__sxtb16(rows[3]), first, s3));
#else
    const int32_t x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
    s0 += x0 * w[0] + x1 * w[2] + x2 * w[1] + x3 * w[3];
    s1 += x0 * w[4] + x1 * w[6] + x2 * w[5] + x3 * w[7];
    s2 += x0 * w[8] + x1 * w[10] + x2 * w[9] + x3 * w[11];
    s3 += x0 * w[12] + x1 * w[14] + x2 * w[13] + x3 * w[15];
#endif
    x += 4;
    w += 16;
  }
  for (; n > 0; n--) {
    const int32_t value = *x++;
    s0 += value * w[0];
    s1 += value * w[1];
    s2 += value * w[2];
    s3 += value * w[3];
    w += 4;
  }
  sum[0] = s0;
  sum[1] = s1;
  sum[2] = s2;
  sum[3] = s3;
  return w;
}
