"""A data set in memory: its arrays, its fingerprint, and the order that spreads its classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.errors import DataError, InputError
from experiments.ingredients.scale import Scale


class Arrays(NamedTuple):
    """One data set before any split; every class in [0, classes) has a training image.

    Images (n, height, width, channels) uint8, C-contiguous; labels (n,) int64. `x_val` and `y_val` are there where the
    data set brings a validation part of its own.
    """

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    x_val: NDArray[np.uint8] | None = None
    y_val: NDArray[np.int64] | None = None

    def present(self) -> dict[str, NDArray[np.uint8] | NDArray[np.int64]]:
        """The arrays that are there, by name."""
        return {name: array for name, array in self._asdict().items() if array is not None}


def assemble(images: Mapping[str, NDArray[np.uint8]], labels: Mapping[str, NDArray[np.int64]]) -> Arrays:
    """The data set of images and labels by part: `train`, `test`, and perhaps `val`."""
    own = images.get("val"), labels.get("val")
    return Arrays(images["train"], labels["train"], images["test"], labels["test"], *own)


class Content(NamedTuple):
    """What was found at a path.

    Attributes:
        arrays: the data set.
        class_names: one a label; None where only numbers are known.
        scale: how its pixels were read.
        notes: what the user must know of it, sentences.
        files: `train`, `test` and perhaps `val` → the path below the folder of each image; empty where they are in one
            file.
    """

    arrays: Arrays
    class_names: tuple[str, ...] | None
    scale: Scale
    notes: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def damaged(path: Path, rule: str) -> DataError:
    """One line about a file or folder that `dataset.path` leads to."""
    return DataError(f"{path}: {' '.join(rule.split())}")


@contextmanager
def reading_data() -> Iterator[None]:
    """Puts the name of the option before what `bounded` and `archives` complain of.

    Raises:
        DataError: the block raises an `InputError`; its lines are kept, each after `dataset.path: `.
    """
    try:
        yield
    except InputError as error:
        raise DataError(*error.mistakes) from None


def digest_each(arrays: Arrays) -> dict[str, str]:
    """SHA-256 (hex) over the bytes of each array; labels count as uint8, or as int64 from 257 classes on."""
    label = np.uint8 if arrays.y_train.max() < 256 else np.int64
    return {
        name: hashlib.sha256(array.astype(dtype, copy=False).reshape(-1).view(np.uint8).data).hexdigest()
        for name, array in arrays.present().items()
        for dtype in (label if name.startswith("y_") else np.uint8,)
    }


def digest_all(arrays: Arrays, digests: Mapping[str, str]) -> str:
    """SHA-256 (hex) over name, shape, dtype and `digest_each` of all arrays, whatever file held them."""
    whole = hashlib.sha256()
    for name, array in arrays.present().items():
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


def shuffle(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """An order (n,) drawn by `seed` in which every long stretch is a stratified sample: see `spread_classes`.

    It is the same in every NumPy: drawn from the raw words of a generator, whose stream is fixed.
    """
    drawn = np.argsort(np.random.Philox(np.random.SeedSequence(seed)).random_raw(len(labels)), kind="stable")
    return drawn[spread_classes(labels[drawn])]


def deal(labels: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """The fold (n,) in [0, folds) of each image: class after class, they are dealt out in turn.

    So the folds' sizes, and the numbers of a class in them, differ by one at most.
    """
    fold = np.empty(len(labels), np.int64)
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % folds
    return fold
