"""The layouts in which MiniImageNet and its kin lie on disks, told apart by content.

===================  ===========================================================================
Ravi & Larochelle    ``train.csv`` with header ``filename,label`` beside ``images/<filename>``
mmfewshot            the same CSV files beside ImageNet's own ``images/<wnid>/``: the last five
                     digits of ``filename`` count the class's files in order of their numbers
easyfsl              ``train.csv`` with header ``class_name,image_name``, files
                     ``<class_name>/<image_name>``
EasySet              ``train.json`` with ``class_names`` and ``class_roots``
pickle cache         ``mini-imagenet-cache-train.pkl``: ``image_data``, ``class_dict``
EASY pickle          ``train.pkl``: ``data``, ``labels``
torchmeta            ``train_data.hdf5``: group ``datasets/<class>``; ``train_labels.json``
brain-train          ``datasets.json``: ``miniimagenet_train``: ``data``, ``targets``, …
===================  ===========================================================================

The eighth, class folders, is `edgekd.data.folder`. Splits may be named ``val`` or ``validation``.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.base import BLOCK, Arrays, Files, Images, Pixels, Rows
from edgekd.data.folder import image_files, images_of, split_named
from edgekd.data.unpickle import unpickle
from edgekd.errors import DataError, SetupError

__all__ = ["ALL", "LAYOUTS", "Found", "View"]

RAVI = ("filename", "label")
EASYFSL = ("class_name", "image_name")
JSON_KEYS = ("class_names", "class_roots")
ALL = "all"
"""The one part of a layout without splits."""


@dataclass(frozen=True)
class View:
    """How images are wanted.

    Attributes:
        size: Height and width.
        channels: 3 or 1.
    """

    size: int
    channels: int = 3

    def files(self, paths: Sequence[Path], names: Sequence[str]) -> Images:
        """Make a dataset of files and the class name of each."""
        classes, labels = _numbered(names)
        return Images(Files(tuple(paths)), labels, classes, self.size, self.channels)


@dataclass(frozen=True)
class Found:
    """What a layout holds.

    Attributes:
        layout: Name of the layout.
        parts: The splits that are there, or `ALL` alone.
        files: Paths read; folders allowed.
        note: What a reader must know.
    """

    layout: str
    parts: Mapping[str, Images]
    files: tuple[Path, ...]
    note: str = ""


def _numbered(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the sorted different names, and the number of each."""
    classes = sorted(set(names))
    place = {name: number for number, name in enumerate(classes)}
    return tuple(classes), np.array([place[name] for name in names], np.int64)


