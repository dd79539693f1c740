from __future__ import annotations

import hashlib
import json
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
from pydantic.fields import FieldInfo

from experiments.conf import CONF
from experiments.config import (
    SEEDS,
    Keys,
    RunConfig,
    available_cores,
    compose,
    config_key,
    former_run_keys,
    is_run,
    load_config,
    run_key,
    validate,
    validate_saved,
)
from experiments.errors import InputError
from experiments.ingredients.execution import Sweep

FILES = sorted(CONF.rglob("*.yaml"))
GROUPS = sorted(RunConfig.model_fields.keys() - {"figures", "seed"})
FIELDS: dict[str, Any] = {**RunConfig.model_fields, "sweep": FieldInfo(annotation=Sweep)}
OPTIONS = [(path.parent.name, path.stem) for path in FILES if path.parent.name in FIELDS]
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
    return validate(default().model_dump() | {group: option_file(group, name)})


def option_file(group: str, name: str) -> dict[str, Any]:
    """The values of an option's file, and of the one that it extends."""
    values = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    for base in values.pop("defaults", []):
        if base != "_self_":
            values = merged(option_file(group, base), values)
    return dict(values)


def merged(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    both = {key: merged(base[key], value) for key, value in values.items() if isinstance(value, dict) and key in base}
    return base | values | both


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


def test_only_questions_choose_a_sweep_or_anything_else_of_hydra() -> None:
    """So a command that names none of them is known to be a single run before anything is composed."""
    told = [path for path in FILES if re.search(r"hydra|_global_|/experiment", path.read_text())]
    assert told
    assert {path.parent.name for path in told} == {"experiment"}


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
    field = FIELDS[group]
    values = option_file(group, name)
    option = TypeAdapter(field.rebuild_annotation()).validate_python(values)
    assert set(values) == set(type(option).model_fields)
    if group != "training":
        assert next(iter(values)) == "name"
        assert values["name"] == name


@pytest.mark.parametrize("group", FIELDS.keys() - {"figures", "seed"})
def test_every_class_of_a_group_has_a_file(group: str) -> None:
    schema = TypeAdapter(FIELDS[group].rebuild_annotation()).json_schema()
    classes = set(schema.get("discriminator", {}).get("mapping", {}))
    names = {name for option_group, name in OPTIONS if option_group == group}
    assert names
    assert names == classes or not classes


@pytest.mark.parametrize(("group", "name"), OPTIONS, ids=map("/".join, OPTIONS))
def test_every_option_composes_with_the_defaults(group: str, name: str) -> None:
    config = compose(f"{group}={name}")
    if group != "sweep":
        assert getattr(getattr(config, group), "name", name) == name
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
    ("sweep.name=mine", "sweep.name: no such option 'mine'", "did you mean sweep.title? valid: local"),
    ("sweep.tittle=mine", "sweep.tittle: no such key", "did you mean title?"),
    ("sweep.title=a/b", "sweep.title: must match pattern", "received 'a/b' (str)"),
    ("+typo=1", "typo: no such key", "valid: dataset, figures, model, optimizer"),
    ("++typo=1", "typo: no such key", "valid: dataset, figures, model, optimizer"),
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
    config = compose(f"{group}={name}").with_threads(3)
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
    config = changed("dataset.path", text, with_option("dataset", "mnist"))
    path.write_text(config.to_yaml())
    assert load_config(path) == config


def test_saved_config_says_the_name_of_each_option_first() -> None:
    values = yaml.safe_load(default().to_yaml())
    assert list(values) == [
        "format", "dataset", "model", "optimizer", "schedule", "regularization", "training", "tracking", "figures",
        "seed",
    ]  # fmt: skip
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

NOT_IDENTITY = {
    "training.threads", "training.measure_training", "training.callbacks", "tracking", "figures", "dataset.path",
    "dataset.sealed",
}  # fmt: skip


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
        yield from (
            "mixed_bfloat16",
            "portable",
            "batch",
            "tanh",
            "loose",
            "unit",
            "black",
            "qmnist50k",
            "balanced",
            "pad",
            "skip",
            "edge",
            "vertical",
            "x",
        )


def first_valid(key: str, value: Any, base: RunConfig) -> RunConfig:
    for candidate in other(value):
        with suppress(InputError):
            if candidate != value:
                return changed(key, candidate, base)
    pytest.fail(f"no other value of {key} is valid")


@pytest.mark.parametrize("dataset", ["mnist", "files"])
def test_identity_ignores_what_cannot_change_the_result_and_nothing_else(dataset: str) -> None:
    base = changed("regularization.augmentation.shift_fraction", 0.1, with_option("dataset", dataset))
    base = changed("dataset", base.dataset.model_dump() | {"folds": 5, "fold": 1}, base)  # which go together
    leaves = [(key, value) for key, value in every_leaf(base.model_dump()) if not key.endswith(".name") and value != []]
    for key, value in leaves:  # without the lists of what only a project of one's own can name
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


@pytest.mark.parametrize("group_and_name", [("dataset", "digits"), ("model", "resnet"), ("regularization", "full")])
def test_keys_of_many_seeds_are_digests_of_their_identities(group_and_name: tuple[str, str]) -> None:
    config = with_option(*group_and_name)
    keys = Keys(config, DIGEST)
    for seed in (0, 7, SEEDS - 1):
        identity = config.with_seed(seed).identity() | {"dataset_digest": DIGEST}
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        assert keys.run_key(seed) == hashlib.sha256(text.encode()).hexdigest()


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


# The beginnings of keys that were made when files had no format yet, over the digest above.
FORMER_KEYS = {
    (): "cf3f4a2886165a85",
    ("regularization=none",): "d29af7ab7c5129c9",
    ("regularization=dropout",): "cf3f4a2886165a85",
    ("regularization=l2",): "07e2d11c491b9817",
    ("regularization=label_smoothing",): "78ae7e9fc03350bb",
    ("regularization=augmentation",): "540cb9e698147183",
    ("regularization=early_stopping",): "2dc23c65d41d9dee",
    ("regularization=full",): "16c7f789cbeb52f8",
    ("experiment=tiny", "seed=3"): "3464cedca14d230c",
    ("model=resnet", "dataset=digits", "optimizer=muon"): "506c473b35127668",
    (
        "model=layers", "schedule=step", "dataset.train_limit=100", "training.determinism=portable",
    ): "f81a3159ac2bb054",
}  # fmt: skip
RENAMED = {  # the same of configs whose preset says something else than their values
    ("experiment=accurate",): "12b08d6ea8bb02ac",
    ("regularization=l2", "regularization.dropout=0.5"): "d5b4694bdd27013a",
    ("regularization=dropout", "regularization.dropout=0.0"): "38828ecc5f810e14",
}


@pytest.mark.parametrize("overrides", FORMER_KEYS, ids=" ".join)
def test_keys_stay_what_they_were(overrides: tuple[str, ...]) -> None:
    assert run_key(compose(*overrides), DIGEST).startswith(FORMER_KEYS[overrides])


@pytest.mark.parametrize("overrides", RENAMED, ids=" ".join)
def test_key_that_was_made_from_a_preset_is_still_accepted(overrides: tuple[str, ...]) -> None:
    config = compose(*overrides)
    former = [key for key in former_run_keys(config, DIGEST) if key.startswith(RENAMED[overrides])]
    assert len(former) == 1
    assert is_run(former[0], config, DIGEST)
    assert not is_run(former[0], changed("seed", 9, config), DIGEST)
    assert not is_run(former[0], config, "cd" * 32)


def test_label_of_a_preset_is_no_part_of_identity() -> None:
    assert run_key(compose("regularization=dropout", "regularization.dropout=0.0"), DIGEST) == run_key(
        compose("regularization=none"), DIGEST
    )
    assert run_key(compose("regularization=none", "regularization.l2=1.0e-4"), DIGEST) == run_key(
        compose("regularization=l2"), DIGEST
    )


def test_key_that_was_made_before_later_knobs_is_still_accepted() -> None:
    config = compose("regularization=augmentation")
    identity = config.identity()
    for knobs in (["test_views"], ["shear_fraction", "stretch_fraction"]):
        for knob in knobs:
            del identity["regularization"]["augmentation"][knob]
        text = json.dumps(identity | {"dataset_digest": DIGEST}, sort_keys=True, separators=(",", ":"))
        key = hashlib.sha256(text.encode()).hexdigest()
        assert key in former_run_keys(config, DIGEST)
        assert not is_run(key, changed("regularization.augmentation.test_views", 3, config), DIGEST)
        assert is_run(key, changed("regularization.augmentation.shear_fraction", 0.2, config), DIGEST) is False


# Formats.


def test_saved_config_reads_back_as_it_was() -> None:
    saved = yaml.safe_load(default().to_yaml())
    assert saved["format"] == 2
    assert validate_saved(saved) == default()


def test_config_of_format_1_loses_its_sweep_and_one_of_a_newer_format_is_refused() -> None:
    plain = default().model_dump(mode="json")
    assert validate_saved(plain | {"sweep": {"name": None, "workers": None}}) == default()
    with pytest.raises(InputError, match=r"^sweep: no such key"):
        validate_saved(plain | {"format": 2, "sweep": {"name": None}})
    with pytest.raises(InputError, match=r"^format: 3 needs a newer version of experiments; this one, "):
        validate_saved(plain | {"format": 3, "surprise": 1})


def test_available_cores_are_those_of_this_process() -> None:
    assert available_cores() >= 1


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.epochs=100000000", "training.epochs: must be less than or equal to 100000, received 100000000"),
        ("training.threads=1000000000", "training.threads: must be less than or equal to 1024, received 1000000000"),
        (
            "regularization.augmentation.test_views=1000000000",
            "regularization.augmentation.test_views: must be less than or equal to 1000, received 1000000000",
        ),
    ],
)
def test_numbers_that_would_fill_the_memory_are_refused(override: str, told: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(told)}$"):
        compose(override)
