"""Parallel coordinates: where the lines go, and that nothing of a name becomes markup."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.comparison.parallel import BOTTOM, STEP, TOP, levels, parallel_coordinates


def configuration(label: str, accuracy: float, **settings: Any) -> Any:
    """As much of a `Configuration` as the chart reads."""
    return SimpleNamespace(label=label, settings=settings, mean=lambda metric: accuracy)


def lines(svg: str) -> list[tuple[str, str, list[tuple[float, float]]]]:
    """Class, title and points of each configuration's line, in the order of drawing."""
    found = re.findall(r'<g class="(.*?)"><title>(.*?)</title><polyline points="(.*?)"/>', svg)
    return [
        (kind, title, [tuple(map(float, point.split(","))) for point in points.split()])
        for kind, title, points in found
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([10, 2, 0.5], [0.5, 2, 10]),
        (["b", None, 1, "a", "b"], [1, "a", "b", None]),
        ([True, False], [False, True]),
        ([], []),
    ],
)
def test_levels_are_numbers_then_names_then_what_does_not_apply(values: list[Any], expected: list[Any]) -> None:
    assert levels(values) == expected


def test_line_goes_through_the_values_of_its_configuration_to_its_accuracy() -> None:
    chart = [configuration("a", 0.97, x=1, y="p"), configuration("b", 0.99, x=2, y="p")]
    drawn = lines(parallel_coordinates(chart, ["x", "y"]))
    assert [title for _, title, _ in drawn] == ["a: 97.00%", "b: 99.00%"]  # the best is drawn last, on top
    (low, high) = (points for *_, points in drawn)
    assert [x for x, _ in low] == [x for x, _ in high] == [STEP * 0.5, STEP * 1.5, STEP * 2.5]
    span = BOTTOM - TOP
    assert [low[0][1], high[0][1]] == pytest.approx([BOTTOM - span / 4, BOTTOM - 3 * span / 4], abs=0.05)
    assert low[1][1] == high[1][1] == pytest.approx(BOTTOM - span / 2, abs=0.05)
    assert (low[2][1], high[2][1]) == pytest.approx((BOTTOM, TOP), abs=0.05)  # of an axis from 97 to 99 %


def test_lines_are_shaded_by_rank() -> None:
    chart = [configuration(str(score), score / 100, x=score) for score in (50, 97, 98)]
    assert [kind for kind, *_ in lines(parallel_coordinates(chart, ["x"]))] == ["line h0", "line h3", "line h6"]


def test_configuration_without_a_result_has_no_line() -> None:
    chart = [configuration("a", math.nan, x=1), configuration("b", 0.9, x=2)]
    assert [title for _, title, _ in lines(parallel_coordinates(chart, ["x"]))] == ["b: 90.00%"]
    assert parallel_coordinates(chart[:1], ["x"]) == ""


def test_names_stay_text() -> None:
    svg = parallel_coordinates([configuration("<a&b>", 0.9, **{"<x>": "</svg><script>"})], ["<x>"])
    root = ElementTree.fromstring(svg)
    texts = {element.text for element in root.iter() if element.text}
    assert {"<a&b>: 90.00%", "<x>", "</svg><script>"} <= texts
    assert not any(element.tag.endswith("script") for element in root.iter())
