"""Axes of the report's charts, against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from experiments.comparison.axes import counting, linear, logarithmic, round_ticks, shade


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (97.1, 99.3, [97.0, 97.5, 98.0, 98.5, 99.0, 99.5]),
        (-3.0, 7.0, [-4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0]),
        (0.00123, 0.00178, [0.0012, 0.0014, 0.0016, 0.0018]),
    ],
)
def test_ticks_are_round_and_hold_the_values(low: float, high: float, ticks: list[float]) -> None:
    assert round_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize("value", [5.0, -2.0, 0.0])
def test_ticks_of_a_single_value_hold_it(value: float) -> None:
    ticks = round_ticks(value, value)
    assert ticks[0] <= value <= ticks[-1]
    assert len(ticks) > 1 or value == ticks[0]


def test_linear_axis_is_widened_to_round_values() -> None:
    axis = linear(97.1, 99.3, 200.0, 0.0)
    assert (axis.place(97.0), axis.place(99.5), axis.place(98.25)) == pytest.approx((200.0, 0.0, 100.0))
    assert [axis.text(tick) for tick in axis.ticks] == ["97", "97.5", "98", "98.5", "99", "99.5"]


def test_linear_axis_of_equal_values_divides_by_nothing() -> None:
    assert all(math.isfinite(linear(0.0, 0.0, 0.0, 100.0).place(value)) for value in (0.0, 1.0))


@pytest.mark.parametrize(
    ("last", "ticks"),
    [(1, [1]), (2, [1, 2]), (6, [1, 2, 3, 4, 5, 6]), (11, [1, 3, 5, 7, 9, 11]), (30, [1, 7, 13, 19, 25])],
)
def test_counting_axis_begins_with_one_and_labels_a_few(last: int, ticks: list[int]) -> None:
    axis = counting(last, 10.0, 110.0)
    assert list(axis.ticks) == ticks
    assert axis.place(1) == 10.0
    assert last == 1 or axis.place(last) == 110.0


def test_logarithmic_axis_gives_decades_the_same_length() -> None:
    axis = logarithmic(0.012, 0.9, 0.0, 200.0)
    assert list(axis.ticks) == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])
    assert [axis.place(value) for value in (0.01, 0.1, 1.0)] == pytest.approx([0.0, 100.0, 200.0])


def test_logarithmic_axis_labels_powers_of_ten_where_there_are_many() -> None:
    assert list(logarithmic(0.001, 20.0, 0.0, 1.0).ticks) == pytest.approx([0.001, 0.01, 0.1, 1.0, 10.0])


def test_value_below_a_logarithmic_axis_stands_at_its_start() -> None:
    axis = logarithmic(0.01, 1.0, 30.0, 90.0)
    assert axis.place(0.0) == axis.place(-1.0) == axis.place(1e-9) == 30.0


def test_shade_is_the_rank_so_that_one_bad_value_hides_nothing() -> None:
    values = [1.0, 97.0, 97.1, 97.2, 97.3, 97.4, 97.5]
    assert [shade(value, values) for value in values] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("value", "values", "expected"),
    [
        (2.0, [1.0, 2.0], 6),
        (1.0, [1.0], 0),
        (math.nan, [1.0, math.nan], 0),
        (2.0, [2.0, math.inf, 1.0], 6),
        (9.0, [1.0], 0),
    ],
)
def test_shade_of_few_values_and_of_what_is_no_number(value: float, values: list[float], expected: int) -> None:
    assert shade(value, values) == expected
