"""Numbers → inline SVG: learning curves and parallel coordinates. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from experiments.comparison.configurations import Configuration
from experiments.comparison.settings import show

COLOURS = 8  # series that get a colour of their own, and a place in the legend
MOST_RUNS = 60  # curves beyond that are a grey fog, and 5 MB
SHADES = 7  # of the sequential scale

WIDTH, HEIGHT = 360, 240  # of a panel, in its own units, which are pixels at full size
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 34


class Series(NamedTuple):
    """One line: the place of its configuration in the ranking, a text that tells it, its points."""

    rank: int
    title: str
    x: Sequence[float]
    y: Sequence[float]


class Panel(NamedTuple):
    """One chart with a heading."""

    title: str
    svg: Markup


class Axis(NamedTuple):
    """A position for each value, and the values that get a label."""

    place: Callable[[float], float]
    ticks: Sequence[float]
    text: Callable[[float], str]


CURVES = {
    "validation/cross_entropy": "Validation cross-entropy (nats)",
    "train/cross_entropy": "Training cross-entropy (nats)",
    "validation/accuracy": "Validation accuracy (%)",
    "learning_rate": "Learning rate",
}


def learning_curves(configurations: Sequence[Configuration]) -> list[Panel]:
    """Panels that share one legend; the best configurations first, a line for each run."""
    runs = [(rank, c.label, record) for rank, c in enumerate(configurations) for record in c.records]
    panels = []
    for column, title in CURVES.items():
        scale = 100.0 if column.endswith("accuracy") else 1.0
        lines = [
            Series(
                rank, f"{name} · seed {record.seed}", record.history["epoch"], scale * record.history[column]
            )
            for rank, name, record in runs[:MOST_RUNS]
        ]
        lines = [line for line in lines if np.isfinite(line.y).any()]
        if lines:
            panels.append(Panel(title, _panel(lines, title, logarithmic=not column.endswith("accuracy"))))
    return panels


def _panel(lines: Sequence[Series], title: str, *, logarithmic: bool) -> Markup:
    values = np.concatenate([np.asarray(line.y, float) for line in lines])
    values = values[np.isfinite(values) & ((values > 0) | (not logarithmic))]
    if len(values) == 0:
        return Markup()
    epochs = max(float(max(line.x)) for line in lines)
    # A ratio of 5: from there on a linear axis squeezes the end of the curves, where the answer is.
    logarithmic = logarithmic and values.max() > 5 * values.min()
    vertical = (_logarithmic if logarithmic else _linear)(values.min(), values.max(), HEIGHT - BOTTOM, TOP)
    horizontal = _linear(1.0, max(epochs, 2.0), LEFT, WIDTH - RIGHT, whole=True)
    # The best on top, so drawn last.
    drawn = [_line(line, horizontal, vertical) for line in sorted(lines, key=lambda line: -line.rank)]
    return Markup(
        '<svg class="panel" viewBox="0 0 {} {}" role="img" aria-label="{} by epoch">{}{}</svg>'
    ).format(WIDTH, HEIGHT, title, _frame(horizontal, vertical), Markup().join(drawn))


def _line(line: Series, horizontal: Axis, vertical: Axis) -> Markup:
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    placed = [(horizontal.place(float(x)), vertical.place(float(y))) for x, y in points]
    title = Markup("<title>{}: {} at the end</title>").format(
        line.title, f"{points[-1][1]:.4g}" if points else "–"
    )
    if len(placed) == 1:
        shape = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(*placed[0])
    else:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        shape = Markup('<polyline points="{}"/>').format(path)
    return Markup('<g class="line {0}" data-series="{1}">{2}{3}</g>').format(
        colour(line.rank), line.rank, title, shape
    )


def colour(rank: int) -> str:
    """The style class of a configuration's colour: one of its own for the first eight, grey for the others."""
    return f"s{rank}" if rank < COLOURS else "rest"


def _frame(horizontal: Axis, vertical: Axis) -> Markup:
    parts = [_text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 4, "epoch", "middle")]
    for tick in vertical.ticks:
        y = vertical.place(tick)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                LEFT, WIDTH - RIGHT, y, y
            )
        )
        parts.append(_text(LEFT - 6, y + 4, vertical.text(tick), "end"))
    parts += [
        _text(horizontal.place(tick), HEIGHT - BOTTOM + 15, horizontal.text(tick), "middle")
        for tick in horizontal.ticks
    ]
    return Markup().join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _linear(low: float, high: float, start: float, end: float, *, whole: bool = False) -> Axis:
    ticks = round_ticks(low, high, whole=whole)
    if not whole:
        low, high = min(low, ticks[0]), max(high, ticks[-1])
    span = high - low or 1.0
    return Axis(lambda value: start + (value - low) / span * (end - start), ticks, lambda tick: f"{tick:g}")


