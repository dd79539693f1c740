"""RunConfig: composed YAML → validated, typed, frozen. The only door to OmegaConf and Hydra's composition."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, Union

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from experiments import project
from experiments.bounded import ENVIRONMENT_BYTES, read_json
from experiments.cgroups import quota_cores
from experiments.errors import InputError, nearest
from experiments.ingredients.datasets import Dataset
from experiments.ingredients.execution import Sweep, Tracking, Training
from experiments.ingredients.models import Model
from experiments.ingredients.optimizers import Optimizer
from experiments.ingredients.option import AsBefore, Option, fill_in, leave_out, names_of, options_in
from experiments.ingredients.registry import OPTIONS, place_of
from experiments.ingredients.regularization import Regularization
from experiments.ingredients.schedules import Schedule
from experiments.mistakes import explain, nearest_key
from experiments.plain_yaml import read_yaml
from experiments.upgrades import FORMAT, bring_up, newest

LATER_KNOBS: tuple[dict[str, float], ...] = (  # of `Augmentation`, as they came, with the values of older runs
    {},
    {"test_views": 1},
    {"test_views": 1, "shear_fraction": 0.0, "stretch_fraction": 0.0},
)


SEEDS = 2**32  # NumPy's and Keras' seeds are below


class RunConfig(Option):
    """Everything that one run is made of."""

    dataset: Dataset
    model: Model
    optimizer: Optimizer
    schedule: Schedule
    regularization: Regularization
    training: Training
    tracking: Tracking
    figures: Annotated[bool, AsBefore(True)]
    seed: Annotated[int, Field(ge=0, lt=SEEDS)]

    def identity(self) -> dict[str, Any]:
        """What can change the result: not threads, tracking, figures, what is told beside, where data lie, nor a seal.

        Knobs added later are left out where they change nothing (`AsBefore`), so that older run keys stay true. A
        regularization's name is only the label of a preset: what stands here follows from the values.
        """
        values = self.model_dump(
            exclude={
                "tracking": True,
                "figures": True,
                "training": {"threads", "measure_training", "callbacks"},
                "dataset": {"path", "sealed"},
            }
        )
        values["regularization"]["name"] = self.regularization.label
        return leave_out(type(self), values)

    def former_identities(self) -> Iterator[dict[str, Any]]:
        """What `identity` was under earlier rules, where it was something else: run keys were made from it.

        The label was the preset's name, whatever its values; before that, augmentation had fewer knobs.
        """
        mine = self.identity()
        augmentation = mine["regularization"]["augmentation"]
        for later in LATER_KNOBS:
            kept = {name: value for name, value in augmentation.items() if (name, value) not in later.items()}
            for label in dict.fromkeys((self.regularization.label, self.regularization.name)):
                values = {**mine, "regularization": {**mine["regularization"], "name": label, "augmentation": kept}}
                if len(kept) + len(later) == len(augmentation) and values != mine:
                    yield values

    def with_threads(self, threads: int) -> RunConfig:
        """The same config with the number of threads written down."""
        if self.training.threads == threads:
            return self
        return self.model_copy(update={"training": self.training.model_copy(update={"threads": threads})})

    def with_seed(self, seed: int) -> RunConfig:
        """The same config, made of the same options, with another seed in [0, `SEEDS`)."""
        return self.model_copy(update={"seed": seed})

    def to_saved(self) -> dict[str, Any]:
        """What a saved file holds: the format and every value, plain, nothing to resolve."""
        return {FORMAT: newest("config"), **self.model_dump(mode="json")}

    def to_yaml(self) -> str:
        """The text of `config.yaml`."""
        return str(yaml.dump(self.to_saved(), Dumper=yaml.CSafeDumper, sort_keys=False))


class _Composed(RunConfig):
    """What stands in `conf/` side by side."""

    sweep: Sweep


OURS = {name: field.annotation for name, field in RunConfig.model_fields.items()}  # without what users register
Validated = TypeVar("Validated", bound=RunConfig)


def admit(group: str, option: type[Option]) -> None:
    """Makes a class an option of a group, beside ours.

    Raises:
        InputError: one of its names is that of one of ours.
    """
    for ours in options_in(OURS[group]):
        for name in set(names_of(ours)).intersection(names_of(option)):
            raise InputError(f"{place_of(option)}: the name {name!r} is taken by {group}={name} of this package")
    own = {place_of(other): other for (other_group, _), other in OPTIONS.items() if other_group == group}
    own[place_of(option)] = option  # in place of itself where its module was imported again
    for schema in (RunConfig, _Composed):
        schema.model_fields[group].annotation = Union[OURS[group], *own.values()]  # type: ignore[assignment]
        schema.model_rebuild(force=True)


class Composition(NamedTuple):
    """What a command asks for: a run, and how `-m` carries out many of them, which changes no result."""

    config: RunConfig
    sweep: Sweep


def run_key(config: RunConfig, dataset_digest: str) -> str:
    """SHA-256 (hex) over all that can change the result: runs that share it are the same run."""
    return Keys(config, dataset_digest).run_key(config.seed)


class Keys:
    """`config_key` of a config, and the `run_key` of each seed: of thousands at the price of a few."""

    def __init__(self, config: RunConfig, dataset_digest: str) -> None:
        identity = config.identity() | {"dataset_digest": dataset_digest}
        before = {name: value for name, value in identity.items() if name < "seed"}
        after = {name: value for name, value in identity.items() if name > "seed"}
        self.config_key = _digest(before | after)
        self._start, self._end = _json(before).removesuffix("}"), _json(after).removeprefix("{")

    def run_key(self, seed: int) -> str:
        """SHA-256 (hex) over the identity with this seed."""
        return _sha256(f'{self._start},"seed":{seed},{self._end}')


def former_run_keys(config: RunConfig, dataset_digest: str) -> list[str]:
    """The keys of the same run under earlier rules: a saved `run_key` may be one of them."""
    return [_digest(identity | {"dataset_digest": dataset_digest}) for identity in config.former_identities()]


def is_run(key: str, config: RunConfig, dataset_digest: str) -> bool:
    """Whether a saved `run_key` is that of this config, by today's rule or a former one.

    Args:
        key: SHA-256 (hex) from a saved record or plan.
        config: of the run, with its real data set.
        dataset_digest: SHA-256 (hex), see `ImageData.digest`.
    """
    return key == run_key(config, dataset_digest) or key in former_run_keys(config, dataset_digest)


def config_key(config: RunConfig, dataset_digest: str) -> str:
    """`run_key` without the seed: runs that share it are repetitions of one configuration."""
    return Keys(config, dataset_digest).config_key


def _digest(values: Mapping[str, Any]) -> str:
    return _sha256(_json(values))


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def fill_in_flat(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Flat values of an earlier run with those of the knobs that came later, see `AsBefore`."""
    nested: dict[str, Any] = {}
    for dotted, value in flat.items():
        *groups, leaf = dotted.split(".")
        node = nested
        for group in groups:
            inner = node.setdefault(group, {})
            node = inner if isinstance(inner, dict) else {}  # damaged: a value where a group stands elsewhere
        node[leaf] = value
    return flatten(fill_in(RunConfig, nested))


