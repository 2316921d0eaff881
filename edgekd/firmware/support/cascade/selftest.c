/* Proves on the device that both networks, in one image, diagnose whole flights as they did where
   they were made. */
#include "@ONE@_cascade.h"
#include "@ONE@_cascade_golden.h"
#include "platform.h"

#define GUARD 64
#define NEAR 1e-4f

/* Guards before and behind the arena show a write outside it. */
static uint32_t memory[(@ONE_UP@_CASCADE_ARENA_BYTES + 2 * GUARD + 3) / 4];
static @ONE@_cascade_t cascade;

static void number(uint32_t value) {
  char text[11];
  char *at = text + sizeof text - 1;
  *at = '\0';
  do {
    *--at = (char)('0' + value % 10u);
    value /= 10u;
  } while (value != 0);
  put(at);
}

static void figure(const char *what, uint32_t value) {
  put(what);
  put(" ");
  number(value);
  put("\n");
}

static int failed(const char *what, uint32_t flight) {
  put("FAIL ");
  figure(what, flight);
  return 1;
}

static int guards_hold(const uint8_t *bytes, uint32_t size) {
  uint32_t i;
  for (i = 0; i < GUARD; i++) {
    if (bytes[i] != 0xA5 || bytes[size - 1 - i] != 0xA5) return 0;
  }
  return 1;
}

/* Both networks on the windows that the driver made, byte for byte. */
static int networks_agree(void *arena, uint32_t flight) {
  @ONE_OUT@ health[@ONE_UP@_CLASSES];
  @TWO_OUT@ faults[@TWO_UP@_CLASSES];
  if (@ONE@_invoke(arena, cascade.find.window, health) != @ONE_UP@_OK) return 0;
  if (@TWO@_invoke(arena, cascade.name.window, faults) != @TWO_UP@_OK) return 0;
  return memcmp(health, golden_health[flight], sizeof health) == 0 &&
         memcmp(faults, golden_faults[flight], sizeof faults) == 0;
}

int selftest(void) {
  uint8_t *const bytes = (uint8_t *)memory;
  uint8_t *const arena = bytes + GUARD;
  const uint32_t size = @ONE_UP@_CASCADE_ARENA_BYTES + 2 * GUARD;
  uint32_t flight, healthy = 0, flagged = 0, second = 0;
  if (@ONE@_weights_crc32() != @ONE_UP@_WEIGHTS_CRC32) return failed("weights crc32", 1);
  if (@TWO@_weights_crc32() != @TWO_UP@_WEIGHTS_CRC32) return failed("weights crc32", 2);
  for (flight = 0; flight < GOLDEN_FLIGHTS; flight++) {
    @ONE@_diagnosis_t found;
    uint32_t start, taken, i;
    int due = 0;
    memset(bytes, 0xA5, size);
    @ONE@_cascade_init(&cascade);
    start = instructions();
    for (i = 0; i < @ONE_UP@_COLUMNS * @ONE_UP@_STRETCH; i++) {
      due = @ONE@_cascade_push(&cascade, golden_flights[flight][i / @ONE_UP@_STRETCH]);
    }
    second = (instructions() - start) / i;
    if (!due) return failed("end of the flight", flight);
    if (!networks_agree(arena, flight)) return failed("outputs", flight);
    start = instructions();
    if (@ONE@_cascade_diagnose(&cascade, arena, &found) != @ONE_UP@_OK) {
      return failed("diagnose", flight);
    }
    taken = instructions() - start;
    if (!guards_hold(bytes, size)) return failed("guard", flight);
    if (found.fault != golden_fault[flight]) return failed("fault", flight);
    if (!(found.chance > golden_chance[flight] - NEAR)) return failed("chance", flight);
    if (!(found.chance < golden_chance[flight] + NEAR)) return failed("chance", flight);
    if (found.fault < 0) healthy = taken;
    if (found.fault >= 0) flagged = taken;
  }
  figure("flights", GOLDEN_FLIGHTS);
  if (second != 0) figure("second", second);
  if (healthy != 0) figure("healthy", healthy);
  if (flagged != 0) figure("flagged", flagged);
  figure("stack", stack_used());
  put("PASS\n");
  return 0;
}
