"""The reliability diagram as inline SVG: accuracy by confidence, with Wilson's bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from markupsafe import Markup

from experiments.comparison.axes import Axis
from experiments.comparison.calibration import Bin

SIZE, LEFT, BOTTOM, PAD = 300, 52, 40, 10  # in its own units
LEAST = 0.0005  # share of errors at the far end of the axes: nearly all bins of a good model lie beyond 99 %
TICKS: tuple[float, ...] = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
WEAK = 0.1  # share of errors of the middle bin from which on nothing is stretched, and the axes end with the bins
WEAK_TICKS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
MOST_TICKS = 6


def is_stretched(bins: Sequence[Bin]) -> bool:
    """Whether the axes of `reliability_chart` show the last percents larger than the rest, for a good model."""
    return not bins or median(1 - b.accuracy for b in bins) < WEAK


def reliability_chart(bins: Sequence[Bin]) -> Markup:
    """Both axes are logarithmic in what is missing to 1 where `is_stretched`, so that the last tenths are seen."""
    largest = max([1 - min(b.confidence, b.interval.low) for b in bins] + [0.02])
    if is_stretched(bins):
        least, known, axis = LEAST, TICKS, _logarithmic
    else:
        least, known, axis = min(1 - max(b.confidence, b.interval.high) for b in bins), WEAK_TICKS, _linear
    across, up = axis(largest, least, LEFT, SIZE - PAD), axis(largest, least, SIZE - BOTTOM, PAD)
    ticks = [tick for tick in known if least <= tick <= largest]
    ticks = ticks[:: 2 if len(ticks) > MOST_TICKS else 1]
    parts = [
        Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, SIZE - PAD, y, y)
        for y in map(up.place, ticks)
    ]
    parts += [_text(LEFT - 6, up.place(tick) + 4, _percent(tick), "end") for tick in ticks]
    parts += [
        _text(across.place(tick), SIZE - BOTTOM + 15, _percent(tick), "middle")
        for tick in ticks[:: 2 if len(ticks) > MOST_TICKS - 2 else 1]
    ]
    parts.append(_text((LEFT + SIZE - PAD) / 2, SIZE - 6, "confidence", "middle"))
    parts.append(
        Markup('<line class="axis" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
            across.place(largest), up.place(largest), across.place(least), up.place(least)
        )
    )
    parts += [_bar(b, across, up) for b in bins]
    return Markup(
        '<svg class="square" viewBox="0 0 {0} {0}" role="img" aria-label="Accuracy by confidence">{1}</svg>'
    ).format(SIZE, Markup().join(parts))


def _linear(largest: float, least: float, start: float, end: float) -> Axis:
    span = (largest - least) or 1.0
    return Axis(lambda missing: start + (largest - missing) / span * (end - start), (), _percent)


def _logarithmic(largest: float, least: float, start: float, end: float) -> Axis:
    span = math.log(largest / least)
    return Axis(
        lambda missing: start + math.log(largest / max(missing, least)) / span * (end - start), (), _percent
    )  # fmt: skip


def _percent(missing: float) -> str:
    return f"{100 * (1 - missing):g}%"


def _bar(b: Bin, across: Axis, up: Axis) -> Markup:
    x = across.place(1 - b.confidence)
    told = f"{b.images:,} images: confidence {100 * b.confidence:.2f}%, accuracy {100 * b.accuracy:.2f}%"
    return Markup(
        '<g class="line s0"><title>{}</title><polyline points="{:.1f},{:.1f} {:.1f},{:.1f}"/>'
        '<circle cx="{:.1f}" cy="{:.1f}" r="3"/></g>'
    ).format(
        told, x, up.place(1 - b.interval.low), x, up.place(1 - b.interval.high), x, up.place(1 - b.accuracy)
    )  # fmt: skip


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)
