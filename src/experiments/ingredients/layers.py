"""Layers: the pieces that every model is made of, and the free list of layers that a config may write."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, ConfigDict, Field

from experiments.errors import InputError, nearest
from experiments.ingredients.option import Option

if TYPE_CHECKING:
    import keras

ImageShape = tuple[int, int, int]  # height, width, channels
Activation = Literal[
    "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "tanh", "sigmoid", "hard_sigmoid", "linear",
]  # fmt: skip
Normalisation = Literal["none", "batch"]
# Image layers whose arguments are plain values. Nothing that runs code (Lambda), wraps layers or reads files.
LayerName = Literal[
    "Activation", "AlphaDropout", "AveragePooling2D", "BatchNormalization", "Conv2D", "Conv2DTranspose",
    "Cropping2D", "Dense", "DepthwiseConv2D", "Dropout", "ELU", "Flatten", "GaussianDropout", "GaussianNoise",
    "GlobalAveragePooling2D", "GlobalMaxPooling2D", "GroupNormalization", "LayerNormalization", "LeakyReLU",
    "MaxPooling2D", "PReLU", "ReLU", "Reshape", "SeparableConv2D", "SpatialDropout2D", "UpSampling2D",
    "ZeroPadding2D",
]  # fmt: skip
# Set by the framework (names, seeds, precision), or without meaning in one training run.
NOT_ARGUMENTS = {
    "activity_regularizer", "kwargs", "name", "dtype", "seed", "noise_shape", "data_format", "synchronized",
    "lora_rank", "lora_alpha", "quantization_config",
}  # fmt: skip
WHOLE_NUMBERS, NUMBERS = {"filters", "units"}, {"rate", "stddev"}  # of the arguments without a default
# Memory of the running means that predictions use, as in PyTorch. With Keras' 0.99 they lag for hundreds of
# steps, so that the first epochs on a small data set look as if nothing had been learnt.
NORMALISATION_MOMENTUM = 0.9
KERNEL_REGULARIZERS = {"kernel_regularizer", "depthwise_regularizer", "pointwise_regularizer"}


def _require_plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_require_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"must be a number, a word, true, false, null or a list of these, received {value!r}")


Argument = Annotated[Any, AfterValidator(_require_plain)]


class Regularization(Protocol):
    """What of `regularization` goes into a model."""

    @property
    def dropout(self) -> float:
        """Share of activations silenced in training, in [0, 1); 0: no layer."""

    @property
    def l2(self) -> float:
        """Weight of the sum of squared kernel weights in the loss, ≥ 0; 0: none."""


class LayerEntry(Option):
    """One entry of a free list: the name of a Keras layer, and any of its arguments."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Argument] = Field(init=False)

    layer: LayerName

    @property
    def arguments(self) -> dict[str, Argument]:
        """All that was given beside the name."""
        return dict(self.__pydantic_extra__ or {})


def start(image_shape: ImageShape) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input, raw pixels 0-255, and the same scaled to 0-1 (in float32 whatever the precision)."""
    import keras

    pixels = keras.Input(image_shape, name="pixels")
    return pixels, keras.layers.Rescaling(1 / 255, dtype="float32", name="rescale")(pixels)


def finish(
    name: str, pixels: keras.KerasTensor, x: keras.KerasTensor, classes: int, regularization: Regularization
) -> keras.Model:
    """The model that ends in dropout and the classifier, float32 whatever the precision.

    Args:
        name: of the Keras model.
        pixels: the input of `start`, (n, height, width, channels).
        x: features (n, k), made from `pixels`.
        classes: how many there are; the output is (n, classes) float32.
        regularization: `dropout` is the rate before the classifier, `l2` the weight of the penalty on its kernel.
    """
    import keras

    classify = keras.layers.Dense(
        classes,
        activation="softmax",
        dtype="float32",
        kernel_regularizer=penalty(regularization),
        name="classes",
    )
    return keras.Model(pixels, classify(drop(x, regularization, "dropout")), name=name)


def penalty(regularization: Regularization) -> keras.Regularizer | None:
    """L2 on one kernel, or None where its weight is 0."""
    import keras

    return keras.regularizers.L2(regularization.l2) if regularization.l2 else None


def drop(x: keras.KerasTensor, regularization: Regularization, name: str) -> keras.KerasTensor:
    """Dropout, or nothing where its rate is 0.

    Args:
        x: any shape, which is kept.
        regularization: `dropout` is the rate, in [0, 1).
        name: of the layer, unique in the model.
    """
    import keras

    return keras.layers.Dropout(regularization.dropout, name=name)(x) if regularization.dropout else x


def flatten(x: keras.KerasTensor) -> keras.KerasTensor:
    """(n, height, width, channels) → (n, features)."""
    import keras

    return keras.layers.Flatten(name="flatten")(x)


def connect(
    x: keras.KerasTensor, units: Sequence[int], activation: Activation, regularization: Regularization
) -> keras.KerasTensor:
    """Dense layers one after another, dropout between them.

    Args:
        x: features (n, k).
        units: the width of each layer, each 1 or more; the result is (n, last of them).
        activation: after each layer.
        regularization: `dropout` is the rate between layers, `l2` the weight of the penalty on each kernel; 0: none.
    """
    import keras

    for number, width in enumerate(units, 1):
        x = x if number == 1 else drop(x, regularization, f"dropout{number - 1}")
        x = keras.layers.Dense(
            width, activation=activation, kernel_regularizer=penalty(regularization), name=f"dense{number}"
        )(x)
    return x


def convolve(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    *,
    name: str,
    activation: Activation,
    normalisation: Normalisation,
    regularization: Regularization,
    strides: int = 1,
    padding: str = "valid",
) -> keras.KerasTensor:
    """A convolution with its activation, then the normalisation, if any.

    Args:
        x: (n, height, width, channels).
        filters: channels of the result, 1 or more.
        kernel_size: side of the square kernel, pixels, 1 or more.
        name: of the layer, unique in the model; the normalisation's is this with `_norm`.
        activation: before the normalisation.
        normalisation: `batch`, or `none` for no layer.
        regularization: `l2` is the weight of the penalty on the kernel; 0: none.
        strides: step of the kernel along both sides, pixels, 1 or more.
        padding: `valid` for no padding, `same` for zeros around the image.
    """
    import keras

    x = keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        activation=activation,
        kernel_regularizer=penalty(regularization),
        name=name,
    )(x)
    return normalise(x, f"{name}_norm") if normalisation == "batch" else x


def normalise(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Batch normalisation."""
    from experiments.ingredients.normalisation import BatchNormalization

    return BatchNormalization(momentum=NORMALISATION_MOMENTUM, name=name)(x)


