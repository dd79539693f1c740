"""Figures of test images: the errors, and a sample of predictions with their probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from experiments.results import evaluation
from experiments.results.names import width as width_of
from experiments.results.plots.canvas import (
    DOUBTFUL,
    INK,
    MARGIN,
    QUIET,
    RIGHT,
    WRONG,
    Box,
    canvas,
    class_labels,
    percent,
    place,
)
from experiments.results.plots.fonts import finish

COLUMNS: Final = 5
ERRORS_SHOWN: Final = 25
SAMPLE: Final = 10  # images in each half of the sample
BARS: Final = 4  # most probable classes that are shown for an image
PICTURE: Final = 1.0  # inches, of an error
LETTER: Final = 0.068  # inches, of a caption at 8 points with capitals
LETTERS: Final = 11  # of a class name, "T-shirt/top"
PAPER: Final = "#F3F3F3"  # behind a bar, up to a probability of 1
ERROR_LINE: Final = "Below each: true → predicted class, its probability, index in the test set."
DOUBT_LINE: Final = "Framed: a label in doubt, with the answer of most human raters if they had one."
SAMPLE_LINE: Final = (
    "Above each image: true class, index in the test set. "
    f"Bars: the {BARS} most probable classes, always with the true one (green); orange is a wrong prediction."
)


class Pitch(NamedTuple):
    """From one tile to the next, inches."""

    across: float
    down: float


@dataclass(frozen=True)
class Predictions:
    """The test set and what a model says of it.

    Attributes:
        images: (n, height, width, 1 or 3) uint8.
        labels: (n,) in [0, k).
        probabilities: (n, k), rows sum to 1.
        class_names: k names.
        doubtful: image index → the labels that a majority of raters gave it, empty where none has one.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.floating]
    class_names: tuple[str, ...]
    doubtful: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def labels_shown(self) -> tuple[str, ...]:
        """The names of the classes, short enough for a caption."""
        return class_labels(self.class_names, LETTERS)


def misclassified(predictions: Predictions, title: str) -> Figure:
    """The wrong test images, the most confident error first, framed where the label itself is in doubt."""
    wrong = evaluation.misclassified(predictions.probabilities, predictions.labels)
    shown = [int(index) for index in wrong[:ERRORS_SHOWN]]
    framed = any(index in predictions.doubtful for index in shown)
    lines = _error_lines(predictions, [int(index) for index in wrong])
    captions = [_error_caption(predictions, index) for index in shown]
    longest = max((width_of(line) for caption in captions for line in caption), default=0)
    pitch = Pitch(max(PICTURE + 0.25, LETTER * longest + 0.15), PICTURE + (0.73 if framed else 0.57))
    height = pitch.down * _rows(shown)
    width = max(6.5, 2 * MARGIN + COLUMNS * pitch.across)
    figure = canvas(width, height, "Misclassified test images", title, *lines)
    sheet = _sheet(figure)
    for index, caption, (left, top) in zip(shown, captions, _corners(len(shown), height, pitch), strict=True):
        _picture(sheet, predictions.images[index], left, top, PICTURE)
        _caption(sheet, left, top - PICTURE - 0.17, caption)
        if index in predictions.doubtful:
            box = (left, top - PICTURE), PICTURE, PICTURE
            sheet.add_patch(Rectangle(*box, fill=False, edgecolor=DOUBTFUL, linewidth=4))
    return finish(figure)


def sample_predictions(predictions: Predictions, title: str) -> Figure:
    """Test images with their most probable classes: first typical ones, then the hardest.

    The first half is the first test image of each class (of ten spread evenly where there are more classes),
    the same in every run on a data set; the second half are the least probable predictions, right or wrong.
    """
    pitch, heading = Pitch(2.3, 1.2), 0.3  # inches
    halves = dict(_halves(predictions))
    height = sum(heading + pitch.down * _rows(half) for half in halves.values())
    figure = canvas(2 * MARGIN + COLUMNS * pitch.across, height, "Sample predictions", title, SAMPLE_LINE)
    sheet, top = _sheet(figure), height
    for name, half in halves.items():
        sheet.text(MARGIN, top - 0.15, name, fontsize=10, fontweight="bold", color=INK)
        for index, (left, upper) in zip(half, _corners(len(half), top - heading, pitch), strict=True):
            _tile(sheet, predictions, int(index), left, upper)
        top -= heading + pitch.down * _rows(half)
    return finish(figure)


def _halves(predictions: Predictions) -> Iterator[tuple[str, NDArray[np.int64]]]:
    present, first = np.unique(predictions.labels, return_index=True)
    spread = np.linspace(0, len(present) - 1, min(SAMPLE, len(present))).round().astype(np.int64)
    which = "each class" if len(spread) == len(present) else f"{SAMPLE} of the {len(present)} classes"
    yield f"The first test image of {which}", first[spread]
    certain = predictions.probabilities.max(axis=1)
    yield "The least certain predictions", np.argsort(certain, kind="stable")[:SAMPLE]


