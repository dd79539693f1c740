"""A search as inline SVG: the best so far over the epochs spent, and for each option the error by its value."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise

from markupsafe import Markup

from experiments.comparison.axes import Axis, linear, logarithmic, round_ticks
from experiments.comparison.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Panel
from experiments.comparison.parallel import levels
from experiments.comparison.searches import SearchResult, Trial
from experiments.comparison.settings import show

WIDE = 620  # of the course, in its own units
RADII = (2.5, 4.0, 6.0)  # of a configuration in a slice: the longer it has run, the larger
SMALLEST_ERROR = 0.1  # percent, where no configuration makes any


def course_chart(search: SearchResult) -> Markup:
    """The lowest validation error so far, percent, over the epochs of all configurations together."""
    course = search.course()
    if not course:
        return Markup()
    horizontal = _from_zero(search.epochs)
    errors = [100 * (1 - best.accuracy) for best in course]
    vertical = _vertical(errors)
    places = [
        (horizontal.place(best.epochs), vertical.place(error)) for best, error in zip(course, errors, strict=True)
    ]
    steps = [f"{places[0][0]:.1f},{places[0][1]:.1f}"]
    for (_, before), (x, y) in pairwise(places):
        steps += [f"{x:.1f},{before:.1f}", f"{x:.1f},{y:.1f}"]
    steps.append(f"{horizontal.place(search.epochs):.1f},{places[-1][1]:.1f}")
    line = Markup('<g class="line s0"><title>{}</title><polyline points="{}"/></g>').format(
        f"{100 - errors[-1]:.2f}% accuracy after {search.epochs:,} epochs", " ".join(steps)
    )
    ticks = [_text(horizontal.place(tick), HEIGHT - BOTTOM + 15, f"{tick:g}", "middle") for tick in horizontal.ticks]
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="Lowest validation error so far">{}{}{}{}</svg>'
    ).format(
        WIDE,
        HEIGHT,
        _frame(vertical, WIDE, "epochs of all configurations together"),
        Markup().join(ticks),
        line,
        _stages(search, horizontal),
    )


def _from_zero(epochs: int) -> Axis:
    """To the last epoch, and no farther."""
    width = WIDE - RIGHT - LEFT
    ticks = [tick for tick in round_ticks(0, epochs) if tick <= epochs]
    return Axis(lambda value: LEFT + width * value / epochs, ticks, lambda tick: f"{tick:g}")


def _vertical(errors: Sequence[float]) -> Axis:
    """Percent of error, logarithmic, the lowest on top: the last tenths count, and those far behind are seen too."""
    positive = [error for error in errors if error > 0] or [SMALLEST_ERROR]
    low = min(positive) if min(errors) > 0 else min(positive) / 2
    return logarithmic(low, max(*positive, 1.5 * low), TOP, HEIGHT - BOTTOM)


def _stages(search: SearchResult, horizontal: Axis) -> Markup:
    """Where each stage ends, and how many configurations it had."""
    rule = Markup('<line class="axis" stroke-dasharray="2 4" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>')
    label = Markup('<text class="halo" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>')
    parts, before = list[Markup](), 0.0
    for stage, end in zip(search.stages, search.ends(), strict=True):
        number = sum(len(trial.accuracies) >= stage for trial in search.trials)
        x = horizontal.place(end)
        parts.append(rule.format(x, TOP, HEIGHT - BOTTOM))
        if x - horizontal.place(before) > WIDE / 10:
            middle = (x + horizontal.place(before)) / 2
            parts.append(label.format(middle, HEIGHT - BOTTOM - 6, f"{number} to epoch {stage}"))
        before = end
    return Markup().join(parts)


def slices(search: SearchResult) -> list[Panel]:
    """For each option that has several values a panel: value against validation error, longer runs larger."""
    known = [trial for trial in search.trials if math.isfinite(trial.score)]
    if not known:
        return []
    vertical = _vertical([100 * (1 - trial.score) for trial in known])
    panels = []
    for name in search.ranges:
        having = [trial for trial in known if name in trial.settings]
        if len({trial.settings[name] for trial in having}) > 1:
            panels.append(Panel(name, _slice(search, name, having, vertical)))
    return panels


def _slice(search: SearchResult, name: str, trials: Sequence[Trial], vertical: Axis) -> Markup:
    place, ticks = _horizontal(search, name, [trial.settings[name] for trial in trials])
    # Those that have run longest on top, so drawn last.
    order = sorted(trials, key=lambda trial: (search.stage_of(trial), trial.score))
    marks = [_mark(search, trial, place(trial.settings[name]), vertical) for trial in order]
    labels = [_text(x, HEIGHT - BOTTOM + 15, label, "middle") for x, label in ticks]
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="Validation error by {}">{}{}{}</svg>').format(
        WIDTH, HEIGHT, name, _frame(vertical, WIDTH, name), Markup().join(labels), Markup().join(marks)
    )


def _horizontal(
    search: SearchResult, name: str, values: Sequence[Hashable]
) -> tuple[Callable[[Hashable], float], list[tuple[float, str]]]:
    """The place of a value, and the labels; numbers on a line, anything else in equal steps."""
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    start, end = LEFT + 8.0, WIDTH - RIGHT - 8.0
    if len(numbers) < len(values) or len(set(numbers)) < 2:
        known = levels(values)
        width = (end - start) / len(known)
        places = {value: start + width * (index + 0.5) for index, value in enumerate(known)}
        return places.__getitem__, [(place, show(value)) for value, place in places.items()]
    scale = logarithmic if search.is_logarithmic(name) and min(numbers) > 0 else linear
    axis = scale(min(numbers), max(numbers), start, end)
    return lambda value: axis.place(float(str(value))), [(axis.place(tick), axis.text(tick)) for tick in axis.ticks]


def _mark(search: SearchResult, trial: Trial, x: float, vertical: Axis) -> Markup:
    last = len(search.stages) - 1
    stage = search.stage_of(trial)
    radius = RADII[-1] if stage == last else RADII[min(stage, len(RADII) - 2)]
    height = vertical.place(100 * (1 - trial.score))
    settings = ", ".join(f"{name} {show(value)}" for name, value in trial.settings.items())
    told = f"job {trial.job}: {settings}: {100 * trial.score:.2f}% after {len(trial.accuracies)} epochs"
    style = "s0" if stage == last else "s5" if stage else "rest"
    return Markup('<g class="trial {}"><title>{}</title><circle cx="{:.1f}" cy="{:.1f}" r="{}"/></g>').format(
        style, told, x, height, radius
    )


def legend(search: SearchResult) -> list[tuple[str, str]]:
    """Style class and meaning of the marks of a slice."""
    last = len(search.stages) - 1
    words = []
    for stage, epochs in enumerate(search.stages):
        number = sum(len(trial.accuracies) == epochs for trial in search.trials)
        style = "s0" if stage == last else "s5" if stage else "rest"
        words.append((style, f"{number} after {epochs} epoch{'s' if epochs > 1 else ''}"))
    return words


def _frame(vertical: Axis, width: int, name: str) -> Markup:
    rule = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
    parts = [_text(LEFT + (width - LEFT - RIGHT) / 2, HEIGHT - 4, name, "middle")]
    for tick in vertical.ticks:
        height = vertical.place(tick)
        parts += [
            rule.format(LEFT, width - RIGHT, height, height),
            _text(LEFT - 6, height + 4, vertical.text(tick), "end"),
        ]
    return Markup().join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)
