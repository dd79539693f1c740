"""Formats of saved files: what an older version of this package wrote is brought up, step by step, before validation.

Every file carries the number of its format; the first format of most files has none. A new key with a neutral value
needs no new number: readers pass over what they do not know, and take what is not there as not known. A step is needed
where something was renamed, moved or dropped. Steps are never changed or removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from experiments.errors import InputError

FORMAT = "format"
Values = dict[str, Any]


class FormatError(InputError):
    """A file was written by a newer version of this package: it is whole, and nothing may replace it."""


def _take_the_sweep_out(config: Values) -> Values:
    """1 → 2: how a sweep is carried out is no part of a run."""
    return {key: value for key, value in config.items() if key != "sweep"}


# Of each kind of file: what leads from format 1 to 2, from 2 to 3, and so on.
STEPS: Mapping[str, tuple[Callable[[Values], Values], ...]] = {
    "config": (_take_the_sweep_out,),
    "record": (),
    "history": (),
    "checkpoint": (),
    "predictions": (),
    "environment": (),
    "plan": (),  # its configs have formats of their own
    "sweep": (),
    "look": (),
    "decisions": (),
}


def newest(kind: str) -> int:
    """The format that is written today."""
    return len(STEPS[kind]) + 1


def bring_up(kind: str, values: Mapping[str, Any]) -> Values:
    """What a file of this kind would hold if it were written today, without its format's number.

    Args:
        kind: one of `STEPS`.
        values: plain, as they were read, from somebody else perhaps: a step may raise `KeyError`, `TypeError` or
            `AttributeError` on a damaged file.

    Raises:
        FormatError: the file is of a newer format.
        InputError: its number is none.
    """
    number = require_known(kind, values.get(FORMAT, 1))
    current = {key: value for key, value in values.items() if key != FORMAT}
    for step in STEPS[kind][number - 1 :]:
        current = step(current)
    return current


def require_known(kind: str, number: Any) -> int:
    """A format's number as it was read.

    Raises:
        FormatError: it is newer than what is known here.
        InputError: it is no number of a format.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise InputError(f"{FORMAT}: must be a whole number from 1 on, received {number!r}")
    if number > newest(kind):
        known = f"this one, {_version()}, knows formats up to {newest(kind)}"
        raise FormatError(f"{FORMAT}: {number} needs a newer version of experiments; {known}")
    return number


def _version() -> str:
    try:
        return metadata.version("experiments")
    except metadata.PackageNotFoundError:
        return "not installed"
