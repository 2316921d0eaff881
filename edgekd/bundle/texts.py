"""The texts that a bundle carries for people: ``README.md`` and ``THIRD_PARTY_NOTICES.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edgekd.table import markdown

Manifest = Mapping[str, Any]

_WHAT = {
    "manifest.json": "every number of the report, the tensor contract, all digests",
    "SHA256SUMS": "sha256 of every file but itself, for `sha256sum -c`",
    "README.md": "this page",
    "report.html": "the report; one page, opens offline",
    "LICENSE": "licence of edgekd",
    "THIRD_PARTY_NOTICES.md": "what the model was made from, and its licences",
    "examples.npz": "pictures of the report",
    "model/build.sh": "builds the engine on the board that will run it",
    "model/runner/runner.cpp": "runs the model: golden self-test, latency, one raw input (C++17)",
    "model/runner/network.h": "the runtime behind the runner",
    "model/runner/files.h": "what both share",
    "model/runner/CMakeLists.txt": "builds the runner, on the board where the model is built there",
    "model/runner/contract.h": "names, shapes and preparation of the tensors, for the runner",
    "model/runner/golden/input.bin": "golden inputs, little-endian",
    "model/runner/golden/output.bin": "golden outputs, little-endian float32",
    "device/model.plan": "the engine that was measured, for that GPU and TensorRT alone",
    "device/build.log": "what the board's TensorRT said while it built the engine",
    "device/layers.json": "the engine's layers: kinds, types, formats",
    "device/profile.json": "time of every layer, by trtexec",
    "device/times.json": "every timed inference, by trtexec",
    "model/model_vela.tflite": "what the accelerator runs, compiled by Arm's Vela",
    "model/vela.json": "Vela's estimates, and for which system",
    "contract.json": "all that a device must do around the network, for any language",
    "controller.py": "battery: builds what the network sees and guards it; needs numpy alone",
    "cascade.py": "flights: both stages as one diagnosis; needs numpy alone",
    "joint.npz": "flights, and what the cascade of this folder makes of them",
    "cascade/CMakeLists.txt": "firmware: both networks and their driver as one library",
    "cascade/run_emulator.sh": "firmware: cross-compiles all of it and runs the proof, emulated",
    "cascade/selftest/selftest.c": "firmware: whole flights, against what was found here",
    "explain.py": "flights: which sensor, and when, by occlusion; needs numpy alone for that",
    "enroll.py": "few-shot: learn new classes from a few examples; needs numpy alone",
}


_STATE = "what the task needs beside the network"


def readme(manifest: Manifest, names: Iterable[str]) -> str:
    """Write ``README.md``: what is inside, how to verify, how to run.

    Args:
        manifest: The manifest; its files need not be known yet.
        names: Files of the bundle.
    """
    name, artefact = manifest["name"], manifest["artefact"]
    claims = "".join(f"- {claim}\n" for claim in manifest["claims"])
    return f"""# {name}

{artefact["candidate"]} for target `{manifest["target"]["name"]}`, made by edgekd \
{manifest["edgekd"]} from recipe `{manifest["recipe"]["name"]}`.

{claims}
{markdown(manifest)}
Every row is measured, on the file that its runtime loads; what was not run says why. Intervals
are 95 %, latency is of one inference{_where(manifest)}. The row marked ► is in this folder.

## What is inside

{_inside(manifest, names)}
## Verify

    sha256sum -c SHA256SUMS        # the files are what was written; needs nothing but coreutils
    edgekd verify .                # … and give the golden outputs in their runtime
    edgekd verify . --task         # … and the task metric, measured again

Checksums in a folder prove that it is whole, not where it came from. `sha256sum SHA256SUMS`
prints the bundle's digest; whoever keeps that digest elsewhere pins every file with
`edgekd verify . --expect DIGEST`.

## Run

{_contract(manifest)}
{_run(manifest, set(names))}"""


def _run(manifest: Manifest, names: set[str]) -> str:
    if manifest["artefact"]["runtime"] != "firmware":
        return f"Run it in this folder:\n\n```python\n{_snippet(manifest, names)}```\n"
    folder = manifest["artefact"]["main"].rpartition("/")[0]
    prove = (
        f"    sh {folder}/selftest/run_emulator.sh   # cross-compiles, runs the golden vectors\n"
    )
    drivers = [name for name in names if name.endswith("_cascade.h") and "/include/" in name]
    if not drivers:
        return f"`{folder}/README.md` has the lines of C that call it.\n\n{prove}"
    prefix = drivers[0].rpartition("/")[2].removesuffix("_cascade.h")
    code = _CASCADE_C.replace("PREFIX", prefix).replace("UPPER", prefix.upper())
    prove += "    sh cascade/run_emulator.sh   # both networks and their driver, on whole flights\n"
    return f"In C, both networks and their driver:\n\n```c\n{code}```\n\n{prove}"


_CASCADE_C = """#include "PREFIX_cascade.h"

