"""A race as inline SVG: each configuration's lead over the leader after every round, with its shrinking interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from experiments.comparison.axes import Axis, linear
from experiments.comparison.races import Gap, RaceResult, gaps

WIDTH, HEIGHT = 620, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 38
ZOOM = 2.5  # times the reach of those that stay in: what lies farther below is drawn at the edge


class Course(NamedTuple):
    """One configuration's way through the race: seeds → gap, and whether it fell at the end."""

    number: int
    gaps: Mapping[int, Gap]
    fell: bool


def race_chart(race: RaceResult, styles: Sequence[str]) -> Markup:
    """The lead of each configuration over the leader of the round, in points; nothing where no round has been decided.

    Args:
        race: what is drawn.
        styles: the style class of each configuration, by its number.
    """
    if not race.rounds:
        return Markup()
    courses = list(_courses(race))
    rounds = [made.round for made in race.rounds]
    vertical = _vertical(courses, race.setting.margin)
    horizontal = linear(rounds[0], max(rounds[-1], rounds[0] + 1), LEFT, WIDTH - RIGHT)
    horizontal = _whole(horizontal, rounds)
    drawn = [_drawn(course, race, styles[course.number], horizontal, vertical) for course in courses]
    unit = race.scale.unit
    label = f"Lead over the leader of the round, {unit}, with intervals that hold for all at all rounds"
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>').format(
        WIDTH, HEIGHT, label, _frame(horizontal, vertical, race), Markup().join(drawn), _rules(race, vertical)
    )


def _courses(race: RaceResult) -> Iterator[Course]:
    by_round = {made.round: gaps(made) for made in race.rounds}
    for c in range(len(race.setting.configurations)):
        found = {number: known[c] for number, known in by_round.items() if c in known}
        if found:
            yield Course(c, found, c in race.out)


def _vertical(courses: Sequence[Course], margin: float) -> Axis:
    """In points of lead: what was in to the end is seen whole; what is far behind does not squeeze it."""
    last = max(number for course in courses for number in course.gaps)
    every = [gap for course in courses for gap in course.gaps.values()]
    relevant = [gap for course in courses if last in course.gaps for gap in course.gaps.values()]
    high = max([margin, *(-gap.low for gap in relevant)])
    reach = max(high, *(abs(gap.high) for gap in relevant))
    low = max(min([0.0, *(-gap.high for gap in every)]), -ZOOM * reach)
    return linear(low, high, HEIGHT - BOTTOM, TOP)


def _whole(axis: Axis, rounds: Sequence[int]) -> Axis:
    """Labels at whole rounds only."""
    step = max(1, len(rounds) // 10)
    first, last = rounds[0], max(rounds[-1], rounds[0] + 1)

    def place(value: float) -> float:
        return LEFT + 8 + (value - first) / (last - first) * (WIDTH - RIGHT - LEFT - 16)

    return axis._replace(place=place, ticks=[float(number) for number in rounds[::step]])


def _drawn(course: Course, race: RaceResult, style: str, horizontal: Axis, vertical: Axis) -> Markup:
    scale = race.scale
    points = [(horizontal.place(number), gap) for number, gap in course.gaps.items()]
    if len(points) == 1:  # a band needs two ends
        x, gap = points[0]
        points = [(x - 4, gap), (x + 4, gap)]
    upper = [f"{x:.1f},{_height(-gap.low, vertical):.1f}" for x, gap in points]
    lower = [f"{x:.1f},{_height(-gap.high, vertical):.1f}" for x, gap in points]
    middle = [f"{x:.1f},{_height(-gap.value, vertical):.1f}" for x, gap in points]
    number, last = max(course.gaps), course.gaps[max(course.gaps)]
    told = (
        f"{race.label(course.number)} after {number} seeds: {scale.gap(last.value)} behind {race.label(last.behind)} "
        f"({scale.gap(last.low)} to {scale.gap(last.high)})"
    )
    cross = ""
    if course.fell:
        cross = Markup('<text class="halo" x="{:.1f}" y="{:.1f}" text-anchor="middle">×</text>').format(
            points[-1][0], _height(-last.value, vertical) + 4
        )
    return Markup(
        '<g class="line {}"><title>{}</title><polygon points="{}"/><polyline class="mean" points="{}"/>'
        '<polyline class="edge" points="{}"/>{}</g>'
    ).format(style, told, " ".join([*upper, *lower[::-1]]), " ".join(middle), " ".join(upper), cross)


def _height(value: float, vertical: Axis) -> float:
    return min(max(vertical.place(value), TOP), HEIGHT - BOTTOM)


def _frame(horizontal: Axis, vertical: Axis, race: RaceResult) -> Markup:
    rule = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    divide = 1.0 if race.scale.of_accuracy else 100.0
    parts = [text.format(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 4, "middle", "seeds of each")]
    for tick in vertical.ticks:
        height = vertical.place(tick)
        parts += [rule.format(LEFT, WIDTH - RIGHT, height, height)]
        parts += [text.format(LEFT - 6, height + 4, "end", f"{tick / divide:+g}" if tick else "0")]
    parts += [
        text.format(horizontal.place(tick), HEIGHT - BOTTOM + 16, "middle", f"{tick:g}") for tick in horizontal.ticks
    ]
    return Markup().join(parts)


def _rules(race: RaceResult, vertical: Axis) -> Markup:
    """The line of the leader, and that of the margin."""
    line = Markup('<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
    text = Markup('<text class="halo" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    zero, margin = vertical.place(0.0), vertical.place(race.setting.margin)
    parts = [line.format("axis", LEFT, WIDTH - RIGHT, zero, zero)]
    if race.setting.margin:
        parts += [line.format("margin", LEFT, WIDTH - RIGHT, margin, margin)]
        parts += [text.format(WIDTH - RIGHT, margin - 4, "end", f"margin {race.scale.margin(race.setting.margin)}")]
    parts += [text.format(WIDTH / 2, zero + 13, "middle", "the leader")]
    return Markup().join(parts)
