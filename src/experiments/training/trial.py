"""One step on a GPU before a training: it names what TensorFlow refuses there."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments.config import RunConfig
from experiments.errors import InputError
from experiments.ingredients.layers import ImageShape, condense

REFUSALS = (tf.errors.UnimplementedError, tf.errors.ResourceExhaustedError)
ADVICE = "choose another layer, or train on the CPU: CUDA_VISIBLE_DEVICES=-1"


def try_step(config: RunConfig, image_shape: ImageShape, classes: int) -> None:
    """Makes a step on black images in each phase: operations without a deterministic form on GPUs raise only then.

    Args:
        config: what to build and how large its batches are.
        image_shape: height, width and channels of the images.
        classes: how many there are.

    Raises:
        InputError: with the layer, or with the memory that is missing.
    """
    phases = dict.fromkeys(config.model.phase(epoch) for epoch in (1, config.training.epochs))
    images = np.zeros((config.training.batch_size, *image_shape), np.uint8)
    labels = np.eye(classes, dtype=np.float32)[np.zeros(len(images), int)]
    for phase in phases:
        model = config.model.build(image_shape, classes, config.regularization)
        config.model.set_trainable(model, phase)
        optimizer = config.optimizer.build(config.optimizer.learning_rate)
        model.compile(optimizer, keras.losses.CategoricalCrossentropy(), jit_compile=False)
        try:
            model.train_on_batch(images, labels)
        except REFUSALS as error:
            raise InputError(_explain(error, model, len(images))) from None


def _explain(error: Exception, model: Any, images: int) -> str:
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return f"training.batch_size: {images} images do not fit into the memory of the GPU"
    text = str(error)
    layers = [layer.name for layer in model._flatten_layers(include_self=False) if f"/{layer.name}/" in text]
    where = f"layer {layers[-1]}: " if layers else ""
    return f"model: {where}{condense(error)} ({ADVICE})"
