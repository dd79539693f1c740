"""A data set, split into train, validation and test, and the options about the split that all data sets share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import Field, model_validator

from experiments.errors import InputError
from experiments.ingredients.option import AsBefore, Count, CountOrZero, Option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from experiments.ingredients.images import Arrays, Content

# NumPy, and what reads and computes, is imported where it is used: a mistake in a config is told before it is there.

ShareOfTrain = Annotated[float, Field(gt=0, lt=1)]
Folds = Annotated[int, Field(ge=2)]
SplitSeed = Annotated[int, Field(ge=0, lt=2**32)]


@dataclass(frozen=True)
class Split:
    """Images (n, height, width, channels) uint8, C-contiguous or `Picked`; labels (n,) int64 in [0, classes)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class ImageData:
    """A data set, split and ready.

    Attributes:
        digest: SHA-256 (hex) of the content before the split; see `images.digest_all`.
        source: where it came from.
        scale: how its pixels were read; see `scale.decide_scale`.
        notes: what the user must know of how it was read, sentences.
        doubtful: test index → the label that most raters gave instead; () where no label has a majority.
        files: `validation` and `test` → the path of each image's file below the folder; empty where there is none.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    digest: str
    source: str
    scale: str = "byte"
    notes: tuple[str, ...] = ()
    doubtful: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        height, width, channels = self.test.images.shape[1:]
        return height, width, channels

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.class_names)


class Resolution(NamedTuple):
    """The data set that will really be used, and a sentence that the user must see, or ""."""

    dataset: DatasetOption
    message: str


class DatasetOption(Option):
    """What every data set can be asked. One of its own gives `load`, which reads arrays and returns `self.split(…)`."""

    group: ClassVar[str] = "dataset"
    name: str
    validation_fraction: ShareOfTrain
    train_limit: Count | None
    split_seed: Annotated[SplitSeed | None, AsBefore(None)]
    folds: Annotated[Folds | None, AsBefore(None)]
    fold: Annotated[CountOrZero | None, AsBefore(None)]
    sealed: Annotated[bool, AsBefore(False)]

    @model_validator(mode="after")
    def _check_fold(self) -> Self:
        received = f"received folds {self.folds}, fold {self.fold}"
        if (self.folds is None) != (self.fold is None):
            raise ValueError(f"folds and fold go together, as in dataset.folds=5 'dataset.fold=range(5)', {received}")
        if self.folds is not None and self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold must be in 0-{self.folds - 1}, {received}")
        return self

    @property
    def title(self) -> str:
        """What the data set is called in records and tables."""
        return self.name

    def resolve(self) -> Resolution:
        """This very data set, and nothing to say."""
        return Resolution(self, "")

    @abstractmethod
    def load(self) -> ImageData:
        """Read and split.

        Raises:
            InputError: the images are not to be had or break a rule.
        """

    def split(
        self,
        content: Content,
        class_names: tuple[str, ...],
        source: str,
        *,
        digests: Mapping[str, str] | None = None,
        doubtful: Mapping[int, tuple[int, ...]] | None = None,
    ) -> ImageData:
        """What was read, split; `digests` where they are known already.

        Args:
            content: the arrays and how they were read.
            class_names: one for each label, in the order of the labels.
            source: where the data came from, as the record tells it.
            digests: array name → SHA-256 (hex), as `digest_each` gives them; None: they are computed.
            doubtful: test index → the labels that most raters gave instead; None: no label is in doubt.

        Raises:
            InputError: `train_limit` is above the number of training images left, validation gets no image, a class
                gets none to train on, or `split_seed` or `folds` is given where the data set has a validation part.
        """
        from experiments.ingredients.images import digest_all, digest_each

        arrays = content.arrays
        train, validation = self._part(arrays, len(class_names))
        notes = content.notes + ((note,) if (note := self._describe(len(validation.labels))) else ())
        return ImageData(
            name=self.title,
            train=train,
            validation=validation,
            test=Split(arrays.x_test, arrays.y_test),
            class_names=class_names,
            digest=digest_all(arrays, digests or digest_each(arrays)),
            source=source,
            scale=content.scale,
            notes=notes,
            doubtful=doubtful or {},
            files=self._files(content, len(class_names)) if content.files else {},
        )

    def _files(self, content: Content, classes: int) -> dict[str, tuple[str, ...]]:
        import numpy as np

        if "val" in content.files:
            return {"validation": content.files["val"], "test": content.files["test"]}
        labels = content.arrays.y_train
        _, validating = self._choose(labels, classes)
        chosen = np.arange(len(labels))[validating].tolist()
        return {"validation": tuple(content.files["train"][i] for i in chosen), "test": content.files["test"]}

    def _describe(self, images: int) -> str:
        """How validation images were chosen; nothing to say of the last part."""
        drawn = "" if self.split_seed is None else f", drawn by dataset.split_seed={self.split_seed}"
        if self.folds is not None:
            return f"validation: fold {self.fold} of 0-{self.folds - 1}, {images:,} images, stratified{drawn}"
        return f"validation: {images:,} of the training images, stratified{drawn}" if drawn else ""

    def _part(self, arrays: Arrays, classes: int) -> tuple[Split, Split]:
        """The training and the validation images."""
        from experiments.ingredients.picks import pick

        images, labels = arrays.x_train, arrays.y_train
        if arrays.x_val is not None and arrays.y_val is not None:
            self._require_no_choice()
            train, validation = Split(images, labels), Split(arrays.x_val, arrays.y_val)
        else:
            train, validation = (Split(pick(images, some), labels[some]) for some in self._choose(labels, classes))
        kept = len(train.labels)
        if self.train_limit is not None and self.train_limit > kept:
            raise InputError(f"dataset.train_limit: must be at most {kept} here, received {self.train_limit}")
        return Split(train.images[: self.train_limit], train.labels[: self.train_limit]), validation

    def _require_no_choice(self) -> None:
        for name in ("split_seed", "folds"):
            if (value := getattr(self, name)) is not None:
                raise InputError(
                    f"dataset.{name}: must be null where the data set has a validation part, received {value}"
                )

    def _choose(self, labels: NDArray[np.int64], classes: int) -> tuple[Any, Any]:
        """The indices, or slices, of the training and of the validation images."""
        import numpy as np

        from experiments.ingredients.images import deal, shuffle

        if self.split_seed is None and self.folds is None:
            kept = self._count_kept(labels, classes)
            return slice(kept), slice(kept, None)
        order = np.arange(len(labels)) if self.split_seed is None else shuffle(labels, self.split_seed)
        if self.folds is None:
            kept = self._count_kept(labels[order], classes)
            return order[:kept], order[kept:]
        validating = deal(labels[order], self.folds) == self.fold
        rule = f"dataset.folds: fold {self.fold} of {self.folds} of {len(labels)} training images leaves"
        if not validating.any():
            raise InputError(f"{rule} none for validation; must be fewer")
        if missing := set(range(classes)) - set(labels[order[~validating]].tolist()):
            raise InputError(f"{rule} class {min(missing)} without an image to train on")
        return order[~validating], order[validating]

    def _count_kept(self, labels: NDArray[np.int64], classes: int) -> int:
        """How many images come before the validation part."""
        total = len(labels)
        kept = total - round(self.validation_fraction * total)
        rule = f"dataset.validation_fraction: {self.validation_fraction} of {total} training images leaves"
        if kept == total:
            raise InputError(f"{rule} none for validation; must be larger")
        if missing := set(range(classes)) - set(labels[:kept].tolist()):
            raise InputError(f"{rule} class {min(missing)} without an image to train on; must be smaller")
        return kept
