from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from experiments.conf import CONF
from experiments.config import Composition, from_hydra
from experiments.errors import InputError
from experiments.sweeps import composition
from experiments.sweeps.composition import Composer


class Counted:
    """Hydra's composition, counted."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, overrides: list[str]) -> Any:
        self.calls.append(overrides)
        return hydra_compose("config", overrides=overrides)


@pytest.fixture(autouse=True)
def conf() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.fixture
def hydra() -> Counted:
    return Counted()


@pytest.fixture
def composer(hydra: Counted) -> Composer:
    return Composer(hydra)


@pytest.fixture(scope="module")
def shared() -> Composer:
    """One composer for many jobs: what it remembers of one must not leak into another."""
    return Composer(Counted())


def by_hydra(overrides: list[str]) -> Composition | tuple[str, ...]:
    """The config of Hydra's own composition, or the mistakes."""
    try:
        return from_hydra(hydra_compose("config", overrides=overrides))
    except Exception as error:
        return mistakes_of(error)


def mistakes_of(error: Exception) -> tuple[str, ...]:
    from experiments.config import explain_composition

    return error.mistakes if isinstance(error, InputError) else explain_composition(error).mistakes


def by_composer(composer: Composer, overrides: list[str]) -> Composition | tuple[str, ...]:
    try:
        return composer.compose(overrides)
    except InputError as error:
        return error.mistakes


# Each must give what Hydra gives, alone and beside others.
OVERRIDES = [
    "optimizer=sgd", "optimizer=muon", "model=resnet", "schedule=one_cycle", "regularization=full", "dataset=digits",
    "training.epochs=3", "seed=7", "optimizer.learning_rate=0.5", "optimizer.learning_rate=1e-3",
    "optimizer.learning_rate=null", "optimizer.learning_rate=${seed}", "training.epochs=${training.batch_size}",
    "optimizer.momentum=0.3", "optimizer.nesterov=true", "+optimizer.momentum=0.3", "++optimizer.learning_rate=0.2",
    "++optimizer.extra=1", "~optimizer.learning_rate", "~optimizer", "+seed=1", "++seed=9",
    "dataset.path=null", "dataset.path='a b/c, d'", 'dataset.path="it\'s"', "dataset.path=a\\,b",
    "dataset.path=\\${not}", "dataset.path=???", "dataset.path=",
    "experiment=baseline", "experiment=overfitting", "experiment=null", "experiment=nope",
    "optimizer={learning_rate: 0.25}", "optimizer={name: sgd, learning_rate: 0.1, weight_decay: 0.0}",
    "model=layers", "model.layers=[{layer: Dense, units: 3}]", "model.layers=[]", "regularization.dropout=[1, 2]",
    "regularization.augmentation.shift=0.1", "regularization.early_stopping.patience_epochs=2",
    "regularization.early_stopping={patience_epochs: 4}",
    "training.threads=int(2)", "training.epochs=str(3)", "seed=on", "seed=0x10",
    "tracking=none", "tracking.experiment=mine", "sweep.workers=2", "sweep.name=3", "sweep.title=3", "sweep.title=mine",
    "sweep=local", "sweep.reuse=loose", "regularization=none", "regularization=l2", "~sweep.title",
    "optimizer=adma", "modl=cnn", "optimizer.lr=1", "training.epochs=-1", "training.batch_size=many",
]  # fmt: skip


@pytest.mark.parametrize("override", OVERRIDES)
def test_one_override_gives_what_hydra_gives(shared: Composer, override: str) -> None:
    assert by_composer(shared, [override]) == by_hydra([override])


@pytest.mark.slow
@pytest.mark.parametrize("number", [15, pytest.param(150, marks=pytest.mark.exhaustive)])
def test_any_overrides_together_give_what_hydra_gives(shared: Composer, number: int) -> None:
    generator = random.Random(number)
    for _ in range(number):
        overrides = generator.sample(OVERRIDES, generator.randint(2, 5))
        assert by_composer(shared, overrides) == by_hydra(overrides), overrides


def test_order_of_values_that_touch_each_other_is_kept(composer: Composer) -> None:
    touching = ["optimizer={learning_rate: 0.25}", "optimizer.learning_rate=0.5", "optimizer=sgd"]
    for overrides in itertools.permutations(touching):
        assert by_composer(composer, list(overrides)) == by_hydra(list(overrides)), overrides


def test_job_does_not_change_what_the_next_one_gets(composer: Composer) -> None:
    first = composer.compose(["optimizer=sgd", "optimizer.learning_rate=0.5", "seed=1"])
    kept = copy.deepcopy(first)
    assert composer.compose(["optimizer=sgd", "seed=2"]).config.optimizer.learning_rate != 0.5
    assert first == kept


