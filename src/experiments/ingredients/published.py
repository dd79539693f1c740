"""Published data sets that are known by their shapes and classes: CIFAR-10 and -100, Kuzushiji-MNIST, EMNIST."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from experiments.errors import shorten
from experiments.ingredients.downloads import Located, locate
from experiments.ingredients.splits import DatasetOption, ImageData

if TYPE_CHECKING:
    from experiments.ingredients.images import Arrays, Content

Shapes = tuple[tuple[int, int, int, int], tuple[int, int, int, int]]
CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""


class Facts(NamedTuple):
    """What makes a data set known.

    Attributes:
        title: how it is written.
        shapes: of the training and the test images.
        class_names: by label.
        idx_files: images and labels of train and test in the format of MNIST, where it is published so.
        sideways: those files hold columns where others hold rows.
    """

    title: str
    shapes: Shapes
    class_names: tuple[str, ...]
    idx_files: tuple[str, str, str, str] | None = None
    sideways: bool = False


def _idx_files(train: str, test: str) -> tuple[str, str, str, str]:
    kinds = ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")
    return (f"{train}-{kinds[0]}", f"{train}-{kinds[1]}", f"{test}-{kinds[0]}", f"{test}-{kinds[1]}")


FACTS = {
    "cifar10": Facts(
        "CIFAR-10",
        ((50_000, 32, 32, 3), (10_000, 32, 32, 3)),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": Facts("CIFAR-100", ((50_000, 32, 32, 3), (10_000, 32, 32, 3)), tuple(CIFAR100.split())),
    "kmnist": Facts(
        "Kuzushiji-MNIST",
        ((60_000, 28, 28, 1), (10_000, 28, 28, 1)),
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        _idx_files("train", "t10k"),
    ),
    "emnist": Facts(
        "EMNIST (balanced)",
        ((112_800, 28, 28, 1), (18_800, 28, 28, 1)),
        tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        _idx_files("emnist-balanced-train", "emnist-balanced-test"),
        sideways=True,
    ),
}


class Published(DatasetOption):
    """One of `FACTS`.

    Sources: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009 (CIFAR); Clanuwat et al., Deep
    Learning for Classical Japanese Literature, 2018 (Kuzushiji-MNIST); Cohen et al., EMNIST, 2017.
    """

    name: Literal["cifar10", "cifar100", "kmnist", "emnist"]
    path: str | None

    def load(self) -> ImageData:
        """Read, compared with what it must be, and split.

        Raises:
            InputError: the files are not to be had, or hold images of other shapes or classes.
        """
        facts = FACTS[self.name]
        located = locate(self.name, self.path)
        content = read_published(located, facts)
        return self.split(content, facts.class_names, located.source)


def read_published(located: Located, facts: Facts) -> Content:
    """The arrays of an `.npz`, or of a folder with the data set's own files, when they are what they must be.

    Raises:
        InputError: they cannot be read, or have other shapes or classes.
    """
    from experiments.ingredients.images import Content, damaged
    from experiments.ingredients.npz import read_archive

    path = located.path
    if path.is_dir() and facts.idx_files:
        content = Content(_read_idx_files(path, facts, facts.idx_files), facts.class_names, "byte", ())
    else:
        content = read_archive(path, "auto")
    arrays = content.arrays
    shapes, classes = (arrays.x_train.shape, arrays.x_test.shape), int(arrays.y_train.max()) + 1
    if shapes != facts.shapes or classes != len(facts.class_names):
        rule = f"is not {facts.title}: must hold images {facts.shapes} of {len(facts.class_names)} classes"
        raise damaged(path, f"{rule}, received {shapes} of {classes}")
    return content


def _read_idx_files(folder: Path, facts: Facts, names: tuple[str, ...]) -> Arrays:
    import numpy as np

    from experiments.ingredients.idx import read_idx
    from experiments.ingredients.images import Arrays, damaged, reading_data

    if missing := [name for name in names if not (folder / name).is_file()]:
        raise damaged(folder, f"must hold the files of {facts.title}, received none named {shorten(missing)}")
    with reading_data():
        x_train, y_train, x_test, y_test = (read_idx(folder / name) for name in names)
    for name, images, labels in ((names[0], x_train, y_train), (names[2], x_test, y_test)):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise damaged(folder / name, f"must hold images with labels, received {images.shape} and {labels.shape}")
    if facts.sideways:
        x_train, x_test = x_train.transpose(0, 2, 1), x_test.transpose(0, 2, 1)
    pixels = [np.ascontiguousarray(images[..., np.newaxis], np.uint8) for images in (x_train, x_test)]
    return Arrays(pixels[0], y_train.astype(np.int64), pixels[1], y_test.astype(np.int64))
