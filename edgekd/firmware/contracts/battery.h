/* The controller around the network, as contract.json of the bundle has it: what the network sees,
   what is remembered, what guards the battery. Energies are kWh a step of EKD_HOURS hours; an
   action above 0 charges. Needs sinf and cosf; all state is the caller's. */
#include <math.h>
#include <string.h>

#include "ekd.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EKD_HOURS @HOURS@
#define EKD_STEPS @STEPS@
#define EKD_FEATURES @FEATURES@
#define EKD_HORIZON @HORIZON@
#define EKD_DAYS @DAYS@
#define EKD_STEPS_A_DAY @STEPS_A_DAY@
#define EKD_PAST (EKD_DAYS * EKD_STEPS_A_DAY)
#define EKD_PRICE_MEAN @PRICE_MEAN@
#define EKD_PRICE_STD @PRICE_STD@
#define EKD_TARGET @TARGET@
#define EKD_DEADBAND @DEADBAND@

typedef struct {
  float capacity;  /* kWh */
  float power;     /* kWh a step, charging and discharging */
  float charge;    /* efficiency */
  float discharge; /* efficiency */
  float standby;   /* kWh a step that the inverter takes */
  float feed_in;   /* money per kWh exported */
} ekd_battery_t;

typedef struct {
  ekd_battery_t battery;
  float target;                             /* return asked for a day; EKD_TARGET by default */
  float to_go, before;                      /* return to go, action of the step before */
  float past[EKD_PAST];                     /* net load of the last days, a ring */
  int32_t at, known;                        /* oldest place of the ring; how many are filled */
  @IN@ window[EKD_STEPS * EKD_FEATURES]; /* what the network sees, the newest step last */
  int32_t begun;
} ekd_controller_t;

static inline void ekd_controller_init(ekd_controller_t *c, const ekd_battery_t *battery) {
  memset(c, 0, sizeof *c);
  c->battery = *battery;
  c->target = EKD_TARGET;
}

static inline float ekd_soft(float x) { return x / (1.0f + (x < 0.0f ? -x : x)); }

/* Limits an action to what power and state of energy allow. */
static inline float ekd_limit(const ekd_battery_t *b, float soe, float action) {
  const float stored = soe * b->discharge, room = (b->capacity - soe) / b->charge;
  const float lowest = -(b->power < stored ? b->power : stored);
  const float highest = b->power < room ? b->power : room;
  action = action > lowest ? action : lowest;
  return action < highest ? action : highest;
}

static inline float ekd_bill(float energy, float price, float feed_in) {
  return energy > 0.0f ? energy * price : energy * feed_in;
}

/* Net load of this step (measured, 0) or of one of the next (forecast). */
static inline float ekd_net(const ekd_controller_t *c, float now, int32_t ahead) {
#if @FORECAST@
  float sum = 0.0f;
  int32_t count = 0, day;
  if (ahead == 0) return now;
  for (day = 0; day < EKD_DAYS; day++) {
    const int32_t place = day * EKD_STEPS_A_DAY + ahead;
    if (place < EKD_PAST - c->known) continue;
    sum += c->past[(c->at + place) % EKD_PAST];
    count++;
  }
  return count ? sum / (float)count : 0.0f;
#else
  (void)c;
  return ahead == 0 ? now : 0.0f;
#endif
}

/* Writes the integers of one step. */
static inline void ekd_observe(const ekd_controller_t *c, float net, float soe,
                               const float *prices, float time, @IN@ *row) {
  const ekd_battery_t *const b = &c->battery;
  int32_t i;
@OBSERVE@
}

/* Decides one step. Measured values must be finite.
   arena: of the network. net: load - generation of this step. soe: state of energy, brought into
   0 ... capacity. prices: import prices of this step and the next, EKD_HORIZON of them.
   time: share of the day at the start of the step. action: kWh to charge (above 0) or discharge.
   Returns what ekd_invoke returns; when it fails the action is that of self-consumption. */
static inline int ekd_controller_step(ekd_controller_t *c, void *arena, float net, float soe,
                                      const float *prices, float time, float *action) {
  const ekd_battery_t *const b = &c->battery;
  @IN@ row[EKD_FEATURES];
  @OUT@ out[EKD_@OUT_MACRO@_COUNT];
  float share, rule, saved;
  int32_t i;
  int code;
  soe = soe < 0.0f ? 0.0f : soe > b->capacity ? b->capacity : soe;
  if (!c->begun || time < EKD_HOURS / 48.0f) c->to_go = c->target;
  ekd_observe(c, net, soe, prices, time, row);
  for (i = 0; i < EKD_STEPS - 1; i++) {
    memcpy(c->window + i * EKD_FEATURES, c->begun ? c->window + (i + 1) * EKD_FEATURES : row,
           sizeof row);
  }
  memcpy(c->window + (EKD_STEPS - 1) * EKD_FEATURES, row, sizeof row);
  c->begun = 1;
  code = ekd_invoke(arena, c->window, out);
  share = code == EKD_OK ? ekd_dequantize_@OUT_NAME@(out[EKD_@OUT_MACRO@_COUNT - 1]) : 0.0f;
  if (share < EKD_DEADBAND && share > -EKD_DEADBAND) share = 0.0f;
  share = share < -1.0f ? -1.0f : share > 1.0f ? 1.0f : share;
  rule = ekd_limit(b, soe, -net);
  *action = ekd_limit(b, soe, rule + 2.0f * b->power * share);
  saved = ekd_bill(net, prices[0], b->feed_in) -
          ekd_bill(net + *action + b->standby, prices[0], b->feed_in);
  c->to_go -= saved / (b->capacity * EKD_PRICE_MEAN);
  c->past[c->at] = net;
  c->at = (c->at + 1) % EKD_PAST;
  if (c->known < EKD_PAST) c->known++;
  c->before = *action;
  return code;
}

#ifdef __cplusplus
}
#endif