def require_side(x: keras.KerasTensor, needed: int, key: str, what: str) -> None:
    """Refuses images (n, height, width, channels) that `what` shrinks to nothing.

    Args:
        x: (n, height, width, channels).
        needed: the shortest side that is accepted, pixels.
        key: dotted key of the config that is to be changed; begins the message.
        what: the layers that shrink the image, as plural words for the message.

    Raises:
        InputError: a side of the image is shorter than `needed` pixels.
    """
    height, width = x.shape[1:3]
    if min(height, width) < needed:
        rule = f"{what} need images of at least {needed} pixels a side"
        raise InputError(f"{key}: {rule}, received {width}×{height}; choose fewer or smaller ones")


# The free list.


def append(x: keras.KerasTensor, entry: LayerEntry, number: int, regularization: Regularization) -> keras.KerasTensor:
    """The layer of `entry`, the `number`th from 0, on top of `x`.

    Args:
        x: output of the layers before it, (n, …).
        entry: the Keras layer and its arguments.
        number: position in `model.layers`, from 0; part of the layer's name and of the message of an error.
        regularization: `l2` is the weight of the penalty on each kernel that has no regularizer of its own.

    Raises:
        InputError: it has no such argument, refuses a value, or does not fit behind the layers before it.
    """
    import keras

    from experiments.ingredients.normalisation import BatchNormalization

    factory = BatchNormalization if entry.layer == "BatchNormalization" else getattr(keras.layers, entry.layer)
    key = f"model.layers.{number}"
    arguments: dict[str, Any] = dict(entry.arguments)
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(factory).parameters.items()
        if name not in NOT_ARGUMENTS
    }
    _check_arguments(key, entry.layer, arguments, parameters)
    for name in KERNEL_REGULARIZERS & parameters.keys() - arguments.keys():
        arguments[name] = penalty(regularization)
    try:
        return factory(**arguments, name=f"{entry.layer.lower()}_{number}")(x)
    except Exception as error:  # Keras has no common base for what its layers make of bad values
        raise InputError(f"{key}: {entry.layer}: {condense(error)}") from error


def _check_arguments(
    key: str, layer: str, arguments: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> None:
    """Names against the layer's signature, and values where Keras would take anything for true or 1."""
    for name, value in arguments.items():
        if name not in parameters:
            raise InputError(f"{key}.{name}: {layer} has no such argument; {nearest(name, parameters)}")
        default = parameters[name].default
        if isinstance(value, bool) != isinstance(default, bool):
            rule = "must be true or false" if isinstance(default, bool) else "must not be true or false"
            raise InputError(f"{key}.{name}: {rule}, received {value!r}")
        if (type(default) is int or name in WHOLE_NUMBERS) and not isinstance(value, int | list):
            raise InputError(f"{key}.{name}: must be a whole number, received {value!r}")
        if (type(default) is float or name in NUMBERS) and not isinstance(value, int | float):
            raise InputError(f"{key}.{name}: must be a number, received {value!r}")
    required = [name for name, p in parameters.items() if p.default is p.empty and name not in arguments]
    if required:
        raise InputError(f"{key}.{required[0]}: missing; {layer} needs {', '.join(required)}")


def condense(error: Exception) -> str:
    """Keras' complaint in one line, without colours and the arguments it was called with."""
    text = re.sub(r"\x1b\[\d+m", "", str(error)).partition("Arguments received by")[0]
    text = " ".join(re.sub(r"^Exception encountered when calling \S+", "", text).split())
    return text if len(text) <= 200 else f"{text[:199]}…"
