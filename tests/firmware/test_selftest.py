"""The firmware folder: its self-test passes, notices damage, and two libraries live together."""

from __future__ import annotations

import ctypes
import json
import subprocess
import threading

import numpy as np
import pytest

from edgekd.errors import UsageError
from edgekd.firmware.boards import BOARDS, board
from edgekd.firmware.library import load, write
from edgekd.firmware.reference import run
from tests.firmware.building import SANITIZE, drawn, selftest
from tests.firmware.host import WARNINGS, HostLibrary, compile_shared, compiler
from tests.firmware.networks import inception, transformer

pytestmark = pytest.mark.needs("gcc", install="apt-get install gcc")
M4 = BOARDS["cortex-m4"]


@pytest.fixture(scope="module")
def contents():
    return {
        "battery": transformer(steps=4, width=16, heads=2).bytes(),
        "fault": inception(length=48, depth=1, dtype="int16").bytes(),
    }


@pytest.fixture(scope="module", params=["battery", "fault"])
def folder(request, contents, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param)
    firmware = load(contents[request.param], request.param)
    return out, firmware, write(firmware, out, M4)


def test_the_self_test_passes_clean_of_undefined_behaviour(folder):
    done = selftest(folder[0], SANITIZE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "PASS"


def test_one_flipped_byte_of_any_array_fails_it(folder):
    out, firmware, _ = folder
    source = out / "src" / f"{firmware.prefix}_weights.c"
    intact = source.read_text()
    head, _, rest = intact.partition("] = {\n    ")
    value, comma, tail = rest.partition(",")
    try:
        source.write_text(f"{head}] = {{\n    {int(value) ^ 1}{comma}{tail}")
        done = selftest(out)
    finally:
        source.write_text(intact)
    assert done.returncode == 1
    assert "FAIL weights crc32" in done.stdout


def test_a_wrong_golden_vector_fails_it(folder):
    out, firmware, _ = folder
    header = out / "golden" / f"{firmware.prefix}_golden.h"
    intact = header.read_text()
    first = intact.index(f"golden_{firmware.outputs[0].name}[") if firmware.outputs else 0
    at = intact.index("{", intact.index("{", first) + 1) + 1
    number = intact[at:].split(",")[0].split("}")[0]
    try:
        header.write_text(intact[:at] + str(int(number) ^ 1) + intact[at + len(number) :])
        done = selftest(out)
    finally:
        header.write_text(intact)
    assert done.returncode == 1
    assert "FAIL vector 0" in done.stdout


def test_the_same_model_gives_the_same_bytes(folder, contents, tmp_path):
    out, firmware, _ = folder
    write(load(contents[firmware.prefix], firmware.prefix), tmp_path, M4)
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) > 15
    for path in made:
        assert path.read_bytes() == (out / path.relative_to(tmp_path)).read_bytes()


def test_facts_name_what_was_written(folder):
    out, firmware, facts = folder
    assert set(facts["files"]) <= {str(p.relative_to(out)) for p in out.rglob("*")}
    assert facts["arena_bytes"] == firmware.arena.size
    assert facts["macs"] == firmware.program.macs
    assert facts["vectors"] == 8
    assert (out / "SHA256SUMS").read_text().count("\n") == len(facts["files"]) - 1


