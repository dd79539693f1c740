"""Many jobs composed at the price of few: Hydra composes every option once, the rest is put together from copies.

One composition takes Hydra about 0.1 s, so a sweep of 500 jobs would wait for a minute before anything is seen. What
is put together equals what Hydra would compose; where that is not certain, Hydra composes the job itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from experiments.config import SEEDS, Composition, explain_composition, validate_composed
from experiments.errors import InputError

Values = dict[str, Any]
Compose = Callable[[list[str]], Any]  # what Hydra makes of overrides: an omegaconf DictConfig
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError)  # ValueError: a choice that is no word
NUMBERED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*=)(0|[1-9][0-9]{0,15})")
SEED = re.compile(r"seed=(0|[1-9][0-9]{0,9})")
MISSING = "???"  # OmegaConf's mark of a value that must be given


@dataclass(frozen=True)
class _Composed:
    """What Hydra made of some overrides; `literal` where no value refers to another one."""

    values: Values
    literal: bool


class Composer:
    """Composes the jobs of one sweep; `compose` is Hydra's own way for one job."""

    def __init__(self, compose: Compose) -> None:
        self._compose = compose
        self._parser = OverridesParser.create()
        self._parsed: dict[str, Override] = {}
        self._whole: dict[tuple[str, ...], _Composed | InputError] = {}
        self._joined: dict[tuple[str, ...], Values | None] = {}
        self._but_for_the_seed: dict[tuple[str, ...], Composition] = {}

    def compose(self, overrides: Sequence[str]) -> Composition:
        """The validated config of a job and its sweep's, equal to what Hydra would compose from all its overrides.

        Jobs that differ in their seed alone are made of the same options, the very objects.

        Raises:
            InputError: with one line per mistake.
        """
        others = tuple(text for text in overrides if not text.startswith("seed="))
        seed = _only_seed(overrides)
        if seed is not None and (known := self._but_for_the_seed.get(others)):
            return known._replace(config=known.config.with_seed(seed))
        values = self._quickly([self.parse(text) for text in overrides])
        composition = validate_composed(self._by_hydra(overrides).values if values is None else values)
        if seed is not None and values is not None:  # then nothing refers to the seed, and nothing else sets it
            self._but_for_the_seed[others] = composition
        return composition

    def parse(self, text: str) -> Override:
        """One override in Hydra's own reading."""
        if text not in self._parsed:
            number = NUMBERED.fullmatch(text)
            self._parsed[text] = self._like(number[1], number[2], text) if number else self._parser.parse_override(text)
        return self._parsed[text]

    def _like(self, start: str, number: str, text: str) -> Override:
        """`seed=17` as `seed=0` is read: of thousands of seeds the grammar is asked about one."""
        return replace(self.parse(f"{start}zero"), _value=int(number), input_line=text)

    def _quickly(self, overrides: Sequence[Override]) -> Values | None:
        """The values of a job without a composition of its own; None where only Hydra can tell."""
        settings = [override for override in overrides if self._sets_a_value(override)]
        others = [override for override in overrides if override not in settings]
        joined = None if _touch_each_other(settings, others) else self._join(others)
        if joined is None:
            return None
        values = _copied(joined)
        # Where a key does not exist or holds an option, Hydra knows what to do or to say.
        return values if all(_set(values, override) for override in settings) else None

    def _sets_a_value(self, override: Override) -> bool:
        """Whether it is `a.b=value` or `seed=value` with a value that needs neither merging nor resolving."""
        key = override.key_or_group
        if not _changes(override) or key.startswith("hydra.") or _is_deep(override.value()):
            return False
        return "." in key or not isinstance(self._defaults().get(key, {}), dict)

    def _join(self, overrides: Sequence[Override]) -> Values | None:
        """The base with each option's own part; None where an option changes more, or values refer to each other."""
        texts = _texts(overrides)
        if texts not in self._joined:
            options = [override for override in overrides if self._chooses_an_option(override)]
            base = _texts(override for override in overrides if override not in options)
            twice = len({override.key_or_group for override in options}) < len(options)
            self._joined[texts] = None if twice else self._put_together(base, options)
        return self._joined[texts]

    def _chooses_an_option(self, override: Override) -> bool:
        """Whether it is `group=option` of a group that stands in the config under its own name."""
        is_word = _chooses(override) and isinstance(override.value(), str)
        return is_word and isinstance(self._defaults().get(override.key_or_group), dict)

    def _defaults(self) -> Values:
        try:
            return self._by_hydra(()).values
        except InputError:  # a value that every job must give
            return {}

    def _put_together(self, base: tuple[str, ...], options: Sequence[Override]) -> Values | None:
        try:
            whole = self._by_hydra(base)
        except InputError:  # what is given may be right together with an option
            return None
        values = dict(whole.values)
        literal = whole.literal
        for option in options:
            alone = self._by_hydra((*base, option.input_line or ""))
            group = option.key_or_group
            if group not in alone.values or _without(alone.values, group) != _without(whole.values, group):
                return None
            values[group] = alone.values[group]
            literal = literal and alone.literal
        return values if literal else None

    def _by_hydra(self, overrides: Sequence[str]) -> _Composed:
        texts = tuple(overrides)
        if texts not in self._whole:
            try:
                self._whole[texts] = _plain(self._compose(list(texts)))
            except InputError as error:
                self._whole[texts] = error
            except COMPOSITION_ERRORS as error:
                self._whole[texts] = explain_composition(error)
        found = self._whole[texts]
        if isinstance(found, InputError):
            raise InputError(*found.mistakes)
        return found


