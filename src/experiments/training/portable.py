"""Operations with the same bits on every CPU, in the place of those that start from a CPU's own approximation.

TensorFlow computes 1 / sqrt(x) and 1 / x by the instructions `rsqrtps` and `rcpps` and a Newton step. They promise 11
bits; what Intel's and AMD's give beyond them differs, and so does the result. Division and square root are exact.
"""

from __future__ import annotations

from typing import Any


def use_exact_operations() -> None:
    """Replaces, in this process, x / sqrt(y) in graphs, `tf.math.rsqrt`, and batch normalisation, which uses it."""
    import keras
    import tensorflow as tf

    from experiments.ingredients.normalisation import BatchNormalization

    # Part of it turns x / sqrt(y), as in RMSprop and Adagrad, into x * rsqrt(y).
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    tf.math.rsqrt = _rsqrt
    tf.nn.batch_normalization = _batch_normalization
    # The fused kernel has an rsqrt inside.
    BatchNormalization.call = keras.layers.BatchNormalization.call  # type: ignore[method-assign]


def _rsqrt(x: Any, name: str | None = None) -> Any:
    import tensorflow as tf

    # Not a plain division: constant folding makes 1 / y a reciprocal.
    return tf.math.divide_no_nan(tf.ones_like(x), tf.math.sqrt(x), name=name)


def _batch_normalization(
    x: Any, mean: Any, variance: Any, offset: Any, scale: Any, variance_epsilon: float, name: str | None = None
) -> Any:
    """(x - mean) / sqrt(variance + variance_epsilon) * scale + offset, in the order of TensorFlow's own."""
    import tensorflow as tf

    inverse = _rsqrt(variance + variance_epsilon)
    if scale is not None:
        inverse *= scale
    shift = -mean * inverse if offset is None else offset - mean * inverse
    return tf.math.add(x * tf.cast(inverse, x.dtype), tf.cast(shift, x.dtype), name=name)
