"""Figures over the classes of the test set: the confusion matrix, and the accuracy of each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from experiments.results.evaluation import Evaluation
from experiments.results.names import width
from experiments.results.plots.canvas import (
    FAINT,
    INK,
    MARGIN,
    QUIET,
    RIGHT,
    WRONG,
    Box,
    canvas,
    class_labels,
    place,
)
from experiments.results.plots.fonts import finish

WIDTH: Final = 7.0  # inches, at least
NAME_LETTERS: Final = 16  # longer class names are cut
LETTER: Final = 0.072  # inches, of a name at 9 points
CELL: Final = 0.44  # inches, five digits at 8 points
LARGE_CELL: Final = 0.8  # inches, with few classes
MATRIX: Final = 5.0  # inches, with cells between the two sizes
MATRIX_LIMIT: Final = 17.0  # inches: more classes get smaller cells, not a larger figure
SMALLEST_NUMBERED_CELL: Final = 0.34  # inches, three digits
SMALLEST_SCALE: Final = 10  # images at the dark end of the scale, at least
WHITE_ABOVE: Final = 0.6  # of the scale: numbers turn white there
FREQUENT: Final = 3  # errors that the header names
ROW: Final = 0.28  # inches, of one class in the dot plot
ERRORS: Final = LinearSegmentedColormap.from_list("errors", ["#FEECDF", "#FAC39B", WRONG, "#702C00"])
RIGHT_TINT: Final = 0.3  # opacity of the diagonal, which is not on the scale of the errors


def confusion_matrix(evaluation: Evaluation, class_names: Sequence[str], title: str) -> Figure:
    """Images by true and predicted class; the colour scale is for the errors, the diagonal has one tint.

    Args:
        evaluation: of the test set; `confusion` is (k, k).
        class_names: k names, in the order of the labels.
        title: what was run, "mnist · cnn · adam".
    """
    counts = evaluation.confusion
    errors = counts - np.diag(np.diagonal(counts))
    names = class_labels(class_names, NAME_LETTERS)
    cell = min(max(CELL, min(LARGE_CELL, MATRIX / len(names))), MATRIX_LIMIT / len(names))
    side, room = cell * len(names), _room(names)
    left, bottom = 0.6 + room, 0.5 + (room if _short(names) else 0.72 * room)  # slanted by 45°
    figure = canvas(
        max(WIDTH, left + side + 1.2),
        bottom + side + 0.1,
        "Confusion matrix",
        title,
        *_errors(errors, counts, names),
    )
    axes = place(figure, Box(left, bottom, left + side, bottom + side))
    # A power below 1 keeps a single error visible beside a hundred.
    norm = PowerNorm(0.7, vmin=0, vmax=max(SMALLEST_SCALE, errors.max()))
    axes.imshow(_colours(counts, errors, norm), interpolation="nearest", aspect="auto")
    _frame(axes, names, cell)
    if cell >= SMALLEST_NUMBERED_CELL:
        _number(axes, counts, norm)
    if errors.any():
        _add_scale(figure, Box(left + side + 0.2, bottom, left + side + 0.35, bottom + min(side, 3.0)), norm)
    return finish(figure)


def class_accuracy(evaluation: Evaluation, class_names: Sequence[str], title: str) -> Figure:
    """Accuracy of each class with its 95% Wilson interval, in the order of the classes.

    Args:
        evaluation: of the test set, with k classes; a class without an image gets no dot.
        class_names: k names, in the order of the labels.
        title: what was run, "mnist · cnn · adam".
    """
    names = class_labels(class_names, NAME_LETTERS)
    total, band = evaluation.accuracy, evaluation.accuracy_interval
    lines = (
        f"All classes (line and band): {total:.2%}, 95% interval {band.low:.2%} to {band.high:.2%}.",
        "Each class: accuracy and 95% Wilson interval, orange where it lies below the line.",
    )
    height, left = ROW * len(names), 0.6 + _room(names)
    figure = canvas(WIDTH, 0.55 + height, "Accuracy by class", title, *lines)
    axes = place(figure, Box(left, 0.55, WIDTH - MARGIN - 1.0, 0.55 + height))
    axes.axvspan(100 * band.low, 100 * band.high, color=FAINT, linewidth=0)
    axes.axvline(100 * total, color=QUIET, linewidth=1)
    _draw_intervals(axes, evaluation)
    _count(axes, evaluation.confusion)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("accuracy (% of the class's test images)")
    axes.set_ylabel("true class")
    axes.grid(axis="x", color=FAINT)
    return finish(figure)


def _draw_intervals(axes: Axes, evaluation: Evaluation) -> None:
    middle = 100 * evaluation.class_accuracy
    ends = 100 * np.array([(interval.low, interval.high) for interval in evaluation.class_intervals]).T
    below = ends[1] < 100 * evaluation.accuracy
    for chosen, colour in ((~below, INK), (below, WRONG)):
        rows = np.flatnonzero(chosen & np.isfinite(middle))
        reach = np.abs(ends - middle)[:, rows]
        axes.errorbar(middle[rows], rows, xerr=reach, fmt="o", color=colour, markersize=5, linewidth=1.5)


def _room(names: Sequence[str]) -> float:
    """Inches that the longest name takes."""
    return LETTER * max(width(name) for name in names)


def _add_scale(figure: Figure, box: Box, norm: PowerNorm) -> None:
    axes = place(figure, box)
    scale = figure.colorbar(ScalarMappable(norm, ERRORS), cax=axes)
    scale.outline.set_visible(False)
    scale.set_label("errors (images per cell)", fontsize=9, color=INK)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def _short(names: Sequence[str]) -> bool:
    """Whether the names fit below a column without being slanted."""
    return max(width(name) for name in names) <= 3


def _errors(errors: NDArray[np.int64], counts: NDArray[np.int64], names: Sequence[str]) -> Iterator[str]:
    yield f"{errors.sum():,} of {counts.sum():,} test images wrong."
    largest = np.argsort(-errors, axis=None, kind="stable")[:FREQUENT]
    places = [divmod(int(place), len(names)) for place in largest if errors.flat[place]]
    if places:
        listed = ", ".join(f"{names[true]} → {names[said]} ({errors[true, said]:,})" for true, said in places)
        yield f"Most frequent, true → predicted: {listed}."


def _colours(counts: NDArray[np.int64], errors: NDArray[np.int64], norm: PowerNorm) -> NDArray[np.float64]:
    colours = np.ones((*counts.shape, 4))
    colours[errors > 0] = ERRORS(norm(errors[errors > 0]))
    colours[np.diag(np.diagonal(counts) > 0)] = to_rgba(RIGHT, RIGHT_TINT)
    return colours


def _frame(axes: Axes, names: Sequence[str], cell: float) -> None:
    ticks, edges = range(len(names)), np.arange(len(names) + 1) - 0.5
    size = min(9.0, 72 * cell * 0.8)
    axes.set_xticks(ticks, names, fontsize=size)
    if not _short(names):
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names, fontsize=size)
    axes.hlines(edges, edges[0], edges[-1], colors=FAINT, linewidth=0.6, clip_on=False)
    axes.vlines(edges, edges[0], edges[-1], colors=FAINT, linewidth=0.6, clip_on=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")


def _number(axes: Axes, counts: NDArray[np.int64], norm: PowerNorm) -> None:
    for true, said in np.argwhere(counts):
        count = counts[true, said]
        colour = "white" if true != said and norm(count) > WHITE_ABOVE else INK
        axes.text(said, true, str(count), ha="center", va="center_baseline", fontsize=8, color=colour)


def _count(axes: Axes, counts: NDArray[np.int64]) -> None:
    for row, (right, images) in enumerate(zip(np.diagonal(counts), counts.sum(axis=1), strict=True)):
        text = f"{right:,} of {images:,}" if images else "no image"
        place = axes.get_yaxis_transform()
        axes.text(1.02, row, text, transform=place, va="center_baseline", fontsize=8, color=QUIET)
