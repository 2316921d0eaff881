#!/bin/sh
# Builds the engine of this bundle on the board that will run it, and asks it for the golden outputs.
#
#   sh build.sh              engine to model.plan, log to build.log, compiled layers to layers.json
#   sh build.sh --runner     then builds runner/ with CMake and runs its golden self-test
#
# An engine belongs to its GPU and its TensorRT: build it again after an upgrade. Writes nothing
# outside this folder and asks for no password. TRTEXEC names another trtexec, WORKSPACE_MIB another
# limit of the memory that a layer may use.
set -eu
cd "$(dirname "$0")"

model='@MAIN@'
shapes='@SHAPES@'
precision='@PRECISION@'

find_trtexec() {
  for place in "${TRTEXEC:-}" "$(command -v trtexec || true)" /usr/src/tensorrt/bin/trtexec \
               /opt/tensorrt/bin/trtexec; do
    if [ -n "$place" ] && [ -x "$place" ]; then echo "$place"; return; fi
  done
  echo "no trtexec: on a Jetson, sudo apt-get install libnvinfer-bin brings it" >&2
  exit 4
}

trtexec=$(find_trtexec)
number=$("$trtexec" --help 2>&1 | sed -n 's/.*\[TensorRT v\([0-9]*\)\].*/\1/p' | head -n 1)
[ -n "$number" ] || { echo "$trtexec does not say its version" >&2; exit 4; }
if [ "$number" -ge 110000 ]; then typing=''
elif [ "$number" -ge 9100 ]; then typing='--stronglyTyped'
else
  case "$precision" in fp32) typing='' ;; fp16) typing='--fp16' ;; *) typing='--fp16 --int8' ;; esac
fi

# Half of what is free now: the board's GPU shares it with everything else that runs.
free=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
workspace=${WORKSPACE_MIB:-$((${free:-4194304} / 2048))}

echo "building with $trtexec (TensorRT $number), workspace $workspace MiB; this takes minutes"
# shellcheck disable=SC2086
if ! "$trtexec" --onnx="$model" --saveEngine=model.plan --skipInference \
    --profilingVerbosity=detailed --exportLayerInfo=layers.json --timingCacheFile=timing.cache \
    --memPoolSize=workspace:"$workspace" $typing \
    --minShapes="$shapes" --optShapes="$shapes" --maxShapes="$shapes" > build.log 2>&1 \
    || ! grep -q '^&&&& PASSED' build.log; then
  grep '\[E\]' build.log | tail -n 5 >&2
  if grep -qi 'out of memory\|insufficient memory\|Requested amount of GPU memory' build.log; then
    echo "the board's memory ran out: close programs, or WORKSPACE_MIB=$((workspace / 2)) sh build.sh" >&2
  fi
  echo "no engine was built; build.log has all of it" >&2
  exit 1
fi
echo "built model.plan"

if [ "${1:-}" = "--runner" ]; then
  cmake -S runner -B runner/build > runner.log 2>&1 && cmake --build runner/build >> runner.log 2>&1 \
    || { tail -n 20 runner.log >&2; exit 1; }
  runner/build/runner model.plan golden
  runner/build/runner model.plan time
fi
