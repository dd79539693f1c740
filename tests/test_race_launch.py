"""Races from the plan to the report, with an executor that makes runs up: nothing trains, all else is real."""

from __future__ import annotations

import csv
import logging
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from conftest import SMALL, epoch_row
from experiments.comparison.decisions import DECISIONS
from experiments.comparison.report import HTML
from experiments.conf import CONF
from experiments.errors import InputError
from experiments.gpus import GPU
from experiments.results.records import Predictions
from experiments.sweeps import preflight
from experiments.sweeps.executor import Ended, Ending, EpochDone, Event, Run
from experiments.sweeps.executors import choice, processes
from experiments.sweeps.followups import Followups
from experiments.sweeps.launch import SweepOutcome, launch
from experiments.sweeps.scheduler import Scheduler
from synthetic_runs import probabilities_of, write_run

ACCURACY = {"sgd": 0.75, "adam": 0.96, "rmsprop": 0.955}
VALIDATION, TEST, EPOCHS = 2000, 400, 3
Launch = Callable[..., SweepOutcome]


class MadeUp:
    """Runs whose predictions depend on nothing but their config; they end in an order that chance decides."""

    chance = random.Random(0)
    fails: ClassVar[dict[str, int]] = {}  # optimizer → the seed that diverges

    def __init__(self, slots: int, gpus: Sequence[GPU]) -> None:
        del gpus
        self.slots = slots
        self._runs: dict[int, Run] = {}
        self._epochs: dict[int, int] = {}
        self._stopped: set[int] = set()

    def open(self) -> None: ...

    def submit(self, run: Run, output: Path) -> int:
        del output
        number = int(run.directory.name)
        self._runs[number], self._epochs[number] = run, 0
        return number

    def events(self, timeout_seconds: float) -> Iterator[tuple[int, Event]]:
        del timeout_seconds
        if not self._runs:
            return
        number = self.chance.choice(list(self._runs))
        if self._epochs[number] < EPOCHS and number not in self._stopped:
            self._epochs[number] += 1
            yield number, EpochDone(epoch_row(self._epochs[number]))
            return
        run, epochs = self._runs.pop(number), self._epochs[number]
        state = "finished" if epochs == EPOCHS else "interrupted"
        if self.fails.get(run.config.optimizer.name) == run.config.seed:
            state = "diverged"
        make_up(run, state, epochs)
        yield number, Ended(Ending(state), "DivergedError: no" if state == "diverged" else "")

    def stop(self, handle: int, *, now: bool) -> None:
        del now
        self._stopped.add(handle)

    def kill(self, handle: int) -> None:
        self._stopped.add(handle)

    def close(self) -> None: ...


def make_up(run: Run, state: str, epochs: int) -> None:
    config, origin = run.config, run.origin
    generator = np.random.default_rng([config.seed, *config.optimizer.name.encode()])
    parts: dict[str, Any] = {"test_image_digests": np.arange(TEST, dtype=np.uint64)}
    for split, images in (("test", TEST), ("validation", VALIDATION)):
        labels = np.arange(images) % 10
        right = generator.random(images) < ACCURACY[config.optimizer.name]
        parts |= {
            f"{split}_labels": labels,
            f"{split}_probabilities": probabilities_of(labels, right, np.full(images, 0.9)),
        }
    shutil.rmtree(run.directory, ignore_errors=True)
    assert origin.sweep
    record = write_run(
        run.directory, Predictions(**parts) if state == "finished" else None, config=config.model_dump(mode="json"),
        rows=[epoch_row(epoch + 1) for epoch in range(epochs)], state=state, sweep=origin.sweep,
        varied=dict(origin.varied),
    )  # fmt: skip
    key = run.lock.name
    record.write(run_key=key, config_key=f"{config.optimizer.name:x<64}", error=None)


