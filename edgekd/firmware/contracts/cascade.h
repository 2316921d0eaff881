/* Both stages of the cascade as one: seconds of raw sensor values in, a diagnosis out. The second
   network is asked for flagged flights alone. All memory is the caller's; both networks work in one
   arena, one after the other. Needs expf. */
#include "@ONE@_stage.h"
#include "@TWO@_stage.h"

#ifdef __cplusplus
extern "C" {
#endif

#define @ONE_UP@_CASCADE_ARENA_BYTES @ARENA@ /* of the larger network */

typedef struct {
  @ONE@_stream_t find; /* what the first network sees */
  @TWO@_stream_t name; /* what the second sees, prepared by its own means and steps */
} @ONE@_cascade_t;

typedef struct {
  float chance;                    /* of a fault */
  int32_t fault;                   /* place among @TWO@_classes; -1 where the flight is not flagged */
  float shares[@TWO_UP@_CLASSES]; /* chance of each fault; 0 where the flight is not flagged */
} @ONE@_diagnosis_t;

static inline void @ONE@_cascade_init(@ONE@_cascade_t *c) {
  @ONE@_stream_init(&c->find);
  @TWO@_stream_init(&c->name);
}

/* Takes the values of one second in the order of @ONE@_sensors, NaN where there is none. Returns 1
   when a column is complete and the flight long enough for a diagnosis. */
static inline int @ONE@_cascade_push(@ONE@_cascade_t *c, const float *values) {
  (void)@TWO@_stream_push(&c->name, values);
  return @ONE@_stream_push(&c->find, values);
}

/* Diagnoses the flight so far. Returns @ONE_UP@_OK, or the error of a network. */
static inline int @ONE@_cascade_diagnose(const @ONE@_cascade_t *c, void *arena,
                                         @ONE@_diagnosis_t *found) {
  @ONE_OUT@ health[@ONE_UP@_CLASSES];
  @TWO_OUT@ faults[@TWO_UP@_CLASSES];
  float chances[@ONE_UP@_CLASSES];
  int32_t i;
  int code = @ONE@_invoke(arena, c->find.window, health);
  if (code != @ONE_UP@_OK) return code;
  @ONE@_chances(health, chances);
  found->chance = chances[@ONE_UP@_CLASSES - 1];
  found->fault = -1;
  memset(found->shares, 0, sizeof found->shares);
  if (!@ONE@_flagged(chances)) return code;
  code = @TWO@_invoke(arena, c->name.window, faults);
  if (code != @TWO_UP@_OK) return code;
  @TWO@_chances(faults, found->shares);
  found->fault = 0;
  for (i = 1; i < @TWO_UP@_CLASSES; i++) {
    if (found->shares[i] > found->shares[found->fault]) found->fault = i;
  }
  return code;
}

#ifdef __cplusplus
}
#endif
