"""A data set in a folder of pictures: found, split where it is not, decoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.errors import InputError, shorten
from experiments.ingredients.cache import decoded
from experiments.ingredients.holdout import digest_file, find_groups, hold_out
from experiments.ingredients.images import Content, assemble, damaged, spread_classes
from experiments.ingredients.resizing import Target
from experiments.ingredients.trees import WHOLE, Part, describe_left_out, find_pictures


class HoldOut(NamedTuple):
    """How pictures are held out of a tree that is not split.

    Attributes:
        test_fraction: the share of the test part.
        test_seed: chooses another one.
        group_by: a regular expression on paths below the folder: what it finds alike stays together. None: pictures
            of one content do.
        validation_fraction: the share of train that is held out for validation, where groups must stay together.
    """

    test_fraction: float
    test_seed: int
    group_by: str | None
    validation_fraction: float


def read_folder(path: Path, target: Target, holding: HoldOut, *, skip_bad: bool) -> Content:
    """The pictures of a folder; those of train are in the order of `images.spread_classes`, others by class and path.

    Args:
        path: holds `train` and `test`, and perhaps a validation part, each with the same classes; or the classes.
        target: what each picture is brought to.
        holding: how a folder is split that holds classes, and where validation is to keep groups together.
        skip_bad: leave out pictures that cannot be read instead of refusing them all.

    Raises:
        InputError: something is missing, or pictures cannot be read or are not alike; all such in one list.
    """
    tree = find_pictures(path)
    digests = {file: _digest(file) for part in tree.parts.values() for file in part.files}
    parts, notes = _split(path, tree.parts, digests, holding)
    order = spread_classes(np.array(parts["train"].labels, np.int64))
    parts["train"] = parts["train"].select(order.tolist())
    _require_classes(path, tree.names, parts)
    found = decoded({name: part.files for name, part in parts.items()}, digests, target, skip_bad=skip_bad)
    parts = {name: part.select(found.read[name]) for name, part in parts.items()}
    _require_classes(path, tree.names, parts)
    labels = {name: np.array(part.labels, np.int64) for name, part in parts.items()}
    notes += describe_left_out(path, tree.left_out) + found.notes + _describe_skipped(path, found.mistakes)
    notes += _describe_duplicates(found.images)
    files = {name: tuple(file.relative_to(path).as_posix() for file in part.files) for name, part in parts.items()}
    return Content(assemble(found.images, labels), tree.names, "byte", notes, files)


def _digest(file: Path) -> str:
    """Of the content; of the path where it cannot be read, which decoding will tell."""
    try:
        return digest_file(file)
    except InputError:
        return f"unreadable {file}"


def _split(
    path: Path, parts: Mapping[str, Part], digests: Mapping[Path, str], holding: HoldOut
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """`train`, `test` and perhaps `val`, and what to tell of it."""
    split: dict[str, Part] = dict(parts)
    notes: tuple[str, ...] = ()
    units = dict(digests) if holding.group_by is None else _find_groups(path, parts.values(), holding.group_by)
    if WHOLE in split:
        salt = f"test {holding.test_seed}"
        split["train"], split["test"] = _part(split.pop(WHOLE), units, holding.test_fraction, salt)
        notes += (_describe_split(len(split["test"].files), holding),)
    if holding.group_by is not None and "val" not in split:
        salt = f"validation {holding.test_seed}"
        split["train"], split["val"] = _part(split["train"], units, holding.validation_fraction, salt)
        notes += (f"validation: {len(split['val'].files):,} pictures, groups kept together",)
    elif "val" in split:
        notes += (f"validation: the {len(split['val'].files):,} pictures that {path.name} has for it",)
    if holding.group_by is not None and WHOLE not in parts:
        notes += _describe_common_groups(split, units)
    return split, notes


def _find_groups(path: Path, parts: Iterable[Part], group_by: str) -> dict[Path, str]:
    files = [file for part in parts for file in part.files]
    return dict(zip(files, find_groups(group_by, [file.relative_to(path).as_posix() for file in files]), strict=True))


def _describe_common_groups(parts: Mapping[str, Part], units: Mapping[Path, str]) -> tuple[str, ...]:
    """Groups that the folders themselves have on both sides."""
    train = {units[file] for file in parts["train"].files}
    common = sorted({units[file] for file in parts["test"].files} & train)
    return (f"test: {len(common):,} groups are in train too ({shorten(common, 3)})",) if common else ()


def _part(part: Part, units: Mapping[Path, str], fraction: float, salt: str) -> tuple[Part, Part]:
    held = hold_out([units[file] for file in part.files], part.labels, fraction, salt)
    rest, out = ([i for i, is_held in enumerate(held) if is_held is side] for side in (False, True))
    return part.select(rest), part.select(out)


def _describe_split(pictures: int, holding: HoldOut) -> str:
    drawn = f"dataset.test_fraction={holding.test_fraction:g}, dataset.test_seed={holding.test_seed}"
    what = "their content" if holding.group_by is None else "their group"
    return f"test: {pictures:,} pictures, held out by a hash of {what} ({drawn})"


def _require_classes(path: Path, names: Sequence[str], parts: Mapping[str, Part]) -> None:
    missing = set(range(len(names))) - set(parts["train"].labels)
    if missing:
        raise damaged(path, f"class {names[min(missing)]} has no picture to train on; must have at least one")
    for name, part in parts.items():
        if not part.files:
            raise damaged(path, f"no picture is in the {name} part; must be at least one")


def _describe_skipped(path: Path, mistakes: Sequence[str]) -> tuple[str, ...]:
    if not mistakes:
        return ()
    more = f" and {len(mistakes) - 1:,} more" if len(mistakes) > 1 else ""
    return (f"{path.name}: skipped pictures that cannot be read: {mistakes[0]}{more}",)


def _describe_duplicates(images: Mapping[str, NDArray[np.uint8]]) -> tuple[str, ...]:
    """How many pictures of other parts are, pixel by pixel, in train too."""
    digests = {name: [_digest_pixels(image) for image in some] for name, some in images.items()}
    train = set(digests.pop("train"))
    counts = {name: sum(digest in train for digest in some) for name, some in digests.items()}
    return tuple(
        f"{name}: {count:,} pictures are in train too, pixel by pixel" for name, count in counts.items() if count
    )


def _digest_pixels(image: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(image.data, digest_size=16).digest()
