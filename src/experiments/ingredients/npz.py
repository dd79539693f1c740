"""A data set in an `.npz`: read within bounds, checked, brought to uint8."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from experiments import archives
from experiments.errors import shorten
from experiments.ingredients.images import Content, assemble, damaged, reading_data
from experiments.ingredients.scale import FACTORS, decide_scale, to_uint8

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
VALIDATION = ("x_val", "y_val")  # of its own, where it has one
OTHER_NAMES = {"x_valid": "x_val", "y_valid": "y_val", "x_validation": "x_val", "y_validation": "y_val"}
HALF_A_LEVEL = 0.5  # of 255: what rounds to 255 is 255


def read_archive(path: Path, scale: Literal["auto", "unit", "byte"]) -> Content:
    """The data set in an `.npz` with `x_train`, `y_train`, `x_test`, `y_test`, and perhaps `x_val`, `y_val`.

    Images are (n, height, width) or (n, height, width, channels) with 1 or 3 channels. Labels are (n,) or (n, 1) whole
    numbers from 0 on, without a gap in train.

    Args:
        path: the archive.
        scale: `unit`, pixels are in 0-1; `byte`, in 0-255; `auto`, what `decide_scale` finds for floats, and `byte`
            for whole numbers.

    Raises:
        InputError: the archive cannot be read or breaks one of these rules.
    """
    raw, notes = _read_members(path)
    parts = [name.removeprefix("x_") for name in raw if name.startswith("x_")]
    images = {part: _shape_images(path, f"x_{part}", raw[f"x_{part}"]) for part in parts}
    labels = {part: _shape_labels(path, f"y_{part}", raw[f"y_{part}"]) for part in parts}
    for part in parts:
        _check_part(path, part, images, labels)
    _check_classes(path, labels)
    for part, array in images.items():
        _check_range(path, f"x_{part}", array, 1 if scale == "unit" else 255)
    decided = decide_scale({f"x_{part}": array for part, array in images.items()}) if scale == "auto" else scale
    if any(array.dtype.kind == "f" for array in images.values()):
        what = "0-1, multiplied by 255" if decided == "unit" else "0-255"
        notes.append(f"pixels are floats of {what} (dataset.scale={decided})")
    if "val" in labels:
        notes.append(f"validation: the {len(labels['val']):,} images that {path.name} has for it")
    pixels = {part: to_uint8(array, decided) for part, array in images.items()}
    whole = {part: array.astype(np.int64) for part, array in labels.items()}
    return Content(assemble(pixels, whole), None, decided, tuple(notes))


def _read_members(path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The arrays by their names here, and what to tell of the others."""
    with reading_data():
        held = archives.read_names(path)
        given = {OTHER_NAMES.get(name, name): name for name in held}
        both = ARRAYS + VALIDATION if set(VALIDATION) & set(given) else ARRAYS
        arrays = archives.read_arrays(path, [given.get(name, name) for name in both])
    others = [name for name in held if name not in arrays]
    notes = [f"{path.name}: left out {len(others):,} other arrays ({shorten(others)})"] if others else []
    return {OTHER_NAMES.get(name, name): array for name, array in arrays.items()}, notes


def _shape_images(path: Path, name: str, images: NDArray[Any]) -> NDArray[Any]:
    """(n, height, width, channels)."""
    if images.dtype.kind not in "uif":
        raise damaged(path, f"{name} must be whole numbers or floats, received {images.dtype}")
    shaped = images[..., np.newaxis] if images.ndim == 3 else images
    if shaped.ndim != 4 or 0 in shaped.shape or shaped.shape[3] not in (1, 3):
        rule = "must be at least one image, (n, height, width) or (n, height, width, 1 or 3)"
        raise damaged(path, f"{name} {rule}, received shape {images.shape}")
    return shaped


def _shape_labels(path: Path, name: str, labels: NDArray[Any]) -> NDArray[Any]:
    """(n,)."""
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1 or flat.dtype.kind not in "ui":
        rule = f"{name} must be whole numbers of shape (n,)"
        raise damaged(path, f"{rule}, received {labels.dtype} of shape {labels.shape}")
    return flat


def _check_part(path: Path, part: str, images: Mapping[str, NDArray[Any]], labels: Mapping[str, NDArray[Any]]) -> None:
    expected, shape = images["train"].shape[1:], images[part].shape
    if shape[1:] != expected:
        raise damaged(path, f"images of x_train and x_{part} must have one shape, received {expected} and {shape[1:]}")
    if len(labels[part]) != shape[0]:
        raise damaged(path, f"y_{part} must have {shape[0]} labels like x_{part}, received {len(labels[part])}")


def _check_classes(path: Path, labels: Mapping[str, NDArray[Any]]) -> None:
    present = np.unique(labels["train"])
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if len(gaps):
        rule = f"labels must be 0, 1, 2, … without a gap; class {gaps[0]} has no training image"
        raise damaged(path, f"y_train: {rule}, received {present[gaps[0]]}")
    if len(present) < 2:
        raise damaged(path, "y_train must hold at least 2 classes, received 1")
    for part, array in labels.items():
        wrong = array[(array < 0) | (array >= len(present))]
        if len(wrong):
            raise damaged(path, f"y_{part}: labels must be 0-{len(present) - 1} as in y_train, received {wrong[0]}")


def _check_range(path: Path, name: str, array: NDArray[Any], most: int) -> None:
    low, high = array.min(), array.max()  # both NaN if any pixel is
    room = HALF_A_LEVEL / FACTORS["unit"] if most == 1 and array.dtype.kind == "f" else 0
    if not (low >= 0 and high <= most + room):
        rule = "0-1 for dataset.scale=unit" if most == 1 else "0-255 (or 0-1)"
        raise damaged(path, f"{name}: pixels must be in {rule}, received {low} to {high}")
