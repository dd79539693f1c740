"""Images and labels from files, an `.npz` or a folder of pictures: read, checked, fingerprinted."""

from __future__ import annotations

import hashlib
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.errors import InputError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
PICTURES = (".png", ".jpg", ".jpeg")
UNREADABLE = (  # what NumPy, zipfile and Pillow raise on damaged files; they have no common base
    OSError, ValueError, EOFError, RuntimeError, MemoryError, SyntaxError, tokenize.TokenError, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip


class Arrays(NamedTuple):
    """One data set before any split; every class in [0, classes) has a training image.

    Images (n, height, width, channels) uint8, C-contiguous; labels (n,) int64.
    """

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]


def damaged(path: Path, rule: str) -> InputError:
    """One line about a file or folder that `dataset.path` leads to."""
    return InputError(f"dataset.path: {path}: {' '.join(rule.split())}")


def digest_each(arrays: Arrays) -> dict[str, str]:
    """SHA-256 (hex) over the bytes of each array; labels count as uint8, or as int64 from 257 classes on."""
    dtype = np.uint8 if arrays.y_train.max() < 256 else np.int64
    stored = arrays._replace(y_train=arrays.y_train.astype(dtype), y_test=arrays.y_test.astype(dtype))
    return {
        name: hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()
        for name, array in stored._asdict().items()
    }


def digest_all(arrays: Arrays, digests: Mapping[str, str]) -> str:
    """SHA-256 (hex) over name, shape, dtype and `digest_each` of all arrays, whatever file held them."""
    whole = hashlib.sha256()
    for name, array in arrays._asdict().items():
        whole.update(f"{name} {array.shape} {array.dtype} {digests[name]}\n".encode())
    return whole.hexdigest()


def spread_classes(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """A fixed order (n,) in which every long stretch holds the classes nearly in their shares of the whole.

    Image r of the n_c of its class, in the given order, is put at (r + 1/2) / n_c; ties go by label. So the
    first images, and the last, are stratified samples, which those of a list sorted by class are not.
    """
    counts = np.bincount(labels)
    by_class = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels))
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.lexsort((labels, (rank + 0.5) / counts[labels]))


# Archives.


def read_archive(path: Path) -> Arrays:
    """The data set in an `.npz` with `x_train`, `y_train`, `x_test`, `y_test`.

    Images are (n, height, width) or (n, height, width, channels) with 1 or 3 channels. Whole numbers must be
    in 0-255. Floats are multiplied by 255 if all those of train and test are in [0, 1], and taken as they are
    if in [0, 255]; then rounded. Labels are (n,) or (n, 1) whole numbers from 0 on, without a gap in train.

    Raises:
        InputError: the archive cannot be read or breaks one of these rules.
    """
    raw = _read_members(path)
    x_train, x_test = (_shape_images(path, name, raw[name]) for name in ("x_train", "x_test"))
    y_train, y_test = (_shape_labels(path, name, raw[name]) for name in ("y_train", "y_test"))
    if x_train.shape[1:] != x_test.shape[1:]:
        received = f"{x_train.shape[1:]} and {x_test.shape[1:]}"
        raise damaged(path, f"images of x_train and x_test must have one shape, received {received}")
    for part, images, labels in (("train", x_train, y_train), ("test", x_test, y_test)):
        if (received := f"{len(labels)}") != f"{len(images)}":
            raise damaged(path, f"y_{part} must have {len(images)} labels like x_{part}, received {received}")
    _check_classes(path, y_train, y_test)
    pixels = _to_uint8(path, {"x_train": x_train, "x_test": x_test})
    return Arrays(pixels["x_train"], y_train.astype(np.int64), pixels["x_test"], y_test.astype(np.int64))


