from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from experiments.config import (
    CONF,
    RunConfig,
    available_cores,
    compose,
    config_key,
    load_config,
    run_key,
    validate,
)
from experiments.errors import InputError

FILES = sorted(CONF.rglob("*.yaml"))
GROUPS = sorted(RunConfig.model_fields.keys() - {"seed"})
OPTIONS = [(path.parent.name, path.stem) for path in FILES if path.parent.name in GROUPS]
DIGEST = "ab" * 32


def relative(path: Path) -> str:
    return str(path.relative_to(CONF))


@cache
def default() -> RunConfig:
    return compose()


def changed(key: str, value: Any, base: RunConfig | None = None) -> RunConfig:
    """The default config, or `base`, with one value changed; `key` is `a.b.c` or `seed`."""
    values = (base or default()).model_dump()
    *groups, leaf = key.split(".")
    reduce(dict.__getitem__, groups, values)[leaf] = value
    return validate(values)


def with_option(group: str, name: str) -> RunConfig:
    """The default config with another option, as its file gives it."""
    return validate(default().model_dump() | {group: yaml.safe_load((CONF / group / f"{name}.yaml").read_text())})


def refuse(*overrides: str) -> str:
    """The one line that answers `overrides`."""
    with pytest.raises(InputError) as caught:
        compose(*overrides)
    assert len(caught.value.mistakes) == 1
    assert "\n" not in caught.value.mistakes[0]
    return caught.value.mistakes[0]


# The files in conf/.


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_open_with_what_they_are(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line != "# @package _global_"]
    header = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    # An option of many values may take a fourth line to say what comes in and what goes out.
    assert 1 <= header <= 4
    assert all(len(line) <= 125 for line in lines)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_hold_nothing_that_depends_on_where_they_are_read(path: Path) -> None:
    text = path.read_text()
    for resolver in ("${hydra", "${now", "${oc.", "_target_"):
        assert resolver not in text


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_hold_no_number_that_yaml_versions_read_differently(path: Path) -> None:
    """`010` is 8, `1:30` is 90, `on` is true and `1e-3` is a string, each in one of YAML 1.1 and 1.2."""
    traps = re.compile(r"0\d+|\d+(:\d+)+|[+-]?\d+[eE][+-]?\d+|on|off|yes|no|y|n|[+-]?\.?inf|nan|0o?\d+|\d+_\d+", re.I)
    scalars = [
        token.value for token in yaml.scan(path.read_text()) if isinstance(token, yaml.ScalarToken) and token.plain
    ]
    assert [scalar for scalar in scalars if traps.fullmatch(scalar)] == []


@pytest.mark.parametrize(("group", "name"), OPTIONS, ids=map("/".join, OPTIONS))
def test_option_lists_all_its_values_and_validates(group: str, name: str) -> None:
    field = RunConfig.model_fields[group]
    values = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    option = TypeAdapter(field.rebuild_annotation()).validate_python(values)
    assert set(values) == set(type(option).model_fields)
    if group not in ("training", "sweep"):
        assert next(iter(values)) == "name"
        assert values["name"] == name


@pytest.mark.parametrize("group", GROUPS)
def test_every_class_of_a_group_has_a_file(group: str) -> None:
    schema = TypeAdapter(RunConfig.model_fields[group].rebuild_annotation()).json_schema()
    classes = set(schema.get("discriminator", {}).get("mapping", {}))
    names = {name for option_group, name in OPTIONS if option_group == group}
    assert names
    assert names == classes or not classes


@pytest.mark.parametrize(("group", "name"), OPTIONS, ids=map("/".join, OPTIONS))
def test_every_option_composes_with_the_defaults(group: str, name: str) -> None:
    config = compose(f"{group}={name}")
    chosen = getattr(config, group)
    assert getattr(chosen, "name", name) in (name, None)
    assert validate(config.model_dump()) == config


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_every_experiment_composes(name: str) -> None:
    assert compose(f"experiment={name}").training.epochs >= 1


