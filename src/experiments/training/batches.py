"""The data order and augmentation: a pure function of (seed, epoch, index), so any epoch can be made again alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from experiments.ingredients.regularization import Augmentation
from experiments.ingredients.splits import Split
from experiments.training import pixels

# Streams of randomness that must not be alike.
ORDER, AUGMENTATION, DROPOUT, DEFORMATION, VIEWS, FRAME, COLOUR, CUTOUT, MIXUP = range(9)
FILLS = {"black": "CONSTANT", "edge": "NEAREST", "reflect": "REFLECT"}
WIDEST_CROP = 4 / 3  # sides of a crop differ from the image's by at most this ratio, as in Szegedy et al., 2015
PREFETCHED_BATCHES = 4
COPIED_BYTES = 256_000_000  # of training images that are copied into a tensor; all of MNIST has 47 MB


def generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    """The random numbers of one epoch and purpose, the same on every machine.

    Args:
        seed: of the run, in [0, 2³²).
        epoch: 0 or more.
        stream: what the numbers are for, one of `ORDER` … `MIXUP`; two streams have nothing in common.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, stream])))


def order(seed: int, epoch: int, images: int) -> NDArray[np.int64]:
    """The permutation of 0 … images - 1 in which an epoch visits the training images.

    Args:
        seed: of the run, in [0, 2³²).
        epoch: 0 or more.
        images: how many training images there are.
    """
    return generator(seed, epoch, ORDER).permutation(images)


def transforms(
    augmentation: Augmentation, seed: int, epoch: int, images: int, size: tuple[int, int]
) -> NDArray[np.float32]:
    """The projective transform of every image, shape (images, 8) float32, as `ImageProjectiveTransformV3` reads it.

    Row i belongs to image i, wherever it stands in the order.

    Args:
        augmentation: the largest rotation, zoom, shift, shear and stretch, all 0 without an effect; flip and crop.
        seed: of the run, in [0, 2³²).
        epoch: 0 or more.
        images: how many training images there are.
        size: height and width of an image, pixels.
    """
    rigid = generator(seed, epoch, AUGMENTATION).uniform(-1, 1, (images, 4))
    deformation = generator(seed, epoch, DEFORMATION).uniform(-1, 1, (images, 2))
    matrices = _matrices(augmentation, np.concatenate([rigid, deformation], axis=1), size)
    if not augmentation.frames:
        return matrices
    return _framed(matrices, augmentation, generator(seed, epoch, FRAME).uniform(-1, 1, (images, 6)), size)


