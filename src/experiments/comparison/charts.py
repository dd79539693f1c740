"""Learning curves as inline SVG; the page's style sheet has the colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from experiments.comparison.axes import Axis, counting, linear, logarithmic
from experiments.comparison.configurations import Configuration
from experiments.results.records import Record

COLOURS = 8  # configurations that get a colour of their own, and a place in the legend
MOST_RUNS = 60  # curves beyond that are a grey fog, and half of the report's bytes

WIDTH, HEIGHT = 300, 230  # of a panel, in its own units, which are about pixels on a wide page
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 34  # room beside the lines


class Series(NamedTuple):
    """One line: the rank of its configuration from 0, what it is, epochs, and finite or other values."""

    rank: int
    title: str
    x: NDArray[np.integer]
    y: NDArray[np.floating]


class Panel(NamedTuple):
    """One chart with a heading."""

    title: str
    svg: Markup


CURVES = {
    "validation/cross_entropy": "Validation cross-entropy",
    "train/cross_entropy": "Training cross-entropy",
    "validation/accuracy": "Validation error (%)",
    "learning_rate": "Learning rate",
}


def learning_curves(configurations: Sequence[Configuration]) -> list[Panel]:
    """Panels that share one legend; the best configurations first, a line for each run."""
    runs = [(rank, c.label, record) for rank, c in enumerate(configurations) for record in c.records]
    panels = []
    for column, title in CURVES.items():
        lines = [
            Series(rank, f"{name} · seed {record.seed}", record.history["epoch"], _curve(record, column))
            for rank, name, record in runs[:MOST_RUNS]
        ]
        lines = [line for line in lines if np.isfinite(line.y).any()]
        if lines:
            panels.append(Panel(title, _panel(lines, title)))
    return panels


def colour(rank: int) -> str:
    """The style class of a configuration: a colour of its own for the first eight, grey for the others."""
    return f"s{rank}" if rank < COLOURS else "rest"


def _curve(record: Record, column: str) -> NDArray[np.floating]:
    """A column of the history; accuracies as error in percent, so that the last tenths are seen."""
    values: NDArray[np.float64] = np.asarray(record.history[column], np.float64)
    return 100 * (1 - values) if column.endswith("accuracy") else values


def _panel(lines: Sequence[Series], title: str) -> Markup:
    vertical = _vertical([line.y[np.isfinite(line.y)] for line in lines])
    horizontal = counting(max(int(line.x[-1]) for line in lines), LEFT, WIDTH - RIGHT)
    # The best on top, so drawn last.
    drawn = [_line(line, horizontal, vertical) for line in sorted(lines, key=lambda line: -line.rank)]
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{} by epoch">{}{}</svg>').format(
        WIDTH, HEIGHT, title, _frame(horizontal, vertical), Markup().join(drawn)
    )


def _vertical(curves: Sequence[NDArray[np.floating]]) -> Axis:
    """Logarithmic from a ratio of 5 on, where a linear axis squeezes the ends of the curves.

    A rate that a schedule brings to zero has no logarithm; only the tops of such curves count then.
    """
    values = np.concatenate(curves)
    positive = values[values > 0]
    relevant = positive if len(positive) == len(values) else np.array([curve.max() for curve in curves])
    low, high = float(relevant.min()), float(values.max())
    if low > 0 and high > 5 * low:
        return logarithmic(max(float(positive.min()), high / 10_000), high, HEIGHT - BOTTOM, TOP)
    return linear(float(values.min()), high, HEIGHT - BOTTOM, TOP)


def _line(line: Series, horizontal: Axis, vertical: Axis) -> Markup:
    known = np.isfinite(line.y)
    placed = [
        f"{horizontal.place(float(x)):.1f},{vertical.place(float(y)):.1f}"
        for x, y in zip(line.x[known], line.y[known], strict=True)
    ]
    # A line of one point is not drawn by browsers; of two at the same place, with round caps, it is.
    points = " ".join(placed if len(placed) > 1 else placed * 2)
    return Markup(
        '<g class="line {}" data-series="{}"><title>{}: {} at the end</title><polyline points="{}"/></g>'
    ).format(colour(line.rank), line.rank, line.title, f"{line.y[known][-1]:.4g}", points)


def _frame(horizontal: Axis, vertical: Axis) -> Markup:
    rule = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
    heights = [(vertical.place(tick), vertical.text(tick)) for tick in vertical.ticks]
    parts = [_text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 4, "epoch", "middle")]
    parts += [rule.format(LEFT, WIDTH - RIGHT, y, y) for y, _ in heights]
    parts += [_text(LEFT - 6, y + 4, label, "end") for y, label in heights]
    parts += [
        _text(horizontal.place(tick), HEIGHT - BOTTOM + 15, horizontal.text(tick), "middle")
        for tick in horizontal.ticks
    ]
    return Markup().join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)
