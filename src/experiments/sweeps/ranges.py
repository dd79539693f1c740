"""What a search may choose for one key: Hydra's interval, or values in equal slices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep

from experiments.errors import InputError

DIGITS = 4  # significant ones of a proposed number: more would only be harder to read
LOG = "log"
MOST_VALUES = 100_000  # of a list or a range: a typo in a range is quickly a million


@dataclass(frozen=True)
class Range:
    """The values that one key may take.

    Attributes:
        values: as they are given on the command line; empty for an interval.
        low: the lowest value of an interval.
        high: its highest one.
        log: whether equal slices of the interval are equal factors.
        whole: whether it holds whole numbers only, both bounds among them.
    """

    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def size(self) -> int | None:
        """The number of its values; None for an interval of real numbers."""
        if self.values:
            return len(self.values)
        return int(self.high - self.low) + 1 if self.whole else None

    @property
    def outermost(self) -> tuple[str, ...]:
        """The values of which all must be valid so that the others are."""
        return self.values or (self._text(self.low), self._text(self.high))

    def at(self, place: float) -> str:
        """The value at a place in [0, 1), as it is given on the command line."""
        if self.values:
            return self.values[int(place * len(self.values))]
        end = self.high + 1 if self.whole else self.high
        value = self.low * (end / self.low) ** place if self.log else self.low + place * (end - self.low)
        return self._text(min(max(self._rounded(value), self.low), self.high))

    def all(self) -> Iterator[str]:
        """Every value of a range that has a size."""
        yield from self.values or (str(value) for value in range(int(self.low), int(self.high) + 1))

    def _rounded(self, value: float) -> float:
        """Whole, or with so many digits that neighbours stay apart."""
        if self.whole:
            return math.floor(value)
        step = abs(value) if self.log else self.high - self.low
        return round(value, DIGITS - 1 - math.floor(math.log10(step)))

    def _text(self, value: float) -> str:
        return str(int(value)) if self.whole else repr(float(value))

    def __str__(self) -> str:
        """In Hydra's grammar."""
        if self.values:
            return f"choice({','.join(self.values)})"
        interval = f"interval({self.low:g},{self.high:g})"
        interval = f"int({interval})" if self.whole else interval
        return f"tag(log,{interval})" if self.log else interval


def ranges_of(override: Override) -> dict[str, Range] | None:
    """What an override lets a search choose, by the name of the option that it is meant for.

    Returns:
        None for a plain value; one range under "" where it is the same for every option.

    Raises:
        InputError: it holds no value, or is no valid interval.
    """
    if override.is_sweep_override():
        return {"": _read(override.input_line or "", _glob(override) if _is_glob(override) else override.value())}
    value = override.value()
    if not is_mapping_of_ranges(value):
        return None
    return {str(name): _read(f"{override.key_or_group} of {name}", given) for name, given in value.items()}


def is_mapping_of_ranges(value: Any) -> bool:
    """Whether it is a range for each of some options, as `{sgd: interval(0.1,1), adam: interval(0.001,0.1)}`."""
    return isinstance(value, dict) and any(isinstance(given, Sweep) for given in value.values())


def _is_glob(override: Override) -> bool:
    return bool(override.is_choice_sweep()) and not isinstance(override.value(), Sweep)


def _glob(override: Override) -> ChoiceSweep:
    return ChoiceSweep(list=list(override.sweep_iterator()))


def _read(named: str, value: Any) -> Range:
    tags = set(getattr(value, "tags", ()))
    if unknown := sorted(tags - {LOG}):
        raise InputError(f"{named}: no such tag {unknown[0]}; valid: {LOG}")
    if isinstance(value, IntervalSweep):
        return _interval(named, value)
    if tags:
        raise InputError(f"{named}: {LOG} goes with an interval, not with values that are named")
    values = list(_values(value))
    if len(values) > MOST_VALUES:
        raise InputError(f"{named}: holds more than {MOST_VALUES:,} values; give an interval")
    if not values:
        raise InputError(f"{named}: gives no value")
    return Range(tuple(dict.fromkeys(values)))


def _interval(named: str, interval: IntervalSweep) -> Range:
    low, high, log = interval.start, interval.end, LOG in interval.tags
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{named}: bounds must be finite, received {low} and {high}")
    if low >= high:
        raise InputError(f"{named}: the lower bound must be below the upper one, received {low:g} and {high:g}")
    if log and low <= 0:
        raise InputError(f"{named}: a logarithmic interval must begin above 0, received {low:g}")
    return Range(low=low, high=high, log=log, whole=isinstance(low, int) and isinstance(high, int))


def _values(value: Any) -> Iterator[str]:
    """In the order in which they are given: what is shuffled would be another search each time."""
    given = (
        value.list if isinstance(value, ChoiceSweep) else value.range() if isinstance(value, RangeSweep) else [value]
    )
    for number, item in enumerate(given):
        if number > MOST_VALUES:
            return
        yield str(Override._get_value_element_as_str(item))
