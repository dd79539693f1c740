"""Axes of the report's charts: where a value goes, which values get a label, which shade it has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

SHADES = 7  # of the sequential scale
MOST_TICKS = 7  # two decades in steps of 1, 2, 5; beyond that powers of ten will do


class Axis(NamedTuple):
    """A position for each value, the values that get a label, and the label."""

    place: Callable[[float], float]
    ticks: Sequence[float]
    text: Callable[[float], str]


def linear(low: float, high: float, start: float, end: float) -> Axis:
    """From `start` to `end`, widened to round values.

    Args:
        low: the smallest value, finite.
        high: the largest value, finite, `low` or more.
        start: where the lowest label is placed, user units of the SVG.
        end: where the highest label is placed, in the same units; may be less than `start`.
    """
    ticks = round_ticks(low, high)
    return _straight(ticks[0], ticks[-1], start, end, ticks)


def counting(last: int, start: float, end: float) -> Axis:
    """1, 2, … `last`, with a few of them labelled.

    Args:
        last: the largest number, 1 or more.
        start: where 1 is placed, user units of the SVG.
        end: where `last` is placed, in the same units; for `last` = 1 the place of 2.
    """
    step = max(1, math.ceil((last - 1) / 5))
    return _straight(1.0, float(max(last, 2)), start, end, [float(tick) for tick in range(1, last + 1, step)])


def logarithmic(low: float, high: float, start: float, end: float) -> Axis:
    """From `start` to `end`, widened to 1, 2 or 5 times a power of ten. Values below are placed at the start.

    Args:
        low: the smallest value, above 0.
        high: the largest value, `low` or more.
        start: where the low end is placed, user units of the SVG.
        end: where the high end is placed, in the same units; may be less than `start`.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    first = max(step for step in steps if step <= low * 1.001)
    last = min(step for step in steps if step >= high * 0.999)
    ticks = [step for step in steps if first <= step <= last]
    if len(ticks) > MOST_TICKS:
        ticks = [tick for tick in ticks if round(math.log10(tick), 9).is_integer()]
    axis = _straight(math.log10(first), math.log10(last), start, end, ticks)
    return axis._replace(place=lambda value: axis.place(math.log10(max(value, first))))


def _straight(low: float, high: float, start: float, end: float, ticks: Sequence[float]) -> Axis:
    span = (high - low) or 1.0
    return Axis(lambda value: start + (value - low) / span * (end - start), ticks, lambda tick: f"{tick:g}")


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """About `most` equally spaced round numbers, the first at or below `low`, the last at or above `high`.

    Args:
        low: the smallest value, finite.
        high: the largest value, finite, `low` or more.
        most: the most steps that `low` to `high` is divided into, 1 or more; a step is 1, 2 or 5 times a power of ten.
    """
    span = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / most))
    step = next(size * factor for factor in (1, 2, 5, 10) if round(span / (size * factor), 9) <= most)
    first, last = (round(end / step, 9) for end in (low, high))  # 0.3 / 0.1 is 2.9999999999999996
    return [round(tick * step, 12) for tick in np.arange(math.floor(first), math.ceil(last) + 1)]


def shade(value: float, values: Iterable[float]) -> int:
    """0 to 6 by the rank of a value among all, so that one bad configuration does not hide the rest."""
    ranked = sorted({other for other in values if math.isfinite(other)})
    return ranked.index(value) * (SHADES - 1) // max(1, len(ranked) - 1) if value in ranked else 0
