/* One stage of the cascade around its network, as contract.json of the bundle has it: seconds of
   raw sensor values in, chances of the classes out. Needs expf; all state is the caller's. */
#include <math.h>
#include <string.h>

#include "ekd.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EKD_SENSORS @SENSORS@
#define EKD_COLUMNS @COLUMNS@
#define EKD_STRETCH @STRETCH@ /* seconds of a column */
#define EKD_SHORTEST @SHORTEST@ /* seconds before which nothing can be said */
#define EKD_CLIP @CLIP@
#define EKD_TEMPERATURE @TEMPERATURE@
#define EKD_CLASSES @CLASSES@
@THRESHOLD@
/* Sensors in the order in which a second gives them; unit of the training data. */
static const struct {
  const char *name;
  float mean, std;
} ekd_sensors[EKD_SENSORS] = {
@ROWS@};

static const char *const ekd_classes[EKD_CLASSES] = {
@NAMES@};

typedef struct {
  @IN@ window[EKD_SENSORS * EKD_COLUMNS]; /* what the network sees: a row a sensor */
  float sum[EKD_SENSORS];
  int32_t count[EKD_SENSORS];
  int32_t seconds; /* so far */
} ekd_stream_t;

/* Nearest value that 16-bit floating point has, halves to even; what is too large stays. */
static inline float ekd_half(float value) {
  int exponent;
  float step, whole, rest;
  if (value == 0.0f || value > 65504.0f || value < -65504.0f) return value;
  (void)frexpf(value, &exponent);
  step = ldexpf(1.0f, (exponent < -13 ? -13 : exponent) - 11);
  whole = floorf(value / step);
  rest = value / step - whole;
  if (rest > 0.5f || (rest == 0.5f && fmodf(whole, 2.0f) != 0.0f)) whole += 1.0f;
  return whole * step;
}

/* The integer of a sensor's mean over one stretch; without a value it is the training mean. */
static inline @IN@ ekd_prepare(int32_t sensor, float sum, int32_t count) {
  float x = 0.0f;
  if (count > 0) {
    x = (ekd_half(sum / (float)count) - ekd_sensors[sensor].mean) / ekd_sensors[sensor].std;
    x = x < -EKD_CLIP ? -EKD_CLIP : x > EKD_CLIP ? EKD_CLIP : x;
  }
  return ekd_quantize_@IN_NAME@(x);
}

static inline void ekd_stream_init(ekd_stream_t *s) {
  int32_t i;
  memset(s, 0, sizeof *s);
  for (i = 0; i < EKD_SENSORS * EKD_COLUMNS; i++) s->window[i] = ekd_quantize_@IN_NAME@(0.0f);
}

/* Takes the values of one second, NaN where there is none. Returns 1 when a column is complete and
   the flight long enough: the window is then what the network takes. */
static inline int ekd_stream_push(ekd_stream_t *s, const float *values) {
  const int32_t column = s->seconds / EKD_STRETCH;
  int32_t i;
  for (i = 0; i < EKD_SENSORS; i++) {
    if (values[i] - values[i] != 0.0f) continue; /* NaN or infinite */
    s->sum[i] += values[i];
    s->count[i]++;
  }
  s->seconds++;
  if (s->seconds % EKD_STRETCH != 0) return 0;
  for (i = 0; i < EKD_SENSORS; i++) {
    @IN@ *row = s->window + i * EKD_COLUMNS;
    int32_t at = column;
    if (column >= EKD_COLUMNS) {
      at = EKD_COLUMNS - 1;
      memmove(row, row + 1, (size_t)at * sizeof *row);
    }
    row[at] = ekd_prepare(i, s->sum[i], s->count[i]);
    s->sum[i] = 0.0f;
    s->count[i] = 0;
  }
  return s->seconds >= EKD_SHORTEST;
}

/* Chance of each class from what the network gave. */
static inline void ekd_chances(const @OUT@ *out, float *chances) {
  float top = ekd_dequantize_@OUT_NAME@(out[0]), sum = 0.0f;
  int32_t i;
  for (i = 1; i < EKD_CLASSES; i++) {
    const float logit = ekd_dequantize_@OUT_NAME@(out[i]);
    top = logit > top ? logit : top;
  }
  for (i = 0; i < EKD_CLASSES; i++) {
    chances[i] = expf((ekd_dequantize_@OUT_NAME@(out[i]) - top) / EKD_TEMPERATURE);
    sum += chances[i];
  }
  for (i = 0; i < EKD_CLASSES; i++) chances[i] /= sum;
}
@FLAGGED@
#ifdef __cplusplus
}
#endif
