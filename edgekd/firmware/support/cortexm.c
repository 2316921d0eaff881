/* Arm Cortex-M under an emulator or debugger with semihosting: start-up, output, exit.
   Boards: replace put() and the exit; the vector table and reset are the usual ones. */
#include "platform.h"

extern uint32_t stack_top, stack_bottom, data_start, data_end, data_load, bss_start, bss_end;

void reset(void);

#define SYSTICK_CONTROL (*(volatile uint32_t *)0xE000E010u)
#define SYSTICK_RELOAD (*(volatile uint32_t *)0xE000E014u)
#define SYSTICK_VALUE (*(volatile uint32_t *)0xE000E018u)
#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define PATTERN 0x5AFE57ACu

static volatile uint32_t wraps;

static uint32_t semihost(uint32_t operation, const void *argument) {
  register uint32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static void leave(uint32_t code) {
  const uint32_t block[2] = {0x20026u, code}; /* application exit, code */
  semihost(0x20u, block);
  for (;;) {
  }
}

void put(const char *text) { semihost(0x04u, text); }

/* A timer tick is TICK_INSTRUCTIONS instructions when the emulator runs with -icount shift=0. */
uint32_t instructions(void) {
  uint32_t before, value;
  do {
    before = wraps;
    value = SYSTICK_VALUE;
  } while (before != wraps);
  return (before * 0x1000000u + (0xFFFFFFu - value)) * TICK_INSTRUCTIONS;
}

uint32_t stack_used(void) {
  const uint32_t *at = &stack_bottom;
  while (at < &stack_top && *at == PATTERN) at++;
  return (uint32_t)((const char *)&stack_top - (const char *)at);
}

static void fault(void) {
  put("FAIL fault\n");
  leave(3);
}

static void tick(void) { wraps++; }

/* Everything above the current frame is in use; what lies below is painted. */
static void paint_stack(void) {
  uint32_t *at = &stack_bottom;
  const uint32_t *const here = (const uint32_t *)__builtin_frame_address(0) - 16;
  while (at < here) *at++ = PATTERN;
}

void reset(void) {
  uint32_t *to = &data_start;
  const uint32_t *from = &data_load;
  while (to < &data_end) *to++ = *from++;
  for (to = &bss_start; to < &bss_end;) *to++ = 0;
#if defined(__ARM_FP)
  CPACR |= 0xFu << 20;
  __asm__ volatile("dsb\n\tisb");
#endif
  paint_stack();
  SYSTICK_RELOAD = 0xFFFFFFu;
  SYSTICK_VALUE = 0;
  SYSTICK_CONTROL = 7;
  leave((uint32_t)selftest());
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))(void *)&stack_top, reset, fault, fault, fault, fault, fault, fault,
    fault, fault, fault, fault, fault, fault, fault, tick};
