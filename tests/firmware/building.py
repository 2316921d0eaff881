"""What the tests of firmware share: lowering, compiling, samples."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from edgekd.firmware.arena import plan
from edgekd.firmware.emit import emit, ports
from edgekd.firmware.lower import lower
from edgekd.firmware.tflite import read_tflite
from tests.firmware.host import WARNINGS, HostLibrary, compile_shared, compiler

ARM = "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def programmed(content):
    """.tflite → program."""
    return lower(read_tflite(content))


def built(content, folder: Path, prefix="net", flags=("-O1",)):
    """Return program and compiled library of a model."""
    program = programmed(content)
    arena = plan(program)
    for name, text in emit(program, arena, prefix, {}).texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shared = compile_shared(folder, folder / f"{prefix}.so", flags)
    return program, HostLibrary(shared, prefix, *ports(program), arena.size)


def drawn(program, seed):
    """Return one sample of uniform noise over the whole range of the inputs."""
    rng = np.random.default_rng(seed)
    made = []
    for number in program.inputs:
        value = program.values[number]
        info = np.iinfo(value.dtype)
        made.append(
            rng.integers(info.min, info.max, value.shape, endpoint=True).astype(value.dtype)
        )
    return made


def selftest(folder: Path, flags=("-O1",)):
    """Compile the self-test for this computer and run it."""
    out = folder / "selftest.bin"
    include = [f"-I{folder / name}" for name in ("include", "src", "golden", "selftest")]
    sources = [*(folder / "src").glob("*.c"), *(folder / "selftest").glob("[sh]*t.c")]
    command = [compiler(), *WARNINGS[:5], *flags, *include, *map(str, sources), "-o", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return subprocess.run([str(out)], capture_output=True, text=True, timeout=60)
