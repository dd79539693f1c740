"""Regularization: everything that keeps a model from learning its training images by heart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from experiments.ingredients.option import AsBefore, CountOrZero, Fraction, FractionBelowOne, NonNegative, Option


class Augmentation(Option):
    """Random changes of every training image, each a function of the seed, the epoch and the image's number.

    Uniform in ± each value: rotation, shift (of the image's side) and zoom; `shear_fraction` slants: each row moves
    sideways by that share of its distance from the centre; `stretch_fraction` makes wider by as much as it makes lower,
    or the reverse; `brightness` (of the whole range), `contrast` and `saturation` (of colour images).
    `flip` mirrors half of the images, `crop` is the smallest share of an image's area that is kept and enlarged,
    `cutout` the side of a black square as a share of the image's, `mixup` the parameter of the distribution of shares
    in which two images and their labels are mixed. `fill` comes in at the edges.

    `test_views` > 1 moves images also when the finished model is tested (test-time augmentation): its predictions
    are then the means over the image as it is and `test_views - 1` fixed rotations, shifts, zooms, shears and stretches
    of it. Epochs are validated, and overfitting is judged, by the images as they are. Sources: Krizhevsky et al.,
    ImageNet Classification with Deep Convolutional Neural Networks, 2012; for `crop` Szegedy et al., Going Deeper with
    Convolutions, 2015.
    """

    rotation_degrees: Annotated[float, Field(ge=0, le=180)]
    shift_fraction: FractionBelowOne
    zoom_fraction: FractionBelowOne
    # Saved configs before these three lack them. They stay in the run keys: the keys of all runs since hold them.
    shear_fraction: Annotated[FractionBelowOne, AsBefore(0.0, keyed=True)]
    stretch_fraction: Annotated[FractionBelowOne, AsBefore(0.0, keyed=True)]
    test_views: Annotated[int, Field(ge=1, le=1000), AsBefore(1, keyed=True)]
    flip: Annotated[Literal["none", "horizontal", "vertical", "both"], AsBefore("none")]
    crop: Annotated[float, Field(gt=0, le=1), AsBefore(1.0)]
    brightness: Annotated[FractionBelowOne, AsBefore(0.0)]
    contrast: Annotated[FractionBelowOne, AsBefore(0.0)]
    saturation: Annotated[Fraction, AsBefore(0.0)]
    cutout: Annotated[FractionBelowOne, AsBefore(0.0)]
    mixup: Annotated[float, Field(ge=0, le=10), AsBefore(0.0)]
    fill: Annotated[Literal["black", "edge", "reflect"], AsBefore("black")]

    @property
    def deforms(self) -> bool:
        """Whether any image would be turned, shifted or otherwise deformed, as test views are."""
        return any((
            self.rotation_degrees, self.shift_fraction, self.zoom_fraction, self.shear_fraction, self.stretch_fraction,
        ))  # fmt: skip

    @property
    def frames(self) -> bool:
        """Whether any image would be flipped or cropped."""
        return self.flip != "none" or self.crop < 1

    @property
    def recolours(self) -> bool:
        """Whether the colours of any image would be changed."""
        return any((self.brightness, self.contrast, self.saturation))

    @property
    def active(self) -> bool:
        """Whether any image would be changed."""
        return self.deforms or self.frames or self.recolours or self.cutout > 0 or self.mixup > 0

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        if self.test_views > 1 and not self.deforms:
            raise ValueError(f"test_views must be 1 where no image is turned or shifted, received {self.test_views}")
        return self


class EarlyStopping(Option):
    """Stops when the validation cross-entropy has not improved for `patience_epochs` epochs; 0 never stops."""

    patience_epochs: CountOrZero
    min_delta: NonNegative
    restore_best: bool

    def should_stop(self, cross_entropies: Sequence[float]) -> bool:
        """Whether the last `patience_epochs` values brought no fall by more than `min_delta` below the best."""
        if not 0 < self.patience_epochs < len(cross_entropies):
            return False
        best, waited = math.inf, 0
        for value in cross_entropies:
            best, waited = (value, 0) if value < best - self.min_delta else (best, waited + 1)
        return waited >= self.patience_epochs


class Regularization(Option):
    """Any mix of five. `dropout` and `l2` go into the model, the others into the training.

    `name` is the preset that was chosen. It changes nothing: see `label`.
    """

    name: Literal["none", "dropout", "l2", "label_smoothing", "augmentation", "photographs", "early_stopping", "full"]
    dropout: FractionBelowOne
    l2: NonNegative
    label_smoothing: FractionBelowOne
    augmentation: Augmentation
    early_stopping: EarlyStopping

    @property
    def label(self) -> str:
        """The one part that is active, `full` for several, `none` for no one: what the values say, not the preset."""
        strengths = {
            "dropout": self.dropout,
            "l2": self.l2,
            "label_smoothing": self.label_smoothing,
            "augmentation": self.augmentation.active,
            "early_stopping": self.early_stopping.patience_epochs,
        }
        active = [name for name, strength in strengths.items() if strength]
        return "full" if len(active) > 1 else next(iter(active), "none")
