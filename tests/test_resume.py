"""Runs that are interrupted and go on: they end in the bits of one that never was."""

from __future__ import annotations

import itertools
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Ended, started
from experiments.conf import CONF
from experiments.config import RunConfig, compose
from experiments.errors import InputError, StoppedError
from experiments.ingredients.datasets import ImageData
from experiments.results import files, lookup, records
from experiments.results.files import EpochRow
from experiments.results.records import Record

EPOCHS = 4
TINY = (
    "dataset=digits", "dataset.train_limit=48", "training.batch_size=16", "training.threads=1",
    f"training.epochs={EPOCHS}", "model=mlp", "model.units=[6]", "tracking=none", "figures=false",
)  # fmt: skip
# In so few epochs nobody would wait three for an improvement, or two.
IMPATIENT = {
    "schedule=reduce_on_plateau": ("schedule.patience_epochs=1", "schedule.min_delta=0.2"),
    "regularization=early_stopping": ("regularization.early_stopping.patience_epochs=1",),
    "regularization=full": ("regularization.early_stopping.patience_epochs=2",),
}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


OPTIMIZERS, SCHEDULES, REGULARIZATIONS = map(options, ("optimizer", "schedule", "regularization"))
PRODUCT = list(itertools.product(OPTIMIZERS, SCHEDULES, REGULARIZATIONS))
# Every option once.
EACH = [
    (optimizer, SCHEDULES[i % len(SCHEDULES)], REGULARIZATIONS[i % len(REGULARIZATIONS)])
    for i, optimizer in enumerate(OPTIMIZERS)
]


READING_HISTORY = (("one_cycle", "reduce_on_plateau"), ("augmentation", "early_stopping", "full"))
# What can meet: a schedule that reads the history, or none, and what is kept beside the weights, or drawn every epoch.
MEETING = [
    (OPTIMIZERS[(3 * i + j) % len(OPTIMIZERS)], schedule, regularization)
    for i, schedule in enumerate(READING_HISTORY[0])
    for j, regularization in enumerate(READING_HISTORY[1])
]
QUICK = [*EACH, *(case for case in MEETING if case not in EACH)]


def marked(cases: list[tuple[str, str, str]], *marks: pytest.MarkDecorator) -> list[Any]:
    return [pytest.param(*case, marks=marks, id="-".join(case)) for case in cases]


CASES = [
    *marked(QUICK),
    *marked([case for case in PRODUCT if case not in QUICK], pytest.mark.slow, pytest.mark.exhaustive),
]


def config_of(optimizer: str, schedule: str, regularization: str, *more: str) -> RunConfig:
    chosen = [f"optimizer={optimizer}", f"schedule={schedule}", f"regularization={regularization}"]
    return compose(*TINY, *chosen, *(extra for choice in chosen for extra in IMPATIENT.get(choice, ())), *more)


def test_cases_cover_what_they_say() -> None:
    assert len(PRODUCT) == len(OPTIMIZERS) * len(SCHEDULES) * len(REGULARIZATIONS)
    assert len({case.values for case in CASES}) == len(CASES) == len(PRODUCT)
    for group, values in enumerate((OPTIMIZERS, SCHEDULES, REGULARIZATIONS)):
        assert {case[group] for case in EACH} == set(values)
    assert {case[1:] for case in QUICK} >= set(itertools.product(*READING_HISTORY))


