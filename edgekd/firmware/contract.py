"""What stands around a network, as a C header beside the library: the contract of its task.

A task's contract is a document (``contract.json`` of a bundle). Those that are known here become
C99 with static inline functions, so that nothing is linked that is not called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from edgekd.firmware.emit import check_prefix, guarded, prefixed, real

__all__ = ["around"]

Document = Mapping[str, Any]


def around(
    document: Document, card: Document, channels: Sequence[int] | None = None
) -> dict[str, str]:
    """Return the header of a contract by its place beside the library; nothing for others.

    Args:
        document: The contract.
        card: ``firmware.json`` of the library: ``prefix``, ``inputs``, ``outputs``.
        channels: Of the contract's, those that the network sees; None for all.
    """
    for name, fits, write in (
        ("controller", _is_battery, _battery),
        ("stage", _is_stage, _stage),
        ("enroller", _is_few_shot, _enroller),
    ):
        if fits(document):
            body = write(document, card, channels)
            for mark, value in _ports(card).items():
                body = body.replace(mark, value)
            prefix = check_prefix(str(card["prefix"]))
            text = prefixed(guarded(name.upper(), [body.rstrip()]), prefix)
            return {f"include/{prefix}_{name}.h": text}
    return {}


def _template(name: str) -> str:
    return (files("edgekd.firmware") / "contracts" / name).read_text(encoding="utf-8")


def _filled(name: str, marks: Mapping[str, Any]) -> str:
    text = _template(name)
    for mark, value in marks.items():
        text = text.replace(f"@{mark}@", value if isinstance(value, str) else _number(value))
    return text


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else real(value)


def _ports(card: Document) -> dict[str, str]:
    source, target = card["inputs"][0], card["outputs"][0]
    return {
        "@IN@": f"{source['dtype']}_t",
        "@IN_NAME@": source["symbol"],
        "@OUT@": f"{target['dtype']}_t",
        "@OUT_NAME@": target["symbol"],
        "@OUT_MACRO@": target["symbol"].upper(),
    }


# --- the battery -------------------------------------------------------------------------------

_VALUES = {
    "before": "c->before",
    "to_go": "c->to_go",
    "soe": "soe",
    "net": "ekd_net(c, net, i)",
    "price": "prices[i]",
    "time": "time",
}
_KNOWN = {
    "power": "b->power",
    "capacity": "b->capacity",
    "price_mean": "EKD_PRICE_MEAN",
    "price_std": "EKD_PRICE_STD",
}
_FUNCTIONS = {"linear": "{}", "soft": "ekd_soft({})", "sin": "sinf({})", "cos": "cosf({})"}


def _is_battery(document: Document) -> bool:
    """A controller in the field cannot have a perfect forecast: then there is no header."""
    settings = document.get("settings", {})
    return "deadband" in settings and settings["information"] != "perfect"


def _battery(document: Document, card: Document, channels: Sequence[int] | None) -> str:
    del card, channels
    settings, past = document["settings"], document["forecast"]
    marks = {
        "HOURS": float(settings["hours"]),
        "STEPS": int(settings["window"]),
        "FEATURES": int(document["buffer"]["features"]),
        "HORIZON": int(settings["horizon"]),
        "DAYS": int(past["days"]),
        "STEPS_A_DAY": int(past["steps_a_day"]),
        "PRICE_MEAN": float(settings["price_mean"]),
        "PRICE_STD": float(settings["price_std"]),
        "TARGET": float(settings["target"]),
        "DEADBAND": float(settings["deadband"]),
        "FORECAST": int(settings["information"] == "mean7"),
        "OBSERVE": "\n".join(_field(field) for field in document["layout"]),
    }
    return _filled("battery.h", marks)


def _field(field: Document) -> str:
    """Return the loop that writes one field of a step."""
    value, minus, over = _VALUES[field["name"]], _term(field["minus"]), _term(field["over"])
    if minus != "0.0f":
        value = f"({value} - {minus})"
    if field["scale"] != 1.0:
        value = f"{real(field['scale'])} * {value}"
    if over != "1.0f":
        value = f"{value} / {over}"
    if field["add"]:
        value = f"{value} + {real(field['add'])}"
    value = _FUNCTIONS[field["function"]].format(value)
    start, width = int(field["start"]), int(field["width"])
    loop = f"for (i = 0; i < {width}; i++) row[{start} + i]"
    return f"  {loop} = ekd_quantize_@IN_NAME@({value});"


def _term(value: str | float) -> str:
    return _KNOWN[value] if isinstance(value, str) else real(value)


# --- a stage of the cascade --------------------------------------------------------------------

_FLAGGED = """
/* Whether this stage flags the flight, so that the next one is asked. */
static inline int ekd_flagged(const float *chances) {
  return chances[EKD_CLASSES - 1] >= EKD_THRESHOLD;
}
"""


def _is_stage(document: Document) -> bool:
    return {"seconds", "clip", "channels", "temperature", "classes"} <= set(document)


def _stage(document: Document, card: Document, channels: Sequence[int] | None) -> str:
    listed = document["channels"]
    seen = listed if channels is None else [listed[place] for place in channels]
    columns = int(card["inputs"][0]["shape"][-1])
    threshold = document.get("threshold")
    rows = [
        f"    {{{json.dumps(row['name'])}, {real(row['mean'])}, {real(row['std'])}}}"
        for row in seen
    ]
    marks = {
        "SENSORS": len(seen),
        "COLUMNS": columns,
        "STRETCH": int(document["seconds"]) // columns,
        "SHORTEST": int(document["shortest"]),
        "CLIP": float(document["clip"]),
        "TEMPERATURE": float(document["temperature"]),
        "CLASSES": len(document["classes"]),
        "THRESHOLD": "" if threshold is None else f"#define EKD_THRESHOLD {real(threshold)}",
        "ROWS": ",\n".join(rows),
        "NAMES": ",\n".join(f"    {json.dumps(name)}" for name in document["classes"]),
        "FLAGGED": "" if threshold is None else _FLAGGED,
    }
    return _filled("stage.h", marks)


# --- few shots ---------------------------------------------------------------------------------


def _is_few_shot(document: Document) -> bool:
    return "base_mean" in document


def _enroller(document: Document, card: Document, channels: Sequence[int] | None) -> str:
    del card, channels
    mean = [real(value) for value in document["base_mean"]]
    lines = [", ".join(mean[at : at + 8]) for at in range(0, len(mean), 8)]
    marks = {"FEATURES": len(mean), "BASE_MEAN": "    " + ",\n    ".join(lines)}
    return _filled("enroller.h", marks)
