"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.results.evaluation import Interval


def percent(value: float) -> str:
    """`99.12%`; – where it is not known."""
    return f"{100 * value:.2f}%" if math.isfinite(value) else "–"


def percent_interval(interval: Interval) -> str:
    """`98.91 to 99.29`, in percent; – where it is not known."""
    if not math.isfinite(interval.high - interval.low):
        return "–"
    return f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"


def points(value: float, interval: Interval) -> str:
    """A difference of two shares: `+0.21 points, -0.02 to +0.44`."""
    return f"{signed(100 * value)} points, {point_interval(interval)}"


def point_interval(interval: Interval) -> str:
    """`-0.02 to +0.44`, in points."""
    return f"{signed(100 * interval.low)} to {signed(100 * interval.high)}"


def signed(value: float) -> str:
    """`+0.21`; what is rounded to zero is `+0.00`."""
    return f"{round(value, 2) + 0.0:+.2f}" if math.isfinite(value) else "unknown"


def p_text(p_value: float) -> str:
    """`p = 0.012`, `p < 0.001`."""
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.2g}" if p_value < 0.1 else f"p = {p_value:.2f}"


def names(labels: Sequence[str], most: int = 3) -> str:
    """`a; b; c; and 4 more`."""
    shown = "; ".join(labels[:most])
    return f"{shown}; and {len(labels) - most} more" if len(labels) > most else shown


def count(number: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def be(number: int) -> str:
    """`is` or `are`."""
    return "is" if number == 1 else "are"
