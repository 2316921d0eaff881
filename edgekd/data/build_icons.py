"""Build the embedded few-shot set "icons" from the npm package ``@iconify/json``.

A class is an icon's name (``camera``, ``tent``), a sample is the drawing of one icon set, that is
of one designer. Only sets under a permissive licence are used. The result is the same byte for
byte on every run: the package and the renderer are pinned, all decisions are taken on the stored
16 grey levels, whose dot products are exact, and the container carries no time.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.data.icon_groups import BRANDS, SYNONYMS, words
from edgekd.errors import DataError, SetupError

__all__ = ["build_icons"]

PACKAGE = "@iconify/json"
VERSION = "2.2.535"
TARBALL_SHA256 = "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91"
FILES_SHA256 = "1982a59530ad99ca9479ec12600743bef3eab7563501fb17f7b6ac05ab35a94a"
RENDERER = "0.5.0"

LICENCES = frozenset(
    {"MIT", "Apache-2.0", "ISC", "CC0-1.0", "BSD-3-Clause", "BSD-2-Clause", "Unlicense"}
)
DROPPED_CATEGORIES = ("Logos", "Flags", "Emoji", "Programming")
DROPPED_SETS = frozenset({"fluent-emoji"})
ANIMATED = "Contains Animations"

SIZE = 64
LEVELS = 16
MIN_SAMPLES = 16
SAME_DRAWING = 0.93
SAME_CONCEPT = 0.8
LARGE_GROUP = 12
INK = (0.02, 0.85)
SPLITS = ("train", "val", "test")
FRACTIONS = {"test": 0.262, "val": 0.118}

Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Emit = Callable[[str], None]


@dataclass(frozen=True)
class Drawing:
    """One icon of one set, still as SVG.

    Attributes:
        name: The icon's name, which is its class.
        source: The set's prefix.
        svg: A standalone SVG document.
    """

    name: str
    source: str
    svg: str


@dataclass(frozen=True)
class Collected:
    """The images under construction; rows of the three arrays belong together.

    Attributes:
        pixels: Ink from 0 (none) to 15 (full), uint8 ``[N, 64, 64]``.
        names: Class name of each row.
        sources: Icon set of each row.
    """

    pixels: Pixels
    names: npt.NDArray[np.str_]
    sources: npt.NDArray[np.str_]

    def take(self, rows: Sequence[int] | Indices) -> Collected:
        """Return the given rows."""
        index = np.asarray(rows, dtype=np.int64)
        return Collected(self.pixels[index], self.names[index], self.sources[index])


def build_icons(package: Path | None, out: Path, emit: Emit = print) -> dict[str, Any]:
    """Render, clean, split and write the embedded icons.

    Args:
        package: The npm tarball (``.tgz``) or its unpacked folder; None fetches it with npm.
        out: Folder that receives ``icons.npz``, ``icons_sources.json`` and ``ICONS_LICENSES.md``.
        emit: Called with one line of progress at a time.

    Returns:
        Counts of each split, and the sha256 of each written file.

    Raises:
        DataError: The package is not the pinned version.
        SetupError: npm, Pillow or the pinned renderer is missing.
    """
    render = _renderer()
    with _package(package, emit) as root:
        collections, drawings = _drawings(root)
    emit(f"{len(collections)} sets under a permissive licence, {len(drawings)} drawings")
    rendered = _render(drawings, render)
    kept = _drop_small(_drop_repeats(rendered))
    emit(f"{len(kept.names)} distinct drawings of {len(np.unique(kept.names))} names")
    split = _split(_groups(kept), len(np.unique(kept.names)))
    final = _drop_small(_drop_shared(kept, split))
    emit(f"{len(final.names)} drawings after those on two sides of the split were dropped")
    return _write(final, split, collections, out)


# --- the package -------------------------------------------------------------------------------


@contextmanager
def _package(package: Path | None, emit: Emit) -> Iterator[Path]:
    """Give the path of the package, fetched into a folder of its own when None."""
    if package is not None:
        if not package.exists():
            raise DataError("no such package", at=str(package), hint=f"npm pack {_pinned()}")
        yield package
        return
    with tempfile.TemporaryDirectory() as folder:
        emit(f"npm pack {_pinned()}")
        tarball = _npm_pack(Path(folder))
        found = hashlib.sha256(tarball.read_bytes()).hexdigest()
        if found != TARBALL_SHA256:
            raise DataError(
                f"the tarball's sha256 is {found}, wanted {TARBALL_SHA256}", at=_pinned()
            )
        yield tarball


def _pinned() -> str:
    return f"{PACKAGE}@{VERSION}"


def _npm_pack(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise SetupError("npm is not on PATH", hint="install Node.js, or pass the tarball's path")
    done = subprocess.run(
        [npm, "pack", "--silent", _pinned()],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    tarballs = sorted(folder.glob("*.tgz"))
    if done.returncode or not tarballs:
        raise SetupError(f"npm pack failed: {done.stderr.strip()[-400:]}", at=_pinned())
    return tarballs[0]


def _files(root: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the package's wanted files."""
    if root.is_dir():
        base = root / "package" if (root / "package").is_dir() else root
        names = ["collections.json", *(f"json/{p.name}" for p in (base / "json").glob("*.json"))]
        yield from ((n, (base / n).read_bytes()) for n in names if wanted(n))
        return
    with tarfile.open(root, "r:gz") as tar:
        for member in tar:
            name = member.name.partition("/")[2]
            content = tar.extractfile(member) if member.isfile() and wanted(name) else None
            if content is not None:
                yield name, content.read()


