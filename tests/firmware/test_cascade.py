"""Two networks and the driver of the cascade in one image: what it says is what numpy says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from edgekd.agent.runtimes.c import open_session
from edgekd.artefact import Artefact
from edgekd.bundle.texts import _run
from edgekd.errors import BudgetError, StageError
from edgekd.events import silent
from edgekd.firmware import cascade, cross
from edgekd.firmware.boards import BOARDS
from edgekd.firmware.cascade import Member
from edgekd.firmware.library import load, write
from edgekd.spec import Call, plain
from edgekd.stages.image import image
from edgekd.tasks.faults.cascade import Cascade, Stage
from edgekd.tasks.faults.tasks import contract
from tests.firmware.building import ARM
from tests.firmware.host import WARNINGS, compiler
from tests.firmware.networks import Net

SENSORS, LENGTH, SECONDS = 3, 64, 4096
NAMES = np.array(["rpm", "oil", "egt", "volts"])
SEEN = (2, 0, 3)
BUDGET = {"core": "cortex-m4", "clock_mhz": 100.0, "flash_kib": 256.0, "ram_kib": 64.0}
TASKS = {"": ("detection", 2), "stage2/": ("identification", 5)}


def network(seed, classes, dtype):
    net = Net(seed, dtype)
    x = net.feed(1, SENSORS, 1, LENGTH, spread=1.5)
    hidden = net.dense(net.reshape(x, 1, SENSORS * LENGTH), 8)
    net.output(net.dense(hidden, classes))
    return net.bytes()


def state(classes, threshold):
    names = [f"fault {place}" for place in range(classes)]
    made = {
        "channels": NAMES,
        "mean": np.array([2000, 60, 1300, 28], np.float32) + classes,
        "std": np.array([300, 5, 90, 1], np.float32),
        "classes": np.array(names),
        "temperature": np.array([1.0 + classes / 10]),
    }
    return made | ({"threshold": np.array([threshold])} if classes == 2 else {})


def flights(count):
    rng = np.random.default_rng(7)
    made = state(2, 0)
    values = rng.normal(0, 2, (count, len(NAMES), LENGTH))
    values = made["mean"][:, None] + made["std"][:, None] * values
    values[rng.random(values.shape) < 0.1] = np.nan
    return values.astype(np.float16)


@pytest.fixture
def inputs(tmp_path, request):
    """What the steps before leave: int8 in stage 1, 16-bit activations in stage 2."""
    folders, core = {}, getattr(request, "param", "cortex-m4")
    for (part, (_, classes)), dtype in zip(TASKS.items(), ("int8", "int16"), strict=True):
        shipped = tmp_path / part / "chosen" / "shipped"
        prefix = "air" if not part else "air_stage2"
        write(load(network(classes, classes, dtype), prefix), shipped, BOARDS[core])
        contract = {"channels": SEEN, "shape": [SENSORS, 1, LENGTH], "name": "flight"}
        Artefact(shipped, "firmware.json", "firmware", {}, contract, dtype).save()
        known = tmp_path / part / "distill"
        known.mkdir(parents=True)
        np.savez(known / "state.npz", **state(classes, 0.45))
        folders |= {f"{part}chosen": shipped.parent, f"{part}distill": known}
    folders["joint"] = tmp_path / "joint"
    folders["joint"].mkdir()
    np.savez(folders["joint"] / "joint.npz", **diagnosed(folders))
    return folders


def diagnosed(folders):
    """What the driver in numpy makes of the flights, through the integer reference."""
    stages = []
    for part in TASKS:
        shipped = folders[f"{part}chosen"] / "shipped"
        contract = json.loads((shipped / "artefact.json").read_text())["input"]
        known = dict(np.load(folders[f"{part}distill"] / "state.npz"))
        stages.append((Stage.of(contract, known), shipped))

    def runs(shipped):
        session = open_session(shipped / "firmware.json", {})
        feed, give = session.inputs[0].name, session.outputs[0].name
        return lambda ready: session.run({feed: ready})[give]

    (find, one), (name, two) = stages
    some = flights(9)
    found = Cascade(find, name, runs(one), runs(two))(
        list(np.repeat(some.astype(np.float32), SECONDS // LENGTH, axis=-1))
    )
    assert 0 < found.flagged.sum() < len(some)
    return {
        "flights": some,
        "chance": found.chance,
        "flagged": found.flagged,
        "fault": found.fault,
        "shares": found.shares,
    }


def spec(**budget):
    tasks = {
        part.rstrip("/"): plain(Call(f"edgekd.tasks.faults.tasks:{name}"))
        for part, (name, _) in TASKS.items()
    }
    mcu = {**BUDGET, **budget}
    return {"parts": ["stage2"], "tasks": tasks, "mcu": mcu, "target": "mcu", "base": "."}


pytestmark = pytest.mark.needs("gcc", install="apt-get install gcc")


@pytest.mark.needs(cross.COMPILER, cross.EMULATOR, install=ARM)
@pytest.mark.parametrize("inputs, core", [(core, core) for core in BOARDS], indirect=["inputs"])
def test_an_image_of_both_networks_proves_itself(inputs, core, tmp_path):
    made = image(spec(core=core), inputs, tmp_path, silent)
    assert made["selftest"] == "passed"
    assert 1 <= made["flagged"] < made["flights"]
    counted = made["instructions"]
    assert 0 < counted["second"] < counted["healthy"] < counted["flagged"]
    parts = [
        json.loads((inputs[f"{p}chosen"] / "shipped/firmware.json").read_text()) for p in TASKS
    ]
    assert made["flash_bytes"] > sum(card["constant_bytes"] for card in parts)
    window = sum(card["io_bytes"] for card in parts)
    arena = max(card["arena_bytes"] for card in parts)
    assert arena + window < made["ram_bytes"] < arena + window + 4096
    assert all((tmp_path / name).is_file() for name in made["files"])
    for key in ("flash_kib", "ram_kib"):
        with pytest.raises(BudgetError, match=r"both networks .* has 1,024") as caught:
            image(spec(core=core, **{key: 1}), inputs, tmp_path / key, silent)
        assert caught.value.at == f"targets/mcu.yaml: mcu.{key}"


@pytest.fixture
def bundle(inputs, tmp_path):
    """A bundle's folders, with the driver."""
    root = tmp_path / "bundle"
    for part in TASKS:
        shutil.copytree(inputs[f"{part}chosen"] / "shipped", root / part / "model")
        known = dict(np.load(inputs[f"{part}distill"] / "state.npz"))
        card = json.loads((root / part / "model/firmware.json").read_text())
        cascade.equip(root, Member(f"{part}model", card, contract(known), SEEN))
    image(spec(), inputs, root, silent)
    return root