@pytest.fixture
def launched(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launch]:
    """Launches the product of choices, and keeps what it says."""
    del home
    monkeypatch.setattr(choice, "LocalExecutor", MadeUp)
    monkeypatch.setattr(processes, "start_server", lambda: None)
    monkeypatch.setattr(preflight, "check", lambda plan, todo: None)
    monkeypatch.setattr(Followups, "job_ended", lambda *_, **__: None)
    monkeypatch.setattr(processes, "ask", ask_here)
    monkeypatch.setattr(MadeUp, "chance", random.Random(0))
    monkeypatch.setattr(MadeUp, "fails", {})
    small = (*SMALL, "tracking=none", f"training.epochs={EPOCHS}", "sweep.workers=2")

    def make(*choices: str) -> SweepOutcome:
        split = [[f"{k}={v}" for v in text.split(",")] for k, _, text in (c.partition("=") for c in choices)]
        jobs = [[*small, *job] for job in product(*split)]
        return launch(jobs, lambda given: hydra_compose("config", overrides=given), {"overrides": {"task": []}})

    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield make


def ask_here(task: Callable[..., None], *arguments: Any) -> Any:
    """A task of a worker, in this process."""
    said: list[Any] = []

    class Planner:
        def tell(self, message: Any) -> None:
            said.append(message)

    task(Planner(), *arguments)
    return said[-1]


SEEDS = ",".join(map(str, range(6)))
RACE = ("optimizer=sgd,adam,rmsprop", f"seed={SEEDS}", "sweep.until=decided", "sweep.margin=2.0")
GRID = RACE[:2]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, logger="experiments")

    def read() -> list[str]:
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return [*messages, *capsys.readouterr().out.splitlines()]

    return read


def only_sweep(home: Path) -> Path:
    (sweep,) = home.glob("multirun/[0-9]*")
    return sweep


def test_race_from_its_plan_to_its_report(launched: Launch, home: Path, said: Callable[[], list[str]]) -> None:
    assert launched(*RACE).exit_code == 0
    lines, sweep = said(), only_sweep(home)
    assert lines[0] == f"{sweep.name}: a race of 3 over seeds 0-5: 9 to 18 jobs (27 to 54 epochs); 2 workers × 1 thread"
    assert any(line.startswith("after 3 seeds ") and "out: sgd (worse than" in line for line in lines)
    (answer,) = (line for line in lines if "for all claims together" in line)
    assert re.match(r"(adam|rmsprop)\. No other of the 3 is better by more than \d\.\d\d points", answer)
    assert "Worse: sgd. Not shown to be worse: " in answer
    records = list(sweep.glob("*/record.json"))
    found = re.search(r"Cost: (\d+) jobs \((\d+) counted, (\d+) begun ahead, 0 from other", "\n".join(lines))
    assert found
    assert int(found[1]) == int(found[2]) + int(found[3]) == len(records)
    assert len(records) < 18
    page = (sweep / HTML).read_text()
    assert '<section id="race">' in page
    assert answer in page
    states = [row["state"] for row in csv.DictReader((sweep / "summary.csv").read_text().splitlines())]
    assert states.count("done") + states.count("paused") == len(records)
    assert set(states) <= {"done", "paused", "waiting"}
    assert lines[-1] == str(sweep)


