"""The 50,000 further test images of QMNIST, which MNIST was drawn beside: an independent judge of what MNIST shows.

Source: Yadav and Bottou, Cold Case: The Lost MNIST Digits, 2019.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments import bounded
from experiments.ingredients.downloads import locate_file
from experiments.ingredients.idx import read_idx
from experiments.ingredients.images import damaged, reading_data

ORIGIN = "https://raw.githubusercontent.com/facebookresearch/qmnist/master"
# File → MD5 of it as it is published. Source: torchvision, datasets/mnist.py.
FILES = (
    ("qmnist-test-images-idx3-ubyte.gz", "1394631089c404de565df7b7aeaf9412"),
    ("qmnist-test-labels-idx2-int.gz", "5b5b05890a5e13444e108efe57b788aa"),
)
KNOWN = 10_000  # the first of them are MNIST's own test images
FILE_BYTES = 100_000_000
SHAPE = (28, 28)


def read_further_test() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (50000, 28, 28, 1) and labels (50000,).

    Raises:
        InputError: the files are not to be had, or are others than QMNIST's.
    """
    images, labels = (_read(name, digest) for name, digest in FILES)
    path = locate_file(FILES[0][0], ORIGIN).path
    if images.shape[1:] != SHAPE or labels.ndim != 2 or len(labels) != len(images) or len(images) <= KNOWN:
        raise damaged(path, f"is not QMNIST's test part, received images {images.shape}, labels {labels.shape}")
    classes = labels[KNOWN:, 0].astype(np.int64)  # the other columns tell writers and places
    return np.ascontiguousarray(images[KNOWN:, ..., np.newaxis], np.uint8), classes


def _read(name: str, digest: str) -> NDArray[Any]:
    path = locate_file(name, ORIGIN).path
    with reading_data():
        received = hashlib.md5(bounded.read_bytes(path, FILE_BYTES), usedforsecurity=False).hexdigest()
        if received != digest:
            raise damaged(path, f"is not QMNIST's: MD5 must be {digest}, received {received}")
        return read_idx(path)
