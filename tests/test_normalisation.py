"""The fused layer against Keras' own: values, gradients, running moments, and the copy that Keras can load."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("tensorflow")


def step(layer: Any, images: Any) -> tuple[Any, ...]:
    """One training step's outputs, gradients of images and weights, and all weights after it."""
    import tensorflow as tf

    layer.build(images.shape)
    for place, weights in enumerate(layer.trainable_weights):
        weights.assign(np.linspace(0.5 - place, 1.5, weights.shape[0]))
    pixels = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        outputs = layer(pixels, training=True)
        loss = tf.reduce_sum(tf.sin(tf.cast(outputs, tf.float32)))
    gradients = tape.gradient(loss, [pixels, *(weights.value for weights in layer.trainable_weights)])
    return outputs, *gradients, *layer.weights


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"axis": 1}, {"momentum": 0.5}])
def test_training_step_is_the_one_of_keras(options: dict[str, Any], precision: str) -> None:
    import keras

    from experiments.ingredients.normalisation import BatchNormalization

    images = np.random.default_rng(0).normal(3, 2, (8, 5, 6, 4)).astype(np.float32)
    ours = step(BatchNormalization(dtype=precision, **options), images)
    theirs = step(keras.layers.BatchNormalization(dtype=precision, **options), images)
    assert len(ours) == len(theirs)
    tolerance = 1e-3 if precision == "float32" else 0.02  # of sums over 240 values; bfloat16 has 8 bits
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.array(our, np.float32), np.array(their, np.float32), atol=tolerance)
    if options.get("axis") != 1:
        keep = options.get("momentum", 0.99)
        moments = [np.array(moment) for moment in ours[-2:]]
        np.testing.assert_allclose(moments[0], (1 - keep) * images.mean((0, 1, 2)), rtol=1e-2)
        np.testing.assert_allclose(moments[1], keep + (1 - keep) * images.var((0, 1, 2)), rtol=1e-2)


def test_inference_and_frozen_layers_use_the_running_moments() -> None:
    from experiments.ingredients.normalisation import BatchNormalization

    images = np.full((2, 3, 3, 1), 4, np.float32)
    layer = BatchNormalization(epsilon=1e-6)
    np.testing.assert_allclose(layer(images, training=False), images, rtol=1e-5)
    layer.trainable = False
    np.testing.assert_allclose(layer(images, training=True), images, rtol=1e-5)
    assert float(layer.moving_mean[0]) == 0


def test_batch_of_one_value_a_channel_has_no_variance() -> None:
    from experiments.ingredients.normalisation import BatchNormalization

    layer = BatchNormalization(momentum=0.0)
    outputs = layer(np.array([[[[3.0, -5.0]]]], np.float32), training=True)
    np.testing.assert_array_equal(outputs, np.zeros((1, 1, 1, 2)))
    np.testing.assert_array_equal(layer.moving_mean, [3, -5])
    np.testing.assert_array_equal(layer.moving_variance, [0, 0])


def test_copy_is_made_of_layers_of_keras_and_predicts_alike() -> None:
    import keras

    from experiments.ingredients.normalisation import BatchNormalization, as_keras

    pixels = keras.Input((4, 4, 1))
    norm = BatchNormalization(momentum=0.7, name="norm")
    model = keras.Model(pixels, keras.layers.ReLU()(norm(pixels)), name="small")
    model.compile("sgd", "mse")
    norm.moving_mean.assign([2.0])
    copy = as_keras(model)
    copied = copy.get_layer("norm")
    assert type(copied) is keras.layers.BatchNormalization
    assert (copy.name, copied.momentum, copy.compiled) == ("small", 0.7, False)
    images = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(copy(images), model(images))
