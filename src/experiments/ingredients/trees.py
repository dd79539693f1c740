"""The pictures in a folder by part and class, none of them opened: `train/<class>/…` and `test/…`, or `<class>/…`."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from experiments.errors import shorten
from experiments.ingredients.images import damaged
from experiments.ingredients.pictures import SUFFIXES

VALIDATION = ("val", "valid", "validation")  # names of a part of its own, where there is one
WHOLE = "whole"  # the one part of a tree that is not split


class Part(NamedTuple):
    """Pictures in the order of classes and paths, and their labels."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]

    def select(self, indices: Sequence[int]) -> Part:
        """Some of them, in the order of `indices`."""
        return Part(tuple(self.files[i] for i in indices), tuple(self.labels[i] for i in indices))


class Tree(NamedTuple):
    """What was found in a folder.

    Attributes:
        names: of the classes.
        parts: `train`, `test` and perhaps `val`; or `whole`.
        left_out: files that are no pictures, or that lie beside the class folders.
    """

    names: tuple[str, ...]
    parts: dict[str, Part]
    left_out: tuple[Path, ...]


def find_pictures(path: Path) -> Tree:
    """The picture files below `path`; those of a class may lie in folders inside the class's folder.

    Raises:
        InputError: a folder is missing, closed or empty, or the parts have other classes than train.
    """
    folders = _find_parts(path)
    classes = {part: _find_classes(folder) for part, folder in folders.items()}
    first = next(iter(folders))
    names = tuple(sorted(classes[first]))
    for part, found in classes.items():
        _require_same_classes(folders[part], names, found)
    if len(names) < 2:
        raise damaged(folders[first], f"must hold at least 2 classes, received {', '.join(names)}")
    left_out = [entry for folder in folders.values() for entry in _visible(folder) if not os.path.isdir(entry)]
    parts = {}
    for part, found in classes.items():
        files = [_find_files(found[name], left_out) for name in names]
        labels = chain.from_iterable([label] * len(some) for label, some in enumerate(files))
        parts[part] = Part(tuple(chain.from_iterable(files)), tuple(labels))
    return Tree(names, parts, tuple(left_out))


def _find_parts(path: Path) -> dict[str, Path]:
    """Part → folder; one part, `whole`, where there is neither `train` nor `test` and other folders are."""
    is_split = any(os.path.isdir(path / part) for part in ("train", "test"))
    if not is_split and any(os.path.isdir(entry) for entry in _visible(path)):
        return {WHOLE: path}
    present = [name for name in VALIDATION if os.path.isdir(path / name)]
    if len(present) > 1:
        raise damaged(path, f"must hold one validation part, received {', '.join(present)}")
    folders = {"train": path / "train", "test": path / "test"}
    if present:
        folders["val"] = path / present[0]
    return folders


def _find_classes(folder: Path) -> dict[str, Path]:
    """Class folders by name, in composed Unicode (NFC): what looks alike is one class."""
    if not os.path.isdir(folder):
        raise damaged(folder, "no such folder; must be a folder of classes, each a folder of pictures")
    found: dict[str, Path] = {}
    for entry in _visible(folder):
        if os.path.isdir(entry):
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
    """The pictures of a class, also those in its folders; what else is there is added to `left_out`."""
    pictures, others = _walk(folder)
    if not pictures:
        received = shorten([entry.name for entry in others], 3) or "an empty folder"
        raise damaged(folder, f"must hold at least one picture ({', '.join(SUFFIXES)}), received {received}")
    left_out += others
    return pictures


def _walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """Pictures and other files below a folder, by path; a link to a folder is not followed, but one of the others."""
    pictures: list[Path] = []
    others: list[Path] = []
    pending = [folder]
    while pending:
        for entry in _visible(pending.pop()):
            is_folder = os.path.isdir(entry)
            if is_folder and not os.path.islink(entry):
                pending.append(entry)
            elif not is_folder and entry.suffix.lower() in SUFFIXES:
                pictures.append(entry)
            else:
                others.append(entry)
    return sorted(pictures), sorted(others)


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise damaged(folder, f"must be readable, received {error.strerror}") from error


def describe_left_out(path: Path, left_out: Sequence[Path]) -> tuple[str, ...]:
    """`flowers: left out 3 files, no pictures in a class's folder: .heic (2), .txt (1)`."""
    if not left_out:
        return ()
    kinds = Counter(entry.suffix.lower() or entry.name for entry in left_out)
    some = shorten([f"{kind} ({count})" for kind, count in kinds.most_common()])
    entries = "file" if len(left_out) == 1 else "files"
    return (f"{path.name}: left out {len(left_out):,} {entries}, no pictures in a class's folder: {some}",)
