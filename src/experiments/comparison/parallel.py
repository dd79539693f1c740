"""Parallel coordinates as inline SVG: configurations by more options than a heat map can hold."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence

from markupsafe import Markup

from experiments.comparison.axes import linear, shade
from experiments.comparison.configurations import Configuration
from experiments.comparison.settings import show

STEP = 200  # from one axis to the next, pixels at full size
TOP, BOTTOM, HEIGHT = 34, 290, 320
NARROWEST = 110  # pixels for an axis, before the chart is scrolled instead of shrunk


def parallel_coordinates(configurations: Sequence[Configuration], options: Sequence[str]) -> Markup:
    """A line for each configuration through its value of each option to its validation accuracy."""
    scores = [100 * c.mean("validation/accuracy") for c in configurations]
    known = [score for score in scores if math.isfinite(score)]
    if not known:
        return Markup()
    steps = {option: levels(c.settings[option] for c in configurations) for option in options}
    places = {option: _spread(len(found)) for option, found in steps.items()}
    result = linear(min(known), max(known), BOTTOM, TOP)
    lines = []
    # The best on top, so drawn last.
    for c, score in sorted(zip(configurations, scores, strict=True), key=lambda pair: pair[1]):
        if math.isfinite(score):
            heights = [places[option][steps[option].index(c.settings[option])] for option in options]
            lines.append(_route(c.label, score, [*heights, result.place(score)], shade(score, known)))
    axes = [
        _axis(index, option, zip(places[option], map(show, steps[option]), strict=True))
        for index, option in enumerate(options)
    ]
    ticks = [(result.place(tick), result.text(tick)) for tick in result.ticks]
    axes.append(_axis(len(options), "validation accuracy %", ticks))
    return _drawing(len(axes), Markup().join([*lines, *axes]))


def levels(values: Iterable[Hashable]) -> list[Hashable]:
    """Distinct values: numbers by size, then names in alphabetical order, then what does not apply."""

    def order(value: Hashable) -> tuple[int, float, str]:
        if isinstance(value, int | float):
            return 0, value, ""
        return (2, 0, "") if value is None else (1, 0, str(value))

    return sorted(set(values), key=order)


def _spread(count: int) -> list[float]:
    """Heights of `count` levels, the first at the bottom."""
    return [BOTTOM - (BOTTOM - TOP) * (index + 0.5) / count for index in range(count)]


def _route(label: str, score: float, heights: Sequence[float], tone: int) -> Markup:
    points = " ".join(f"{STEP * (index + 0.5):.0f},{height:.1f}" for index, height in enumerate(heights))
    return Markup('<g class="line h{}"><title>{}: {}%</title><polyline points="{}"/></g>').format(
        tone, label, f"{score:.2f}", points
    )


def _axis(index: int, name: str, ticks: Iterable[tuple[float, str]]) -> Markup:
    x = STEP * (index + 0.5)
    text = Markup('<text class="halo" x="{:.0f}" y="{:.1f}">{}</text>')
    labels = Markup().join(text.format(x + 6, height + 4, label) for height, label in ticks)
    return Markup(
        '<line class="axis" x1="{0:.0f}" x2="{0:.0f}" y1="30" y2="{1}"/>'
        '<text class="name" x="{0:.0f}" y="18" text-anchor="middle">{2}</text>{3}'
    ).format(x, BOTTOM + 4, name, labels)


def _drawing(axes: int, content: Markup) -> Markup:
    return Markup(
        '<svg style="min-width:{}px;max-width:{}px" viewBox="0 0 {} {}" role="img" '
        'aria-label="Parallel coordinates of the options and the validation accuracy">{}</svg>'
    ).format(NARROWEST * axes, STEP * axes, STEP * axes, HEIGHT, content)
