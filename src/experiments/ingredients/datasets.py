"""Data sets: images in memory as uint8, split into train, validation and test. Never starts TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, cast

from pydantic import Field

from experiments.errors import InputError
from experiments.ingredients.downloads import locate
from experiments.ingredients.option import Count, Option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from experiments.ingredients.images import Arrays

# What reads and computes (`images.py`, `digits.py`) is imported where it is used: a mistake in a config is told before
# NumPy is there.

DIGIT_NAMES = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_SHAPES = ((60_000, 28, 28, 1), (10_000, 28, 28, 1))
# SHA-256 over the bytes of the uint8 arrays; the container differs from copy to copy, these do not.
MNIST_DIGESTS = {
    "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "y_train": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "y_test": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}
# Test images whose given label has no majority among the raters → the label that has one; () where none has.
# Source: Northcutt et al., Pervasive Label Errors in Test Sets, 2021; label-errors, mnist_mturk.json.
MNIST_DOUBTFUL: Mapping[int, tuple[int, ...]] = {
    947: (9,), 1621: (6,), 1901: (4,), 2130: (), 2462: (0,), 2597: (3,), 2654: (), 3520: (),
    3558: (0,), 5937: (3,), 6651: (6,), 6783: (6,), 8527: (), 9679: (), 9729: (6,),
}  # fmt: skip
DIGITS_TEST = 360  # of 1,797: a fifth

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
        doubtful: test index → the label that most raters gave instead; () where no label has a majority.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    digest: str
    source: str
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

    dataset: Mnist | FashionMnist | Digits | Files
    message: str


class _Dataset(Option):
    name: str
    validation_fraction: ShareOfTrain
    train_limit: Count | None

    def resolve(self) -> Resolution:
        """This very data set, and nothing to say."""
        return Resolution(cast("Mnist | FashionMnist | Digits | Files", self), "")

    def _split(
        self,
        arrays: Arrays,
        class_names: tuple[str, ...],
        source: str,
        *,
        digests: Mapping[str, str] | None = None,
        doubtful: Mapping[int, tuple[int, ...]] | None = None,
    ) -> ImageData:
        from experiments.ingredients.images import digest_all, digest_each

        kept = self._count_kept(arrays.y_train, len(class_names))
        used = kept if self.train_limit is None else self.train_limit
        if used > kept:
            raise InputError(f"dataset.train_limit: must be at most {kept} here, received {used}")
        images, labels = arrays.x_train, arrays.y_train
        return ImageData(
            name=self.name,
            train=Split(images[:used], labels[:used]),
            validation=Split(images[kept:], labels[kept:]),
            test=Split(arrays.x_test, arrays.y_test),
            class_names=class_names,
            digest=digest_all(arrays, digests or digest_each(arrays)),
            source=source,
            doubtful=doubtful or {},
        )

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


class Mnist(_Dataset):
    """70,000 handwritten digits, 28×28 grey. Source: LeCun, Cortes, Burges, The MNIST Database, 1998."""

    name: Literal["mnist"]
    path: str | None

    def load(self) -> ImageData:
        """Read, verified by its content, and split.

        Raises:
            InputError: the file is not to be had, or holds other arrays than MNIST.
        """
        from experiments.ingredients.images import damaged, digest_each, read_archive

        path, source = locate(self.name, self.path)
        arrays = read_archive(path)
        digests = digest_each(arrays)
        for name, expected in MNIST_DIGESTS.items():
            if (received := digests[name]) != expected:
                raise damaged(path, f"{name} is not MNIST's: SHA-256 must be {expected}, received {received}")
        return self._split(arrays, DIGIT_NAMES, source, digests=digests, doubtful=MNIST_DOUBTFUL)


class FashionMnist(_Dataset):
    """70,000 pieces of clothing, 28×28 grey. Source: Xiao, Rasul, Vollgraf, Fashion-MNIST, 2017."""

    name: Literal["fashion_mnist"]
    path: str | None

    def load(self) -> ImageData:
        """Read and split.

        Raises:
            InputError: the file is not to be had, or its arrays have other shapes than Fashion-MNIST's.
        """
        from experiments.ingredients.images import damaged, read_archive

        path, source = locate(self.name, self.path)
        arrays = read_archive(path)
        shapes, classes = (arrays.x_train.shape, arrays.x_test.shape), int(arrays.y_train.max()) + 1
        if shapes != FASHION_SHAPES or classes != len(CLOTHES):
            rule = f"is not Fashion-MNIST: must hold images {FASHION_SHAPES} of {len(CLOTHES)} classes"
            raise damaged(path, f"{rule}, received {shapes} of {classes}")
        return self._split(arrays, CLOTHES, source)


class Digits(_Dataset):
    """1,797 handwritten digits, 8×8 grey, brought to 28×28.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (its test part), 1998.
    """

    name: Literal["digits"]

    def load(self) -> ImageData:
        """Read from the installed scikit-learn, enlarged and split."""
        import numpy as np

        from experiments.ingredients.digits import enlarge, read_digits
        from experiments.ingredients.images import Arrays, spread_classes

        small, labels = read_digits()
        mixed = np.random.RandomState(0).permutation(len(labels))  # frozen in every NumPy; mixes the writers
        order = mixed[spread_classes(labels[mixed])]
        images, labels = enlarge(small)[order], labels[order]
        train, test = slice(None, -DIGITS_TEST), slice(-DIGITS_TEST, None)
        arrays = Arrays(images[train], labels[train], images[test], labels[test])
        return self._split(arrays, DIGIT_NAMES, "scikit-learn's load_digits")


class Files(_Dataset):
    """The user's own images: an `.npz` (see `images.read_archive`) or a folder (see `images.read_folder`)."""

    name: Literal["files"]
    path: str | None
    class_names: list[str] | None

    def load(self) -> ImageData:
        """Read and split; the training images are put in the order of `images.spread_classes` first.

        Raises:
            InputError: no path, or what is there breaks a rule.
        """
        from experiments.ingredients.images import spread_classes

        if self.path is None:
            raise InputError("dataset.path: must be given, an .npz or a folder with train/ and test/, received null")
        arrays, names = self._read(Path(self.path).expanduser())
        order = spread_classes(arrays.y_train)
        arrays = arrays._replace(x_train=arrays.x_train[order], y_train=arrays.y_train[order])
        return self._split(arrays, names, self.path)

    def _read(self, path: Path) -> tuple[Arrays, tuple[str, ...]]:
        from experiments.ingredients.images import read_archive, read_folder

        if not path.exists():
            raise InputError(f"dataset.path: no such file or folder, received {self.path}")
        if path.is_dir():
            if self.class_names is not None:
                raise InputError("dataset.class_names: must be null for a folder, whose classes have names")
            return read_folder(path)
        arrays = read_archive(path)
        classes = int(arrays.y_train.max()) + 1
        names = tuple(map(str, range(classes)) if self.class_names is None else self.class_names)
        if len(names) != classes:
            rule = f"must be as many as the classes in {self.path}, {classes}"
            raise InputError(f"dataset.class_names: {rule}, received {len(names)}")
        return arrays, names


class Auto(_Dataset):
    """MNIST where it can be had, else the digits of scikit-learn."""

    name: Literal["auto"]

    def resolve(self) -> Resolution:
        """MNIST if its file is found or can be downloaded; else digits, and a sentence that says so."""
        fraction, limit = self.validation_fraction, self.train_limit
        try:
            locate("mnist", None)
        except InputError as error:
            digits = Digits(name="digits", validation_fraction=fraction, train_limit=limit)
            return Resolution(
                digits, f"NOT MNIST: this run uses the 1,797 small digits of scikit-learn instead. {error}"
            )
        mnist = Mnist(name="mnist", validation_fraction=fraction, train_limit=limit, path=None)
        return Resolution(mnist, "")

    def load(self) -> ImageData:
        """What `resolve` finds."""
        return self.resolve().dataset.load()


Dataset = Annotated[Auto | Mnist | FashionMnist | Digits | Files, Field(discriminator="name")]
