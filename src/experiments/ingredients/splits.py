"""A data set, split into train, validation and test, and the options about the split that all data sets share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from experiments.errors import InputError
from experiments.ingredients.option import Count, Option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from experiments.ingredients.images import Arrays, Content

# NumPy, and what reads and computes, is imported where it is used: a mistake in a config is told before it is there.

ShareOfTrain = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class Split:
    """Images (n, height, width, channels) uint8, C-contiguous; labels (n,) int64 in [0, classes)."""

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
    """What every data set can be asked."""

    name: str
    validation_fraction: ShareOfTrain
    train_limit: Count | None

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
        """What was read, split; `digests` where they are known already."""
        from experiments.ingredients.images import digest_all, digest_each

        arrays = content.arrays
        train, validation = self._part(arrays, len(class_names))
        return ImageData(
            name=self.title,
            train=train,
            validation=validation,
            test=Split(arrays.x_test, arrays.y_test),
            class_names=class_names,
            digest=digest_all(arrays, digests or digest_each(arrays)),
            source=source,
            scale=content.scale,
            notes=content.notes,
            doubtful=doubtful or {},
        )

    def _part(self, arrays: Arrays, classes: int) -> tuple[Split, Split]:
        """The training and the validation images."""
        images, labels = arrays.x_train, arrays.y_train
        kept = len(labels) if arrays.y_val is not None else self._count_kept(labels, classes)
        used = kept if self.train_limit is None else self.train_limit
        if used > kept:
            raise InputError(f"dataset.train_limit: must be at most {kept} here, received {used}")
        train = Split(images[:used], labels[:used])
        if arrays.x_val is not None and arrays.y_val is not None:
            return train, Split(arrays.x_val, arrays.y_val)
        return train, Split(images[kept:], labels[kept:])

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
