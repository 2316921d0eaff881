"""One entry for battery data: the embedded homes, or a user's files, told apart by content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from edgekd.data.battery.ausgrid import find_files, load_ausgrid
from edgekd.data.battery.embedded import embedded_homes
from edgekd.data.battery.homes import Homes, check, choose
from edgekd.data.battery.prices import at_steps, load_prices
from edgekd.data.battery.table import load_table
from edgekd.errors import DataError

__all__ = ["load_homes", "load_npz"]

Align = Literal["time", "position"]


def load_homes(
    path: str = "embedded",
    *,
    prices: str = "",
    price_scale: float = 1.0,
    price_add: float = 0.0,
    align: Align = "time",
    homes: tuple[str, ...] | list[str] = (),
) -> Homes:
    """Load homes and their prices.

    Args:
        path: ``embedded``; a folder of Ausgrid's yearly files; a CSV (see
            `edgekd.data.battery.table`) or a folder of them; an ``.npz`` (see `load_npz`).
        prices: Price file; see `edgekd.data.battery.prices`.
        price_scale: Factor on the prices of that file.
        price_add: Money per kWh added to them.
        align: ``time`` lays prices under the load by the clock, ``position`` first on first.
        homes: Which ones; all by default.

    Raises:
        DataError: File, line and remedy are named.
    """
    found = _read(path)
    if prices:
        series = load_prices(Path(prices).expanduser(), scale=price_scale, add=price_add)
        begin = found.begin if align == "time" else series.begin
        value = at_steps(series, begin, found.hours, found.steps)
        found = replace(found, price=value, files=(*found.files, prices))
    elif np.isnan(found.price).all():
        raise DataError(
            "no prices", at=path, hint="a column 'price', or --set prices=FILE (SMARD, AEMO, CSV)"
        )
    return choose(check(found, path), homes)


def _read(path: str) -> Homes:
    if path == "embedded":
        return embedded_homes()
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError("no such file or folder", at=path)
    if place.is_dir():
        return load_ausgrid(place) if find_files(place) else load_table(place)
    return load_npz(place) if place.suffix == ".npz" else load_table(place)


def load_npz(path: Path) -> Homes:
    """Read an ``.npz`` with ``NAME_load`` and ``NAME_pv`` (kWh a step) of every home and ``price``.

    ``hours`` (length of a step, 0.5 without it) and ``begin`` (ISO time, midnight without it) are
    optional.

    Raises:
        DataError: Not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the file: {error}", at=str(path)) from error
    names = [name.removesuffix("_load") for name in arrays if name.endswith("_load")]
    missing = [f"{n}_pv" for n in names if f"{n}_pv" not in arrays]
    if not names or missing or "price" not in arrays:
        raise DataError(
            f"wanted NAME_load, NAME_pv and price, found {', '.join(sorted(arrays)[:6]) or 'none'}",
            at=str(path),
            hint=f"missing: {', '.join(missing or ['price'])}",
        )
    stacked = [np.array([arrays[f"{n}_{w}"] for n in names], np.float64) for w in ("load", "pv")]
    found = Homes(
        tuple(names), stacked[0], stacked[1], arrays["price"].astype(np.float64),
        float(arrays.get("hours", 0.5)), np.datetime64(str(arrays.get("begin", "2000-01-01")), "s"),
        path.name, (str(path),),
    )  # fmt: skip
    return check(found, str(path))