def _split_files(root: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Return the files of ``root`` whose name speaks of one split.

    Raises:
        DataError: Two files for one split.
    """
    found: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        split = split_named(path.stem) if path.suffix.lower() in suffixes else None
        if split in found:
            raise DataError(
                f"two files for split {split!r}: {found[split].name} and {path.name}",
                at=str(root),
                hint="keep one of them in this folder",
            )
        if split:
            found[split] = path
    return found


# --- CSV ---------------------------------------------------------------------------------------


def csv_files(root: Path, view: View) -> Found | None:
    """Read the CSV layouts: Ravi & Larochelle, mmfewshot, easyfsl."""
    tables = _split_files(root, [".csv"])
    if not tables:
        return None
    parts, folders, layouts = {}, {root / "images"}, set()
    for split, path in tables.items():
        header, rows = _table(path)
        layout, paths, names = _resolved(root, path, header, rows)
        layouts.add(layout)
        folders |= {file.parent for file in paths}
        parts[split] = view.files(paths, names)
    if len(layouts) > 1:
        raise DataError(f"the CSV files mix layouts: {', '.join(sorted(layouts))}", at=str(root))
    files = (*tables.values(), *sorted(folder for folder in folders if folder.is_dir()))
    return Found(layouts.pop(), parts, files)


def _table(path: Path) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return the header, in lower case, and the rows of a two-column CSV file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the CSV file: {error}", at=str(path)) from error
    header = tuple(cell.lower() for cell in lines[0]) if lines else ()
    if header not in (RAVI, EASYFSL):
        raise DataError(
            f"unknown header {','.join(header)!r}",
            at=str(path),
            hint=f"wanted {','.join(RAVI)!r} or {','.join(EASYFSL)!r} in the first line",
        )
    while not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines[1:], 2):
        if len(line) != 2:
            raise DataError(f"line {number} has {len(line)} columns, wanted 2", at=str(path))
    return header, [(line[0], line[1]) for line in lines[1:]]


def _resolved(
    root: Path, table: Path, header: tuple[str, ...], rows: list[tuple[str, str]]
) -> tuple[str, list[Path], list[str]]:
    """Return layout, files and class names of a table's rows."""
    exists = _Listing()
    bases = [root / "images", root]
    if header == EASYFSL:
        paths = [Path(name) / image for name, image in rows]
        return "easyfsl CSV", _under(bases, paths, table, exists), [name for name, _ in rows]
    names = [name for _, name in rows]
    paths = [Path(file) for file, _ in rows]
    plain = not rows or any(exists(base / paths[0]) for base in bases)
    if plain or not (root / "images" / names[0]).is_dir():
        return "Ravi & Larochelle CSV", _under(bases, paths, table, exists), names
    return "mmfewshot CSV", _by_number(root / "images", rows, table), names


class _Listing:
    """Tells whether files exist, with one listing a folder."""

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def __call__(self, path: Path) -> bool:
        folder = path.parent
        if folder not in self._names:
            inside = folder.iterdir() if folder.is_dir() else ()
            self._names[folder] = frozenset(file.name for file in inside)
        return path.name in self._names[folder]


def _under(bases: list[Path], paths: list[Path], table: Path, exists: _Listing) -> list[Path]:
    """Return each path below the first base that has it."""
    found = []
    for number, path in enumerate(paths, 2):
        full = next((base / path for base in bases if exists(base / path)), None)
        if full is None:
            looked = ", ".join(str(base / path) for base in bases)
            raise DataError(
                f"the image of line {number} is missing; looked for {looked}", at=str(table)
            )
        found.append(full)
    return found


def _by_number(images: Path, rows: list[tuple[str, str]], table: Path) -> list[Path]:
    """Return the files of ImageNet's own folders that a Ravi & Larochelle table counts."""
    listed: dict[str, list[Path]] = {}
    found = []
    for line, (file, name) in enumerate(rows, 2):
        if name not in listed:
            listed[name] = _in_order(images / name)
        digits = re.search(r"(\d{5})$", Path(file).stem)
        number = int(digits[1]) if digits else 0
        if not 1 <= number <= len(listed[name]):
            raise DataError(
                f"line {line}: {file!r} is image {number} of class {name!r}, which has "
                f"{len(listed[name])} files in {images / name}",
                at=str(table),
            )
        found.append(listed[name][number - 1])
    return found


def _in_order(folder: Path) -> list[Path]:
    """Return a class's files in order of the number at the end of their names."""
    files = image_files(folder) if folder.is_dir() else []
    return sorted(files, key=lambda path: (int(re.sub(r"\D", "", _last(path)) or 0), path.name))


def _last(path: Path) -> str:
    return path.stem.rpartition("_")[2]


# --- pickles -----------------------------------------------------------------------------------


def pickles(root: Path, view: View) -> Found | None:
    """Read the pickle layouts, through an unpickler that knows arrays only."""
    files = _split_files(root, [".pkl", ".pickle"])
    if not files:
        return None
    layouts: set[str] = set()
    parts, nameless = {}, False
    for split, path in files.items():
        content = unpickle(path)
        keys = set(content) if isinstance(content, Mapping) else set()
        if {"image_data", "class_dict"} <= keys:
            layouts.add("pickle cache")
            parts[split] = _cache(content, path, view)
        elif {"data", "labels"} <= keys:
            layouts.add("EASY pickle")
            parts[split], named = _easy(content, path, split, view)
            nameless |= not named
        else:
            raise DataError(
                f"unknown content: {_described(content)}",
                at=str(path),
                hint="wanted a dict with image_data and class_dict, or with data and labels",
            )
    note = "Classes have numbers, no names: that splits share none is not checked."
    return Found(
        " and ".join(sorted(layouts)), parts, tuple(files.values()), note if nameless else ""
    )


def _described(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dict with keys {', '.join(sorted(map(str, content))[:8]) or 'none'}"
    return f"a {type(content).__name__}"


def _cache(content: Mapping[str, Any], path: Path, view: View) -> Images:
    """Read ``image_data`` and ``class_dict``; images of no class are passed over."""
    pixels = _pixels(content["image_data"], path)
    members = content["class_dict"]
    if not isinstance(members, Mapping):
        raise DataError(f"class_dict is {_described(members)}, wanted a dict", at=str(path))
    members = {str(name): values for name, values in members.items()}
    names = sorted(members)
    groups = [_indices(members[name], name, len(pixels), path) for name in names]
    labels = np.repeat(np.arange(len(names), dtype=np.int64), [len(group) for group in groups])
    rows = np.concatenate(groups) if groups else np.empty(0, np.int64)
    return Images(Arrays(pixels), labels, tuple(names), view.size, view.channels, rows)


def _indices(values: Any, name: str, count: int, path: Path) -> Rows:
    try:
        rows = np.asarray(list(values), dtype=np.int64)
    except (TypeError, ValueError) as error:
        raise DataError(f"class {name!r}: not a list of indices: {error}", at=str(path)) from error
    if len(rows) and not (rows.min() >= 0 and rows.max() < count):
        raise DataError(f"class {name!r} has an index outside of {count} images", at=str(path))
    return rows


def _easy(content: Mapping[str, Any], path: Path, split: str, view: View) -> tuple[Images, bool]:
    """Read ``data`` and ``labels``; tell whether the classes have names."""
    pixels = _pixels(content["data"], path)
    values = _array(content["labels"], "labels", path)
    if values.shape != (len(pixels),) or values.dtype.kind not in "iuUS":
        raise DataError(
            f"labels are {values.dtype} {list(values.shape)}, wanted one number or name for each "
            f"of {len(pixels)} images",
            at=str(path),
        )
    different, labels = np.unique(values, return_inverse=True)
    named = values.dtype.kind in "US"
    classes = [v.decode() if isinstance(v, bytes) else str(v) for v in different.tolist()]
    classes = classes if named else [f"{split}-{name}" for name in classes]
    source = Arrays(pixels)
    return Images(source, labels.astype(np.int64), tuple(classes), view.size, view.channels), named


def _pixels(values: Any, path: Path) -> Pixels:
    """Return images as uint8 ``[N, H, W, 3]``."""
    array = _array(values, "images", path)
    _checked(array.dtype, array.shape, str(path))
    return array


def _array(values: Any, what: str, path: Path) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(f"the {what} differ in shape: {error}", at=str(path)) from error


def _checked(dtype: Any, shape: tuple[int, ...], at: str) -> None:
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
        raise DataError(
            f"the images are {dtype} {list(shape)}, wanted uint8 [N, height, width, 3]", at=at
        )


# --- HDF5 --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hdf5:
    """Images in the datasets of one HDF5 file, read when asked for.

    The file is opened for each read, so that worker processes may share the object.

    Attributes:
        path: The file.
        names: Datasets below the group ``datasets``, one after the other.
        counts: Images in each.
    """

    path: Path
    names: tuple[str, ...]
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.counts)

    def read(self, rows: Rows) -> list[Pixels]:
        """See `edgekd.data.base.Source`."""
        ends = np.cumsum(self.counts)
        which = np.searchsorted(ends, rows, side="right")
        with _open(self.path) as file:
            group = file["datasets"]
            return [
                np.asarray(group[self.names[i]][row - ends[i] + self.counts[i]])
                for i, row in zip(which.tolist(), rows.tolist(), strict=True)
            ]

    def digests(self, rows: Rows) -> Iterator[str]:
        """See `edgekd.data.base.Source`."""
        for start in range(0, len(rows), BLOCK):
            for image in self.read(rows[start : start + BLOCK]):
                yield hashlib.sha256(image.tobytes()).hexdigest()


def _open(path: Path) -> Any:
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise SetupError(
            "reading HDF5 files needs h5py, which is not installed",
            at=str(path),
            hint="pip install h5py",
        ) from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"cannot read the HDF5 file: {error}", at=str(path)) from error


