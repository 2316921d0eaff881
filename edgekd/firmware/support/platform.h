/* What the self-test asks of the machine. */
#ifndef PLATFORM_H
#define PLATFORM_H

#include <stdint.h>

void put(const char *text);
/* Instructions so far, as far as the machine counts them; 0 where it does not. */
uint32_t instructions(void);
/* Bytes of stack that were used at most; 0 where it is not watched. */
uint32_t stack_used(void);
int selftest(void);

#endif
