/* Right shifts of negative numbers must be arithmetic, as they are with every compiler in use. */
typedef char ekd_arithmetic_shift[((-1) >> 1) == -1 ? 1 : -1];

/* DSP instructions of Cortex-M4, M7 and M33; -DEKD_NO_SIMD switches them off. */
#if defined(__ARM_FEATURE_DSP) && !defined(EKD_NO_SIMD)
#include <arm_acle.h>
#define EKD_SIMD 1
#else
#define EKD_SIMD 0
#endif

typedef struct {
  int32_t in_h, in_w, in_c;
  int32_t out_h, out_w;
  int32_t kernel_h, kernel_w;
  int32_t stride_h, stride_w;
  int32_t dilation_h, dilation_w;
  int32_t pad_top, pad_left;
} ekd_window_t;

/* Four rows of weights lie together: of every four columns four weights of each row, then the
   columns that are left, four weights each; 16-bit values have weights 1 and 2 of four exchanged.
   Rows that are left follow one by one. Factors are four biases and four multipliers, or one of
   each. The bias contains the input's zero point. */
typedef struct {
  const int8_t *weights;
  const int32_t *factors;
  const int8_t *right; /* how far a product goes to the right, less one */
  int32_t depth, channels;
  int32_t in_zero, twice; /* twice the output's zero, and one: half a step */
  int32_t low;
} ekd_weighted_s8_t;

typedef ekd_weighted_s8_t ekd_weighted_s16_t; /* multipliers of which 16 bits are kept */

/* Weights row by row, for any factors and limits. */
typedef struct {
  const int8_t *weights;
  const int32_t *bias;
  const int32_t *multiplier;
  const int8_t *shift;
  int32_t depth, channels;
  int32_t in_zero, out_zero, low, high;
} ekd_weighted_s8x_t;

/* The same of 16-bit values, with sums of more than 32 bits. */
typedef struct {
  const int8_t *weights;
  const int64_t *bias;
  const int32_t *multiplier; /* 16 bits are kept */
  const int8_t *shift;
  int32_t depth, channels;
  int32_t in_zero, out_zero, low, high;
} ekd_weighted_s16w_t;

typedef struct {
  int32_t batch, rows, depth, columns, transposed;
  int32_t a_zero, b_zero, out_zero, multiplier, shift;
} ekd_matmul_t;

typedef struct {
  int32_t dims[4], strides_a[4], strides_b[4];
  int32_t a_zero, b_zero, out_zero, left;
  int32_t a_multiplier, a_shift, b_multiplier, b_shift, multiplier, shift;
  int32_t low, high;
} ekd_binary_t;

/* Where every factor is below one: offsets are negative zero points in the operand's units. Of a
   sum, the first operand's factor is one half exactly; the round of the result holds its zero. */
typedef struct {
  int32_t dims[4], strides_a[4], strides_b[4];
  int32_t a_offset, b_offset;
  int32_t b_multiplier, b_round, b_nudge, b_bits;
  int32_t multiplier, round, bits;
} ekd_down_t;

typedef struct {
  int32_t count, in_zero, out_zero, multiplier, shift, low, high;
} ekd_rescale_t;

typedef struct {
  int32_t outer, count, inner, in_zero, out_zero, multiplier, shift;
} ekd_mean_t;

typedef struct {
  int32_t dims[6], strides[6];
} ekd_move_t;

typedef struct {
  int32_t in_dims[4], out_dims[4], before[4], value;
} ekd_pad_t;

typedef struct {
  ekd_window_t window;
  int32_t low, high;
} ekd_pool_t;

typedef struct {
  int32_t in_h, in_w, channels, out_h, out_w, step_y, step_x, half_pixel;
} ekd_resize_t;

static inline int32_t ekd_clamp(int32_t value, int32_t low, int32_t high) {
  return value < low ? low : value > high ? high : value;
}

static inline int8_t ekd_saturate_s8(int32_t value) {
#if EKD_SIMD
  return (int8_t)__ssat(value, 8);
#else
  return (int8_t)ekd_clamp(value, -128, 127);
#endif
}

static inline int16_t ekd_saturate_s16(int32_t value) {
#if EKD_SIMD
  return (int16_t)__ssat(value, 16);
#else
  return (int16_t)ekd_clamp(value, -32768, 32767);
#endif
}

/* a * b / 2^31, halves rounded up. */
static inline int32_t ekd_product(int32_t a, int32_t b) {
  return (int32_t)(((int64_t)a * b + (1 << 30)) >> 31);
}

/* The same for -2^30 <= a < 2^30, doubled without loss: one instruction where the core has it. */
static inline int32_t ekd_product30(int32_t a, int32_t b) {
#if EKD_SIMD
  int32_t high;
  __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(a * 2), "r"(b));
  return high;
#else
  return ekd_product(a, b);
#endif
}

/* x * multiplier * 2^(shift - 31) for |x| < 2^30: rounded half up at bit 31, then half away from
   zero. Values that a shift to the left takes out of 32 bits saturate, as the output does anyway. */
static inline int32_t ekd_scale(int32_t x, int32_t multiplier, int32_t shift) {
  if (shift < 0) {
    const int32_t high = ekd_product30(x, multiplier);
    return (high + (1 << (-shift - 1)) + (high >> 31)) >> -shift;
  }
  x = (int32_t)((uint32_t)ekd_clamp(x, -(INT32_MAX >> shift), INT32_MAX >> shift) << shift);
  return ekd_product(x, multiplier);
}

/* The same for all of 32 bits: products of two 16-bit values reach 2^30. */
static inline int32_t ekd_scale_full(int32_t x, int32_t multiplier, int32_t shift) {
  if (shift < 0) {
    const int32_t high = ekd_product(x, multiplier);
    return (high + (1 << (-shift - 1)) + (high >> 31)) >> -shift;
  }
  return ekd_scale(x, multiplier, shift);
}

/* A layer's result from its sum: x * multiplier to the right by `right` and one more, halves as
   above, in the last step with the zero point. */
static inline int32_t ekd_result_s8(int32_t x, int32_t multiplier, int32_t right, int32_t twice) {
  const int32_t high = ekd_product30(x, multiplier);
  return (((high + (high >> 31)) >> right) + twice) >> 1;
}

/* Of 16-bit values: halves up. */
static inline int32_t ekd_result_s16(int32_t x, int32_t multiplier, int32_t right, int32_t twice) {
  return ((int32_t)(((int64_t)x * multiplier) >> right) + twice) >> 1;
}

/* The same for sums of 48 bits, with a multiplier of 16 bits. */
static inline int32_t ekd_scale_wide(int64_t x, int32_t multiplier, int32_t shift) {
  return (int32_t)((x * multiplier + ((int64_t)1 << (14 - shift))) >> (15 - shift));
}

static inline int32_t ekd_leading_zeros(uint32_t value) {
#if defined(__GNUC__)
  return value ? __builtin_clz(value) : 32;
#else
  int32_t count = 32;
  while (value) {
    value >>= 1;
    count--;
  }
  return count;
#endif
}

/* A table of 513 values, 128 apart, with straight lines between. */
static inline int32_t ekd_interpolate(const int16_t *table, int32_t value) {
  const int16_t *at = table + 256 + (value >> 7);
  return at[0] + (((at[1] - at[0]) * (value & 127) + 64) >> 7);
}
