#!/bin/sh
# Cross-compiles the self-test and runs it on an emulated @CORE@; the exit status is the verdict.
set -eu
cd "$(dirname "$0")/.."
out=${1:-$(mktemp -d)/selftest.elf}
arm-none-eabi-gcc @FLAGS@ -std=c99 -Wall -Wextra -Werror -O2 -ffunction-sections -fdata-sections \
  -DTICK_INSTRUCTIONS=@TICK@u -Iinclude -Isrc -Igolden -Iselftest \
  src/*.c selftest/selftest.c selftest/cortexm.c \
  -nostartfiles -Wl,--gc-sections -T selftest/emulator.ld -o "$out"
arm-none-eabi-size "$out"
timeout 300 qemu-system-arm -M @MACHINE@ -nographic -monitor none -serial null \
  -semihosting-config enable=on,target=native -icount shift=0 -kernel "$out"