def test_no_allocation_no_libm_no_static_state(folder):
    out, firmware, _ = folder
    objects = []
    for source in sorted((out / "src").glob("*.c")):
        objects.append(out / f"{source.stem}.o")
        command = [compiler(), "-O2", "-fno-pie", "-fno-pic", "-I", str(out / "include")]
        subprocess.run([*command, "-c", str(source), "-o", str(objects[-1])], check=True)
    lines = subprocess.run(
        ["nm", *map(str, objects)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    symbols = [line.split()[-2:] for line in lines if " " in line]
    needed = {name for kind, name in symbols if kind == "U"}
    assert not [name for kind, name in symbols if kind in "BDCbd"]
    foreign = {name for name in needed if not name.startswith(firmware.prefix)}
    assert foreign <= {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"}
    given = [name for kind, name in symbols if kind in "TR"]
    assert all(name.startswith(f"{firmware.prefix}_") for name in given)


def test_two_models_and_cplusplus_live_in_one_image(contents, tmp_path):
    libraries = {}
    for prefix, content in contents.items():
        libraries[prefix] = load(content, prefix)
        write(libraries[prefix], tmp_path / prefix, M4)
    main = tmp_path / "main.cpp"
    calls = []
    for prefix, firmware in libraries.items():
        arguments = ", ".join(
            f"({port.value.dtype}_t *)buffer" for port in (*firmware.inputs, *firmware.outputs)
        )
        calls.append(f"if ({prefix}_invoke(arena, {arguments}) != {prefix.upper()}_OK) return 1;")
    main.write_text(
        '#include "battery.h"\n#include "fault.h"\n'
        "static int32_t arena[65536], buffer[65536];\n"
        f"int main() {{ {' '.join(calls)} return BATTERY_ABI + FAULT_ABI == 2 ? 0 : 2; }}\n"
    )
    objects = []
    for prefix in contents:
        for source in (tmp_path / prefix / "src").glob("*.c"):
            objects.append(str(tmp_path / f"{source.stem}.o"))
            include = ["-I", str(tmp_path / prefix / "include")]
            subprocess.run(
                [compiler(), "-O1", *include, "-c", str(source), "-o", objects[-1]], check=True
            )
    headers = [flag for prefix in contents for flag in ("-I", str(tmp_path / prefix / "include"))]
    image = tmp_path / "image"
    subprocess.run(["g++", *headers, str(main), *objects, "-o", str(image)], check=True)
    assert subprocess.run([str(image)], check=False).returncode == 0


def test_callers_with_their_own_arenas_do_not_disturb_one_another(folder):
    out, firmware, _ = folder
    shared = compile_shared(out, out / "threads.so")
    samples = [drawn(firmware.program, seed) for seed in range(4)]
    wanted = [run(firmware.program, sample)[0] for sample in samples]
    ends = firmware.prefix, firmware.inputs, firmware.outputs, firmware.arena.size
    wrong = []

    def work(sample, value):
        library = HostLibrary(shared, *ends)
        for _ in range(50):
            if not np.array_equal(library(sample)[0], value):
                wrong.append(value)

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(samples, wanted, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_weights_can_lie_in_a_section_of_their_own(folder):
    out, firmware, _ = folder
    flag = f'-D{firmware.prefix.upper()}_WEIGHTS_SECTION=".weights"'
    source = out / "src" / f"{firmware.prefix}_weights.c"
    made = out / "section.o"
    command = [compiler(), *WARNINGS[:4], flag, "-I", str(out / "include"), "-c", str(source)]
    subprocess.run([*command, "-o", str(made)], check=True)
    sections = subprocess.run(["size", "-A", str(made)], capture_output=True, text=True, check=True)
    sizes = dict(line.split()[:2] for line in sections.stdout.splitlines() if line.startswith("."))
    weights = sum(step.weights.size for step in firmware.program.steps if hasattr(step, "weights"))
    assert int(sizes[".weights"]) > weights


def test_helpers_round_as_the_contract_says(folder):
    out, firmware, _ = folder
    port = firmware.inputs[0]
    p, value = firmware.prefix, port.value
    kind = f"{value.dtype}_t"
    info = np.iinfo(value.dtype)
    rng = np.random.default_rng(0)
    edge = value.scale * (info.max - value.zero)
    reals = np.float32([*rng.normal(0, edge, 200), 0.0, 10 * edge, -10 * edge, edge, -edge])
    source = out / "helpers.c"
    source.write_text(
        f'#include "{p}.h"\n{kind} q(float x); {kind} q(float x) {{ return {p}_quantize_{port.name}(x); }}\n'
    )
    made = out / "helpers.so"
    command = [compiler(), *WARNINGS, "-shared", "-fPIC", "-I", str(out / "include"), str(source)]
    subprocess.run([*command, "-o", str(made)], check=True)
    q = ctypes.CDLL(str(made)).q
    q.argtypes, q.restype = (
        [ctypes.c_float],
        ctypes.c_int16 if value.dtype == "int16" else ctypes.c_int8,
    )
    steps = reals / np.float32(value.scale)
    wanted = np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5)) + value.zero
    assert [q(float(x)) for x in reals] == np.clip(wanted, info.min, info.max).astype(int).tolist()


def test_names_are_refused(contents):
    with pytest.raises(UsageError, match="cannot begin the names"):
        load(contents["battery"], "1st")
    with pytest.raises(UsageError, match="cortex-m99"):
        board("cortex-m99")


def test_the_example_of_the_readme_compiles(folder):
    out, _, _ = folder
    code = (out / "README.md").read_text().split("```c\n")[1].split("```")[0]
    source = out / "example.c"
    source.write_text(code + "float infer(const float *values);\n")
    command = [compiler(), *WARNINGS[:4], "-c", "-I", str(out / "include"), str(source)]
    subprocess.run([*command, "-o", str(out / "example.o")], check=True)


def test_the_card_describes_ports_and_memory(folder):
    out, firmware, _ = folder
    card = json.loads((out / "firmware.json").read_text())
    assert card["abi"] == 1
    assert card["arena_bytes"] == firmware.arena.size
    assert [port["shape"] for port in card["inputs"]] == [
        list(q.value.shape) for q in firmware.inputs
    ]
    assert card["outputs"][0]["scale"] == firmware.outputs[0].value.scale


def test_the_tflm_flavour_registers_what_the_model_has(folder):
    out, firmware, _ = folder
    text = (out / "tflm" / "op_resolver.inc").read_text()
    assert f"MicroMutableOpResolver<{len(firmware.program.operators)}>" in text
    assert "#error" not in text
    array = (out / "tflm" / f"{firmware.prefix}_model_data.cc").read_text()
    numbers = array.split("= {")[1].rstrip("};\n").split(",")
    assert bytes(map(int, numbers)) == (out / "model.tflite").read_bytes()


@pytest.mark.needs("cmake", install="apt-get install cmake")
def test_cmake_builds_the_library_and_the_self_test(folder, tmp_path):
    out, firmware, _ = folder
    subprocess.run(["cmake", "-S", str(out), "-B", str(tmp_path)], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(tmp_path)], check=True, capture_output=True)
    done = subprocess.run([str(tmp_path / f"{firmware.prefix}_selftest")], check=False)
    assert done.returncode == 0


@pytest.mark.needs(
    "aarch64-linux-gnu-gcc",
    "qemu-aarch64",
    install="apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user",
)
def test_the_self_test_passes_on_emulated_aarch64(folder):
    out, _, _ = folder
    include = [f"-I{out / name}" for name in ("include", "src", "golden", "selftest")]
    sources = [
        *(out / "src").glob("*.c"),
        out / "selftest" / "selftest.c",
        out / "selftest" / "host.c",
    ]
    image = out / "selftest.aarch64"
    command = ["aarch64-linux-gnu-gcc", *WARNINGS[:5], "-O2", "-static", *include]
    subprocess.run([*command, *map(str, sources), "-o", str(image)], check=True)
    done = subprocess.run(["qemu-aarch64", str(image)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("PASS\n")