static uint32_t arena[(UPPER_CASCADE_ARENA_BYTES + 3) / 4];
static PREFIX_cascade_t flight; /* PREFIX_cascade_init(&flight) before every flight */

/* A second's sensors in the order of PREFIX_sensors, NaN where there is no value. */
const char *second(const float *sensors) {
  PREFIX_diagnosis_t found;
  if (!PREFIX_cascade_push(&flight, sensors)) return 0;
  if (PREFIX_cascade_diagnose(&flight, arena, &found) != UPPER_OK) return 0;
  return found.fault < 0 ? "healthy" : PREFIX_stage2_classes[found.fault];
}
"""


def notices(manifest: Manifest) -> str:
    """Write ``THIRD_PARTY_NOTICES.md``: teacher, data, runtime."""
    inputs = manifest["inputs"]
    first, data = inputs.get("teacher"), inputs["data"]
    lines = [
        "# What this model was made from",
        "",
        "edgekd itself is under Apache-2.0. The weights in this bundle were trained on, and the",
        "golden samples taken from:",
        "",
        f"- **Data**: {data.get('source', 'not named')}. {data.get('note') or ''}".rstrip(),
    ]
    for teacher in (*([first] if first else []), *inputs.get("teachers", ())):
        licence = teacher.get("license") or "no licence was named; ask its author"
        label = teacher.get("label") or "unnamed"
        lines.append(f"- **Teacher**: {label}. Licence of its weights: {licence}.")
    names = data.get("notices") or ()
    if names:
        lines += ["", "The data's own licences stand in this folder:", ""]
        lines += [f"- `licences/{name}`" for name in names]
    lines += ["", "The runtime is not part of the bundle and has a licence of its own.", ""]
    return "\n".join(lines)


def _where(manifest: Manifest) -> str:
    cpu = manifest["measured"]["machine"].get("cpu")
    return f" on {cpu}" if cpu else ""


def _inside(manifest: Manifest, names: Iterable[str]) -> str:
    special = {
        manifest["golden"]["file"]: "inputs, and the outputs that the artefact gives for them",
        manifest["artefact"]["main"]: "the model: load this file",
    }
    state = manifest.get("state")
    if state:
        special[state["file"]] = state.get("what", _STATE)
    what = {**_WHAT, **special}
    parts = {f"{part}/": _part(one) for part, one in manifest.get("parts", {}).items()}
    own = {name for name in names if not name.startswith(tuple(parts))}
    every = sorted({*own, "manifest.json", "SHA256SUMS", "README.md", *parts})
    return "".join(f"- `{name}`{_colon((what | parts).get(name))}\n" for name in every)


def _part(part: Mapping[str, Any]) -> str:
    made = part["artefact"]
    return f"a bundle of its own, {part['name']}: {made['candidate']}, model in `{made['main']}`"


def _colon(text: str | None) -> str:
    return f": {text}" if text else ""


def _contract(manifest: Manifest) -> str:
    lines = ["| tensor | name | shape | dtype | prepared by |", "| --- | --- | --- | --- | --- |"]
    for side in ("inputs", "outputs"):
        for tensor in manifest["io"][side]:
            cells = [side[:-1], f"`{tensor['name']}`", _shape(tensor["shape"]), tensor["dtype"]]
            lines.append(f"| {' | '.join([*cells, _prepared(tensor, side)])} |")
    return "\n".join(lines) + "\n"


def _shape(shape: Iterable[Any]) -> str:
    return " × ".join("n" if size is None else str(size) for size in shape)


def _prepared(tensor: Mapping[str, Any], side: str) -> str:
    if side == "outputs":
        return str(tensor.get("meaning", ""))
    taken = tensor.get("channels")
    first = "" if taken is None else f"channels {', '.join(map(str, taken))} of the raw sample; "
    return first + _scaled(tensor)


def _scaled(tensor: Mapping[str, Any]) -> str:
    if tensor.get("form") == "uint8_nhwc":
        return "nothing: camera bytes, height × width × channel"
    if tensor.get("mean") is None:
        return "nothing"
    mean, std = (", ".join(f"{value:g}" for value in tensor[key]) for key in ("mean", "std"))
    return f"(pixel / 255 − mean) / std; mean {mean}; std {std}"


def _snippet(manifest: Manifest, names: set[str]) -> str:
    """Return about ten lines that run the golden inputs in the plain runtime."""
    artefact, golden = manifest["artefact"], manifest["golden"]
    write = _RUNNERS.get(artefact["runtime"])
    if write is None:
        return f"# {artefact['runtime']} has its own way to run {artefact['main']}\n"
    imports, run = write(artefact)
    output = manifest["io"]["outputs"][0]["name"]
    lines = [
        "import sys; sys.dont_write_bytecode = True  # keep the folder as it was hashed",
        "import numpy as np",
        imports,
        "",
        f'golden = np.load("{golden["file"]}")',
        'feeds = {k: golden[k] for k in golden.files if not k.startswith("output:")}',
        run,
        f'print(np.abs(outputs - golden["output:{output}"]).max())',
    ]
    more = _few_shot(manifest, names) + _controller(manifest, names, output) + _stage(names, output)
    more += _cascade(manifest, names)
    return "\n".join(lines + more) + "\n"


def _few_shot(manifest: Manifest, names: set[str]) -> list[str]:
    state = manifest.get("state")
    if not state or "enroll.py" not in names:
        return []
    return [
        "",
        "from enroll import Enroller",
        f'enroller = Enroller(np.load("{state["file"]}")["base_mean"])',
        'enroller.enroll("first", outputs[:1])  # one example makes a class',
        'enroller.enroll("second", outputs[1:2])',
        "print(enroller.classify(outputs[:8]))",
    ]


def _controller(manifest: Manifest, names: set[str], output: str) -> list[str]:
    if not {"controller.py", "contract.json"} <= names:
        return []
    name = manifest["io"]["inputs"][0]["name"]
    return [
        "",
        "import json",
        "from controller import Contract, Controller",
        'contract = Contract.of(json.load(open("contract.json", encoding="utf-8")))',
        "controller = Controller(",
        f'    lambda window: golden["output:{output}"][:1],  # here the model, fed {name}=window',
        "    contract, capacity=6.4, power=5.0, charge=0.95, discharge=0.95, feed_in=0.05,",
        ")",
        "prices = np.full(contract.horizon, 0.3)  # of this step and the next",
        "print(controller.step(net=0.8, soe=3.1, prices=prices, time=0.5), 'kWh')",
    ]


def _stage(names: set[str], output: str) -> list[str]:
    if "cascade.py" not in names:
        return []
    return [
        "",
        "from cascade import Stage",
        'stage = Stage.open(".")',
        "flight = np.full((len(stage.names), 4096), np.nan)  # raw units, 1 Hz, NaN: no value",
        "print(stage.names, stage.prepare([flight]).shape)",
        f'print(dict(zip(stage.classes, stage.shares(golden["output:{output}"])[0])))',
    ]


def _cascade(manifest: Manifest, names: set[str]) -> list[str]:
    """Both stages, each in its own runtime."""
    parts = manifest.get("parts", {})
    if "cascade.py" not in names or len(parts) != 1:
        return []
    ((folder, part),) = parts.items()
    made = part["artefact"]
    write = _RUNNERS.get(made["runtime"])
    if write is None:
        return []
    imports, run = write({**made, "main": f"{folder}/{made['main']}"})
    own = _RUNNERS[manifest["artefact"]["runtime"]](manifest["artefact"])[1]
    name = manifest["io"]["inputs"][0]["name"]
    return [
        "",
        "from cascade import Cascade",
        *([imports] if manifest["artefact"]["runtime"] != made["runtime"] else []),
        "def stage_1(ready):",
        *_called(own, name),
        "def stage_2(ready):",
        *_called(run, name),
        'golden = np.load("joint.npz")',
        'seconds = np.repeat(golden["flights"].astype("float32"), 4096 //'
        ' golden["flights"].shape[-1], axis=-1)',
        'diagnose = Cascade.open(".", stage_1, stage_2)  # stage 2 sees flagged flights alone',
        "print(diagnose(list(seconds)).named())",
    ]


def _called(run: str, name: str) -> list[str]:
    """The lines that load and run, inside a function."""
    lines = [f'feeds = {{"{name}": ready}}', *run.splitlines(), "return outputs"]
    return [f"    {line}" for line in lines]


def _onnxruntime(artefact: Mapping[str, Any]) -> tuple[str, str]:
    run = (
        f'session = onnxruntime.InferenceSession("{artefact["main"]}")\n'
        "outputs = session.run(None, feeds)[0]"
    )
    return "import onnxruntime", run


def _openvino(artefact: Mapping[str, Any]) -> tuple[str, str]:
    precision = artefact["options"].get("precision", "f32")
    run = (
        f'options = {{"INFERENCE_PRECISION_HINT": "{precision}"}}  # else it picks one in silence\n'
        f'model = openvino.Core().compile_model("{artefact["main"]}", "CPU", options)\n'
        "outputs = model(feeds)[0]"
    )
    return "import openvino", run


_RUNNERS: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, str]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
