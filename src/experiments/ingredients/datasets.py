"""The data sets that can be chosen: images in memory as uint8. Never starts TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from experiments.errors import InputError
from experiments.ingredients.downloads import locate
from experiments.ingredients.files import Files
from experiments.ingredients.option import AsBefore
from experiments.ingredients.published import Facts, Published, read_published
from experiments.ingredients.splits import DatasetOption, ImageData, Resolution
from experiments.ingredients.splits import Split as Split  # part of what a data set is, for those who read one

if TYPE_CHECKING:
    from experiments.ingredients.images import Content

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


class Mnist(DatasetOption):
    """70,000 handwritten digits, 28×28 grey. Source: LeCun, Cortes, Burges, The MNIST Database, 1998."""

    name: Literal["mnist"]
    path: str | None
    test: Annotated[Literal["official", "qmnist50k"], AsBefore("official")]

    @property
    def title(self) -> str:
        """`mnist`, and the test images where they are others."""
        return self.name if self.test == "official" else f"{self.name}+{self.test}"

    def load(self) -> ImageData:
        """Read, verified by its content, and split.

        Raises:
            InputError: the file is not to be had, or holds other arrays than MNIST.
        """
        from experiments.ingredients.images import damaged, digest_each
        from experiments.ingredients.npz import read_archive

        path, source = locate(self.name, self.path)
        content = read_archive(path, "auto")
        digests = digest_each(content.arrays)
        for name, expected in MNIST_DIGESTS.items():
            if (received := digests[name]) != expected:
                raise damaged(path, f"{name} is not MNIST's: SHA-256 must be {expected}, received {received}")
        if self.test == "official":
            return self.split(content, DIGIT_NAMES, source, digests=digests, doubtful=MNIST_DOUBTFUL)
        return self.split(_with_further_test(content), DIGIT_NAMES, source)


def _with_further_test(content: Content) -> Content:
    from experiments.ingredients.qmnist import read_further_test

    images, labels = read_further_test()
    note = f"test: the {len(labels):,} further test images of QMNIST, none of which is in MNIST"
    arrays = content.arrays._replace(x_test=images, y_test=labels)
    return content._replace(arrays=arrays, notes=(*content.notes, note))


class FashionMnist(DatasetOption):
    """70,000 pieces of clothing, 28×28 grey. Source: Xiao, Rasul, Vollgraf, Fashion-MNIST, 2017."""

    name: Literal["fashion_mnist"]
    path: str | None

    def load(self) -> ImageData:
        """Read and split.

        Raises:
            InputError: the file is not to be had, or its arrays have other shapes than Fashion-MNIST's.
        """
        located = locate(self.name, self.path)
        content = read_published(located, Facts("Fashion-MNIST", FASHION_SHAPES, CLOTHES))
        return self.split(content, CLOTHES, located.source)


class Digits(DatasetOption):
    """1,797 handwritten digits, 8×8 grey, brought to 28×28.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (its test part), 1998.
    """

    name: Literal["digits"]

    def load(self) -> ImageData:
        """Read from the installed scikit-learn, enlarged and split."""
        import numpy as np

        from experiments.ingredients.digits import enlarge, read_digits
        from experiments.ingredients.images import Arrays, Content, spread_classes

        small, labels = read_digits()
        mixed = np.random.RandomState(0).permutation(len(labels))  # frozen in every NumPy; mixes the writers
        order = mixed[spread_classes(labels[mixed])]
        images, labels = enlarge(small)[order], labels[order]
        train, test = slice(None, -DIGITS_TEST), slice(-DIGITS_TEST, None)
        arrays = Arrays(images[train], labels[train], images[test], labels[test])
        return self.split(Content(arrays, DIGIT_NAMES, "byte", ()), DIGIT_NAMES, "scikit-learn's load_digits")


class Auto(DatasetOption):
    """MNIST where it can be had, else the digits of scikit-learn."""

    name: Literal["auto"]

    def resolve(self) -> Resolution:
        """MNIST if its file is found or can be downloaded; else digits, and a sentence that says so."""
        shared = self.model_dump(exclude={"name"})
        try:
            locate("mnist", None)
        except InputError as error:
            digits = Digits(name="digits", **shared)
            return Resolution(
                digits, f"NOT MNIST: this run uses the 1,797 small digits of scikit-learn instead. {error}"
            )
        return Resolution(Mnist(name="mnist", path=None, test="official", **shared), "")

    def load(self) -> ImageData:
        """What `resolve` finds."""
        return self.resolve().dataset.load()


Dataset = Annotated[Auto | Mnist | FashionMnist | Published | Digits | Files, Field(discriminator="name")]
