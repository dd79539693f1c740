"""What every model is asked for, and what it tells of its training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from experiments.ingredients.layers import ImageShape, Regularization, finish, start
from experiments.ingredients.option import Option

if TYPE_CHECKING:
    import keras


class ModelOption(Option):
    """What every model can be asked. One of its own gives `stack`, or `build` where the frame does not fit."""

    group: ClassVar[str] = "model"
    name: str

    def build(self, image_shape: ImageShape, classes: int, regularization: Regularization) -> keras.Model:
        """Images (n, *image_shape) in 0-255 → probabilities (n, classes) float32, rows sum to 1.

        Args:
            image_shape: height and width in pixels, and the number of channels.
            classes: how many there are, the k of the softmax.
            regularization: rate of dropout and weight of the L2 penalty.

        Raises:
            InputError: the images are too small for it, or a free layer has a wrong argument.
        """
        pixels, x = start(image_shape)
        return finish(self.name, pixels, self.stack(x, regularization), classes, regularization)

    def stack(self, x: keras.KerasTensor, regularization: Regularization) -> keras.KerasTensor:
        """Images (n, height, width, channels), scaled to 0-1 → features (n, k) for the classifier.

        Raises:
            NotImplementedError: it has a `build` of its own.
        """
        raise NotImplementedError

    def resolve(self) -> Self:
        """This very model, with all that it needs from outside found and written down; in the planner, once."""
        return self

    def initialise(self, model: keras.Model) -> None:
        """Gives a model that was built other weights than its random ones."""

    def phase(self, epoch: int) -> int:
        """A number that changes where an epoch (from 1) trains other weights than the one before."""
        return 0

    def set_trainable(self, model: keras.Model, phase: int) -> None:
        """Freezes what a phase does not train."""
