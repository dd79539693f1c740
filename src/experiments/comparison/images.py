"""The test images of a comparison's galleries, and how a page holds them."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from experiments.comparison.configurations import Configuration
from experiments.results.test_images import TestImages, load_test_images, without


def load_images(configuration: Configuration) -> TestImages:
    """The test images that a configuration's `dataset` leads to, checked against its runs' digests."""
    if any(record.sealed for record in configuration.records):
        return without("The test set is sealed.")
    if configuration.scores is None:
        return without("The runs have no predictions, so there are no galleries.")
    record, digests = configuration.records[0], configuration.scores.test_set.image_digests
    return load_test_images(record.config.get("dataset"), digests, record.dataset.digest)


def png_uri(image: NDArray[np.uint8]) -> str:
    """A `data:` URI of one image (height, width, 1 or 3) as PNG."""
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
