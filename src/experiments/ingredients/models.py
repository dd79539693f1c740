"""Models: raw pixels in, probabilities out. Scaling is their first layer, a float32 softmax their last."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from experiments.ingredients.layers import (
    Activation,
    LayerEntry,
    Normalisation,
    Regularization,
    append,
    connect,
    convolve,
    drop,
    flatten,
    normalise,
    penalty,
    require_side,
)
from experiments.ingredients.network import ModelOption as ModelOption
from experiments.ingredients.option import Count
from experiments.ingredients.pretrained import Pretrained

if TYPE_CHECKING:
    import keras

MOST_BLOCKS = 500  # of one network: building it takes Keras some milliseconds a layer
Counts = Annotated[list[Count], Field(min_length=1, max_length=100)]
PoolSize = Annotated[int, Field(ge=2)]


class CNN(ModelOption):
    """Convolution and pooling in turn. Source: F. Chollet, Simple MNIST convnet, keras.io, 2015."""

    name: Literal["cnn"]
    filters: Counts
    kernel_size: Count
    pool_size: PoolSize
    activation: Activation
    normalisation: Normalisation

    def stack(self, x: keras.KerasTensor, regularization: Regularization) -> keras.KerasTensor:
        import keras

        require_side(x, self._smallest_side(), "model.filters", _describe_pooling(self))
        add = _styled(self.activation, self.normalisation, regularization)
        for number, filters in enumerate(self.filters, 1):
            x = add(x, filters, self.kernel_size, name=f"conv{number}")
            x = keras.layers.MaxPooling2D(self.pool_size, name=f"pool{number}")(x)
        return flatten(x)

    def _smallest_side(self) -> int:
        side = 1
        for _ in self.filters:
            side = side * self.pool_size + self.kernel_size - 1
        return side


class LeNet5(ModelOption):
    """Two convolutions with average pooling, then dense layers.

    Source: LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document Recognition, 1998.
    """

    name: Literal["lenet5"]
    filters: Counts
    kernel_size: Count
    pool_size: PoolSize
    units: Counts
    activation: Activation

    def stack(self, x: keras.KerasTensor, regularization: Regularization) -> keras.KerasTensor:
        import keras

        require_side(x, self._smallest_side(), "model.filters", _describe_pooling(self))
        add = _styled(self.activation, "none", regularization)
        for number, filters in enumerate(self.filters, 1):
            padding = "same" if number == 1 else "valid"  # the original's 32×32 images had a frame of 2
            x = add(x, filters, self.kernel_size, name=f"conv{number}", padding=padding)
            x = keras.layers.AveragePooling2D(self.pool_size, name=f"pool{number}")(x)
        return connect(flatten(x), self.units, self.activation, regularization)

    def _smallest_side(self) -> int:
        side = self.pool_size
        for _ in self.filters[1:]:
            side = (side + self.kernel_size - 1) * self.pool_size
        return side


class DeepCNN(ModelOption):
    """Blocks of convolutions, the last of each with stride 2. Source: C. Deotte, MNIST-CNN-99.75, 2018."""

    name: Literal["deep_cnn"]
    filters: Counts
    convolutions: Count
    kernel_size: Count
    stride_kernel_size: Count
    head_filters: Count
    head_kernel_size: Count
    activation: Activation
    normalisation: Normalisation

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        _limit_blocks(len(self.filters) * self.convolutions, "convolutions")
        return self

    def stack(self, x: keras.KerasTensor, regularization: Regularization) -> keras.KerasTensor:
        what = f"{len(self.filters)} blocks of {self.convolutions} convolutions and a stride, and the head,"
        require_side(x, self._smallest_side(), "model.filters", what)
        add = _styled(self.activation, self.normalisation, regularization)
        for number, filters in enumerate(self.filters, 1):
            name = f"block{number}"
            for inner in range(1, self.convolutions + 1):
                x = add(x, filters, self.kernel_size, name=f"{name}_conv{inner}")
            x = add(x, filters, self.stride_kernel_size, name=f"{name}_stride", strides=2, padding="same")
            x = drop(x, regularization, f"{name}_dropout")
        return flatten(add(x, self.head_filters, self.head_kernel_size, name="head"))

    def _smallest_side(self) -> int:
        side = self.head_kernel_size
        for _ in self.filters:
            side = 2 * side - 1 + self.convolutions * (self.kernel_size - 1)
        return side


class ResNet(ModelOption):
    """Stages of residual blocks, each stage at half the size of the one before; batch-normalised.

    Source: He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, 2016, section 4.2 (option B).
    """

    name: Literal["resnet"]
    filters: Counts
    blocks: Count
    kernel_size: Count
    activation: Activation

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        _limit_blocks(len(self.filters) * self.blocks, "blocks")
        return self

    def stack(self, x: keras.KerasTensor, regularization: Regularization) -> keras.KerasTensor:
        import keras

        x = _convolve_bare(x, self.filters[0], self.kernel_size, 1, "stem", regularization)
        x = keras.layers.Activation(self.activation, name="stem_activation")(x)
        for stage, filters in enumerate(self.filters, 1):
            for block in range(1, self.blocks + 1):
                strides = 2 if stage > 1 and block == 1 else 1
                x = self._add_block(x, filters, strides, f"stage{stage}_block{block}", regularization)
        return keras.layers.GlobalAveragePooling2D(name="average")(x)

    def _add_block(
        self, x: keras.KerasTensor, filters: int, strides: int, name: str, regularization: Regularization
    ) -> keras.KerasTensor:
        import keras

        y = _convolve_bare(x, filters, self.kernel_size, strides, f"{name}_conv1", regularization)
        y = keras.layers.Activation(self.activation, name=f"{name}_activation1")(y)
        y = _convolve_bare(y, filters, self.kernel_size, 1, f"{name}_conv2", regularization)
        if x.shape != y.shape:
            x = _convolve_bare(x, filters, 1, strides, f"{name}_shortcut", regularization)
        y = keras.layers.Add(name=f"{name}_add")([x, y])
        return keras.layers.Activation(self.activation, name=f"{name}_activation2")(y)


class MLP(ModelOption):
    """Dense layers only. Source: F. Chollet, Keras examples, mnist_mlp, 2015."""

    name: Literal["mlp"]
    units: Counts
    activation: Activation

    def stack(self, x: keras.KerasTensor, regularization: Regularization) -> keras.KerasTensor:
        return connect(flatten(x), self.units, self.activation, regularization)


class Linear(ModelOption):
    """Softmax regression: the classifier alone."""

    name: Literal["linear"]

    def stack(self, x: keras.KerasTensor, regularization: Regularization) -> keras.KerasTensor:
        return flatten(x)


class Layers(ModelOption):
    """Any Keras layers, by name and arguments."""

    name: Literal["layers"]
    layers: Annotated[list[LayerEntry], Field(min_length=1, max_length=MOST_BLOCKS)]

    @field_validator("layers")
    @classmethod
    def _without_classifier(cls, layers: list[LayerEntry]) -> list[LayerEntry]:
        if "softmax" in layers[-1].arguments.values():
            raise ValueError("must not end in a softmax, because the classifier follows by itself; remove the last")
        return layers

    def stack(self, x: keras.KerasTensor, regularization: Regularization) -> keras.KerasTensor:
        for number, entry in enumerate(self.layers):
            x = append(x, entry, number, regularization)
        return flatten(x)


Model = Annotated[CNN | LeNet5 | DeepCNN | ResNet | MLP | Linear | Layers | Pretrained, Field(discriminator="name")]


def _limit_blocks(number: int, what: str) -> None:
    if number > MOST_BLOCKS:
        raise ValueError(f"must have at most {MOST_BLOCKS} {what} in all, received {number:,}")


def _describe_pooling(model: CNN | LeNet5) -> str:
    return f"{len(model.filters)} convolutions of {model.kernel_size} with pooling by {model.pool_size}"


def _styled(
    activation: Activation, normalisation: Normalisation, regularization: Regularization
) -> partial[keras.KerasTensor]:
    """`convolve` as all convolutions of one model are."""
    return partial(convolve, activation=activation, normalisation=normalisation, regularization=regularization)


def _convolve_bare(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    strides: int,
    name: str,
    regularization: Regularization,
) -> keras.KerasTensor:
    """Convolution and normalisation, whose shift makes a bias needless; the activation comes later."""
    import keras

    x = keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_regularizer=penalty(regularization),
        name=name,
    )(x)
    return normalise(x, f"{name}_norm")