class Process:
    """A trainer that stands for many processes: `start` leaves nothing of the one before, but the file system."""

    def __init__(self, config: RunConfig, data: ImageData, directory: Path) -> None:
        from experiments.training import loop
        from experiments.training.checkpoint import Checkpoints

        self.trainer = loop.build(config, data)
        self.data, self.checkpoints = data, Checkpoints(directory)
        self._beginning = [np.array(variable) for variable in self._variables()]

    def _variables(self) -> list[Any]:
        model = self.trainer.model
        return [*model.variables, *model.optimizer.variables, self.trainer.rate.scale]

    def start(self) -> None:
        """What a build gives, and where there is a checkpoint not even that: all of it must come from there."""
        for variable, value in zip(self._variables(), self._beginning, strict=True):
            variable.assign(np.ones_like(value) if self.checkpoints.rows() else value)

    def train(self, *, stop: bool) -> list[EpochRow]:
        """Trains on from the last checkpoint, to the end or for one epoch."""
        from experiments.training import loop

        state = self.checkpoints.restore(self.trainer.model)
        return loop.train(
            self.trainer,
            self.data.validation,
            state,
            on_epoch=lambda new: self.checkpoints.save(self.trainer.model, new),
            stop_requested=lambda: stop,
        )

    def die_inside_an_epoch(self, chance: random.Random) -> None:
        """Takes some of the next epoch's steps, which are lost."""
        feed, epoch = self.trainer.batches, len(self.checkpoints.rows()) + 1
        lost = feed.epoch(epoch).take(chance.randint(1, feed.steps))
        self.trainer.model.fit(lost, verbose=0, shuffle=False)

    def ending(self, rows: list[EpochRow]) -> tuple[Any, ...]:
        """Everything that must be the same."""
        history = [row.columns() | {"seconds": 0.0} for row in rows]
        return history, self.trainer.weights_digest(), self.trainer.predict(self.data.test.images).tobytes()


@pytest.fixture(scope="module")
def tiny_data(tensorflow: Any) -> ImageData:
    return compose(*TINY).dataset.load()


@pytest.mark.parametrize(("optimizer", "schedule", "regularization"), CASES)
def test_interrupted_in_and_after_every_epoch_ends_in_the_same_bits(
    optimizer: str, schedule: str, regularization: str, tiny_data: ImageData, tmp_path: Path
) -> None:
    process = Process(config_of(optimizer, schedule, regularization), tiny_data, tmp_path / "checkpoint")
    process.start()
    whole = process.ending(process.train(stop=False))
    process.checkpoints.remove()
    starts, chance = 0, random.Random(f"{optimizer} {schedule} {regularization}")
    while True:
        process.die_inside_an_epoch(chance)
        process.start()
        starts += 1
        try:
            rows = process.train(stop=True)
        except StoppedError:
            continue
        break
    assert starts == len(rows)
    assert process.ending(rows) == whole
    process.start()  # killed when it had trained all epochs, while it was being evaluated
    assert process.ending(process.train(stop=False)) == whole


# A whole run that loses power.


class PowerLossError(BaseException):
    """Nothing that is written after it gets anywhere."""


