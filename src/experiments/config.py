"""RunConfig: composed YAML → validated, typed, frozen. The only door to OmegaConf and Hydra's composition."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from experiments.conf import CONF
from experiments.errors import InputError, initials, nearest
from experiments.ingredients.datasets import Dataset
from experiments.ingredients.execution import Sweep, Tracking, Training
from experiments.ingredients.models import Model
from experiments.ingredients.optimizers import Optimizer
from experiments.ingredients.option import Option, fill_in, leave_out, names_of
from experiments.ingredients.regularization import Regularization
from experiments.ingredients.schedules import Schedule

DEEPEST_YAML = 20  # levels; ours have 6 at most, and a parser dies of very many


class RunConfig(Option):
    """Everything that one run is made of."""

    dataset: Dataset
    model: Model
    optimizer: Optimizer
    schedule: Schedule
    regularization: Regularization
    training: Training
    tracking: Tracking
    sweep: Sweep
    seed: Annotated[int, Field(ge=0, lt=2**32)]  # the range of NumPy's and Keras' seeds

    def identity(self) -> dict[str, Any]:
        """What can change the result: not threads, tracking, the sweep, nor where the data lie.

        Knobs added later are left out where they change nothing (`AsBefore`), so that older run keys stay true.
        """
        values = self.model_dump(
            exclude={"tracking": True, "sweep": True, "training": {"threads"}, "dataset": {"path"}}
        )
        return leave_out(type(self), values)

    def with_threads(self, threads: int) -> RunConfig:
        """The same config with the number of threads written down."""
        return self.model_copy(update={"training": self.training.model_copy(update={"threads": threads})})

    def to_yaml(self) -> str:
        """The text of `config.yaml`: every value, nothing to resolve."""
        return str(yaml.dump(self.model_dump(mode="json"), Dumper=yaml.CSafeDumper, sort_keys=False))


def run_key(config: RunConfig, dataset_digest: str) -> str:
    """SHA-256 (hex) over all that can change the result: runs that share it are the same run."""
    return _digest(config.identity() | {"dataset_digest": dataset_digest})


def config_key(config: RunConfig, dataset_digest: str) -> str:
    """`run_key` without the seed: runs that share it are repetitions of one configuration."""
    identity = config.identity()
    del identity["seed"]
    return _digest(identity | {"dataset_digest": dataset_digest})


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def validate(values: Any) -> RunConfig:
    """A config from plain mappings.

    Raises:
        InputError: with one line per mistake.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(*(_mistake(dict(e)) for e in error.errors(include_url=False))) from None


def validate_saved(values: Any) -> RunConfig:
    """A config from the plain mappings of a saved file, which may be older than some knobs: see `AsBefore`.

    Raises:
        InputError: with one line per mistake.
    """
    return validate(fill_in(RunConfig, values) if isinstance(values, Mapping) else values)


def from_hydra(composed: Any) -> RunConfig:
    """A config from what Hydra composed (an omegaconf `DictConfig`), interpolations resolved."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return validate(OmegaConf.to_container(composed, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise explain_composition(error) from None


def load_config(path: Path) -> RunConfig:
    """A config from a saved `config.yaml`; it can only name options that exist here.

    Raises:
        InputError: no such file, not YAML, or values that today's schema refuses.
    """
    try:
        return validate_saved(read_yaml(path))
    except InputError as error:
        raise InputError(*(f"{path}: {mistake}" for mistake in error.mistakes)) from None


def read_yaml(path: Path) -> Any:
    """What a YAML file says that somebody else may have written: plain values, and no more than the text shows.

    Raises:
        InputError: it cannot be read, is no YAML, names a Python object, or would grow beyond its text: by aliases a
            few lines can mean more than any memory holds.
    """
    try:
        text = path.read_bytes()
        _refuse_tricks(text)
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise InputError(f"{path}: is not plain YAML ({_one_line(error)})") from None


def _refuse_tricks(text: bytes) -> None:
    """Raises a `YAMLError` for what is YAML but no config."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"a config repeats nothing by alias, received *{event.anchor}")
        if depth > DEEPEST_YAML:
            raise yaml.YAMLError(f"a config is at most {DEEPEST_YAML} levels deep")