def test_defaults_are_those_of_the_readme() -> None:
    config = default()
    assert (config.dataset.name, config.model.name, config.optimizer.name) == ("auto", "cnn", "adam")
    assert config.seed == 0
    assert config.training.threads is None


# Bad input.

MISTAKES = [
    # what is given, what the answer must begin with, and what it must name
    ("optimizer=adma", "optimizer=adma: no such option", "did you mean adam?"),
    ("optimizer=foo", "optimizer=foo: no such option", "valid: adagrad, adam, adamw, lion, muon, nadam, rmsprop, sgd"),
    ("schedule=one-cycle", "schedule=one-cycle: no such option", "did you mean one_cycle?"),
    ("experiment=nope", "experiment=nope: no such option", "optimizers"),
    ("modl=cnn", "modl: no such key", "did you mean model?"),
    ("+modl=cnn", "modl: no such key", "did you mean model?"),
    ("+typo=1", "typo: no such key", "valid: dataset, model, optimizer"),
    ("++typo=1", "typo: no such key", "valid: dataset, model, optimizer"),
    ("optimizer.lr=0.1", "optimizer.lr: no such key", "did you mean optimizer.learning_rate?"),
    ("+optimizer.lr=0.1", "optimizer.lr: no such key", "did you mean optimizer.learning_rate?"),
    ("learning_rate=0.1", "learning_rate: no such key", "did you mean optimizer.learning_rate?"),
    ("+epochs=3", "epochs: no such key", "did you mean training.epochs?"),
    ("training.epoch=3", "training.epoch: no such key", "did you mean epochs?"),
    ("optimizer.learning_rat=1", "optimizer.learning_rat: no such key", "valid: beta_1, beta_2, epsilon"),
    ("optimizer.nesterov=true", "optimizer.nesterov: no such key", "belongs to optimizer=sgd_momentum, optimizer=muon"),
    ("model=mlp model.filters=[3]", "model.filters: no such key", "it belongs to model=cnn, model=lenet5"),
    ("regularization.augmentation.zoom=1", "regularization.augmentation.zoom: no", "did you mean zoom_fraction?"),
    ("regularization.dropout=1.5", "regularization.dropout: must be less than 1", "received 1.5"),
    ("regularization.augmentation=3", "regularization.augmentation: must be a mapping", "received 3"),
    ("training.epochs=0", "training.epochs: must be greater than or equal to 1", "received 0"),
    ("training.epochs=1.5", "training.epochs: must be a valid integer", "received 1.5"),
    ("training.epochs=true", "training.epochs: must be a valid integer", "received True (bool)"),
    ("training.epochs=null", "training.epochs: must be a valid integer", "received null"),
    ("training.epochs=010", "training.epochs: must be a valid integer", "received '010' (str)"),
    ("training.epochs=1:30", "training.epochs: must be a valid integer", "received '1:30' (str)"),
    ("training.epochs=on", "training.epochs: must be a valid integer", "received 'on' (str)"),
    ("training.batch_size=-1", "training.batch_size: must be greater than or equal to 1", "received -1"),
    ("training.threads=0", "training.threads: must be greater than or equal to 1", "received 0"),
    ("training.precision=float16", "training.precision: no such choice 'float16'", "mixed_float16"),
    ("optimizer.learning_rate=-1", "optimizer.learning_rate: must be greater than 0", "received -1"),
    ("optimizer.learning_rate=0", "optimizer.learning_rate: must be greater than 0", "received 0"),
    ("optimizer.learning_rate=nan", "optimizer.learning_rate: must be a finite number", "received nan"),
    ("optimizer.learning_rate=inf", "optimizer.learning_rate: must be a finite number", "received inf"),
    ("optimizer.learning_rate='1e-3'", "optimizer.learning_rate: must be a valid number", "received '1e-3' (str)"),
    ("optimizer.learning_rate=on", "optimizer.learning_rate: must be a valid number", "received 'on' (str)"),
    ("schedule.warmup_fraction=1.0", "schedule.warmup_fraction: must be less than 1", "received 1.0"),
    ("schedule=step schedule.drops_at=[0.5,2]", "schedule.drops_at.1: must be less than 1", "received 2"),
    ("model.filters=[]", "model.filters: must have at least 1 item", "received []"),
    ("model.filters=[32,a]", "model.filters.1: must be a valid integer", "received 'a' (str)"),
    ("model.activation=relo", "model.activation: no such choice 'relo'", "did you mean relu?"),
    ("model=layers model.layers=[{layer:Conv3D}]", "model.layers.0.layer: no such choice", "did you mean Conv2D?"),
    ("model=layers model.layers=[Dense]", "model.layers.0: must be a mapping", "received 'Dense' (str)"),
    ("optimizer.name=adm", "optimizer.name: no such option 'adm'", "did you mean adam?"),
    ("tracking.experiment=a/b", "tracking.experiment: must match pattern", "received 'a/b' (str)"),
    ("seed=-1", "seed: must be greater than or equal to 0", "received -1"),
    ("seed=4294967296", "seed: must be less than 4294967296", "received 4294967296"),
    ("seed=???", "seed: Missing mandatory value", "seed"),
    ("seed=${nothing}", "seed: Interpolation key 'nothing' not found", "seed"),
    ("~seed", "seed: missing", "every value must be given"),
    ("~optimizer", "optimizer: missing", "every value must be given"),
    ("optimizer=null", "Config group override must be a string or a list", "NoneType"),
    ("model.filters=[32,64", "model.filters=[32,64", "is not"),
    ("training", "training", "is not"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "begins", "names"), MISTAKES, ids=[given for given, *_ in MISTAKES])
