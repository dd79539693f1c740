"""A network that has learnt from other pictures, with a head of its own: a backbone of `keras.applications`.

Weights are a file, found or downloaded by whoever plans, and written down by their digest: a worker downloads nothing.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from experiments.errors import InputError
from experiments.ingredients.downloads import locate_file, usual_places
from experiments.ingredients.layers import ImageShape, Regularization, condense, connect, drop, finish
from experiments.ingredients.network import ModelOption
from experiments.ingredients.option import Count, CountOrZero

if TYPE_CHECKING:
    import keras

ORIGIN = "https://storage.googleapis.com/tensorflow/keras-applications"
SMALLEST_SIDE = 32  # pixels; keras.applications refuses less
FEATURES = "average"  # name of the layer that ends the backbone
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Backbone(NamedTuple):
    """A network of `keras.applications`.

    Attributes:
        factory: its name there.
        folder: of its ImageNet weights, below `ORIGIN`.
        file: of those weights, without the classifier.
        md5: of that file, as Keras has it.
        rescales: whether it takes raw pixels by itself; else they are brought to -1 … 1.
    """

    factory: str
    folder: str
    file: str
    md5: str
    rescales: bool


BACKBONES = {
    "efficientnetv2-b0": Backbone(
        "EfficientNetV2B0", "efficientnet_v2", "efficientnetv2-b0_notop.h5", "893217f2bb855e2983157299931e43ff", True
    ),
    "mobilenetv3-small": Backbone(
        "MobileNetV3Small",
        "mobilenet_v3",
        "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        "d3e8ec802a04aa4fc771ee12a9a9b836",
        True,
    ),
    "resnet50v2": Backbone(
        "ResNet50V2",
        "resnet",
        "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "fac2f116257151a9d068a22e544a4917",
        False,
    ),
}


class Pretrained(ModelOption):
    """A backbone, its mean over the image, dense layers and the classifier; takes raw pixels as every model does.

    `freeze` are the backbone's layers that keep their weights, and their normalisation its moments: all, none, or as
    many as a number says, from the image on. In the first `freeze_epochs` all of them do; what is trained from then on
    gets an optimizer that begins anew. L2 is on the head alone, dropout before the classifier.

    Sources: Tan and Le, EfficientNetV2, 2021; Howard et al., Searching for MobileNetV3, 2019; He et al., Identity
    Mappings in Deep Residual Networks, 2016; for the two phases F. Chollet, Transfer learning, keras.io, 2020.
    """

    name: Literal["pretrained"]
    backbone: Literal["efficientnetv2-b0", "mobilenetv3-small", "resnet50v2"]
    weights: str | None
    weights_digest: Digest | None
    image_size: Annotated[int, Field(ge=SMALLEST_SIDE, le=1024)] | None
    units: Annotated[list[Count], Field(max_length=10)]
    freeze: Literal["all", "none"] | Count
    freeze_epochs: CountOrZero

    @model_validator(mode="after")
    def _can_learn(self) -> Self:
        if self.weights is None and (self.freeze != "none" or self.freeze_epochs):
            raise ValueError(
                "weights must be imagenet or a file where layers are frozen, because random ones would stay as they "
                f"are, received weights null, freeze {self.freeze}, freeze_epochs {self.freeze_epochs}"
            )
        if self.weights is None and self.weights_digest is not None:
            raise ValueError("weights_digest must be null where weights is null")
        if self.freeze == "all" and self.freeze_epochs:
            raise ValueError(f"freeze_epochs must be 0 where freeze is all, received {self.freeze_epochs}")
        return self

    def resolve(self) -> Self:
        """The same with the digest of its weights, which are downloaded where they are ImageNet's and not here.

        Raises:
            InputError: they are not to be had, or are others than the digest says.
        """
        if self.weights is None:
            return self
        backbone = BACKBONES[self.backbone]
        if self.weights == "imagenet":
            locate_file(backbone.file, f"{ORIGIN}/{backbone.folder}", cache="models")
        path = self._find()
        found = _digests(path, os.stat(path).st_mtime_ns)
        if self.weights == "imagenet" and found.md5 != backbone.md5:
            raise InputError(f"{path}: is damaged: its MD5 must be {backbone.md5}, received {found.md5}; delete it")
        self._require_digest(path, found.sha256)
        return self.model_copy(update={"weights_digest": found.sha256})

    def _find(self) -> Path:
        """The file of the weights.

        Raises:
            InputError: there is none.
        """
        if self.weights == "imagenet":
            places = [place.path for place in usual_places(BACKBONES[self.backbone].file, "models")]
        else:
            places = [Path(self.weights or "").expanduser()]
            if places[0].suffix != ".h5":
                raise InputError(f"model.weights: must be null, imagenet or a file .h5, received {self.weights}")
        for path in places:
            if path.is_file():
                return path
        raise InputError(f"model.weights: no such file, received {self.weights} ({places[-1]})")

    def _require_digest(self, path: Path, received: str) -> None:
        if self.weights_digest not in (None, received):
            then, now = f"SHA-256 {self.weights_digest[:12]}…" if self.weights_digest else "", f"{received[:12]}…"
            raise InputError(f"model.weights: {path} holds other weights than it did ({then} then, {now} now)")

    def build(self, image_shape: ImageShape, classes: int, regularization: Regularization) -> keras.Model:
        """The backbone with random weights, and the head.

        Args:
            image_shape: height and width in pixels, and the number of channels: grey is shown in three.
            classes: how many there are.
            regularization: rate of dropout and weight of the L2 penalty, both of the head.

        Raises:
            InputError: the images are too small.
        """
        import keras

        chosen = BACKBONES[self.backbone]
        pixels = keras.Input(image_shape, name="pixels")
        x = pixels
        if self.image_size is not None:
            x = keras.layers.Resizing(self.image_size, self.image_size, dtype="float32", name="resize")(x)
        height, width = x.shape[1:3]
        if min(height, width) < SMALLEST_SIDE:
            rule = f"{self.backbone} needs images of at least {SMALLEST_SIDE} pixels a side, received {height}×{width}"
            raise InputError(f"model.image_size: {rule}; model.image_size=96 enlarges them inside the model")
        if image_shape[2] == 1:
            x = keras.layers.Concatenate(dtype="float32", name="colours")([x, x, x])
        if not chosen.rescales:
            x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="rescale")(x)
        options = {"include_preprocessing": True} if chosen.rescales else {}
        factory = getattr(keras.applications, chosen.factory)
        backbone = factory(include_top=False, weights=None, input_tensor=x, **options)
        x = keras.layers.GlobalAveragePooling2D(name=FEATURES)(backbone.output)
        if self.units:
            x = connect(drop(x, regularization, "dropout_features"), self.units, "relu", regularization)
        return finish(self.name, pixels, x, classes, regularization)

    def initialise(self, model: keras.Model) -> None:
        """Gives the backbone its weights.

        Raises:
            InputError: the file is gone, holds others than it did, or those of another network.
        """
        import keras

        if self.weights is None:
            return
        path = self._find()
        self._require_digest(path, _digests(path, os.stat(path).st_mtime_ns).sha256)
        try:
            keras.Model(model.input, model.get_layer(FEATURES).input).load_weights(path)
        except Exception as error:  # Keras and h5py have no common base for what does not fit
            raise InputError(f"model.weights: {path}: no weights of {self.backbone} ({condense(error)})") from error

    def phase(self, epoch: int) -> int:
        """1 while the whole backbone is frozen, then 2."""
        return 1 if epoch <= self.freeze_epochs else 2

    def set_trainable(self, model: keras.Model, phase: int) -> None:
        """Freezes the backbone, or as much of it as `freeze` says.

        Raises:
            InputError: it has fewer layers.
        """
        names = [layer.name for layer in model.layers]
        layers = model.layers[: names.index(FEATURES)]
        frozen = len(layers) if phase == 1 or self.freeze == "all" else 0 if self.freeze == "none" else self.freeze
        if isinstance(self.freeze, int) and self.freeze > len(layers):
            rule = f"must be at most {len(layers)}, the layers of {self.backbone}"
            raise InputError(f"model.freeze: {rule}, received {self.freeze}")
        for number, layer in enumerate(layers):
            layer.trainable = number >= frozen


class _Digests(NamedTuple):
    sha256: str
    md5: str


@cache
def _digests(path: Path, written: int) -> _Digests:
    """Of a file that was written at a time (ns): read once however many jobs use it."""
    del written
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            md5.update(block)
    return _Digests(sha256.hexdigest(), md5.hexdigest())