def as_text(value: Any) -> str:
    """A value as it would be given on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def validate(values: Any) -> RunConfig:
    """A config from plain mappings.

    Raises:
        InputError: with one line per mistake.
    """
    return _validate(values, RunConfig)


def validate_dataset(values: Any) -> Dataset:
    """The data set of a saved config; the user's modules are imported only where ours have no such name.

    Raises:
        InputError: they cannot be imported.
        ValidationError: with every mistake.
    """
    name = values.get("name") if isinstance(values, Mapping) else None
    if not any(name in names_of(option) for option in options_in(OURS["dataset"])):
        project.load()
    field = RunConfig.model_fields["dataset"]
    adapter: TypeAdapter[Dataset] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]
    return adapter.validate_python(values)


def validate_saved(values: Any) -> RunConfig:
    """A config from the plain mappings of a saved file: of an older format, or older than some knobs (`AsBefore`).

    Raises:
        InputError: of a newer format, or with one line per mistake.
    """
    project.load()
    return validate(bring_up_config(values) if isinstance(values, Mapping) else values)


def bring_up_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The mappings of a saved file as they would be saved today, without their format.

    Raises:
        InputError: of a newer format.
    """
    return fill_in(RunConfig, bring_up("config", values))


def validate_composed(values: Any) -> Composition:
    """A config and its sweep from what was composed, as plain mappings.

    Raises:
        InputError: with one line per mistake.
    """
    composed = _validate(values, _Composed)
    config = RunConfig.model_validate({name: getattr(composed, name) for name in RunConfig.model_fields})
    return Composition(config, composed.sweep)


def _validate(values: Any, schema: type[Validated]) -> Validated:
    project.load()
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise explain(error, schema) from None


def from_hydra(composed: Any) -> Composition:
    """A config and its sweep from what Hydra composed (an omegaconf `DictConfig`), interpolations resolved.

    Raises:
        InputError: an interpolation cannot be resolved, a value is missing (`???`), or as `validate_composed`.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return validate_composed(OmegaConf.to_container(composed, resolve=True, throw_on_missing=True))
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
        if missing := _missing_modules(path.with_name("environment.json")):
            raise InputError(f"{path}: {missing}") from None
        raise type(error)(*(f"{path}: {mistake}" for mistake in error.mistakes)) from None


def _missing_modules(environment: Path) -> str:
    """Which modules a run used that are not imported here, by what lies beside its config; "" where all are."""
    with suppress(InputError):
        return project.missing(read_json(environment, ENVIRONMENT_BYTES))
    return ""


def compose(*overrides: str) -> RunConfig:
    """The config that `python -m experiments.run <overrides>` would use.

    Raises:
        InputError: with one line per mistake.
    """
    from hydra.errors import HydraException

    from experiments import hydra_loader

    try:
        return from_hydra(hydra_loader.compose(overrides)).config
    except HydraException as error:
        raise explain_composition(error) from None


def available_cores() -> int:
    """The number of cores that this process may use: those that it may run on, or fewer by a quota of time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, quota_cores() or cores)


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
        beside = cause.parent_node if "." in key else _Composed.model_fields  # type: ignore[attr-defined]
        return InputError(f"{key}: no such key; {nearest_key(key, beside, _Composed)}")
    text = _one_line(error).partition(" See https://")[0].partition(" full_key:")[0]
    if "No match in the defaults list" in text:
        key = text.split("'")[1]
        return InputError(f"{key}: no such key; {nearest_key(key, [*_Composed.model_fields, 'experiment'], _Composed)}")
    return InputError(f"{key}: {text}" if key else text)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
