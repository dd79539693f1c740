"""What was asked: from plans and whole configs to a few short names and values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.results.records import Record

# Not part of what is asked: they do not change a result, or (the seed) they repeat it.
IGNORED = ("tracking", "sweep", "seed", "training.threads", "dataset.path")

PLAN = "plan.json"  # of a sweep, beside its runs: what each job was asked for

Settings = dict[str, Hashable]


def asked(records: Sequence[Record]) -> list[Settings]:
    """For each run the values of the options that were varied, under short names.

    Runs of one sweep have those that the sweep varied, not what these imply: `regularization`, not the ten values that
    each regularization brings. Runs that were picked by hand have what differs between their configs, without what
    follows from another of these.
    """
    plans: dict[Path, Mapping[str, Settings]] = {}
    given = [of_sweep(record, plans) for record in records]
    if all(given) and len({record.directory.parent for record in records}) == 1:
        every = dict.fromkeys(key for settings in given for key in settings)  # some options have more than others
        keys = [key for key in every if len({settings.get(key) for settings in given}) > 1]
        chosen = [{key: settings.get(key) for key in keys} for settings in given]
        keys_of = {record.keys[1]: tuple(values.items()) for record, values in zip(records, chosen, strict=True)}
        if len(set(keys_of.values())) == len(keys_of):
            return chosen
    return independent(varying([record.config for record in records]))


def of_sweep(record: Record, plans: dict[Path, Mapping[str, Settings]] | None = None) -> Settings:
    """What its sweep asked of a run, without the seed: from the plan beside it, or from its own record.

    Args:
        record: may be a link to a run that another sweep has made, which was asked for by other names there.
        plans: those that were read before, by directory.
    """
    plans = {} if plans is None else plans
    folder = record.directory.parent
    if folder not in plans:
        plans[folder] = _read_plan(folder / PLAN)
    varied = plans[folder].get(record.run_key) or (record.varied if record.sweep == folder.name else {})
    return {key: _plain(value) for key, value in varied.items() if key != "seed"}


def _read_plan(path: Path) -> dict[str, Settings]:
    """What varied, by run key; nothing where there is no plan that can be read."""
    try:
        jobs = json.loads(path.read_bytes())["jobs"]
        return {str(job["run_key"]): dict(job["varied"]) for job in jobs}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _plain(value: Any) -> Hashable:
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def independent(settings: Sequence[Settings]) -> list[Settings]:
    """Without the options that follow from another one; what a group is called comes before what it contains."""
    columns = {key: [run[key] for run in settings] for key in settings[0]} if settings else {}
    kept: list[str] = []
    for names in (True, False):
        for key, values in columns.items():
            is_name = all(value is None or isinstance(value, str) for value in values)
            if is_name is names and not any(_follows(values, columns[other]) for other in kept):
                kept.append(key)
    return [{key: run[key] for key in columns if key in kept} for run in settings]


def _follows(values: Sequence[Hashable], others: Sequence[Hashable]) -> bool:
    """Whether each of `others` comes with one value only."""
    return len(set(zip(others, values, strict=True))) == len(set(others))


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
