"""Picture files → one array, all of one shape; every mistake with a picture is told, in one list."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.errors import InputError, shorten
from experiments.ingredients.images import reading_data
from experiments.ingredients.pictures import describe, read_picture, read_shape
from experiments.ingredients.resizing import Target, bring

MOST_MISTAKES = 20  # bad pictures that are named
USUAL_SIZE = 224  # that networks for photographs take
STEP = 32  # sizes that halve five times


class Shape(NamedTuple):
    """What pictures are brought to: (height, width, channels), and sentences about it."""

    shape: tuple[int, int, int]
    notes: tuple[str, ...]


def find_shape(files: Sequence[Path], target: Target) -> Shape:
    """The shape of every picture when it has been brought to `target`, by their headers.

    Where `target` does not say the channels, all become colour if any is.

    Raises:
        InputError: they have several sizes, and `target` does not say to which one they are brought; or none can be
            read.
    """
    shapes: dict[tuple[int, int, int], list[Path]] = {}
    mistakes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about what it reads nevertheless
        for file in files:
            try:
                shapes.setdefault(read_shape(file), []).append(file)
            except InputError as error:  # decoding tells it
                mistakes += error.mistakes
    if not shapes:
        tell_all(mistakes)
    sizes = {(height, width) for height, width, _ in shapes}
    if target.size is None and len(sizes) > 1:
        raise InputError(_propose_size(shapes))
    counts = {n: sum(len(some) for shape, some in shapes.items() if shape[2] == n) for n in (1, 3)}
    channels = target.channels or max(n for n, count in counts.items() if count)
    notes: tuple[str, ...] = ()
    if target.channels is None and all(counts.values()):
        grey = f"{counts[1]:,} of {sum(counts.values()):,} pictures are grey"
        notes = (f"{grey} and become colour (dataset.channels=1 makes all grey)",)
    return Shape((*(target.size or sizes.pop()), channels), notes)


def _propose_size(shapes: dict[tuple[int, int, int], list[Path]]) -> str:
    counts: Counter[tuple[int, int]] = Counter()
    examples: dict[tuple[int, int], Path] = {}
    for (height, width, _), some in shapes.items():
        counts[height, width] += len(some)
        examples[height, width] = some[0]
    shorter = sorted(min(size) for size in counts.elements())
    middle = min(USUAL_SIZE, shorter[len(shorter) // 2])
    proposed = middle // STEP * STEP or middle
    found = shorten([f"{width}×{height} ({count:,})" for (height, width), count in counts.most_common()], 4)
    odd = examples[counts.most_common()[-1][0]]
    return (
        f"dataset.image_size: must be given for pictures of several sizes, received {len(counts):,}: {found}, "
        f"the rarest as {odd}; dataset.image_size={proposed} brings all to one"
    )


def decode(
    files: Sequence[Path], target: Target, shape: tuple[int, int, int], mistakes: list[str]
) -> Iterator[NDArray[np.uint8] | None]:
    """Every picture, brought to `target`, or None where there is a mistake with it, which is added to `mistakes`.

    Args:
        files: the pictures.
        target: what each is brought to.
        shape: what comes of that, see `find_shape`; the header of a damaged file may have said something else.
        mistakes: one line is added for each picture that cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in files:
            try:
                pixels = bring(read_picture(file, target.background), target)
                if pixels.shape != shape:
                    raise InputError(f"{file}: images must be {describe(shape)}, received {describe(pixels.shape)}")
                yield pixels
            except InputError as error:
                mistakes += error.mistakes
                yield None


def tell_all(mistakes: Sequence[str]) -> None:
    """Raises every mistake with a picture in one list, or the first and how many more, and how to go on.

    Raises:
        DataError: `mistakes` is not empty.
    """
    if mistakes:
        more = len(mistakes) - MOST_MISTAKES
        shown = sorted(mistakes)
        if more > 0:
            shown[MOST_MISTAKES:] = [f"and {more:,} more pictures"]
        if len(mistakes) == 1:
            shown[0] += "; dataset.bad_images=skip leaves it out"
        else:
            shown.append(f"{len(mistakes):,} pictures cannot be used; dataset.bad_images=skip leaves them out")
        with reading_data():
            raise InputError(*shown)
