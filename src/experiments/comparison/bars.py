"""The first figure: test accuracy of every configuration with its interval, on one axis that no outlier crushes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.comparison.axes import round_ticks
from experiments.comparison.comparison import Comparison
from experiments.comparison.formats import percent, percent_interval

MOST_INTERVALS = 30  # rows
FAR = 4  # times what lies between the best and the upper half: what is further down than this is only pointed at


class Bar(NamedTuple):
    """A row; places are percent of the chart's width, None where they lie left of it."""

    label: str
    rank: int
    mark: str
    text: str
    low: float
    high: float
    dot: float | None
    seeds: tuple[float, ...]
    is_cut: bool


class Bars(NamedTuple):
    """The rows, and the axis as (place, label)."""

    rows: list[Bar]
    ticks: list[tuple[float, str]]


def draw_bars(comparison: Comparison) -> Bars:
    """Best first, in the order of the ranking."""
    shown = comparison.configurations[:MOST_INTERVALS]
    known = [rank for rank in range(len(shown)) if math.isfinite(comparison.intervals[rank].low)]
    if not known:
        return Bars([], [])
    lows = [100 * comparison.intervals[rank].low for rank in known]
    highs = [100 * comparison.intervals[rank].high for rank in known]
    values = [100 * value for rank in known for value in shown[rank].accuracies]
    ticks = round_ticks(max(min(lows + values), _left_end(lows, highs)), min(100.0, max(highs + values)))

    def place(value: float) -> float:
        return round((100 * value - ticks[0]) / (ticks[-1] - ticks[0]) * 100, 2)

    rows = []
    for rank in known:
        interval, accuracies = comparison.intervals[rank], shown[rank].accuracies
        low, high, dot = place(interval.low), place(interval.high), place(sum(accuracies) / len(accuracies))
        seeds = tuple(p for p in map(place, accuracies) if 0 <= p <= 100) if len(accuracies) > 1 else ()
        text = f"{percent(sum(accuracies) / len(accuracies))} ({percent_interval(interval)})"
        rows.append(
            Bar(
                shown[rank].label, rank, _mark(comparison, rank), text, max(0.0, low), max(0.0, high),
                dot if dot >= 0 else None, seeds, low < 0,
            )
        )  # fmt: skip
    return Bars(rows, [(place(tick / 100), f"{tick:g}") for tick in ticks])


def _left_end(lows: Sequence[float], highs: Sequence[float]) -> float:
    """Where the axis may begin at the latest."""
    wide = float(np.median(np.subtract(highs, lows)))
    return max(highs) - FAR * max(max(highs) - float(np.median(lows)), wide)


def _mark(comparison: Comparison, rank: int) -> str:
    """What is to be known of a row beside its numbers."""
    if comparison.of_networks:
        return ""
    return "may be the best" if comparison.may_be_best[rank] else ""
