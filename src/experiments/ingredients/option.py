"""The base of every option, the number types that carry its ranges, and knobs that were added later."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]


class Option(BaseModel):
    """One validated, frozen node of a config.

    Strict: `"1e-3"` is not a number and `yes` is not 1; unknown keys, NaN and infinity are refused. No field has a
    default, because every value stands in YAML.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class AsBefore:
    """Marks a knob that was added later: `x: Annotated[Count, AsBefore(1)]`; `value` does what was done without it.

    Saved configs that lack the knob are filled in (`fill_in`); a user's composition must still give it. Run keys leave
    it out where it has this value (`leave_out`), so that the keys of older runs stay true.

    Attributes:
        value: plain, as YAML would give it: a mapping for a nested option.
        keyed: it stays in the run keys whatever its value, because keys were made with it before it was marked.
    """

    value: Any
    keyed: bool = False


def fill_in(option: type[Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """A saved mapping with the values of the knobs that `option`, or an option inside it, got later."""
    filled = dict(values)
    for name, field in option.model_fields.items():
        if name not in filled and (marker := _marker(field)):
            filled[name] = copy.deepcopy(marker.value)
        if name in filled:
            filled[name] = _inside(field.annotation, filled[name], fill_in)
    return filled


def leave_out(option: type[Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """The dumped values of an option without those that mean "as before"."""
    kept, fields, as_before = {}, option.model_fields, _as_before(option)
    for name, value in values.items():
        if name in as_before and value == as_before[name]:
            continue
        kept[name] = _inside(fields[name].annotation, value, leave_out) if name in fields else value
    return kept


@cache
def _as_before(option: type[Option]) -> dict[str, Any]:
    """The values that `leave_out` leaves out, by the names of their knobs."""
    marked = {name: (field, _marker(field)) for name, field in option.model_fields.items()}
    return {
        name: _inside(field.annotation, marker.value, fill_in)
        for name, (field, marker) in marked.items()
        if marker and not marker.keyed
    }


def _marker(field: FieldInfo) -> AsBefore | None:
    return next((data for data in field.metadata if isinstance(data, AsBefore)), None)


def _inside(annotation: Any, value: Any, change: Callable[[type[Option], Mapping[str, Any]], dict[str, Any]]) -> Any:
    """`value` with `change` done to each option in it; what fits no option is left to the validation."""
    if isinstance(value, list | tuple):
        return type(value)(_inside(annotation, item, change) for item in value)
    if not isinstance(value, dict):
        return value
    members = _members(annotation)
    chosen = [m for m in members if value.get("name") in names_of(m)] if len(members) > 1 else members
    return change(chosen[0], value) if chosen else value


@cache
def _members(annotation: Any) -> tuple[type[Option], ...]:
    return tuple(options_in(annotation))


def options_in(annotation: Any) -> Iterator[type[Option]]:
    """The options that a field's annotation names, in unions and lists too."""
    if isinstance(annotation, type) and issubclass(annotation, Option):
        yield annotation
    else:
        for part in get_args(annotation):
            yield from options_in(part)


@cache
def names_of(option: type[Option]) -> tuple[Any, ...]:
    """The names that choose an option in its group."""
    field = option.model_fields.get("name")
    return get_args(field.annotation) if field else ()