def _permitted(info: Mapping[str, Any], prefix: str) -> bool:
    """Tell whether a set may be embedded and fits: licence, kind, no moving parts."""
    category = info.get("category") or ""
    return (
        info["license"].get("spdx") in LICENCES
        and prefix not in DROPPED_SETS
        and not any(word in category for word in DROPPED_CATEGORIES)
        and ANIMATED not in info.get("tags", ())
    )


def _drawings(root: Path) -> tuple[dict[str, Any], list[Drawing]]:
    """Read the permitted sets; return their entries and the drawings of frequent names."""
    try:
        (_, content), *_ = _files(root, lambda name: name == "collections.json")
        collections = json.loads(content)
    except (OSError, ValueError, tarfile.TarError) as error:
        raise DataError(
            f"not the package {PACKAGE}: {error}", at=str(root), hint=f"npm pack {_pinned()}"
        ) from error
    used = {p: info for p, info in sorted(collections.items()) if _permitted(info, p)}
    digests = [f"collections.json {hashlib.sha256(content).hexdigest()}"]
    names: dict[str, list[Drawing]] = defaultdict(list)
    for name, content in _files(root, lambda n: n[5:-5] in used and n == f"json/{n[5:-5]}.json"):
        digests.append(f"{name} {hashlib.sha256(content).hexdigest()}")
        for drawing in _icons_of(json.loads(content)):
            names[drawing.name].append(drawing)
    _check_digest(digests, root)
    frequent = (sorted(v, key=_source) for _, v in sorted(names.items()) if len(v) >= MIN_SAMPLES)
    return used, [drawing for group in frequent for drawing in group]


def _source(drawing: Drawing) -> str:
    return drawing.source


def _check_digest(digests: list[str], root: Path) -> None:
    found = hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
    if found != FILES_SHA256:
        raise DataError(
            f"the used files' digest is {found}, wanted {FILES_SHA256} ({VERSION})", at=str(root)
        )


def _icons_of(content: Mapping[str, Any]) -> Iterator[Drawing]:
    """Yield the drawings of one set as standalone SVG; aliases are left out."""
    default = {"left": 0, "top": 0, "width": 16, "height": 16}
    for name, icon in content["icons"].items():
        if name in BRANDS:
            continue
        box = " ".join(str(icon.get(k, content.get(k, v))) for k, v in default.items())
        yield Drawing(
            name,
            content["prefix"],
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{SIZE}" height="{SIZE}" viewBox="{box}" color="#000">{icon["body"]}</svg>',
        )


# --- pixels ------------------------------------------------------------------------------------


def _renderer() -> Callable[[str], Pixels]:
    """Return the function SVG -> grey uint8 ``[64, 64]``, black on white."""
    try:
        import resvg_py
        from PIL import Image
    except ImportError as error:
        raise SetupError(
            f"the icon builder needs {error.name}", hint=f"pip install resvg-py=={RENDERER} pillow"
        ) from error
    if resvg_py.__version__ != RENDERER:
        raise SetupError(
            f"resvg-py {resvg_py.__version__} found, wanted {RENDERER}: other versions draw other "
            "pixels",
            hint=f"pip install resvg-py=={RENDERER}",
        )

    def render(svg: str) -> Pixels:
        png = resvg_py.svg_to_bytes(
            svg_string=svg, background="#ffffff", skip_system_fonts=True, width=SIZE, height=SIZE
        )
        with Image.open(io.BytesIO(png)) as image:
            return np.asarray(image.convert("L"))

    return render


