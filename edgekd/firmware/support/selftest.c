/* Proves on the device that the library computes what it computed where it was made. */
#include "ekd.h"
#include "ekd_golden.h"
#include "platform.h"

#include <string.h>

#define GUARD 64

/* Guards before and behind the arena show a write outside it. */
static uint32_t memory[(EKD_ARENA_BYTES + 2 * GUARD + 3) / 4];

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

static int failed(const char *what, uint32_t index) {
  put("FAIL ");
  put(what);
  put(" ");
  number(index);
  put("\n");
  return 1;
}

static int guards_hold(const uint8_t *bytes, uint32_t size) {
  uint32_t i;
  for (i = 0; i < GUARD; i++) {
    if (bytes[i] != 0xA5 || bytes[size - 1 - i] != 0xA5) return 0;
  }
  return 1;
}

int selftest(void) {
  uint8_t *const bytes = (uint8_t *)memory;
  uint8_t *const arena = bytes + GUARD;
  const uint32_t size = EKD_ARENA_BYTES + 2 * GUARD;
  uint32_t vector;
  if (ekd_weights_crc32() != EKD_WEIGHTS_CRC32) return failed("weights crc32", 0);
  if (ekd_invoke(NULL, GOLDEN_ARGUMENTS(0)) != EKD_ERROR_NULL) return failed("null arena", 0);
  if (ekd_invoke(arena + 1, GOLDEN_ARGUMENTS(0)) != EKD_ERROR_ALIGN) return failed("alignment", 0);
  for (vector = 0; vector < GOLDEN_VECTORS; vector++) {
    uint32_t start, end;
    memset(bytes, 0xA5, size);
    start = instructions();
    if (ekd_invoke(arena, GOLDEN_ARGUMENTS(vector)) != EKD_OK) return failed("invoke", vector);
    end = instructions();
    if (!GOLDEN_MATCHES(vector)) return failed("vector", vector);
    if (!guards_hold(bytes, size)) return failed("guard", vector);
    if (vector == 0 && end > start) {
      put("instructions ");
      number(end - start);
      put("\n");
    }
  }
  put("vectors ");
  number(GOLDEN_VECTORS);
  put("\nstack ");
  number(stack_used());
  put("\nPASS\n");
  return 0;
}