def proven(root, *flags):
    """The self-test of the cascade on this computer, with all warnings."""
    places = [root / "cascade/include", root / "cascade/golden", root / "model/selftest"]
    places += [root / part / "model" / name for part in TASKS for name in ("include", "src")]
    sources = [*root.glob("model/src/*.c"), *root.glob("stage2/model/src/*.c")]
    sources += [root / "cascade/selftest/selftest.c", root / "model/selftest/host.c"]
    command = [compiler(), *WARNINGS, *flags, *map(str, sources)]
    command += [flag for place in places for flag in ("-I", str(place))]
    subprocess.run([*command, "-o", str(root / "cascade.bin"), "-lm"], check=True)
    return subprocess.run([str(root / "cascade.bin")], capture_output=True, text=True)


def test_the_same_on_this_computer_and_a_flipped_bit_fails(bundle):
    sane = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    assert proven(bundle, *sane).stdout.splitlines()[-1] == "PASS"
    weights = bundle / "stage2/model/src/air_stage2_weights.c"
    head, mark, rest = weights.read_text().partition("] = {\n    ")
    value, comma, tail = rest.partition(",")
    weights.write_text(f"{head}{mark}{int(value) ^ 1}{comma}{tail}")
    assert proven(bundle).stdout == "FAIL weights crc32 2\n"


