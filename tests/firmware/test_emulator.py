"""Cross-compiled, measured and run on emulated Cortex-M cores."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from edgekd.errors import SetupError, StageError
from edgekd.firmware import cross
from edgekd.firmware.boards import BOARDS
from edgekd.firmware.library import load, write
from tests.firmware.building import ARM
from tests.firmware.networks import inception, transformer

pytestmark = pytest.mark.needs(cross.COMPILER, cross.EMULATOR, install=ARM)

MODELS = {
    "transformer": lambda: transformer(steps=4, width=16, heads=2),
    "inception": lambda: inception(length=48, depth=1, dtype="int16"),
}


@pytest.fixture(scope="module")
def contents():
    return {name: make().bytes() for name, make in MODELS.items()}


@pytest.mark.parametrize("core", list(BOARDS))
@pytest.mark.parametrize("name", list(MODELS))
def test_the_self_test_passes_on_every_core(core, name, contents, tmp_path):
    board, firmware = BOARDS[core], load(contents[name], "net")
    write(firmware, tmp_path, board)
    for flags in ((), ("-DNET_NO_SIMD",)):
        image = cross.compile_selftest(tmp_path, board, tmp_path / "image.elf", flags)
        verdict = cross.emulate(image, board)
        assert verdict.passed, verdict.output
        assert 1 < verdict.instructions / firmware.program.macs < 16
        size = cross.measure(tmp_path, board, "net", flags)
        assert size.data == 0
        # The self-test's own frames lie above the library's.
        assert 0 < size.stack <= verdict.stack <= size.stack + 200


def test_counting_instructions_gives_the_same_number_again(contents, tmp_path):
    board = BOARDS["cortex-m4"]
    write(load(contents["transformer"], "net"), tmp_path, board)
    image = cross.compile_selftest(tmp_path, board, tmp_path / "image.elf")
    assert len({cross.emulate(image, board).instructions for _ in range(2)}) == 1


def test_a_damaged_image_fails_by_its_exit_status(contents, tmp_path):
    board = BOARDS["cortex-m4"]
    write(load(contents["transformer"], "net"), tmp_path, board)
    golden = tmp_path / "golden" / "net_golden.h"
    text = golden.read_text()
    at = (
        text.index(
            "{",
            text.index("{", text.index("golden_output" if "golden_output" in text else "golden_t"))
            + 1,
        )
        + 1
    )
    number = text[at:].split(",")[0]
    golden.write_text(text[:at] + str(int(number) ^ 1) + text[at + len(number) :])
    image = cross.compile_selftest(tmp_path, board, tmp_path / "image.elf")
    verdict = cross.emulate(image, board)
    assert not verdict.passed
    assert "FAIL vector 0" in verdict.output


def test_a_fault_ends_the_emulator(contents, tmp_path):
    board = BOARDS["cortex-m4"]
    write(load(contents["transformer"], "net"), tmp_path, board)
    source = tmp_path / "src" / "net.c"
    text = source.read_text().replace(
        "  (void)a;", "  *(volatile int *)0xE0000004u = *(volatile int *)0x7FFFFFF0u; (void)a;"
    )
    source.write_text(text)
    verdict = cross.emulate(cross.compile_selftest(tmp_path, board, tmp_path / "image.elf"), board)
    assert not verdict.passed


def test_the_script_in_the_folder_does_the_same(contents, tmp_path):
    write(load(contents["transformer"], "net"), tmp_path, BOARDS["cortex-m4"])
    done = subprocess.run(
        ["sh", str(tmp_path / "selftest" / "run_emulator.sh")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in done.stdout + done.stderr


def test_two_networks_live_in_one_image(contents, tmp_path):
    """Each brings its own self-test, which runs the other's code never and shares no symbol."""
    board, objects = BOARDS["cortex-m4"], []
    base = [cross.COMPILER, *board.flags, "-O2", "-std=c99", "-Wall", "-Werror"]
    tick = f"-DTICK_INSTRUCTIONS={board.tick}u"
    for name, content in contents.items():
        folder = tmp_path / name
        write(load(content, name), folder, board)
        include = [f"-I{folder / part}" for part in ("include", "src", "golden", "selftest")]
        for source in [*(folder / "src").glob("*.c"), folder / "selftest" / "selftest.c"]:
            objects.append(str(folder / f"{source.stem}.o"))
            renamed = f"-Dselftest={name}_selftest"
            command = [*base, tick, renamed, *include, "-c", str(source), "-o", objects[-1]]
            subprocess.run(command, check=True)
    main = tmp_path / "main.c"
    calls = " + ".join(f"{name}_selftest()" for name in contents)
    declared = "\n".join(f"int {name}_selftest(void);" for name in contents)
    main.write_text(
        f'#include "platform.h"\n{declared}\nint selftest(void) {{ return {calls}; }}\n'
    )
    place = tmp_path / next(iter(contents)) / "selftest"
    image = tmp_path / "both.elf"
    link = [
        "-nostartfiles",
        "-Wl,--gc-sections",
        "-T",
        str(place / "emulator.ld"),
        "-o",
        str(image),
    ]
    sources = [str(main), str(place / "cortexm.c")]
    subprocess.run([*base, tick, f"-I{place}", *sources, *objects, *link], check=True)
    verdict = cross.emulate(image, board)
    assert verdict.passed
    assert verdict.output.count("PASS") == len(contents)


def test_a_missing_tool_is_named_with_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match="qemu-system-arm missing") as caught:
        cross.emulate(tmp_path / "image.elf", BOARDS["cortex-m4"])
    assert "apt-get install" in caught.value.hint


def test_the_stack_is_bounded_along_the_deepest_path():
    graph = """
    node: { title: "a" label: "a\\n16 bytes (static)" }
    node: { title: "b" label: "b\\n32 bytes (static)" }
    node: { title: "c" label: "c\\n100 bytes (static)" }
    edge: { sourcename: "a" targetname: "b" }
    edge: { sourcename: "a" targetname: "c" }
    edge: { sourcename: "b" targetname: "memcpy" }
    """
    assert cross.stack_bound(graph, "a") == 116
    with pytest.raises(StageError, match="calls itself"):
        cross.stack_bound(graph + 'edge: { sourcename: "c" targetname: "a" }', "a")


@pytest.mark.needs("cmake", install="apt-get install cmake")
def test_cmake_cross_compiles_with_the_toolchain_file(contents, tmp_path):
    board = BOARDS["cortex-m4"]
    write(load(contents["transformer"], "net"), tmp_path, board)
    build = tmp_path / "build"
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={tmp_path / 'cmake' / 'toolchain.cmake'}"
    command = ["cmake", "-S", str(tmp_path), "-B", str(build), toolchain]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(build)], check=True, capture_output=True)
    assert cross.emulate(build / "net_selftest", board).passed
