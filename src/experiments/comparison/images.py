"""The pixels behind test image numbers, for galleries; nothing is downloaded and no TensorFlow is started."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from experiments.comparison.configurations import Configuration
from experiments.errors import InputError
from experiments.ingredients import downloads
from experiments.ingredients.datasets import Dataset
from experiments.results.evaluation import image_digests


@dataclass(frozen=True, eq=False)
class TestImages:
    """Test images as the runs saw them.

    Attributes:
        pixels: (n, height, width, 1 or 3) uint8; None where they are not to be had.
        class_names: of the labels; numbers where they are not known.
        doubtful: image index → the labels that a majority of raters gave it, empty where none has one.
        missing: why there are no pixels, one sentence; "" where there are.
    """

    __test__ = False

    pixels: NDArray[np.uint8] | None
    class_names: tuple[str, ...]
    doubtful: Mapping[int, tuple[int, ...]]
    missing: str


def load_images(configuration: Configuration) -> TestImages:
    """The test images that a configuration's `dataset` leads to, checked against its runs' digests."""
    if configuration.scores is None:
        return _without("The runs have no predictions, so there are no galleries.")
    node = configuration.records[0].config.get("dataset", {})
    if node.get("name") in ("mnist", "fashion_mnist") and not _is_here(node["name"], node.get("path")):
        return _without(f"The file of {node['name']} is not on this machine, so there are no pictures here.")
    try:
        data = TypeAdapter[Dataset](Dataset).validate_python(node).load()
    except (InputError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        return _without(f"The images cannot be loaded, so there are no pictures here ({reason}).")
    told = configuration.scores.test_set.image_digests
    same = data.digest == configuration.records[0].dataset.digest  # what an older run tells
    if not (np.array_equal(image_digests(data.test.images), told) if len(told) else same):
        return _without("The data set on this machine has other test images than the runs, so none are shown.")
    return TestImages(data.test.images, data.class_names, data.doubtful, "")


def _without(reason: str) -> TestImages:
    return TestImages(None, (), {}, reason)


def _is_here(name: str, path: str | None) -> bool:
    return path is not None or any(place.path.is_file() for place in downloads.usual_places(f"{name}.npz"))


def png_uri(image: NDArray[np.uint8]) -> str:
    """A `data:` URI of one image (height, width, 1 or 3) as PNG."""
    height, width, channels = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)  # filter: none
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
