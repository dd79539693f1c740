"""Learning curves as inline SVG; the page's style sheet has the colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from experiments.comparison.axes import Axis, counting, linear, logarithmic
from experiments.comparison.configurations import Configuration
from experiments.results.files import MEASURED

COLOURS = 8  # configurations that get a colour of their own, and a place in the legend
MOST_CONFIGURATIONS = 30  # bands beyond that are a grey fog, and half of the report's bytes
MOST_RUNS = 90  # single lines

WIDTH, HEIGHT = 300, 230  # of a panel, in its own units, which are about pixels on a wide page
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 34  # room beside the lines


class Series(NamedTuple):
    """The curves of one configuration, by its rank from 0: (seeds, epochs), NaN where a run has ended before."""

    rank: int
    title: str
    y: NDArray[np.float64]
    dashed: bool = False


class Panel(NamedTuple):
    """One chart with a heading."""

    title: str
    svg: Markup


CURVES = {
    ("validation/cross_entropy",): "Validation cross-entropy",
    ("train/cross_entropy",): "Training cross-entropy",
    ("validation/accuracy", "train/accuracy"): "Error (%): validation, training dashed",
    ("learning_rate",): "Learning rate",
}


def learning_curves(configurations: Sequence[Configuration]) -> list[Panel]:
    """Panels that share one legend: mean and range of each configuration's seeds, and a line for each run."""
    panels, measured = [], are_measured(configurations)
    for columns, title in CURVES.items():
        found = [
            Series(rank, c.label, _curves(c, column), dashed=column.startswith("train/") and len(columns) > 1)
            for column in (map(_measured, columns) if measured else columns)
            for rank, c in enumerate(configurations[:MOST_CONFIGURATIONS])
        ]
        found = [series for series in found if np.isfinite(series.y).any()]
        if found:
            panels.append(Panel(title, _panel(found, title)))
    return panels


def are_measured(configurations: Sequence[Configuration]) -> bool:
    """Whether training images were measured after each epoch as validation images are, in all runs that are drawn."""
    shown = [record for c in configurations[:MOST_CONFIGURATIONS] for record in c.records]
    return all(np.isfinite(record.history[name]).all() for record in shown for name in MEASURED)


def _measured(column: str) -> str:
    return column.replace("train/", "train/measured_")


def legend(configurations: Sequence[Configuration]) -> list[tuple[str, str]]:
    """Style class and name of what has a colour of its own; of the others, if they are several, in one word."""
    own = [(colour(rank), c.label) for rank, c in enumerate(configurations[: COLOURS + 1])]
    return own if len(configurations) <= COLOURS + 1 else own[:COLOURS]


def colour(rank: int) -> str:
    """The style class of a configuration: a colour of its own for the first eight, grey for the others."""
    return f"s{rank}" if rank < COLOURS else "rest"


def _curves(configuration: Configuration, column: str) -> NDArray[np.float64]:
    """A column of the histories, (seeds, epochs); accuracies as error in percent, so that the last tenths are seen."""
    curves = [np.asarray(record.history[column], np.float64) for record in configuration.records]
    padded = np.full((len(curves), max(map(len, curves), default=0)), np.nan)
    for row, curve in zip(padded, curves, strict=True):
        row[: len(curve)] = curve
    padded[~np.isfinite(padded)] = np.nan
    return 100 * (1 - padded) if column.endswith("accuracy") else padded


def _panel(found: Sequence[Series], title: str) -> Markup:
    vertical = _vertical([curve[np.isfinite(curve)] for series in found for curve in series.y])
    horizontal = counting(max(series.y.shape[1] for series in found), LEFT, WIDTH - RIGHT)
    # The best on top, so drawn last.
    drawn = [_drawn(series, horizontal, vertical) for series in sorted(found, key=lambda series: -series.rank)]
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{} by epoch">{}{}</svg>').format(
        WIDTH, HEIGHT, title, _frame(horizontal, vertical), Markup().join(drawn)
    )


def _vertical(curves: Sequence[NDArray[np.float64]]) -> Axis:
    """Logarithmic from a ratio of 5 on, where a linear axis squeezes the ends of the curves.

    A rate that a schedule brings to zero has no logarithm; only the tops of such curves count then. One run that went
    astray does not decide: the axis ends at ten times the upper quartile of the ends.
    """
    curves = [curve for curve in curves if len(curve)]
    values = np.concatenate(curves)
    positive = values[values > 0]
    relevant = positive if len(positive) == len(values) else np.array([curve.max() for curve in curves])
    first = max(
        float(np.quantile([curve[0] for curve in curves], 0.75)), 10 * float(np.median([c[-1] for c in curves]))
    )
    low, high = float(relevant.min()), min(float(values.max()), max(first, float(np.median(values))))
    if low > 0 and high > 5 * low:
        return logarithmic(max(float(positive.min()), high / 10_000), high, HEIGHT - BOTTOM, TOP)
    return linear(float(values.min()), high, HEIGHT - BOTTOM, TOP)


def _drawn(series: Series, horizontal: Axis, vertical: Axis) -> Markup:
    epochs = np.flatnonzero(np.isfinite(series.y).any(axis=0))
    known = series.y[:, epochs]
    mean, low, high = (of(known, axis=0) for of in (np.nanmean, np.nanmin, np.nanmax))
    several = len(series.y) > 1
    band = _points(epochs, low, horizontal, vertical) + _points(epochs, high, horizontal, vertical)[::-1]
    told = f"{series.title}: {mean[-1]:.4g} at the end" + (f", mean of {len(series.y)} seeds" if several else "")
    parts = [Markup('<polygon points="{}"/>').format(" ".join(band))] if several and not series.dashed else []
    parts.append(_polyline(epochs, mean, horizontal, vertical, "mean"))
    if several and not series.dashed and series.rank * len(series.y) < MOST_RUNS:
        parts += [
            _polyline(np.flatnonzero(np.isfinite(row)), row[np.isfinite(row)], horizontal, vertical, "run")
            for row in series.y
            if np.isfinite(row).any()
        ]
    dashed = " dashed" if series.dashed else ""
    return Markup('<g class="line {}{}" data-series="{}"><title>{}</title>{}</g>').format(
        colour(series.rank), dashed, series.rank, told, Markup().join(parts)
    )


def _points(epochs: NDArray[np.integer], y: NDArray[np.float64], horizontal: Axis, vertical: Axis) -> list[str]:
    """Places in the panel; what lies beyond an axis stays at its end."""
    heights = [min(max(vertical.place(float(v)), TOP), HEIGHT - BOTTOM) for v in y]
    return [f"{horizontal.place(float(x) + 1):.1f},{h:.1f}" for x, h in zip(epochs, heights, strict=True)]


def _polyline(
    epochs: NDArray[np.integer], y: NDArray[np.float64], horizontal: Axis, vertical: Axis, kind: str
) -> Markup:
    placed = _points(epochs, y, horizontal, vertical)
    # A line of one point is not drawn by browsers; of two at the same place, with round caps, it is.
    return Markup('<polyline class="{}" points="{}"/>').format(
        kind, " ".join(placed if len(placed) > 1 else placed * 2)
    )


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