def _only_seed(overrides: Sequence[str]) -> int | None:
    """The valid seed that is given once, as a plain number; None where it is not so."""
    given = [text for text in overrides if text.startswith("seed=")]
    number = SEED.fullmatch(given[0]) if len(given) == 1 else None
    return int(number[1]) if number and int(number[1]) < SEEDS else None


def _plain(composed: Any) -> _Composed:
    with open_dict(composed):
        composed.pop("hydra", None)
    literal = not _is_deep(list(_leaves(OmegaConf.to_container(composed))))
    values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    if not isinstance(values, dict):
        raise InputError(f"config: must be a mapping, received {type(values).__name__}")
    return _Composed({str(key): value for key, value in values.items()}, literal)


def _leaves(value: Any) -> Iterable[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    else:
        yield value


def _changes(override: Override) -> bool:
    """Whether it is a plain `key=value`, without `+`, `++`, `~` or `@package`."""
    return not (override.is_add() or override.is_force_add() or override.is_delete() or override.package)


def _is_deep(value: Any) -> bool:
    if isinstance(value, list):
        return any(_is_deep(item) for item in value)
    return isinstance(value, dict) or (isinstance(value, str) and ("${" in value or value == MISSING))


def _touch_each_other(some: Sequence[Override], others: Sequence[Override]) -> bool:
    """Whether a key of one kind is, or lies inside, a key of the other kind: then their order matters."""
    mine = [f"{override.key_or_group}." for override in some]
    theirs = [f"{override.key_or_group}." for override in others if not _chooses(override)]
    return any(a.startswith(b) or b.startswith(a) for a in mine for b in theirs)


def _chooses(override: Override) -> bool:
    """Whether it can only be the choice of an option, which Hydra takes before any value, in whatever order."""
    return "." not in override.key_or_group and _changes(override) and not isinstance(override.value(), dict)


def _texts(overrides: Iterable[Override]) -> tuple[str, ...]:
    return tuple(override.input_line or "" for override in overrides)


def _without(values: Mapping[str, Any], key: str) -> Values:
    return {name: value for name, value in values.items() if name != key}


def _copied(value: Any) -> Any:
    """A copy of plain mappings and lists, many times faster than `deepcopy`."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def _set(values: Values, override: Override) -> bool:
    """Sets a value that is there already; False where there is none or where a mapping (an option) stands."""
    *path, leaf = override.key_or_group.split(".")
    node: Any = values
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or leaf not in node or isinstance(node[leaf], dict):
        return False
    node[leaf] = override.value()
    return True
