/* New classes on the device from a few examples each, as contract.json of the bundle has it:
   features less their mean over the base classes, scaled to unit length; the nearest mean of a
   class's examples. Needs sqrtf; all memory is the caller's. */
#include <math.h>
#include <string.h>

#include "ekd.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EKD_FEATURES @FEATURES@

static const float ekd_base_mean[EKD_FEATURES] = {
@BASE_MEAN@};

typedef struct {
  float *sums;     /* classes * EKD_FEATURES; must begin as zeros */
  int32_t *counts; /* classes: examples of each; must begin as zeros */
  int32_t classes; /* places */
} ekd_enroller_t;

/* What the network gave, ready to be enrolled or classified. */
static inline void ekd_ready(const @OUT@ *out, float *ready) {
  float square = 0.0f;
  int32_t i;
  for (i = 0; i < EKD_FEATURES; i++) {
    ready[i] = ekd_dequantize_@OUT_NAME@(out[i]) - ekd_base_mean[i];
    square += ready[i] * ready[i];
  }
  square = sqrtf(square);
  square = square > 1e-12f ? square : 1e-12f;
  for (i = 0; i < EKD_FEATURES; i++) ready[i] /= square;
}

/* Adds an example of a class. */
static inline void ekd_enroll(ekd_enroller_t *e, int32_t place, const float *ready) {
  float *sum = e->sums + place * EKD_FEATURES;
  int32_t i;
  for (i = 0; i < EKD_FEATURES; i++) sum[i] += ready[i];
  e->counts[place]++;
}

static inline void ekd_forget(ekd_enroller_t *e, int32_t place) {
  memset(e->sums + place * EKD_FEATURES, 0, EKD_FEATURES * sizeof(float));
  e->counts[place] = 0;
}

/* Place of the nearest class, -1 where none is enrolled; its squared distance where asked for. */
static inline int32_t ekd_classify(const ekd_enroller_t *e, const float *ready, float *distance) {
  int32_t best = -1, place, i;
  float least = 0.0f;
  for (place = 0; place < e->classes; place++) {
    const float *sum = e->sums + place * EKD_FEATURES;
    float square = 0.0f;
    if (e->counts[place] == 0) continue;
    for (i = 0; i < EKD_FEATURES; i++) {
      const float apart = ready[i] - sum[i] / (float)e->counts[place];
      square += apart * apart;
    }
    if (best < 0 || square < least) {
      best = place;
      least = square;
    }
  }
  if (distance != NULL) *distance = least;
  return best;
}

#ifdef __cplusplus
}
#endif
