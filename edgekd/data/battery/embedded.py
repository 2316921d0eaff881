"""The embedded homes: a year of measured load and generation of 15 houses in Fontana, California.

From the CityLearn Challenge 2022, as shipped in the wheel ``citylearn==2.1.2`` (MIT licence, see
``HOMES_LICENSE.md``). Hourly; the tariff has five levels by time of use. Two of the challenge's 17
houses are left out: half of their hours repeat the day before. `edgekd.data.battery.build` makes
the file.
"""

from __future__ import annotations

import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from edgekd.data.battery.homes import Homes, check
from edgekd.errors import DataError

__all__ = ["FILE", "embedded_homes"]

FILE = Path(__file__).parent / "homes.npz"
NOTICE = FILE.with_name("HOMES_LICENSE.md")
NOTE = (
    "The embedded homes are 15 houses of one suburb and one year on a time-of-use tariff; a number"
    " measured on them is not a forecast for another place or tariff."
)


@lru_cache(maxsize=1)
def embedded_homes() -> Homes:
    """Load the embedded homes.

    Raises:
        DataError: The file is damaged.
    """
    try:
        with np.load(FILE, allow_pickle=False) as archive:
            stored = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"the embedded homes cannot be read: {error}", at=str(FILE), hint="reinstall edgekd"
        ) from error
    homes = Homes(
        tuple(stored["names"].tolist()),
        stored["load"].astype(np.float64),
        stored["pv"].astype(np.float64),
        stored["price"].astype(np.float64),
        1.0,
        np.datetime64(str(stored["begin"][0]), "s"),
        "embedded homes",
        (str(FILE),),
        NOTE,
        "$",
    )
    return check(homes, str(FILE))
