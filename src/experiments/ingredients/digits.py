"""The small digits that come with scikit-learn, brought to the size of MNIST's."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.errors import InputError


def read_digits() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Images (1797, 8, 8) in 0-16 and labels (1797,), as `sklearn.datasets.load_digits` gives them.

    Read from the file of that function, because importing scikit-learn takes longer than an epoch on them.

    Raises:
        InputError: scikit-learn is not installed.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise InputError("dataset=digits: needs scikit-learn, which is not installed")
    with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].copy()


def enlarge(images: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(n, 8, 8) in 0-16 → (n, 28, 28, 1) in 0-255: bilinear to 24×24, in a black frame of 2 pixels.

    MNIST's digits have such a frame. In whole numbers, so that every machine gets the same bits: a threefold
    enlargement weighs by thirds, along two axes, so 255 / (16 · 3 · 3) scales, to the nearest.
    """
    thirds = np.zeros((24, 8), np.int64)
    for row in range(24):
        above, part = divmod(row - 1, 3)  # the centre of `row` lies part/3 below the centre of source row `above`
        thirds[row, max(above, 0)] += 3 - part
        thirds[row, min(above + 1, 7)] += part
    large = (thirds @ images @ thirds.T * 255 + 72) // 144
    return np.pad(large, ((0, 0), (2, 2), (2, 2)))[..., np.newaxis].astype(np.uint8)