def hdf5_files(root: Path, view: View) -> Found | None:
    """Read torchmeta's layout; labels come from the file's structure, no pixel is read."""
    files = _split_files(root, [".hdf5", ".h5"])
    if not files:
        return None
    parts = {split: _hdf5(path, view) for split, path in files.items()}
    return Found("torchmeta HDF5", parts, tuple(files.values()))


def _hdf5(path: Path, view: View) -> Images:
    with _open(path) as file:
        group = file.get("datasets")
        if not hasattr(group, "keys"):
            raise DataError(
                f"no group 'datasets'; found {', '.join(sorted(file)) or 'nothing'}",
                at=str(path),
                hint="wanted a dataset for each class in the group 'datasets'",
            )
        names = _listed(path) or sorted(group)
        absent = [name for name in names if name not in group]
        if absent:
            raise DataError(f"class {absent[0]!r} is listed but not in 'datasets'", at=str(path))
        for name in names:
            _checked(group[name].dtype, group[name].shape, f"{path}: datasets/{name}")
        counts = [len(group[name]) for name in names]
    labels = np.repeat(np.arange(len(names), dtype=np.int64), counts)
    source = Hdf5(path, tuple(names), tuple(counts))
    return Images(source, labels, tuple(names), view.size, view.channels)


def _listed(path: Path) -> list[str]:
    """Return the class names of the JSON file beside an HDF5 file, if there is one."""
    beside = path.with_name(f"{path.stem.removesuffix('_data')}_labels.json")
    names = _json(beside) if beside.is_file() else []
    if not isinstance(names, list):
        raise DataError(f"found {_described(names)}, wanted a list of names", at=str(beside))
    return [str(name) for name in names]


