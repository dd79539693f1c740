"""A data set in folders of pictures: `train/<class>/…`, `test/<class>/…` and perhaps `val/<class>/…`."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.bounded import require_memory
from experiments.errors import InputError, shorten
from experiments.ingredients.images import Content, assemble, damaged, reading_data
from experiments.ingredients.pictures import SUFFIXES, describe, read_picture

VALIDATION = ("val", "valid", "validation")  # names of a part of its own, where there is one
MOST_MISTAKES = 20  # bad pictures that are named


class Part(NamedTuple):
    """The pictures of train, validation or test, in the order of classes and names, and their labels."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]


class Tree(NamedTuple):
    """What was found in a folder. `left_out` are files and folders that no class takes."""

    names: tuple[str, ...]
    parts: dict[str, Part]
    left_out: tuple[Path, ...]


def read_folder(path: Path, background: str) -> Content:
    """The pictures of a folder.

    Classes, and the files of a class, are in the order of their sorted names. Pictures must have one size and be all
    grey or all colour.

    Args:
        path: holds `train` and `test`, and perhaps one of `VALIDATION`; each holds the same classes.
        background: under transparent pixels, one of `pictures.COLOURS`.

    Raises:
        InputError: something is missing, or pictures cannot be read or differ from the first; all such in one list.
    """
    tree = find_pictures(path)
    images = _read_parts(path, tree.parts, background)
    labels = {name: np.array(part.labels, np.int64) for name, part in tree.parts.items()}
    return Content(assemble(images, labels), tree.names, "byte", _describe_left_out(path, tree.left_out))


def find_pictures(path: Path) -> Tree:
    """The picture files below `path` by part and class; none of them is opened.

    Raises:
        InputError: a folder is missing or empty, or the parts have other classes than train.
    """
    present = [name for name in VALIDATION if (path / name).is_dir()]
    if len(present) > 1:
        raise damaged(path, f"must hold one validation part, received {', '.join(present)}")
    folders = {"train": path / "train", "test": path / "test"}
    if present:
        folders["val"] = path / present[0]
    classes = {part: _find_classes(folder) for part, folder in folders.items()}
    names = tuple(sorted(classes["train"]))
    for part, found in classes.items():
        _require_same_classes(folders[part], names, found)
    if len(names) < 2:
        raise damaged(path / "train", f"must hold at least 2 classes, received {', '.join(names)}")
    left_out = [entry for folder in folders.values() for entry in _visible(folder) if not entry.is_dir()]
    parts = {}
    for part, found in classes.items():
        files = [_find_files(found[name], left_out) for name in names]
        labels = chain.from_iterable([label] * len(some) for label, some in enumerate(files))
        parts[part] = Part(tuple(chain.from_iterable(files)), tuple(labels))
    return Tree(names, parts, tuple(left_out))


def _find_classes(folder: Path) -> dict[str, Path]:
    """Class folders by name, in composed Unicode (NFC): what looks alike is one class."""
    if not os.path.isdir(folder):
        raise damaged(folder, "no such folder; must be a folder of classes, each a folder of pictures")
    found: dict[str, Path] = {}
    for entry in _visible(folder):
        if entry.is_dir():
            name = unicodedata.normalize("NFC", entry.name)
            if name in found:
                raise damaged(entry, "stands there twice, in two spellings of Unicode that look alike")
            found[name] = entry
    if not found:
        raise damaged(folder, "must hold classes, each a folder of pictures, received none")
    return found


def _require_same_classes(folder: Path, names: Sequence[str], found: dict[str, Path]) -> None:
    missing, unknown = [name for name in names if name not in found], [name for name in found if name not in names]
    if missing or unknown:
        without = f" without {shorten(missing)}" if missing else ""
        beyond = f" with {shorten(unknown)}, which train has not" if unknown else ""
        raise damaged(folder, f"must hold the {len(names)} classes of train, received {len(found)}{without}{beyond}")


def _find_files(folder: Path, left_out: list[Path]) -> list[Path]:
    """The pictures of a class; what else is there is added to `left_out`."""
    entries = _visible(folder)
    pictures = [entry for entry in entries if entry.suffix.lower() in SUFFIXES]
    if not pictures:
        received = shorten([entry.name for entry in entries], 3) or "an empty folder"
        raise damaged(folder, f"must hold at least one picture ({', '.join(SUFFIXES)}), received {received}")
    left_out += [entry for entry in entries if entry.suffix.lower() not in SUFFIXES]
    return pictures


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise damaged(folder, f"must be readable, received {error.strerror}") from error


def _describe_left_out(path: Path, left_out: Sequence[Path]) -> tuple[str, ...]:
    """`left out 3 of the files in flowers, which are no pictures that can be read here: .heic (2), .txt (1)`."""
    if not left_out:
        return ()
    kinds = Counter(entry.suffix.lower() or entry.name for entry in left_out)
    some = shorten([f"{kind} ({count})" for kind, count in kinds.most_common()])
    entries = "entry" if len(left_out) == 1 else "entries"
    return (f"{path.name}: left out {len(left_out):,} {entries}, no pictures in a class's folder: {some}",)


def _read_parts(path: Path, parts: dict[str, Part], background: str) -> dict[str, NDArray[np.uint8]]:
    """Part → (n, height, width, channels)."""
    files = tuple(chain.from_iterable(part.files for part in parts.values()))
    images = np.empty((0, 0, 0, 0), np.uint8)
    mistakes: list[str] = []
    for index, image in enumerate(_decode(files, background, mistakes)):
        if image is not None and not len(images):
            with reading_data():
                require_memory(len(files) * image.size, str(path))
            images = np.empty((len(files), *image.shape), np.uint8)
        if image is not None:
            images[index] = image
    _tell_all(mistakes)
    ends = np.cumsum([len(part.files) for part in parts.values()])
    return dict(zip(parts, np.split(images, ends[:-1]), strict=True))


def _decode(files: Sequence[Path], background: str, mistakes: list[str]) -> Iterator[NDArray[np.uint8] | None]:
    """Every picture, or None where there is a mistake with it; all are like the first that can be read."""
    first: tuple[Path, tuple[int, ...]] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about what it reads nevertheless
        for file in files:
            try:
                image = read_picture(file, background)
                first = first or (file, image.shape)
                _require_alike(file, image.shape, *first)
                yield image
            except InputError as error:
                mistakes += error.mistakes
                yield None


def _require_alike(file: Path, shape: tuple[int, ...], first: Path, expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise InputError(f"{file}: images must be {describe(expected)} like {first.name}, received {describe(shape)}")


def _tell_all(mistakes: Sequence[str]) -> None:
    """Raises every mistake with a picture in one list, or the first and how many more."""
    if not mistakes:
        return
    more = len(mistakes) - MOST_MISTAKES
    shown = mistakes if more <= 0 else [*mistakes[:MOST_MISTAKES], f"and {more:,} more pictures"]
    with reading_data():
        raise InputError(*shown)
