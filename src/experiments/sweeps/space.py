"""The space of a search: which keys it chooses, and which of them apply under which options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hydra.core.override_parser.types import Override

from experiments.config import Composition
from experiments.errors import InputError
from experiments.sweeps.auto_seed import is_auto
from experiments.sweeps.ranges import Range, ranges_of

ONE_SEED = "a search trains with one seed, and races its finalists over fresh ones by itself"
MOST_COUNTED = 10_000  # points of a space that are counted one by one

Compose = Callable[[Sequence[str]], Composition]
Point = tuple[str, ...]  # the overrides of one job


@dataclass(frozen=True)
class Space:
    """What a search chooses from.

    Attributes:
        fixed: overrides that every job has.
        options: ranges of the groups whose option is chosen, by group.
        keys: the other keys that are chosen, wherever they apply.
        applying: for each choice of options (as overrides), the ranges of the keys that apply under it.
        texts: every range as it was given, by group or key.
    """

    fixed: tuple[str, ...]
    options: Mapping[str, Range]
    keys: tuple[str, ...]
    applying: Mapping[Point, Mapping[str, Range]]
    texts: Mapping[str, str]

    @property
    def dimensions(self) -> int:
        """The number of places that make a point."""
        return len(self.options) + len(self.keys)

    def point(self, places: Sequence[float]) -> Point:
        """The job at a place in the unit cube, one side a group or a key; keys that do not apply are left out."""
        chosen = tuple(
            f"{group}={values.at(u)}" for u, (group, values) in zip(places, self.options.items(), strict=False)
        )
        ranges = self.applying[chosen]
        rest = zip(self.keys, places[len(self.options) :], strict=True)
        return (*self.fixed, *chosen, *(f"{key}={ranges[key].at(u)}" for key, u in rest if key in ranges))

    def points(self) -> list[Point] | None:
        """All of them, where they are at most 10,000; else None."""
        sizes = [_size(ranges.values()) for ranges in self.applying.values()]
        if any(size is None for size in sizes) or sum(size or 0 for size in sizes) > MOST_COUNTED:
            return None
        return [
            (*self.fixed, *chosen, *(f"{key}={value}" for key, value in zip(ranges, values, strict=True)))
            for chosen, ranges in self.applying.items()
            for values in product(*(values.all() for values in ranges.values()))
        ]


def _size(ranges: Any) -> int | None:
    size = 1
    for values in ranges:
        if values.size is None:
            return None
        size *= values.size
    return size


def make_space(overrides: Sequence[Override], compose: Compose) -> Space:
    """The space that overrides ask for.

    Args:
        overrides: of the whole command, in Hydra's reading.
        compose: the validated config of some overrides.

    Raises:
        InputError: with one line for each range that cannot be searched.
    """
    given = {override.get_key_element(): override for override in overrides}
    ranges, mistakes = _read(given)
    fixed = tuple(o.input_line or "" for key, o in given.items() if key not in ranges)
    if not ranges and not mistakes:
        mistakes.append("sweep.jobs: a search needs a range, as optimizer.learning_rate=tag(log,interval(1e-4,1e-1))")
    if mistakes:
        raise InputError(*mistakes)
    options = {key: by_option[""] for key, by_option in ranges.items() if "." not in key}
    keys = {key: by_option for key, by_option in ranges.items() if "." in key}
    choices = product(*([f"{group}={value}" for value in values.values] for group, values in options.items()))
    applying = _applying(fixed, list(choices), keys, compose)
    return Space(fixed, options, tuple(keys), applying, {key: _text(by_option) for key, by_option in ranges.items()})


def _text(by_option: Mapping[str, Range]) -> str:
    if "" in by_option:
        return str(by_option[""])
    return f"{{{', '.join(f'{name}: {values}' for name, values in by_option.items())}}}"


def _read(given: Mapping[str, Override]) -> tuple[dict[str, dict[str, Range]], list[str]]:
    """The ranges by key, and what is wrong with them."""
    ranges: dict[str, dict[str, Range]] = {}
    mistakes: list[str] = []
    for key, override in given.items():
        try:
            if is_auto(override):
                raise InputError(f"{override.input_line}: {ONE_SEED}")
            if (by_option := ranges_of(override)) is not None:
                _require_searchable(key, override, by_option)
                ranges[key] = by_option
        except InputError as error:
            mistakes += error.mistakes
    return ranges, mistakes


def _require_searchable(key: str, override: Override, by_option: Mapping[str, Range]) -> None:
    if key == "seed":
        raise InputError(f"{override.input_line}: {ONE_SEED}")
    if key.startswith(("sweep.", "tracking.", "hydra")) or key in ("sweep", "tracking"):
        raise InputError(f"{override.input_line}: must be the same in all jobs of a sweep")
    if key != override.key_or_group:
        raise InputError(f"{override.input_line}: a range is given for a key that is there, without + or a package")
    if "." not in key and ("" not in by_option or not by_option[""].values):
        raise InputError(f"{override.input_line}: {key} is chosen among options that are named, as in {key}=a,b")


def _applying(
    fixed: Point, choices: Sequence[Point], keys: Mapping[str, Mapping[str, Range]], compose: Compose
) -> dict[Point, dict[str, Range]]:
    """For each choice of options the ranges that apply; every bound is validated there.

    Raises:
        InputError: a bound is not valid, a key applies nowhere, or an option that has a range is not chosen.
    """
    applying: dict[Point, dict[str, Range]] = {}
    mistakes: dict[str, None] = {}
    used: dict[str, set[str]] = {key: set() for key in keys}
    valid: set[tuple[str, str, str]] = set()
    for chosen in choices:
        try:
            values = compose((*fixed, *chosen)).config.model_dump(mode="json")
        except InputError as error:
            mistakes |= dict.fromkeys(error.mistakes)
            continue
        applying[chosen] = {}
        for key, by_option in keys.items():
            option = _option(values, key)
            name = "" if "" in by_option else option
            if not _has(values, key) or name not in by_option:
                continue
            used[key].add(name)
            applying[chosen][key] = by_option[name]
            if (key, option, str(by_option[name])) not in valid:
                valid.add((key, option, str(by_option[name])))
                mistakes |= dict.fromkeys(_mistakes((*fixed, *chosen), key, by_option[name], compose))
    for key, by_option in keys.items() if applying else ():
        mistakes |= dict.fromkeys(_unused(key, by_option, used[key], (*fixed, *choices[0]), compose))
    if mistakes:
        raise InputError(*mistakes)
    return applying


def _option(values: Mapping[str, Any], key: str) -> str:
    """The name of the option that the group of a key holds."""
    group = values.get(key.partition(".")[0])
    return str(group.get("name", "")) if isinstance(group, dict) else ""


def _has(values: Mapping[str, Any], key: str) -> bool:
    node: Any = values
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def _mistakes(chosen: Point, key: str, values: Range, compose: Compose) -> Iterator[str]:
    """What is wrong with the bounds of a range under some options."""
    for value in values.outermost:
        try:
            compose((*chosen, f"{key}={value}"))
        except InputError as error:
            whole = (
                f"; int({values}) gives whole numbers" if "valid integer" in str(error) and not values.values else ""
            )
            yield from (f"{mistake}{whole}" for mistake in error.mistakes)


def _unused(key: str, by_option: Mapping[str, Range], used: set[str], chosen: Point, compose: Compose) -> Iterator[str]:
    """What is said of a range that applies under no choice of options."""
    group = key.partition(".")[0]
    if "" not in by_option:
        yield from (
            f"{key}: {group}={name} is not among the options that are chosen" for name in by_option.keys() - used
        )
    elif not used:
        yield from _mistakes(chosen, key, by_option[""], compose)