def test_mistake_is_answered_in_one_line(given: str, begins: str, names: str) -> None:
    answer = refuse(*shlex.split(given, posix=False))
    assert answer.startswith(begins)
    assert names in answer
    key, _, value = given.split()[-1].lstrip("+").partition("=")
    assert f"did you mean {key}?" not in answer
    assert f"did you mean {value}?" not in answer


def test_portable_determinism_takes_one_thread() -> None:
    answer = refuse("training.determinism=portable", "training.threads=4")
    assert answer == "training: threads must be 1 (or null) where determinism is portable, received 4"
    assert compose("training.determinism=portable").training.threads is None


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        compose("training.epochs=0", "optimizer.learning_rate=nan", "+optimizer.typo=1", "seed=x")
    assert [mistake.partition(":")[0] for mistake in caught.value.mistakes] == [
        "optimizer.learning_rate", "optimizer.typo", "training.epochs", "seed",
    ]  # fmt: skip


# Saved configs.


def every_leaf(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from every_leaf(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@pytest.mark.parametrize(("group", "name"), OPTIONS, ids=map("/".join, OPTIONS))
def test_saved_config_loads_as_it_was(group: str, name: str, tmp_path: Path) -> None:
    config = with_option(group, name).with_threads(3)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert load_config(path) == config
    assert load_config(path).to_yaml() == config.to_yaml()


@pytest.mark.parametrize("value", [1e-05, 0.1 + 0.2, 5e-324, 1.7976931348623157e308, 123456789.123456789, 1, 1e22])
def test_saved_numbers_keep_every_bit(value: float, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(changed("optimizer.learning_rate", value).to_yaml())
    loaded = load_config(path).optimizer.learning_rate
    assert loaded == value
    assert isinstance(loaded, float)


@pytest.mark.parametrize(
    "text", ["on", "1e3", "010", "null", "~", "a: b", "- x", "é ✓", "2026-01-01", "'", '"', "", " x "]
)
def test_saved_words_stay_words(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    config = changed("dataset", {"name": "mnist", "path": text, "validation_fraction": 0.1, "train_limit": None})
    path.write_text(config.to_yaml())
    assert load_config(path) == config


def test_saved_config_says_the_name_of_each_option_first() -> None:
    values = yaml.safe_load(default().to_yaml())
    assert list(values) == [
        *[
            "dataset",
            "model",
            "optimizer",
            "schedule",
            "regularization",
            "training",
            "tracking",
            "sweep",
            "seed",
        ]
    ]
    for group in ("dataset", "model", "optimizer", "schedule", "regularization", "tracking"):
        assert next(iter(values[group])) == "name"


@pytest.mark.parametrize("group", GROUPS)
def test_saved_config_cannot_name_code(group: str, tmp_path: Path) -> None:
    values = default().model_dump(mode="json")
    values[group]["_target_"] = "os.system"
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=rf"{group}\._target_: no such key"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("!!python/object/apply:os.system ['true']", "is not plain YAML"),
        ("a: [", "is not plain YAML"),
        ("\x00", "is not plain YAML"),
        ("", "config: must be"),
        ("- 1", "config: must be"),
        ("seed: 1", "optimizer: missing"),
    ],
)
def test_saved_config_that_is_none_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert says in str(caught.value)
    assert all(mistake.startswith(str(path)) for mistake in caught.value.mistakes)


def test_missing_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_config(tmp_path / "config.yaml")


# Identity.

NOT_IDENTITY = {"training.threads", "tracking", "sweep", "dataset.path"}


def other(value: Any) -> Iterator[Any]:
    """Values near `value` of which one will be valid."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value / 2, value + 0.001, 0.5)
    elif isinstance(value, list):
        yield value * 2
    elif value is None:
        yield from (1, "x", ["x"])
    else:
        yield from ("mixed_bfloat16", "portable", "batch", "tanh", "loose", "unit", "black", "x")


def first_valid(key: str, value: Any, base: RunConfig) -> RunConfig:
    for candidate in other(value):
        with suppress(InputError):
            if candidate != value:
                return changed(key, candidate, base)
    pytest.fail(f"no other value of {key} is valid")


@pytest.mark.parametrize("dataset", ["mnist", "files"])
def test_identity_ignores_what_cannot_change_the_result_and_nothing_else(dataset: str) -> None:
    base = changed("regularization.augmentation.shift_fraction", 0.1, with_option("dataset", dataset))
    leaves = [(key, value) for key, value in every_leaf(base.model_dump()) if not key.endswith(".name")]
    for key, value in [*leaves, ("sweep.name", None)]:
        ignored = any(key == name or key.startswith(f"{name}.") for name in NOT_IDENTITY)
        same = run_key(first_valid(key, value, base), DIGEST) == run_key(base, DIGEST)
        assert same is ignored, key
    assert len(leaves) > 25


def test_other_options_have_other_keys() -> None:
    chosen = [(group, name) for group, name in OPTIONS if group in ("model", "optimizer", "schedule")]
    keys = {run_key(with_option(group, name), DIGEST) for group, name in chosen}
    assert len(keys) == len(chosen) - 2  # the default one stands in each group


def test_keys_are_hexadecimal_and_depend_on_the_data() -> None:
    key = run_key(default(), DIGEST)
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert run_key(default(), "cd" * 32) != key
    assert config_key(default(), "cd" * 32) != config_key(default(), DIGEST)


def test_repetitions_share_their_config_key_but_not_their_run_key() -> None:
    first, second = changed("seed", 1), changed("seed", 2)
    assert config_key(first, DIGEST) == config_key(second, DIGEST)
    assert run_key(first, DIGEST) != run_key(second, DIGEST)
    assert config_key(first, DIGEST) != run_key(first, DIGEST)
    assert config_key(first, DIGEST) != config_key(changed("training.epochs", 3), DIGEST)


def test_a_whole_number_and_the_same_fraction_are_one_value() -> None:
    assert run_key(changed("optimizer.learning_rate", 1), DIGEST) == run_key(
        changed("optimizer.learning_rate", 1.0), DIGEST
    )


def test_keys_do_not_depend_on_the_order_of_the_yaml() -> None:
    values = default().model_dump()
    turned = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value
        for key, value in reversed(values.items())
    }
    assert run_key(validate(turned), DIGEST) == run_key(default(), DIGEST)


def test_available_cores_are_those_of_this_process() -> None:
    assert available_cores() >= 1
