"""What augmentation does to the values of pixels: colour, a hole, a mixture of two images.

What is drawn for an image depends on its number alone. Sums are of whole numbers, and each step is one operation, so
that the bits do not depend on how a CPU adds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from experiments.ingredients.regularization import Augmentation

LUMA = (299, 587, 114)  # thousandths of red, green and blue in grey. Source: ITU-R BT.601
WHITE = 255


class Mixture(NamedTuple):
    """Whom each image is mixed with, (n,) int64, and its own share, (n,) float32 in [0, 1]."""

    partners: NDArray[np.int64]
    shares: NDArray[np.float32]


def draw_colours(augmentation: Augmentation, drawn: np.random.Generator, images: int) -> NDArray[np.float32]:
    """What `recolour` does to each image, (images, 3) float32: grey levels added, factors of contrast and saturation.

    Args:
        augmentation: the largest changes, as shares.
        drawn: of this epoch.
        images: how many training images there are.
    """
    brightness, contrast, saturation = drawn.uniform(-1, 1, (images, 3)).T
    added = WHITE * augmentation.brightness * brightness
    factors = [1 + augmentation.contrast * contrast, 1 + augmentation.saturation * saturation]
    return np.stack([added, *factors], axis=1).astype(np.float32)


def recolour(images: Any, colours: Any) -> Any:
    """Images (n, h, w, c) uint8 with other colours, (n, 3) as `draw_colours` gives them; what leaves 0-255 is cut off.

    Saturation moves colours from or to their grey, contrast all values from or to the image's mean.
    """
    added, contrast, saturation = (colours[:, number, None, None, None] for number in range(3))
    values = tf.cast(images, tf.float32)
    if images.shape[-1] == len(LUMA):
        weighted = tf.reduce_sum(tf.cast(images, tf.int32) * tf.constant(LUMA), axis=-1, keepdims=True)
        grey = tf.cast(weighted, tf.float32) / sum(LUMA)
        values = grey + (values - grey) * saturation
    total = tf.reduce_sum(tf.cast(images, tf.int64), axis=(1, 2, 3), keepdims=True)
    mean = tf.cast(total, tf.float32) / tf.cast(tf.reduce_prod(tf.shape(images)[1:]), tf.float32)
    return _as_pixels(mean + (values - mean) * contrast + added)


def draw_holes(
    augmentation: Augmentation, drawn: np.random.Generator, images: int, size: tuple[int, int]
) -> NDArray[np.int32]:
    """The hole in each image, (images, 4) int32: top, bottom, left, right, of which bottom and right are outside.

    Its centre is anywhere in the image, so a part of it may lie outside. Source: DeVries and Taylor, Improved
    Regularization of Convolutional Neural Networks with Cutout, 2017.

    Args:
        augmentation: `cutout` is the hole's side as a share of the image's.
        drawn: of this epoch.
        images: how many training images there are.
        size: height and width of an image, pixels.
    """
    ends = []
    for side in size:
        hole = round(augmentation.cutout * side)
        first = drawn.integers(side, size=images) - hole // 2
        ends += [np.maximum(first, 0), np.minimum(first + hole, side)]
    return np.stack(ends, axis=1).astype(np.int32)


def cut(images: Any, holes: Any) -> Any:
    """Images (n, h, w, c) with a black hole each, (n, 4) as `draw_holes` gives them."""
    top, bottom, left, right = (holes[:, number, None, None] for number in range(4))
    down = tf.range(tf.shape(images)[1])[None, :, None]
    across = tf.range(tf.shape(images)[2])[None, None, :]
    inside = (down >= top) & (down < bottom) & (across >= left) & (across < right)
    return tf.where(inside[..., None], tf.zeros_like(images), images)


def draw_mixture(augmentation: Augmentation, drawn: np.random.Generator, images: int) -> Mixture:
    """Whom each image is mixed with; shares have the distribution Beta(mixup, mixup).

    Source: Zhang, Cisse, Dauphin, Lopez-Paz, mixup: Beyond Empirical Risk Minimization, 2018.

    Args:
        augmentation: `mixup` is above 0.
        drawn: of this epoch.
        images: how many training images there are.
    """
    partners = drawn.permutation(images)
    return Mixture(partners, drawn.beta(augmentation.mixup, augmentation.mixup, images).astype(np.float32))


def blend(images: Any, others: Any, shares: Any) -> Any:
    """Two batches mixed image by image, uint8.

    Args:
        images: (n, h, w, c) uint8.
        others: the same.
        shares: (n,) float32 in [0, 1], of `images`; the rest is of `others`.
    """
    share = shares[:, None, None, None]
    return _as_pixels(share * tf.cast(images, tf.float32) + (1 - share) * tf.cast(others, tf.float32))


def _as_pixels(values: Any) -> Any:
    """The nearest whole number of 0-255 as uint8; halves go to the even one."""
    return tf.cast(tf.clip_by_value(tf.round(values), 0, WHITE), tf.uint8)