def _error_lines(predictions: Predictions, wrong: Sequence[int]) -> Iterator[str]:
    in_doubt, hidden = len(predictions.doubtful.keys() & set(wrong)), len(wrong) - ERRORS_SHOWN
    count = f"{len(wrong):,} of {len(predictions.labels):,} test images wrong"
    yield f"{count}, {in_doubt} of them with a label in doubt." if in_doubt else f"{count}."
    if hidden > 0:
        yield f"The {ERRORS_SHOWN} most confident errors are shown, {hidden:,} are not."
    if wrong:
        yield ERROR_LINE
    if in_doubt:
        yield DOUBT_LINE


def _error_caption(predictions: Predictions, index: int) -> list[str]:
    names, probabilities = predictions.labels_shown, predictions.probabilities[index]
    said = int(probabilities.argmax())
    true, wrong = (names[label] for label in (int(predictions.labels[index]), said))
    caption = [f"{true} → {wrong}", f"{percent(probabilities[said])}   #{index}"]
    if index not in predictions.doubtful:
        return caption
    answers = " or ".join(names[label] for label in predictions.doubtful[index])
    return [*caption, f"raters: {answers or 'no label'}"]


def _tile(sheet: Axes, predictions: Predictions, index: int, left: float, top: float) -> None:
    """An image, its true class and index above it, a bar for each of its most probable classes beside it."""
    picture, row, begin, end = 0.84, 0.21, left + 0.92, left + 2.19  # inches
    true, probabilities = int(predictions.labels[index]), predictions.probabilities[index]
    _caption(sheet, left, top - 0.12, [f"true: {predictions.labels_shown[true]}   #{index}"])
    _picture(sheet, predictions.images[index], left, top - 0.18, picture)
    ranked = _ranked(probabilities, true)
    rows = top - 0.18 - row * (np.arange(len(ranked)) + 0.5)
    colours = [RIGHT if label == true else WRONG if label == ranked[0] else QUIET for label in ranked]
    reach = begin + (end - begin) * probabilities[ranked]
    sheet.hlines(rows, begin, end, colors=PAPER, linewidth=72 * 0.85 * row)
    sheet.hlines(rows, begin, reach, colors=colours, linewidth=72 * 0.85 * row, alpha=0.5)
    for label, y in zip(ranked, rows, strict=True):
        name, share = predictions.labels_shown[label], percent(probabilities[label])
        sheet.text(begin + 0.04, y - 0.04, name, fontsize=8, color=INK)
        sheet.text(end - 0.03, y - 0.04, share, fontsize=8, color=INK, ha="right")


def _ranked(probabilities: NDArray[np.floating], true: int) -> NDArray[np.int64]:
    """The most probable classes; the true one takes the last place where it is not among them."""
    ranked = np.argsort(-probabilities, kind="stable")[:BARS]
    if true not in ranked:
        ranked[-1] = true
    return ranked


def _sheet(figure: Figure) -> Axes:
    """Axes without frame over the whole figure, one unit an inch."""
    width, height = figure.get_size_inches()
    sheet = place(figure, Box(0, 0, width, height))
    sheet.set_axis_off()
    sheet.set(xlim=(0, width), ylim=(0, height), autoscale_on=False)
    return sheet


def _corners(count: int, top: float, pitch: Pitch) -> list[tuple[float, float]]:
    """Upper left corner of each tile, inches, row by row."""
    places = (divmod(number, COLUMNS) for number in range(count))
    return [(MARGIN + column * pitch.across, top - row * pitch.down) for row, column in places]


def _picture(sheet: Axes, image: NDArray[np.uint8], left: float, top: float, side: float) -> None:
    """An image in its proportions, as large as a square of `side` inches holds, in the middle of it."""
    height, width, channels = image.shape
    wide, high = side * width / max(width, height), side * height / max(width, height)
    x, y = left + (side - wide) / 2, top - (side + high) / 2
    pixels = image[..., 0] if channels == 1 else image
    extent = (x, x + wide, y, y + high)
    sheet.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto", interpolation="nearest")


def _caption(sheet: Axes, left: float, baseline: float, lines: Sequence[str]) -> None:
    """Lines of text, the first in ink on a baseline in inches, the others quiet below it."""
    for number, line in enumerate(lines):
        sheet.text(left, baseline - 0.16 * number, line, fontsize=8, color=QUIET if number else INK)


def _rows(tiles: Sequence[int] | NDArray[np.int64]) -> int:
    return math.ceil(len(tiles) / COLUMNS)