# --- JSON --------------------------------------------------------------------------------------


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the JSON file: {error}", at=str(path)) from error


def easy_sets(root: Path, view: View) -> Found | None:
    """Read EasySet's layout: ``class_names`` and ``class_roots`` in a JSON file a split.

    One such file of another name holds all classes; they are split later.
    """
    files = _split_files(root, [".json"])
    others = [path for path in sorted(root.glob("*.json")) if path not in files.values()]
    read = _easy_specs(files) or _easy_specs({ALL: others[0]} if others else {})
    if not read:
        return None
    parts, folders = {}, []
    for split, (path, content) in read.items():
        names, roots = (content[key] for key in JSON_KEYS)
        if len(names) != len(roots):
            raise DataError(f"{len(names)} class_names, {len(roots)} class_roots", at=str(path))
        found = [_class_root(Path(folder), path) for folder in roots]
        classes = {str(n): image_files(folder) for n, folder in zip(names, found, strict=True)}
        parts[split] = images_of(classes, view.size, view.channels)
        folders += found
    return Found("EasySet JSON", parts, (*(path for path, _ in read.values()), *folders))


def _easy_specs(files: Mapping[str, Path]) -> dict[str, tuple[Path, Mapping[str, Any]]]:
    """Return the JSON files that have EasySet's keys, with their content."""
    return {
        split: (path, content)
        for split, path in files.items()
        if isinstance(content := _json(path), Mapping) and set(JSON_KEYS) <= set(content)
    }


def _class_root(folder: Path, table: Path) -> Path:
    """Find a class folder: from the JSON file's folder, its parent, or where we are."""
    tried = [table.parent / folder, table.parent.parent / folder, folder]
    for path in tried:
        if path.is_dir():
            return path
    looked = ", ".join(dict.fromkeys(map(str, tried)))
    raise DataError(f"class folder {str(folder)!r} is missing; looked for {looked}", at=str(table))


def datasets_json(root: Path, view: View) -> Found | None:
    """Read brain-train's ``datasets.json``; of several sets the one named ``miniimagenet``."""
    path = root / "datasets.json"
    if not path.is_file():
        return None
    content = _json(path)
    sets: dict[str, dict[str, Any]] = {}
    for key, entry in content.items() if isinstance(content, Mapping) else ():
        name, _, split = key.rpartition("_")
        if isinstance(entry, Mapping) and {"data", "targets"} <= set(entry) and split_named(split):
            sets.setdefault(name, {})[str(split_named(split))] = entry
    chosen = "miniimagenet" if "miniimagenet" in sets else next(iter(sets), "")
    if not sets or (len(sets) > 1 and chosen != "miniimagenet"):
        raise DataError(
            f"found the sets {', '.join(sets) or 'none'}; wanted miniimagenet_train, "
            "miniimagenet_validation and miniimagenet_test, or one set alone",
            at=str(path),
        )
    parts = {split: _entry(entry, split, path, view) for split, entry in sets[chosen].items()}
    sources = [part.source for part in parts.values()]
    folders = {f.parent for source in sources if isinstance(source, Files) for f in source.paths}
    return Found("brain-train JSON", parts, (path, *sorted(folders)))


def _entry(entry: Mapping[str, Any], split: str, path: Path, view: View) -> Images:
    """Read one set of ``datasets.json``."""
    data, targets = entry["data"], entry["targets"]
    if not (isinstance(data, list) and isinstance(targets, list) and len(data) == len(targets)):
        raise DataError(f"{split}: data and targets are not lists of one length", at=str(path))
    if not all(isinstance(target, int) and target >= 0 for target in targets):
        raise DataError(f"{split}: a target is not a class number", at=str(path))
    files = [Path(str(file)) for file in data]
    exists = _Listing()
    for file in files:
        if not exists(path.parent / file):
            raise DataError(f"{split}: image {path.parent / file} is missing", at=str(path))
    names = [str(name) for name in entry.get("name_classes", ())]
    unique = len(set(names)) == len(names) > max(targets, default=0)
    called = [names[target] if unique else f"{split}-{target}" for target in targets]
    return view.files([path.parent / file for file in files], called)


LAYOUTS: tuple[Callable[[Path, View], Found | None], ...] = (
    csv_files,
    pickles,
    hdf5_files,
    datasets_json,
    easy_sets,
)
"""Each returns None for a folder of another layout, and raises for a faulty one of its own."""