class Power:
    """Fails at one write: half of the new file stands under its temporary name, or it has just been renamed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes, self.fails_at, self.after_renaming = 0, -1, False
        whole = files.write_atomically

        def write(path: Path, content: str | bytes) -> None:
            self.writes += 1
            if self.writes != self.fails_at:
                return whole(path, content)
            data = content.encode() if isinstance(content, str) else content
            if self.after_renaming:
                whole(path, content)
            else:
                path.with_name(f".{path.name}.99.ab").write_bytes(data[: len(data) // 2])
            raise PowerLossError

        monkeypatch.setattr(records, "write_atomically", write)
        monkeypatch.setattr("experiments.training.checkpoint.write_atomically", write)
        # The process that lost its power is this one.
        monkeypatch.setattr(records.Process, "is_gone", lambda _: True)

    def fail(self, at: int, *, after_renaming: bool) -> None:
        self.writes, self.fails_at, self.after_renaming = 0, at, after_renaming


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch, tensorflow: Any) -> Power:
    from experiments.results import drawing

    monkeypatch.setattr(drawing, "draw", lambda *_: None)
    return Power(monkeypatch)


def run_here(config: RunConfig, directory: Path) -> Record:
    from experiments.runner import run_experiment

    return run_experiment(config, directory)


def ending_of(record: Record) -> tuple[Any, ...]:
    history = [row.columns() | {"seconds": 0.0} for row in record.rows]
    return record.state, history, record.metrics, record.weights_digest, record.predictions_digest


CONFIG = ("adam", "reduce_on_plateau", "full", "training.epochs=3")


def test_power_loss_at_any_write_is_made_up_for(power: Power, tmp_path: Path) -> None:
    """At three writes here; `test_power_loss_at_every_write` takes them all."""
    config = config_of(*CONFIG)
    whole = run_here(config, tmp_path / "whole")
    for at in random.Random(4).sample(range(5, power.writes), 3):
        lose_power_once(power, config, tmp_path / f"run-{at}", at, ending_of(whole), after_renaming=at % 2 == 0)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("after_renaming", [False, True])
def test_power_loss_at_every_write(after_renaming: bool, power: Power, tmp_path: Path) -> None:
    config = config_of(*CONFIG)
    whole = run_here(config, tmp_path / "whole")
    for at in range(1, power.writes + 1):
        lose_power_once(power, config, tmp_path / f"run-{at}", at, ending_of(whole), after_renaming=after_renaming)


def lose_power_once(
    power: Power, config: RunConfig, directory: Path, at: int, whole: tuple[Any, ...], *, after_renaming: bool = False
) -> None:
    power.fail(at, after_renaming=after_renaming)
    with pytest.raises(PowerLossError):
        run_here(config, directory)
    power.fail(-1, after_renaming=False)
    if not (directory / files.RECORD).exists():
        directory = directory.with_name(f"{directory.name}-again")  # it was no run yet
    assert ending_of(run_here(config, directory)) == whole
    assert not (directory / files.CHECKPOINT).exists()


# What an interrupted run finds when it goes on.


FOUR_EPOCHS = ("adam", "cosine", "dropout")


@pytest.fixture(scope="module")
def stopped(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four epochs that was stopped after the second; to be copied, not touched."""
    from experiments.runner import run_experiment

    def stop(row: EpochRow) -> None:
        if row.epoch == 2:
            raise StoppedError("stopped after epoch 2 of 4")

    record = run_experiment(config_of(*FOUR_EPOCHS), tmp_path_factory.mktemp("stopped") / "run", on_epoch=stop)
    assert (record.state, record.epochs_run) == ("interrupted", 2)
    return record.directory


