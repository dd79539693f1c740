"""How large an architecture is, known before any of it is allocated, and whether it can be trained here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import tensorflow as tf

from experiments import project
from experiments.config import RunConfig
from experiments.errors import InputError
from experiments.ingredients.layers import ImageShape, condense
from experiments.ingredients.size import Size, nothing_allocated, size_of
from experiments.results.own_metrics import require_usable
from experiments.training import devices, trial

TRIED_STEPS = 10
GIGABYTE = 10**9


def measure(config: RunConfig, image_shape: ImageShape, classes: int) -> Size:
    """The size of a config's network, from shapes alone: nothing is allocated, however large it is.

    Args:
        config: what to build.
        image_shape: height, width and channels of the images.
        classes: how many there are.

    Raises:
        InputError: the architecture does not fit the images, or a free layer has a wrong argument.
    """
    with _naming("model"), nothing_allocated():
        model = config.model.build(image_shape, classes, config.regularization)
        config.model.set_trainable(model, config.model.phase(1))
    if tuple(getattr(model, "output_shape", ())) != (None, classes):
        received = getattr(model, "output_shape", type(model).__name__)
        raise InputError(f"model: must return a functional model with outputs (None, {classes}), received {received}")
    return size_of(model)


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Tells what Keras, or code of the user's own, refuses: neither has a common base for its errors."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        place = project.place_of(error)
        raise InputError(
            f"{key}: {condense(error)}" + (f" ({type(error).__name__}; {place})" if place else "")
        ) from error


def check(config: RunConfig, image_shape: ImageShape, classes: int, *, free_bytes: int | None = None) -> Size:
    """Refuses an architecture that cannot be built, called or held in memory, before anything is allocated.

    Args:
        config: what to build.
        image_shape: height, width and channels of the images.
        classes: how many there are.
        free_bytes: the memory that a training may use; by default all that is free on this machine.

    Raises:
        InputError: with the numbers, or with the layer that Keras refuses.
    """
    size = measure(config, image_shape, classes)
    batch_size = config.training.batch_size
    needed, free = size.training_bytes(batch_size), free_bytes or psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"model: {size.parameters:,} parameters and {size.activations:,} activations an image, at batches of "
            f"{batch_size:,}, need at least {needed / GIGABYTE:,.1f} GB; {free / GIGABYTE:,.1f} GB are free here"
        )
    if config.model.name == "layers":  # what a free list says shows its mistakes only when it is called
        _call(config, image_shape, classes)
    _try_the_rest(config, classes)
    if devices.trains_on_gpu():
        trial.try_step(config, image_shape, classes)
    return size


def _try_the_rest(config: RunConfig, classes: int) -> None:
    """What else may be the user's own, called once: in a sweep before hours of training, not after them."""
    with _naming("optimizer"):
        config.optimizer.build(config.optimizer.learning_rate)
    with _naming("schedule"):
        factors = config.schedule.factors(TRIED_STEPS)
        if np.shape(factors) != (TRIED_STEPS,) or not np.isfinite(factors).all():
            raise InputError(f"schedule: must give {TRIED_STEPS} finite factors for as many steps, received {factors}")
    require_usable(config.training.metrics, classes)


def _call(config: RunConfig, image_shape: ImageShape, classes: int) -> None:
    """Calls the network once on the shape of a batch."""
    model = config.model.build(image_shape, classes, config.regularization)
    batch = tf.TensorSpec((config.training.batch_size, *image_shape), tf.uint8)
    try:
        tf.function(lambda images: model(images, training=True), autograph=False).get_concrete_function(batch)
    except Exception as error:  # Keras has no common base for what its layers make of bad values
        raise InputError(f"model.layers: {condense(error)}") from error
