"""Runs a .tflite file in TensorFlow Lite Micro's kernels; a process of its own, it may abort.

python oracle.py MODEL INPUTS.npz OUTPUTS.npz: arrays `SAMPLE_INPUT` in, arrays in order out.
"""

import sys

import numpy as np
from tflite_micro import runtime

model, given, made = sys.argv[1:]
with np.load(given) as arrays:
    samples = {}
    for name in arrays.files:
        sample, position = map(int, name.split("_"))
        samples.setdefault(sample, {})[position] = arrays[name]
interpreter = runtime.Interpreter.from_file(model, arena_size=1 << 22)
outputs = []
for sample in sorted(samples):
    for position, values in samples[sample].items():
        interpreter.set_input(values, position)
    interpreter.invoke()
    outputs.append(interpreter.get_output(0))
np.savez(made, *outputs)
interpreter.print_allocations()
