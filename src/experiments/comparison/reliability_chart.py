"""The reliability diagram as inline SVG: accuracy by confidence, with Wilson's bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from statistics import median

from markupsafe import Markup

from experiments.comparison.axes import Axis, linear
from experiments.comparison.calibration import Bin

SIZE, LEFT, BOTTOM, PAD = 300, 52, 40, 10  # in its own units
GOOD = 0.9  # accuracy of the middle bin from which on the last percents are stretched
NEXT_TO_ALL = 99.95  # percent, where stretched axes end: nearly all bins of a good model lie beyond 99
STRETCHED_TICKS = (50.0, 80.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9)
MOST_TICKS = 6


def is_stretched(bins: Sequence[Bin]) -> bool:
    """Whether the axes of `reliability_chart` show the last percents larger than the rest, for a good model."""
    return not bins or median(b.accuracy for b in bins) > GOOD


def reliability_chart(bins: Sequence[Bin]) -> Markup:
    """Both axes are logarithmic in what is missing to 100 % where `is_stretched`, so that the last tenths are seen."""
    low = 100 * min([0.98, *(min(b.confidence, b.interval.low) for b in bins)])
    high = 100 * max([0.0, *(max(b.confidence, b.interval.high) for b in bins)])
    make = partial(_stretched, low) if is_stretched(bins) else partial(linear, low, high)
    across, up = make(LEFT, SIZE - PAD), make(SIZE - BOTTOM, PAD)
    ticks = up.ticks[:: 2 if len(up.ticks) > MOST_TICKS else 1]
    parts = [
        Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, SIZE - PAD, y, y)
        for y in map(up.place, ticks)
    ]
    parts += [_text(LEFT - 6, up.place(tick) + 4, f"{tick:g}%", "end") for tick in ticks]
    parts += [
        _text(across.place(tick), SIZE - BOTTOM + 15, f"{tick:g}%", "middle")
        for tick in ticks[:: 2 if len(ticks) > MOST_TICKS - 2 else 1]
    ]
    parts.append(_text((LEFT + SIZE - PAD) / 2, SIZE - 6, "confidence", "middle"))
    parts.append(
        Markup('<line class="axis" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(LEFT, SIZE - BOTTOM, SIZE - PAD, PAD)
    )
    parts += [_bar(b, across, up) for b in bins]
    return Markup(
        '<svg class="square" viewBox="0 0 {0} {0}" role="img" aria-label="Accuracy by confidence">{1}</svg>'
    ).format(SIZE, Markup().join(parts))


def _stretched(low: float, start: float, end: float) -> Axis:
    """From `low` to `NEXT_TO_ALL` percent; what lies beyond is placed at the end."""
    span = math.log((100 - low) / (100 - NEXT_TO_ALL))
    return Axis(
        lambda value: start + math.log((100 - low) / (100 - min(value, NEXT_TO_ALL))) / span * (end - start),
        [tick for tick in STRETCHED_TICKS if tick >= low],
        lambda tick: f"{tick:g}",
    )


def _bar(b: Bin, across: Axis, up: Axis) -> Markup:
    x = across.place(100 * b.confidence)
    lowest, highest, at = (up.place(100 * share) for share in (b.interval.low, b.interval.high, b.accuracy))
    told = f"{b.images:,} images: confidence {100 * b.confidence:.2f}%, accuracy {100 * b.accuracy:.2f}%"
    return Markup(
        '<g class="line s0"><title>{}</title><polyline points="{:.1f},{:.1f} {:.1f},{:.1f}"/>'
        '<circle cx="{:.1f}" cy="{:.1f}" r="3"/></g>'
    ).format(told, x, lowest, x, highest, x, at)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)