def compose(*overrides: str) -> RunConfig:
    """The config that `python -m experiments.run <overrides>` would use.

    Raises:
        InputError: with one line per mistake.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return from_hydra(hydra_compose("config", overrides=list(overrides)))
    except (HydraException, ValueError) as error:  # ValueError: a choice that is no word, as optimizer=null
        raise explain_composition(error) from None


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Mistakes, told in the words of the user's YAML.


def explain_composition(error: Exception) -> InputError:
    """One line from an error of Hydra or OmegaConf: what was given and the nearest thing that exists."""
    cause = error.__cause__ or error
    if unreadable := getattr(error, "override", None):
        return InputError(f"{unreadable}: is not `key=value` in Hydra's grammar; quote values with commas or brackets")
    missing = getattr(error, "missing_cfg_file", None)
    if missing and getattr(error, "options", None):
        group, _, option = missing.rpartition("/")
        return InputError(f"{group}={option}: no such option; {nearest(option, error.options)}")  # type: ignore[attr-defined]
    key = getattr(cause, "full_key", "")
    if key and "not in struct" in str(cause):
        beside = cause.parent_node if "." in key else RunConfig.model_fields  # type: ignore[attr-defined]
        return InputError(f"{key}: no such key; {_nearest_key(key, beside)}")
    text = _one_line(error).partition(" See https://")[0].partition(" full_key:")[0]
    if "No match in the defaults list" in text:
        key = text.split("'")[1]
        return InputError(f"{key}: no such key; {_nearest_key(key, [*RunConfig.model_fields, 'experiment'])}")
    return InputError(f"{key}: {text}" if key else text)


def _nearest_key(key: str, beside: Iterable[str]) -> str:
    """Half a sentence: which options have `key`, where it stands instead, or the nearest `beside` it."""
    group, _, leaf = key.rpartition(".")
    field = RunConfig.model_fields.get(group)
    owners = [o for o in _options(field.annotation) if leaf in o.model_fields] if field else []
    if owners:
        return f"it belongs to {', '.join(f'{group}={name}' for o in owners for name in names_of(o))}"
    known = sorted(set(_dotted_keys(RunConfig)), key=lambda known: (not known.startswith(group), known))
    same_leaf = [k for k in known if leaf in (k.rpartition(".")[2], initials(k.rpartition(".")[2]))]
    return f"did you mean {' or '.join(same_leaf)}?" if same_leaf else nearest(leaf, beside)


def _dotted_keys(option: type[Option], prefix: str = "") -> Iterator[str]:
    for name, field in option.model_fields.items():
        yield prefix + name
        for member in _options(field.annotation):
            yield from _dotted_keys(member, f"{prefix}{name}.")


def _options(annotation: Any) -> list[type[Option]]:
    members = getattr(annotation, "__args__", (annotation,))
    return [member for member in members if isinstance(member, type) and issubclass(member, Option)]


def _mistake(error: dict[str, Any]) -> str:
    """One line: dotted key, rule, what was received, nearest valid choice. `error` is one of pydantic's."""
    keys, fields = _locate(error["loc"])
    dotted, kind, received = ".".join(keys) or "config", error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"{dotted}: no such key; {_nearest_key(dotted, fields)}"
    if kind == "missing":
        return f"{dotted}: missing; every value must be given"
    if kind == "union_tag_not_found":
        return f"{dotted}: must be a mapping with a name, received {_show(received)}"
    context = error.get("ctx", {})
    if kind == "union_tag_invalid":
        choices = [choice.strip("'") for choice in context["expected_tags"].split(", ")]
        return f"{dotted}.name: no such option {context['tag']!r}; {nearest(context['tag'], choices)}"
    if kind == "literal_error":
        choices = [c.strip("'") for c in context["expected"].replace(" or ", ", ").split(", ")]
        return f"{dotted}: no such choice {_show(received)}; {nearest(str(received), choices)}"
    if kind == "value_error":
        return f"{dotted}: {context['error']}"
    rule = "must be a mapping" if kind == "model_type" else re.sub(r"^\w+ should", "must", error["msg"])
    return f"{dotted}: {rule.partition(' after validation')[0]}, received {_show(received)}"


def _locate(location: tuple[str | int, ...]) -> tuple[list[str], list[str]]:
    """The dotted key's parts without pydantic's union tags, and the keys that are valid beside the last."""
    keys: list[str] = []
    options: list[type[Option]] = [RunConfig]
    fields: list[str] = []
    for part in location:
        tagged = [o for o in options if _tag(o, part)]
        if tagged and not (len(options) == 1 and part in options[0].model_fields):
            options = tagged
            continue
        keys.append(str(part))
        fields = sorted({name for option in options for name in option.model_fields})
        found = [o.model_fields[str(part)] for o in options if str(part) in o.model_fields]
        options = [member for field in found for member in _options(field.annotation)]
    return keys, fields


def _tag(option: type[Option], part: str | int) -> bool:
    return part in names_of(option)


def _show(value: Any) -> str:
    if value is None:
        return "null"
    text = f"{value!r} ({type(value).__name__})" if isinstance(value, str | bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