@pytest.mark.parametrize("name", ["fault", "chance", "health", "faults", "flights"])
def test_a_golden_value_that_was_touched_fails(bundle, name):
    golden = bundle / "cascade/golden/air_cascade_golden.h"
    text = golden.read_text()
    begin = text.index(f"golden_{name}[")
    number = re.compile(r"(?<=[{ ])(-?[\d.]+f?|NAN)(?=[,}])").search(text, begin)
    other = "9999.0f" if "." in number[0] or number[0] == "NAN" else str(int(number[0]) ^ 3)
    golden.write_text(text[: number.start()] + other + text[number.end() :])
    found = proven(bundle)
    assert found.returncode != 0
    assert found.stdout.startswith("FAIL")


@pytest.mark.needs(cross.COMPILER, install=ARM)
def test_the_lines_of_the_bundle_s_readme_compile(bundle):
    made = {"runtime": "firmware", "main": "model/firmware.json"}
    page = _run({"artefact": made}, {"cascade/include/air_cascade.h"})
    code = bundle / "lines.c"
    code.write_text(page.partition("```c\n")[2].partition("```")[0])
    places = [bundle / "cascade/include", *(bundle / p / "model/include" for p in TASKS)]
    command = [cross.COMPILER, *BOARDS["cortex-m4"].flags, *WARNINGS[:4], "-O2", "-c", str(code)]
    command += [flag for place in places for flag in ("-I", str(place))]
    subprocess.run([*command, "-o", str(bundle / "lines.o")], check=True)


@pytest.mark.needs("cmake", cross.COMPILER, cross.EMULATOR, install=ARM)
def test_the_folder_builds_by_cmake_and_by_its_script(bundle):
    done = subprocess.run(
        ["sh", str(bundle / "cascade/run_emulator.sh")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    build = bundle / "build"
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={bundle / 'model/cmake/toolchain.cmake'}"
    command = ["cmake", "-S", str(bundle / "cascade"), "-B", str(build), toolchain]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(build)], check=True, capture_output=True)
    assert cross.emulate(build / "air_cascade_selftest", BOARDS["cortex-m4"]).passed


def test_a_network_that_fails_on_the_core_is_no_bundle(inputs, tmp_path, monkeypatch):
    verdict = cross.Verdict(False, "FAIL outputs 0\n", None, None)
    monkeypatch.setattr(cross, "missing", lambda emulator=True: [])
    monkeypatch.setattr(cross, "link", lambda *given: None)
    monkeypatch.setattr(cross, "emulate", lambda *given: verdict)
    with pytest.raises(StageError, match=r"emulated cortex-m4: FAIL outputs 0"):
        image(spec(), inputs, tmp_path, silent)


def test_without_the_tools_the_driver_is_written_and_says_so(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(cross, "missing_of", lambda tool: True)
    made = image(spec(), inputs, tmp_path, silent)
    assert "arm-none-eabi-gcc and qemu-system-arm missing" in made["not_run"]
    assert (tmp_path / "cascade/include/air_cascade.h").is_file()


def test_networks_that_are_no_cascade_get_no_driver(inputs, tmp_path):
    swapped = {**inputs, "distill": inputs["stage2/distill"], "stage2/distill": inputs["distill"]}
    asked = spec()
    asked["tasks"] = {"": asked["tasks"]["stage2"], "stage2": asked["tasks"][""]}
    made = image(asked, swapped, tmp_path, silent)
    assert made == {
        "files": [],
        "not_run": "the first network must flag flights, the second name their fault",
    }