def _render(drawings: Sequence[Drawing], render: Callable[[str], Pixels]) -> Collected:
    """Draw all in 16 levels of ink, without those that come out blank or as a full block."""
    step = 255 // (LEVELS - 1)
    pixels = np.empty((len(drawings), SIZE, SIZE), np.uint8)
    for row, drawing in zip(pixels, drawings, strict=True):
        row[:] = (255 - render(drawing.svg).astype(np.uint16) + step // 2) // step
    ink = pixels.reshape(len(pixels), -1).sum(axis=1, dtype=np.int64) / (SIZE * SIZE * (LEVELS - 1))
    drawn = Collected(
        pixels,
        np.array([d.name for d in drawings]),
        np.array([d.source for d in drawings]),
    )
    return drawn.take(np.flatnonzero((ink > INK[0]) & (ink < INK[1])))


def _flat(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Flatten to float32, in which dot products of 16-level images are exact (< 2**24)."""
    return pixels.reshape(len(pixels), SIZE * SIZE).astype(np.float32)


def cosines(a: Pixels, b: Pixels) -> Floats:
    """Return the cosine of every 16-level image of ``a`` with every one of ``b``.

    Dot products are sums of integers below 2**24, so the result does not depend on the order of
    summation, on threads or on the processor.
    """
    fa, fb = _flat(a), _flat(b)
    lengths = np.outer((fa * fa).sum(axis=1).astype(np.float64), (fb * fb).sum(axis=1))
    similar: Floats = (fa @ fb.T).astype(np.float64) / np.sqrt(lengths)
    return similar


def distinct(pixels: Pixels) -> list[int]:
    """Return the rows that repeat no earlier kept row (cosine above ``SAME_DRAWING``)."""
    similar = cosines(pixels, pixels) > SAME_DRAWING
    kept: list[int] = []
    for row in range(len(pixels)):
        if not similar[row, kept].any():
            kept.append(row)
    return kept


def _rows(names: npt.NDArray[np.str_]) -> dict[str, Indices]:
    return {str(name): np.flatnonzero(names == name) for name in np.unique(names)}


def _drop_repeats(images: Collected) -> Collected:
    """Drop near-duplicates within a class: the same drawing in the forks of a set."""
    kept = [rows[distinct(images.pixels[rows])] for rows in _rows(images.names).values()]
    return images.take(np.concatenate(kept))


def _drop_small(images: Collected) -> Collected:
    """Drop classes with too few samples."""
    kept = [rows for rows in _rows(images.names).values() if len(rows) >= MIN_SAMPLES]
    return images.take(np.concatenate(kept))


# --- the split ---------------------------------------------------------------------------------


def _groups(images: Collected) -> list[list[str]]:
    """Join names of one concept: a shared word, a synonym, or alike on average."""
    rows = _rows(images.names)
    leader = {name: name for name in (*rows, *(name for line in SYNONYMS for name in line))}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    def join(names: Sequence[str]) -> None:
        roots = sorted({find(name) for name in names})
        leader.update(dict.fromkeys(roots, roots[0]))

    for word in sorted({word for name in rows for word in words(name)}):
        join([name for name in rows if word in words(name)])
    for line in SYNONYMS:
        join(sorted(line))
    for pair in _alike(images.pixels, rows):
        join(pair)
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(rows):
        groups[find(name)].append(name)
    return list(groups.values())


def _alike(pixels: Pixels, rows: Mapping[str, Indices]) -> list[tuple[str, str]]:
    """Return the pairs of classes whose centred, normalised mean images are alike."""
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    names = list(rows)
    means = np.stack([flat[rows[name]].mean(axis=0) for name in names])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    first, second = np.nonzero(np.triu(means @ means.T > SAME_CONCEPT, 1))
    return [(names[i], names[j]) for i, j in zip(first, second, strict=True)]


def _split(groups: list[list[str]], total: int) -> dict[str, str]:
    """Deal whole groups to the splits, in an order fixed by a hash of their first name.

    Large groups go to ``train``: their concepts are many drawings of few ideas, and an episode
    drawn from them would be hard for no good reason.
    """
    room = {split: round(total * part) for split, part in FRACTIONS.items()}
    split: dict[str, str] = {}
    for group in sorted(groups, key=_lot):
        fits = [s for s in room if len(group) <= min(room[s], LARGE_GROUP)]
        side = fits[0] if fits else "train"
        if fits:
            room[side] -= len(group)
        split.update(dict.fromkeys(group, side))
    return split


def _lot(group: list[str]) -> str:
    return hashlib.sha256(group[0].encode()).hexdigest()


def _drop_shared(images: Collected, split: Mapping[str, str]) -> Collected:
    """Drop from ``train`` and ``val`` each drawing that a later split has too, by chance."""
    side = np.array([SPLITS.index(split[str(name)]) for name in images.names])
    kept = np.ones(len(side), bool)
    for rows in _rows(images.names).values():
        later = images.pixels[side > side[rows[0]]]
        if len(later):
            kept[rows] = cosines(images.pixels[rows], later).max(axis=1) <= SAME_DRAWING
    return images.take(np.flatnonzero(kept))


# --- the files ---------------------------------------------------------------------------------


def _write(
    images: Collected, split: Mapping[str, str], collections: Mapping[str, Any], out: Path
) -> dict[str, Any]:
    """Write the three files; return the facts."""
    classes, labels = np.unique(images.names, return_inverse=True)
    sources, source = np.unique(images.sources, return_inverse=True)
    sides = np.array([SPLITS.index(split[str(name)]) for name in classes], np.uint8)
    high, low = images.pixels[..., 0::2], images.pixels[..., 1::2]
    table = _sources(collections, images.sources)
    out.mkdir(parents=True, exist_ok=True)
    _write_npz(
        out / "icons.npz",
        {
            "pixels": (high << 4) | low,
            "labels": labels.astype("<u2"),
            "source": source.astype("<u2"),
            "split": sides,
            "classes": classes.astype("<U"),
            "sources": sources.astype("<U"),
        },
    )
    (out / "icons_sources.json").write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    (out / "ICONS_LICENSES.md").write_text(_notices(table), "utf-8")
    return {
        "package": _pinned(),
        "renderer": f"resvg-py {RENDERER}",
        "sets": len(sources),
        "classes": {s: int((sides == i).sum()) for i, s in enumerate(SPLITS)},
        "images": {s: int((sides[labels] == i).sum()) for i, s in enumerate(SPLITS)},
        "sha256": {
            name: hashlib.sha256((out / name).read_bytes()).hexdigest()
            for name in ("icons.npz", "icons_sources.json", "ICONS_LICENSES.md")
        },
    }


def _write_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write an ``.npz`` that ``numpy.load`` reads, without times, in the order given."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_LZMA
            entry.create_system = 3
            archive.writestr(entry, buffer.getvalue())


def _sources(
    collections: Mapping[str, Any], used: npt.NDArray[np.str_]
) -> dict[str, dict[str, Any]]:
    """Return name, author, licence, address and number of drawings of each used set."""
    prefixes, counts = np.unique(used, return_counts=True)
    table: dict[str, dict[str, Any]] = {}
    for prefix, count in zip(prefixes.tolist(), counts.tolist(), strict=True):
        info = collections[prefix]
        table[prefix] = {
            "name": info["name"],
            "author": info["author"]["name"],
            "licence": info["license"]["spdx"],
            "licence_url": info["license"].get("url", ""),
            "url": info["author"].get("url", ""),
            "version": info.get("version", ""),
            "images": count,
        }
    return table


def _notices(table: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the third-party notices: every used set by licence, then the licence texts."""
    lines = [
        "# Third-party notices: the embedded icons",
        "",
        f"`icons.npz` holds drawings of the icon sets below, taken from `{_pinned()}`. Each set",
        "keeps its own licence and copyright. The drawings were chosen by name and changed: they",
        f"are rendered to {SIZE} by {SIZE} pixels in {LEVELS} grey levels, white on black.",
        "",
    ]
    licences = sorted({str(row["licence"]) for row in table.values()})
    for licence in licences:
        lines += [f"## {licence}", "", "| set | copyright holder | source | licence |"]
        lines += ["|---|---|---|---|"]
        rows = [row for row in table.values() if row["licence"] == licence]
        lines += [
            f"| {row['name']} | {row['author']} | {row['url']} | {row['licence_url']} |"
            for row in rows
        ]
        lines.append("")
    for licence in licences:
        text = (Path(__file__).parent / "licences" / f"{licence}.txt").read_text("utf-8")
        lines += [f"## Text of {licence}", "", "```text", text.strip("\n"), "```", ""]
    return "\n".join(lines)