def _read_members(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            return _unpack(path, file)
    except UNREADABLE as error:
        raise damaged(path, f"must be readable as plain arrays, received {error}") from error


def _unpack(path: Path, file: BinaryIO) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(file):
        raise damaged(path, "must be a whole .npz (zip) archive, received something else, or it is cut off")
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        if missing := [name for name in ARRAYS if name not in archive.files]:
            received = ", ".join(archive.files) or "nothing"
            raise damaged(path, f"must hold {', '.join(missing)}, received {received}")
        return {name: np.asarray(archive[name]) for name in ARRAYS}


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


def _check_classes(path: Path, y_train: NDArray[Any], y_test: NDArray[Any]) -> None:
    present = np.unique(y_train)
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if len(gaps):
        rule = f"labels must be 0, 1, 2, … without a gap; class {gaps[0]} has no training image"
        raise damaged(path, f"y_train: {rule}, received {present[gaps[0]]}")
    if len(present) < 2:
        raise damaged(path, "y_train must hold at least 2 classes, received 1")
    wrong = y_test[(y_test < 0) | (y_test >= len(present))]
    if len(wrong):
        raise damaged(path, f"y_test: labels must be 0-{len(present) - 1} as in y_train, received {wrong[0]}")


def _to_uint8(path: Path, images: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.uint8]]:
    for name, array in images.items():
        low, high = array.min(), array.max()  # both NaN if any pixel is
        if not (low >= 0 and high <= 255):
            raise damaged(path, f"{name}: pixels must be in 0-255 (or 0-1), received {low} to {high}")
    floats = [array for array in images.values() if array.dtype.kind == "f"]
    scale = 255 if all(array.max() <= 1 for array in floats) else 1
    return {
        name: np.ascontiguousarray(np.rint(array * scale) if array.dtype.kind == "f" else array, dtype=np.uint8)
        for name, array in images.items()
    }


# Folders.


def read_folder(path: Path) -> tuple[Arrays, tuple[str, ...]]:
    """The pictures `train/<class>/*` and `test/<class>/*` (png, jpg, jpeg), and the class names.

    Classes, and the files of a class, are in the order of their sorted names. Pictures must have one size and
    be all 8-bit grey (Pillow's mode L) or all colour (RGB). Hidden and other files are passed over.

    Raises:
        InputError: something is missing, cannot be read, or differs from the first training picture.
    """
    names = _class_names(path / "train")
    if (received := _class_names(path / "test")) != names:
        rule = f"must hold the classes of train, {', '.join(names)}"
        raise damaged(path / "test", f"{rule}, received {', '.join(received)}")
    if len(names) < 2:
        raise damaged(path / "train", f"must hold at least 2 classes, received {', '.join(names)}")
    train, test = ([_pictures(path / part / name) for name in names] for part in ("train", "test"))
    first = train[0][0]
    arrays = Arrays(_read_pictures(train, first), _count_off(train), _read_pictures(test, first), _count_off(test))
    return arrays, names


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise damaged(folder, "no such folder; must be a folder of classes, each a folder of png or jpg files")
    names = tuple(entry.name for entry in _visible(folder) if entry.is_dir())
    if not names:
        raise damaged(folder, "must hold classes, each a folder of png or jpg files, received none")
    return names


def _pictures(folder: Path) -> list[Path]:
    entries = _visible(folder)
    pictures = [entry for entry in entries if entry.suffix.lower() in PICTURES]
    if not pictures:
        received = ", ".join(entry.name for entry in entries[:3]) or "an empty folder"
        raise damaged(folder, f"must hold at least one {', '.join(PICTURES)}, received {received}")
    return pictures


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise damaged(folder, f"must be readable, received {error.strerror}") from error


def _count_off(files_by_class: list[list[Path]]) -> NDArray[np.int64]:
    """(n,) labels."""
    return np.repeat(np.arange(len(files_by_class)), [len(files) for files in files_by_class])


def _read_pictures(files_by_class: list[list[Path]], first: Path) -> NDArray[np.uint8]:
    """(n, height, width, channels); all must be like `first`."""
    files, expected = list(chain(*files_by_class)), _read_picture(first)
    images = np.empty((len(files), *expected.shape), np.uint8)
    for index, file in enumerate(files):
        image = _read_picture(file)
        if image.shape != expected.shape:
            rule = f"images must be {_describe(expected)} like {first.name}"
            raise damaged(file, f"{rule}, received {_describe(image)}")
        images[index] = image
    return images


def _read_picture(file: Path) -> NDArray[np.uint8]:
    """(height, width, 1 or 3)."""
    from PIL import Image

    try:  # two formats only: Pillow would hand others, such as EPS, to programs outside
        with Image.open(file, formats=("PNG", "JPEG")) as picture:
            mode, pixels = picture.mode, np.asarray(picture)
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise damaged(file, f"must be a readable image, received {error}") from error
    if mode not in ("L", "RGB"):
        raise damaged(file, f"images must be 8-bit grey (mode L) or colour (RGB), received mode {mode}")
    return pixels.reshape(*pixels.shape[:2], -1)


def _describe(image: NDArray[np.uint8]) -> str:
    height, width, channels = image.shape
    return f"{width}×{height} {'grey' if channels == 1 else 'colour'}"
