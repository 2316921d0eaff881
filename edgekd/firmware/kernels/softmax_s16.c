/* Tables of 513: exp over [-10, 0], and 1 / (1 + x) over [0, 1]. */
void ekd_softmax_s16(const int16_t *exp, const int16_t *inverse, int32_t multiplier,
                     int32_t shift, int32_t rows, int32_t depth, const int16_t *in,
                     int16_t *out) {
  for (; rows > 0; rows--) {
    int32_t top = -32768, sum = 0, i, headroom, near_one, scale, bits;
    for (i = 0; i < depth; i++) top = in[i] > top ? in[i] : top;
    for (i = 0; i < depth; i++) {
      const int32_t at = ekd_scale(in[i] - top, multiplier, shift) + 32767;
      const int32_t value = ekd_interpolate(exp, ekd_clamp(at, -32768, 32767));
      out[i] = (int16_t)value;
      sum += value;
    }
    headroom = ekd_leading_zeros((uint32_t)sum);
    near_one = (int32_t)((((int64_t)sum << (headroom - 1)) + (1 << 13)) >> 14);
    near_one = ekd_clamp(near_one - 32768 - 65536, -32768, 32767);
    scale = ekd_interpolate(inverse, near_one);
    bits = 31 - headroom;
    for (i = 0; i < depth; i++) {
      const int32_t value = (int32_t)(((int64_t)out[i] * scale + ((int64_t)1 << (bits - 1))) >> bits);
      out[i] = (int16_t)ekd_clamp(value, 0, 32767);
    }
    in += depth;
    out += depth;
  }
}
