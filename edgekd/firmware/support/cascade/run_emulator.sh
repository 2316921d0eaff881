#!/bin/sh
# Cross-compiles both networks, their driver and its self-test into one image and runs it on an
# emulated @CORE@; the exit status is the verdict.
set -eu
cd "$(dirname "$0")/.."
out=${1:-$(mktemp -d)/cascade.elf}
one=@PLACE_ONE@ two=@PLACE_TWO@
arm-none-eabi-gcc @FLAGS@ -std=c99 -Wall -Wextra -Werror -O2 -ffunction-sections -fdata-sections \
  -DTICK_INSTRUCTIONS=@TICK@u -Icascade/include -Icascade/golden \
  -I$one/include -I$one/src -I$one/selftest -I$two/include -I$two/src \
  $one/src/*.c $two/src/*.c cascade/selftest/selftest.c $one/selftest/cortexm.c \
  -nostartfiles -Wl,--gc-sections -T $one/selftest/emulator.ld -o "$out" -lm
arm-none-eabi-size "$out"
timeout 300 qemu-system-arm -M @MACHINE@ -nographic -monitor none -serial null \
  -semihosting-config enable=on,target=native -icount shift=0 -kernel "$out"
