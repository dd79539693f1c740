"""Many jobs composed at the price of few: Hydra composes each choice of options once, plain values are set on copies.

One composition takes Hydra about 0.1 s, so a sweep of 500 seeds would wait for a minute before anything is seen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf, open_dict

from experiments.config import RunConfig, explain_composition, validate
from experiments.errors import InputError

Composed = Mapping[str, Any]
Compose = Callable[[list[str]], Any]  # what Hydra makes of overrides: an omegaconf DictConfig


class Composer:
    """Composes the jobs of one sweep; `compose` is Hydra's own way for one job."""

    def __init__(self, compose: Compose) -> None:
        self._compose = compose
        self._parser = OverridesParser.create()
        self._whole: dict[tuple[str, ...], dict[str, Any]] = {}

    def config(self, overrides: Sequence[str]) -> RunConfig:
        """The validated config of a job, equal to what Hydra would compose from all its overrides.

        Raises:
            InputError: with one line per mistake.
        """
        parsed = self._parser.parse_overrides(list(overrides))
        plain = [override for override in parsed if self._sets_a_plain_value(override)]
        values = self._composed(tuple(o.input_line or "" for o in parsed if o not in plain))
        if not all(_set(values, override) for override in plain):
            # A key does not exist or holds more than a value: Hydra knows what to do or to say.
            values = self._composed(tuple(overrides))
        return validate(values)

    def _sets_a_plain_value(self, override: Override) -> bool:
        """Whether it is `a.b=value` or `seed=value` with a value that needs neither merging nor resolving."""
        key = override.key_or_group
        if override.is_add() or override.is_force_add() or override.is_delete() or override.package:
            return False
        is_choice = "." not in key and isinstance(self._composed(()).get(key), dict | None)
        return not is_choice and not _is_deep(override.value())

    def _composed(self, overrides: tuple[str, ...]) -> dict[str, Any]:
        if overrides not in self._whole:
            self._whole[overrides] = self._compose_whole(overrides)
        return copy.deepcopy(self._whole[overrides])

    def _compose_whole(self, overrides: tuple[str, ...]) -> dict[str, Any]:
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        try:
            composed = self._compose(list(overrides))
            with open_dict(composed):
                composed.pop("hydra", None)
            values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise explain_composition(error) from None
        if not isinstance(values, dict):
            raise InputError(f"config: must be a mapping, received {type(values).__name__}")
        return {str(key): value for key, value in values.items()}


def _is_deep(value: Any) -> bool:
    if isinstance(value, list):
        return any(_is_deep(item) for item in value)
    return isinstance(value, dict) or (isinstance(value, str) and "${" in value)


def _set(values: dict[str, Any], override: Override) -> bool:
    """Sets a value that is there already; False where there is none or where a mapping (an option) stands."""
    *path, leaf = override.key_or_group.split(".")
    node: Any = values
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or leaf not in node or isinstance(node[leaf], dict):
        return False
    node[leaf] = override.value()
    return True