def test_values_cost_one_composition_and_options_one_each(hydra: Counted, composer: Composer) -> None:
    for seed, rate in itertools.product(range(20), (0.1, 0.2)):
        composer.compose([f"seed={seed}", f"optimizer.learning_rate={rate}", "training.epochs=2"])
    assert hydra.calls == [[]]
    optimizers, schedules = ("sgd", "adam", "muon"), ("constant", "cosine", "step")
    for optimizer, schedule, seed in itertools.product(optimizers, schedules, range(5)):
        composer.compose([f"optimizer={optimizer}", f"schedule={schedule}", f"seed={seed}"])
    assert len(hydra.calls) == 1 + len(optimizers) + len(schedules)


@pytest.mark.parametrize("others", ["optimizer=sgd", "experiment=overfitting", "optimizer.learning_rate=${seed}"])
def test_seeds_beside_known_options_give_what_hydra_gives(composer: Composer, others: str) -> None:
    for seed in ("2", "5", "4294967295", "4294967296", "007"):
        job = [others, f"seed={seed}"]
        assert by_composer(composer, job) == by_hydra(job), job


def test_seed_that_is_given_twice_is_left_to_hydra(composer: Composer) -> None:
    for job in (["seed=5", "seed=2"], ["seed=2", "seed=5"], ["++seed=9", "seed=2"], ["seed=2", "++seed=9"]):
        assert by_composer(composer, job) == by_hydra(job), job


def test_jobs_that_differ_in_their_seed_alone_share_their_options(composer: Composer) -> None:
    (first, _), (second, _) = (composer.compose(["optimizer=sgd", f"seed={seed}"]) for seed in (1, 2))
    assert (first.seed, second.seed) == (1, 2)
    assert all(getattr(first, name) is value for name, value in second if name != "seed")


def test_bad_value_in_many_jobs_is_composed_once(hydra: Counted, composer: Composer) -> None:
    for seed in range(5):
        with pytest.raises(InputError, match=r"optimizer=adma: no such option; did you mean adam\?"):
            composer.compose(["optimizer=adma", f"seed={seed}"])
    assert len(hydra.calls) == 2


def test_groups_of_another_conf_may_depend_on_each_other(tmp_path: Path) -> None:
    """An option that changes more than its own group, a value that refers to another one, one that must be given."""
    for name, text in {
        "config.yaml": "defaults: [optimizer: slow, schedule: flat, _self_]\nseed: 0\ntwice: ${seed}\nneeded: ???\n",
        "optimizer/slow.yaml": "rate: 1\n",
        "optimizer/fast.yaml": "# @package _global_\noptimizer: {rate: 2}\nschedule: {shape: bent}\n",
        "schedule/flat.yaml": "shape: flat\n",
        "schedule/steep.yaml": "shape: steep\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    jobs = [
        ["optimizer=fast", "seed=3", "needed=1"],
        ["optimizer=fast", "schedule=flat", "needed=2"],
        ["seed=4", "needed=3"],
        ["schedule=steep", "needed=${seed}", "seed=5"],
    ]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        composer = Composer(lambda overrides: hydra_compose("config", overrides=overrides))
        for job in jobs:
            parsed = [composer.parse(text) for text in job]
            values = composer._quickly(parsed) or composer._by_hydra(job).values
            assert values == OmegaConf.to_container(hydra_compose("config", overrides=job), resolve=True)
        with pytest.raises(InputError, match="needed"):
            composer.compose(["seed=1"])


def test_saved_config_is_composed_like_any_other(tmp_path: Path) -> None:
    saved = from_hydra(hydra_compose("config", overrides=["optimizer=sgd", "training.epochs=3"]))
    values = saved.config.model_dump(mode="json") | {"sweep": saved.sweep.model_dump(mode="json")}
    (tmp_path / "config.yaml").write_text(yaml.dump(values))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        composer = Composer(lambda overrides: hydra_compose("config", overrides=overrides))
        for seed in (3, 4):
            config = composer.compose([f"seed={seed}", "optimizer.learning_rate=0.5"]).config
            assert (config.seed, config.optimizer.name, config.optimizer.learning_rate) == (seed, "sgd", 0.5)
        with pytest.raises(InputError, match="optimizer"):
            composer.compose(["optimizer=adam"])


@pytest.mark.parametrize("text", ["seed=0", "seed=17", "training.batch_size=128", "a.b_1.C=9007199254740991"])
def test_whole_numbers_are_read_as_hydra_reads_them(composer: Composer, text: str) -> None:
    assert composer.parse(text) == OverridesParser.create().parse_override(text)
    assert type(composer.parse(text).value()) is int


@pytest.mark.parametrize("text", ["seed=007", "seed=1_000", "seed=-1", "+seed=1", "seed=1.0", "seed@x=1", "seed=1e3"])
def test_what_only_looks_like_a_whole_number_is_left_to_hydra(text: str) -> None:
    assert not composition.NUMBERED.fullmatch(text)