def view_transforms(augmentation: Augmentation, size: tuple[int, int]) -> NDArray[np.float32]:
    """The transforms, (`test_views`, 8) float32, under which the finished model sees every image, in every run alike.

    The first leaves the image as it is; the others come in opposite pairs, so that together they turn and shift
    nothing.
    """
    drawn = generator(0, 0, VIEWS).uniform(-1, 1, (augmentation.test_views // 2, 6))
    pairs = np.stack([drawn, -drawn], axis=1).reshape(-1, 6)
    draws = np.concatenate([np.zeros((1, 6)), pairs])[: augmentation.test_views]
    return _matrices(augmentation, draws, size)


def _matrices(augmentation: Augmentation, draws: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    """Of draws (n, 6) in [-1, 1]. A row maps output pixels to input pixels.

    Stretch, shear, rotation and zoom are about the centre, then comes the shift.
    """
    height, width = size
    rotation, zoom, shift_x, shift_y, shear, stretch = draws.T
    angle = np.deg2rad(augmentation.rotation_degrees) * rotation
    scale = 1 + augmentation.zoom_fraction * zoom
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    slant = augmentation.shear_fraction * shear
    wider = 1 + augmentation.stretch_fraction * np.abs(stretch)
    wider = np.where(stretch < 0, 1 / wider, wider)
    # [[cos, -sin], [sin, cos]] · [[1, slant], [0, 1]] · [[1 / wider, 0], [0, wider]]
    a, b = cos / wider, (cos * slant - sin) * wider
    c, d = sin / wider, (sin * slant + cos) * wider
    x, y = (width - 1) / 2, (height - 1) / 2
    to_x = x - a * x - b * y - augmentation.shift_fraction * width * shift_x
    to_y = y - c * x - d * y - augmentation.shift_fraction * height * shift_y
    zeros = np.zeros(len(draws))
    return np.stack([a, b, to_x, c, d, to_y, zeros, zeros], axis=1).astype(np.float32)


def _framed(
    matrices: NDArray[np.float32], augmentation: Augmentation, draws: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Matrices (n, 8) followed by a flip and a crop of draws (n, 6) in [-1, 1].

    A crop's area is uniform between `crop` and 1, its ratio of sides log-uniform, its place anywhere in the image.
    """
    flip_x, flip_y, area, ratio, place_x, place_y = draws.T
    share = 1 - (1 - augmentation.crop) * (1 + area) / 2
    longer = np.exp(np.log(WIDEST_CROP) / 2 * ratio) if augmentation.crop < 1 else 1
    rows = []
    for row, side, part, place, flip, names in (
        (matrices[:, :3], size[1], np.sqrt(share) * longer, place_x, flip_x, ("horizontal", "both")),
        (matrices[:, 3:6], size[0], np.sqrt(share) / longer, place_y, flip_y, ("vertical", "both")),
    ):
        kept = np.minimum(part, 1)
        factor = kept * np.where((flip < 0) & (augmentation.flip in names), -1, 1)
        centre = (side - 1) / 2
        scaled = row * factor[:, None]
        scaled[:, 2] += centre - centre * factor + (1 - kept) * centre * place  # no pixel outside is asked for
        rows.append(scaled)
    return np.concatenate([*rows, matrices[:, 6:]], axis=1).astype(np.float32)


def balance(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """The weight of each class, (classes,): images / (classes · images of the class); their mean over images is 1.

    Source: G. King and L. Zeng, Logistic Regression in Rare Events Data, 2001.
    """
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * counts)).astype(np.float32)


class Batches:
    """Training batches of any epoch: images uint8 (b, h, w, c), labels one-hot float32 (b, classes).

    With class weights, (classes,) float32, a batch has a third part, the weight of each image.
    """

    def __init__(
        self,
        split: Split,
        classes: int,
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        class_weights: NDArray[np.float32] | None = None,
    ) -> None:
        import keras

        self.class_weights = class_weights
        self._weights = None if class_weights is None else tf.constant(class_weights[split.labels])
        self.images = len(split.labels)
        self.batch_size, self.seed, self.augmentation = batch_size, seed, augmentation
        self.size: tuple[int, int] = (split.images.shape[1], split.images.shape[2])
        self._gather = _gatherer(split.images)
        self._labels = tf.constant(keras.utils.to_categorical(split.labels, classes).astype(np.float32))
        self._dataset = tf.function(self._make_dataset, autograph=False)

    @property
    def steps(self) -> int:
        """Batches in an epoch, the last one possibly smaller."""
        return -(-self.images // self.batch_size)

    def epoch(self, epoch: int) -> Any:
        """The `tf.data.Dataset` of one epoch, gathered ahead of the training by one thread."""
        indices = tf.constant(order(self.seed, epoch, self.images))
        return self._dataset(indices, self._looks(epoch), self._mixture(epoch))

    def _make_dataset(self, indices: Any, looks: Sequence[Any], mixture: Sequence[Any]) -> Any:
        """The batches of images in the order of `indices`; a function of tensors, so that it is traced only once."""
        batch = self.batch_size

        def show(chosen: Any) -> Any:
            images = self._gather(chosen)
            for change, values in zip(self._changes, looks, strict=True):
                images = change(images, tf.gather(values, chosen))
            return images

        def load(step: Any) -> tuple[Any, ...]:
            chosen = indices[step * batch : (step + 1) * batch]
            parts = (show(chosen), *self._target(chosen))
            if not mixture:
                return parts
            return _mix(parts, mixture, chosen, lambda other: (show(other), *self._target(other)))

        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False
        options.threading.private_threadpool_size = 1
        # AutoGraph would read the source again, from a file that may have been edited meanwhile.
        plain = tf.autograph.experimental.do_not_convert(load)
        dataset = tf.data.Dataset.range(self.steps).map(plain).prefetch(PREFETCHED_BATCHES)
        return dataset.with_options(options)

    def _target(self, chosen: Any) -> tuple[Any, ...]:
        """Labels, and the weights of images where classes have some."""
        labels = tf.gather(self._labels, chosen)
        return (labels,) if self._weights is None else (labels, tf.gather(self._weights, chosen))

    @property
    def _changes(self) -> list[Callable[[Any, Any], Any]]:
        """What augmentation does to images, each by a table that `_looks` draws for every epoch."""
        wanted = self.augmentation
        return [
            *([partial(move, fill=wanted.fill)] if wanted.deforms or wanted.frames else []),
            *([pixels.recolour] if wanted.recolours else []),
            *([pixels.cut] if wanted.cutout else []),
        ]

    def _looks(self, epoch: int) -> list[Any]:
        """The tables of `_changes` for one epoch."""
        wanted = self.augmentation
        tables: list[Any] = []
        if wanted.deforms or wanted.frames:
            tables.append(transforms(wanted, self.seed, epoch, self.images, self.size))
        if wanted.recolours:
            tables.append(pixels.draw_colours(wanted, generator(self.seed, epoch, COLOUR), self.images))
        if wanted.cutout:
            tables.append(pixels.draw_holes(wanted, generator(self.seed, epoch, CUTOUT), self.images, self.size))
        return [tf.constant(table) for table in tables]

    def _mixture(self, epoch: int) -> list[Any]:
        """The partners and shares of one epoch; nothing without mixup."""
        if not self.augmentation.mixup:
            return []
        drawn = pixels.draw_mixture(self.augmentation, generator(self.seed, epoch, MIXUP), self.images)
        return [tf.constant(drawn.partners), tf.constant(drawn.shares)]


def _mix(
    parts: tuple[Any, ...], mixture: Sequence[Any], chosen: Any, show: Callable[[Any], tuple[Any, ...]]
) -> tuple[Any, ...]:
    """The parts of a batch (images, labels and perhaps weights), each mixed with those of the images' partners."""
    partners, shares = (tf.gather(values, chosen) for values in mixture)
    (images, *targets), (others, *other_targets) = parts, show(partners)
    mixed = [_weigh(one, other, shares) for one, other in zip(targets, other_targets, strict=True)]
    return (pixels.blend(images, others, shares), *mixed)


def _weigh(one: Any, other: Any, shares: Any) -> Any:
    share = tf.reshape(shares, [-1] + [1] * (len(one.shape) - 1))
    return share * one + (1 - share) * other


def _gatherer(images: NDArray[np.uint8]) -> Callable[[Any], Any]:
    """A function from indices to images: of a tensor, or of the memory map where a tensor would be a large copy.

    Images in a memory-mapped file are then never in this process's own memory, but in the pages that all share.
    """
    if images.nbytes <= COPIED_BYTES:
        tensor = tf.constant(np.asarray(images))
        return lambda chosen: tf.gather(tensor, chosen)

    def gather(chosen: Any) -> Any:
        some = tf.numpy_function(lambda numbers: images[numbers], [chosen], tf.uint8, stateful=False)
        return tf.ensure_shape(some, (None, *images.shape[1:]))

    return gather


def move(images: Any, moves: Any, fill: str) -> Any:
    """Images (n, h, w, c) under transforms (n, 8), or (1, 8) for all; bilinear.

    Args:
        images: uint8.
        moves: float32, see `transforms`.
        fill: what comes in where nothing was: one of `FILLS`.
    """
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=moves,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=FILLS[fill],
    )