def test_decided_race_starts_nothing_and_says_the_same(
    launched: Launch, home: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(*RACE)
    first = said()
    monkeypatch.setattr(MadeUp, "submit", lambda *_: pytest.fail("started"))
    assert launched(*RACE).exit_code == 0
    again = said()
    for start in ("Cost: ", "Test images", "report: "):
        assert [line for line in first if line.startswith(start)] == [line for line in again if line.startswith(start)]


def test_rest_runs_in_the_same_folder(launched: Launch, home: Path, said: Callable[[], list[str]]) -> None:
    launched(*RACE)
    sweep, decisions = only_sweep(home), (only_sweep(home) / DECISIONS).read_bytes()
    assert launched(*GRID).exit_code == 0
    assert only_sweep(home) == sweep
    assert len(list(sweep.glob("*/record.json"))) == 18
    assert (sweep / DECISIONS).read_bytes() == decisions
    assert not any("paused" in line for line in said() if line.startswith("0-"))


def stop_after(jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user presses Ctrl-C when so many jobs have ended."""
    ended = Scheduler._end

    def end(self: Scheduler, *given: Any) -> None:
        ended(self, *given)
        self.asked = int(len(self._endings) >= jobs)

    monkeypatch.setattr(Scheduler, "_end", end)


def test_race_of_a_grid_that_was_stopped(launched: Launch, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(10, patch)
        assert launched(*GRID, "sweep.title=grid").exit_code == 130
    assert launched(*RACE, "sweep.title=grid").exit_code == 0
    assert launched(*RACE, "sweep.title=race", "sweep.reuse=never").exit_code == 0
    grid, race = ((home / "multirun" / name / DECISIONS).read_bytes() for name in ("grid", "race"))
    assert grid == race


def test_race_that_is_stopped_says_that_it_is_open(
    launched: Launch, home: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(10, patch)
        assert launched(*RACE, "sweep.title=stopped").exit_code == 130
    assert any(line.startswith("Open after 3 of 6 seeds: ") for line in said())
    assert launched(*RACE, "sweep.title=stopped").exit_code == 0
    launched(*RACE, "sweep.title=calm", "sweep.reuse=never")
    calm, stopped = ((home / "multirun" / name / DECISIONS).read_bytes() for name in ("calm", "stopped"))
    assert calm == stopped


def test_diverged_seed_makes_no_claim(launched: Launch, home: Path, said: Callable[[], list[str]]) -> None:
    MadeUp.fails = {"sgd": 1}
    assert launched(*RACE).exit_code == 1
    lines = said()
    assert any(re.search(r"No claim: sgd \(job 1 diverged\)", line) for line in lines)
    assert any("out: seed 1 diverged" in line for line in lines)


def test_result_that_has_changed_since_starts_nothing(launched: Launch, home: Path) -> None:
    launched(*RACE)
    sweep = only_sweep(home)
    record = sweep / "0" / "record.json"
    record.write_text(re.sub(r'("validation/accuracy": )[\d.]+', r"\g<1>0.5", record.read_text()))
    with pytest.raises(InputError, match="the decision after 3 seeds is not what it was: job 0: validation/accuracy"):
        launched(*RACE)


def test_plan_of_a_race_is_shown_with_its_limits(launched: Launch, home: Path, said: Callable[[], list[str]]) -> None:
    assert launched(*RACE, "sweep.dry_run=true").exit_code == 0
    lines = said()
    assert re.match(
        r"[\w-]+: a race of 3 over seeds 0-5: 9 to 18 jobs \(27 to 54 epochs\); 2 workers × 1 thread; "
        r"no earlier run tells how long it takes$",
        lines[0],
    )
    assert list(home.glob("multirun/[0-9]*")) == []


def test_finished_runs_of_other_sweeps_are_counted_as_reused(
    launched: Launch, home: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.results import environment

    made = make_up

    def with_todays_code(run: Run, state: str, epochs: int) -> None:
        made(run, state, epochs)
        path = run.directory / "record.json"
        text = path.read_text()
        path.write_text(text.replace('"sources_digest": null', f'"sources_digest": "{environment.sources_digest()}"'))

    monkeypatch.setattr("test_race_launch.make_up", with_todays_code)
    monkeypatch.setattr(environment, "versions", lambda: {"tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.6"})
    launched("optimizer=adam,rmsprop", "seed=0,1")
    said()
    assert launched(*RACE).exit_code == 0
    found = re.search(r"Cost: (\d+) jobs \((\d+) counted, (\d+) begun ahead, 4 from other", "\n".join(said()))
    assert found
    (sweep,) = (path for path in home.glob("multirun/[0-9]*") if (path / DECISIONS).exists())
    assert int(found[1]) == int(found[2]) + int(found[3]) + 4 == len(list(sweep.glob("*/record.json")))
