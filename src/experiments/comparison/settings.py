"""What varies between runs: from their whole configs to a few short names and values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

# Not part of what is asked: they do not change a result, or (the seed) they repeat it.
IGNORED = ("tracking", "sweep", "seed", "training.threads", "dataset.path")

Settings = dict[str, Hashable]


def varying(configs: Sequence[Mapping[str, Any]]) -> list[Settings]:
    """For each config the values of those options that are not the same in all of them, under short names.

    A group whose `name` varies is one option, `optimizer`. Its other keys count only where they vary among
    configs of one name: two optimizers come with their own learning rates, which is no second choice.
    A key that a config does not have is None.
    """
    flat = [dict(_flatten(config)) for config in configs]
    keys = [key for key in dict.fromkeys(key for config in flat for key in config) if _varies(key, flat)]
    names = _short_names(keys)
    return [{names[key]: config.get(key) for key in keys} for config in flat]


def label(settings: Mapping[str, Hashable]) -> str:
    """`adam · learning_rate 0.01`: names of groups speak for themselves, numbers do not."""
    given = {name: value for name, value in settings.items() if value is not None}
    return " · ".join(v if isinstance(v, str) else f"{name} {show(v)}" for name, v in given.items())


def show(value: Hashable) -> str:
    """A value as a table shows it; – where an option does not apply."""
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Hashable]]:
    for name, value in node.items():
        key = prefix + name
        if key in IGNORED:
            continue
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{key}.")
        else:
            yield key, str(value) if isinstance(value, list) else value


def _varies(key: str, flat: Sequence[Mapping[str, Hashable]]) -> bool:
    values_by_name: dict[Hashable, set[Hashable]] = {}
    chooser = f"{key.rpartition('.')[0]}.name"
    for config in flat:
        name = None if key == chooser else config.get(chooser)
        values_by_name.setdefault(name, set()).add(config.get(key))
    return any(len(values) > 1 for values in values_by_name.values())


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    plain = {key: key.removesuffix(".name") for key in keys}
    ends = Counter(name.rpartition(".")[2] for name in plain.values())
    return {key: end if ends[end := name.rpartition(".")[2]] == 1 else name for key, name in plain.items()}