@pytest.fixture(scope="module")
def uninterrupted(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    return ending_of(run_here(config_of(*FOUR_EPOCHS), tmp_path_factory.mktemp("whole") / "run"))


@pytest.fixture
def interrupted(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run."""
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def go_on(directory: Path) -> Record:
    from experiments.config import load_config

    return run_here(load_config(directory / files.CONFIG), directory)


def tear_history(directory: Path) -> None:
    path = directory / files.HISTORY
    path.write_text(path.read_text()[:-30])


def lose_history(directory: Path) -> None:
    (directory / files.HISTORY).unlink()


def forget_an_epoch(directory: Path) -> None:
    """Killed after the checkpoint and before the history."""
    lines = (directory / files.HISTORY).read_text().splitlines()
    (directory / files.HISTORY).write_text("\n".join(lines[:-1]) + "\n")
    records.load(directory).write(epochs_run=1)


def damage_the_newest_checkpoint(directory: Path) -> None:
    (directory / files.CHECKPOINT / "epoch-00002.npz").write_bytes(b"")


def lose_all_checkpoints(directory: Path) -> None:
    for path in (directory / files.CHECKPOINT).iterdir():
        path.unlink()


@pytest.mark.parametrize(
    "damage", [tear_history, lose_history, forget_an_epoch, damage_the_newest_checkpoint, lose_all_checkpoints]
)
def test_history_is_whole_again_whatever_was_left(
    damage: Callable[[Path], None], interrupted: Path, uninterrupted: tuple[Any, ...]
) -> None:
    damage(interrupted)
    resumed = go_on(interrupted)
    assert [row.epoch for row in resumed.rows] == [1, 2, 3, 4]
    assert ending_of(resumed) == uninterrupted


def test_all_epochs_done_but_the_history_behind(
    interrupted: Path, uninterrupted: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the last checkpoint and its row in the history: no epoch is left to write it."""
    from experiments.training.checkpoint import Checkpoints

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "remove", lambda _: None)
        finished = go_on(interrupted)
    finished.write(state="interrupted")
    forget_an_epoch(interrupted)
    assert ending_of(go_on(interrupted)) == uninterrupted


def test_changed_config_is_not_gone_on_with(interrupted: Path) -> None:
    path = interrupted / files.CONFIG
    path.write_text(path.read_text().replace("batch_size: 16", "batch_size: 8"))
    with pytest.raises(InputError, match=r"holds another run; config: training.batch_size 16 then, 8 now"):
        go_on(interrupted)
    assert records.load(interrupted).state == "interrupted"


def change_fact(directory: Path, *keys: str, value: Any) -> None:
    """Lets a run have begun elsewhere."""
    facts = records.load(directory).environment
    node = facts
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    files.write_json(directory / files.ENVIRONMENT, facts)


CHANGES: dict[str, tuple[tuple[str, ...], Any]] = {
    "threads: 3 then, 1 now": (("threads",), 3),
    "package: tensorflow 2.0.0 then, ": (("packages", "tensorflow"), "2.0.0"),
    "code: training/loop.py changed": (("code",), {"digest": "0" * 64, "files": {"training/loop.py": "0" * 16}}),
}


@pytest.mark.parametrize("text", CHANGES)
def test_going_on_elsewhere_is_said_and_noted(text: str, interrupted: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys, value = CHANGES[text]
    code = records.load(interrupted).environment["code"]
    if keys == ("code",):
        value = value | {"files": code["files"] | value["files"]}
    change_fact(interrupted, *keys, value=value)
    code_digest = records.load(interrupted).code_digest
    resumed = go_on(interrupted)
    (warning,) = [message for message in caplog.messages if message.startswith("resumed after a change (")]
    assert text in warning
    assert warning.endswith("results may match neither version")
    log = (interrupted / files.LOG).read_text()
    assert warning in log
    assert f"python -m experiments.run --config-path {interrupted} --config-name config" in log
    (noted,) = resumed.environment["resumed"]
    assert noted.startswith(text)
    assert resumed.code_digest == f"resumed-{code_digest}"  # so no sweep takes it for a run of this code


def test_going_on_elsewhere_twice_is_noted_once(interrupted: Path) -> None:
    change_fact(interrupted, "threads", value=3)
    code_digest = records.load(interrupted).code_digest
    go_on(interrupted).write(state="interrupted")
    resumed = go_on(interrupted)
    assert resumed.environment["resumed"] == ["threads: 3 then, 1 now"]
    assert resumed.code_digest == f"resumed-{code_digest}"


def test_going_on_here_is_not_noted(interrupted: Path) -> None:
    before = records.load(interrupted)
    resumed = go_on(interrupted)
    assert resumed.code_digest == before.code_digest
    assert records.load(interrupted).environment == before.environment
    assert "resumed" not in before.environment


# Real processes.


@pytest.mark.slow
@pytest.mark.exhaustive
def test_killed_again_and_again_ends_in_the_same_bits(tmp_path: Path) -> None:
    arguments = (
        "dataset=digits", "training.threads=1", "training.epochs=12", "schedule=reduce_on_plateau",
        "schedule.patience_epochs=1", "regularization=full", "tracking=none",
    )  # fmt: skip
    homes = {name: tmp_path / name for name in ("whole", "killed")}
    for home in homes.values():
        home.mkdir()
    with started(homes["whole"], *arguments) as command:
        whole = command.finish().record
    chance = random.Random(0)
    for killed_after in (0, 2, 5, 8):
        kill_in_an_epoch(homes["killed"], arguments, killed_after, chance)
        arguments = (f"resume={only_run(homes['killed'])}",)
    with started(homes["killed"], *arguments) as command:
        ended: Ended = command.finish()
    assert ended.code == 0, ended
    assert ending_of(ended.record) == ending_of(whole)


def kill_in_an_epoch(home: Path, arguments: tuple[str, ...], epoch: int, chance: random.Random) -> None:
    """kill -9 at a random moment within the epoch that follows `epoch`."""
    with started(home, *arguments) as command:
        command.wait_for(f"epoch {epoch:>2}/12" if epoch else "20")
        time.sleep(chance.uniform(0, 0.5))  # an epoch takes about half a second; any moment will do
        command.process.kill()
        command.finish()


def only_run(home: Path) -> Path:
    (directory,) = lookup.run_directories(home)
    assert records.load(directory).state == "interrupted"
    return directory