def _logarithmic(low: float, high: float, start: float, end: float) -> Axis:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 3 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001] or [low, high]
    bottom, span = math.log10(low), math.log10(high / low) or 1.0
    return Axis(
        lambda value: start + (math.log10(max(value, low)) - bottom) / span * (end - start),
        ticks,
        lambda tick: f"{tick:g}",
    )


def round_ticks(low: float, high: float, most: int = 5, *, whole: bool = False) -> list[float]:
    """Up to about `most` round numbers that span [low, high]; inside it, and integers, where `whole`."""
    span = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / most))
    step = next(size * factor for factor in (1, 2, 5, 10) if span / (size * factor) <= most)
    if whole:
        step = max(1.0, round(step))
        return [
            float(tick) for tick in np.arange(math.ceil(low), math.floor(high) + 1) if (tick - 1) % step == 0
        ]
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 12) for index in range(first, last + 1)]


def shade(value: float, low: float, high: float) -> int:
    """The place of a value on the sequential scale, 0 to 6; the middle where all are equal."""
    if not math.isfinite(value):
        return 0
    return min(SHADES - 1, int((value - low) / (high - low) * SHADES)) if high > low else SHADES // 2


STEP = 150  # from one axis of the parallel coordinates to the next
TALL = 300


def parallel_coordinates(configurations: Sequence[Configuration], options: Sequence[str]) -> Markup:
    """A line for each configuration through its value of each option to its validation accuracy."""
    scores = [100 * c.mean("validation/accuracy") for c in configurations]
    known = [score for score in scores if math.isfinite(score)]
    if not known:
        return Markup()
    low, high = min(known), max(known)
    levels = {option: _levels(c.settings[option] for c in configurations) for option in options}
    places = {option: _spread(len(found)) for option, found in levels.items()}
    result = _linear(low, high, TALL - 30, 34)
    lines = []
    for c, score in sorted(zip(configurations, scores, strict=True), key=lambda pair: pair[1]):
        if math.isfinite(score):
            heights = [places[option][levels[option].index(c.settings[option])] for option in options]
            lines.append(_route(c.label, score, [*heights, result.place(score)], shade(score, low, high)))
    axes = [
        _axis(index, option, zip(places[option], map(show, levels[option]), strict=True))
        for index, option in enumerate(options)
    ]
    ticks = [(result.place(tick), result.text(tick)) for tick in result.ticks]
    axes.append(_axis(len(options), "validation accuracy %", ticks))
    return Markup(
        '<svg class="parallel" style="min-width:{}px" viewBox="0 0 {} {}" role="img" '
        'aria-label="Parallel coordinates of the options and the validation accuracy">{}{}</svg>'
    ).format(
        110 * (len(options) + 1), STEP * (len(options) + 1), TALL, Markup().join(lines), Markup().join(axes)
    )


def _levels(values: Iterable[object]) -> list[object]:
    """Distinct values, numbers by size, before names in alphabetical order, before what does not apply."""
    return sorted(
        set(values),
        key=lambda value: (
            (0, value, "")
            if isinstance(value, int | float)
            else (2, 0, "")
            if value is None
            else (1, 0, str(value))
        ),
    )


def _spread(count: int) -> list[float]:
    """Heights of `count` levels, the first at the bottom."""
    return [TALL - 30 - (TALL - 64) * (index + 0.5) / count for index in range(count)]


def _route(label: str, score: float, heights: Sequence[float], tone: int) -> Markup:
    points = " ".join(f"{STEP * (index + 0.5):.0f},{height:.1f}" for index, height in enumerate(heights))
    return Markup('<g class="line h{}"><title>{}: {} %</title><polyline points="{}"/></g>').format(
        tone, label, f"{score:.2f}", points
    )


def _axis(index: int, name: str, ticks: Iterable[tuple[float, str]]) -> Markup:
    x = STEP * (index + 0.5)
    labels = [
        Markup('<text class="halo" x="{:.0f}" y="{:.1f}">{}</text>').format(x + 6, height + 4, text)
        for height, text in ticks
    ]
    return Markup(
        '<line class="axis" x1="{0:.0f}" x2="{0:.0f}" y1="30" y2="{1}"/>'
        '<text class="name" x="{0:.0f}" y="18" text-anchor="middle">{2}</text>{3}'
    ).format(x, TALL - 26, escape(name), Markup().join(labels))
