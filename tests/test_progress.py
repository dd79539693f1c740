"""What the user sees of a sweep, drawn from made-up states."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from rich.console import Console

from conftest import SMALL, epoch_row, write_record
from experiments.conf import CONF
from experiments.results.records import Record
from experiments.sweeps import tables
from experiments.sweeps.composition import Composer
from experiments.sweeps.directory import Place
from experiments.sweeps.executors import cores
from experiments.sweeps.jobs import Plan
from experiments.sweeps.planning import make_plan
from experiments.sweeps.progress import Progress
from experiments.sweeps.status import Status, count_states, duration, folded, numbers

log = logging.getLogger("experiments.test")


@pytest.fixture(scope="module")
def made() -> Plan:
    """Two optimizers, three rates, two seeds; ten epochs each; two workers."""
    product_of = ("optimizer=sgd,adam", "optimizer.learning_rate=0.001,0.01,0.1", "seed=0,1")
    split = [[f"{c.partition('=')[0]}={value}" for value in c.partition("=")[2].split(",")] for c in product_of]
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "available_cores", lambda: 2)
        composer = Composer(lambda overrides: hydra_compose("config", overrides=overrides))
        return make_plan([[*SMALL, "training.epochs=10", *job] for job in product(*split)], composer)


@pytest.fixture
def place(home: Path) -> Place:
    return Place(home / "multirun" / "tried", is_new=False)


@pytest.fixture
def statuses(made: Plan) -> list[Status]:
    return [Status(job) for job in made.jobs]


@pytest.fixture
def package() -> Iterator[logging.Logger]:
    """The package's logger as the entrance sets it."""
    logger = logging.getLogger("experiments")
    kept = logger.handlers, logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    yield logger
    logger.handlers, logger.level, logger.propagate = kept


def finish(status: Status, place: Place, accuracy: float, **fields: Any) -> Record:
    metrics = {
        "validation/accuracy": accuracy, "validation/cross_entropy": 1 - accuracy, "test/accuracy": accuracy + 0.01,
        "test/cross_entropy": 0.9 - accuracy, "generalisation_gap": 0.02,
    }  # fmt: skip
    values = {"state": "finished", "sweep": place.name, "epochs_run": 10, "seconds": 20.0, "metrics": metrics}
    status.record = write_record(place.directory_of(status.job), **values | fields)
    status.state, status.changed = "done", 1.0
    return status.record


def screen(width: int = 80, height: int = 24) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None, legacy_windows=False
    )


def seen(console: Console) -> str:
    """What was written, without control codes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())  # type: ignore[attr-defined]


def drawn(renderable: Any, **size: int) -> list[str]:
    console = screen(**size)
    console.print(renderable)
    return [line.rstrip() for line in seen(console).splitlines() if line.strip()]


def words(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


# Small words.


@pytest.mark.parametrize(
    ("values", "text"), [([0, 1, 2, 5], "0-2, 5"), ([3], "3"), ([1, 3, 5], "1, 3, 5"), ([], ""), ([7, 8], "7-8")]
)
def test_numbers_are_told_as_ranges(values: list[int], text: str) -> None:
    assert numbers(values) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (65, "1:05"), (3600, "1:00:00"), (7207, "2:00:07")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_states_are_counted_in_a_steady_order() -> None:
    assert count_states(["new", "failed", "done", "new", "interrupted"]) == "1 done, 1 interrupted, 1 failed, 2 new"


def test_repetitions_stand_together(statuses: list[Status]) -> None:
    assert [[status.job.number for status in group] for group in folded(statuses)] == [
        [0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11],
    ]  # fmt: skip


# Tables.


def test_plan_is_described_in_one_line(made: Plan, statuses: list[Status]) -> None:
    statuses[0].before, statuses[1].before = "done", "interrupted"
    assert tables.describe(made, statuses) == "12 jobs: 1 done, 1 interrupted, 10 new; 2 workers × 1 thread"


def test_plan_shows_what_varies_keys_states_and_parameters(made: Plan, statuses: list[Status]) -> None:
    statuses[1].before = "failed"
    for status in statuses:
        status.parameters = 34826
    rows = tables.planned(made, statuses)
    assert len(rows) == 6
    assert rows[0] == {
        "jobs": "0-1", "optimizer": "sgd", "learning_rate": "0.001", "seeds": "0-1", "state": "1 failed, 1 new",
        "parameters": "34,826", "key": made.jobs[0].run_key[:12],
    }  # fmt: skip
    assert rows[5]["state"] == "new"


def test_end_shows_means_over_seeds_the_best_first(made: Plan, statuses: list[Status], place: Place) -> None:
    for status, accuracy in zip(statuses[:4], (0.90, 0.92, 0.95, 0.97), strict=True):
        finish(status, place, accuracy)
    statuses[4].state = "failed"
    finish(statuses[5], place, 0.99, epochs_run=4)
    rows = tables.ended(made, statuses)
    assert [row["jobs"] for row in rows[:3]] == ["4-5", "2-3", "0-1"]
    assert rows[0] == {
        "jobs": "4-5", "optimizer": "sgd", "learning_rate": "0.1", "n": "1", "validation": "99.00%", "test": "100.00%",
        "gap": "2.00%", "epochs": "4", "seconds": "20", "state": "1 done, 1 failed",
    }  # fmt: skip
    assert rows[1]["validation"] == "96.00% ± 1.41"
    assert rows[1]["n"] == "2"
    assert {row["state"] for row in rows[3:]} == {"waiting"}


def test_narrow_terminal_goes_without_the_least_important_columns(
    made: Plan, statuses: list[Status], place: Place
) -> None:
    for status in statuses:
        finish(status, place, 0.5 + status.job.number / 100)
    for width, missing in ((120, set()), (80, {"seconds", "epochs", "gap"})):
        console = screen(width)
        console.print(tables.draw(tables.ended(made, statuses), console))
        lines = [line for line in seen(console).splitlines() if line.strip()]
        assert {"seconds", "epochs", "gap"} - set(words(lines[0])) == missing
        assert max(map(len, lines)) <= width
        assert "…" not in seen(console)


def test_summary_has_a_line_for_every_job(made: Plan, statuses: list[Status], place: Place) -> None:
    finish(statuses[1], place, 0.9)
    statuses[2].state, statuses[2].message = "failed", "ValueError: a, b"
    rows = list(csv.DictReader(io.StringIO(tables.summary(made, statuses))))
    assert len(rows) == 12
    assert rows[1]["validation/accuracy"] == "0.9"
    assert (rows[1]["optimizer"], rows[1]["learning_rate"], rows[1]["seed"]) == ("sgd", "0.001", "1")
    assert (rows[2]["state"], rows[2]["error"], rows[2]["epochs"]) == ("failed", "ValueError: a, b", "")
    assert rows[1]["run_key"] == made.jobs[1].run_key


# The live table.


def test_live_table_shows_epochs_accuracy_and_time_left(made: Plan, statuses: list[Status], place: Place) -> None:
    finish(statuses[0], place, 0.9)
    statuses[1].state, statuses[1].rows = "running", [epoch_row(4)]
    statuses[2].state, statuses[2].rows = "running", [epoch_row(10)]
    statuses[3].state = "failed"
    lines = drawn(Progress(screen(), made, place, statuses)._render())
    assert words(lines[0]) == ["job", "optimizer", "learning_rate", "seed", "epoch", "validation", "left", "state"]
    assert words(lines[2]) == ["0", "sgd", "0.001", "0", "10/10", "90.00%", "done"]
    assert words(lines[3]) == ["1", "sgd", "0.001", "1", "4/10", "75.00%", "0:07", "running"]
    assert words(lines[4]) == ["2", "sgd", "0.01", "0", "10/10", "75.00%", "finishing"]
    assert words(lines[5]) == ["3", "sgd", "0.01", "1", "failed"]
    assert re.search(r"^━+╸ + 2/12 jobs  0:00  about \d+:\d\d left$", lines[-1])


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 10), (60, 24), (200, 50)])
def test_live_table_fits_the_terminal(
    made: Plan, statuses: list[Status], place: Place, width: int, height: int
) -> None:
    for status in statuses[:2]:
        status.state, status.rows = "running", [epoch_row(4)]
    console = screen(width, height)
    lines = drawn(Progress(console, made, place, statuses)._render(), width=width, height=height)
    assert len(lines) + 1 < height or height == 10
    assert max(map(len, lines)) <= width
    assert {"0", "1"} <= {words(line)[0] for line in lines}


def test_live_table_keeps_its_width(made: Plan, statuses: list[Status], place: Place) -> None:
    widths = set()
    for states in (["waiting"] * 12, ["running"] * 12, ["running"] + ["done"] * 11):
        for status, state in zip(statuses, states, strict=True):
            status.state = state
            status.rows = [epoch_row(1)] if state == "running" else []
        widths.add(len(drawn(Progress(screen(), made, place, statuses)._render())[1]))
    assert len(widths) == 1


def test_small_terminal_shows_what_runs_and_what_failed(made: Plan, statuses: list[Status], place: Place) -> None:
    for number, state in enumerate(["done", "done", "failed", "done", "running", "running"]):
        statuses[number].state, statuses[number].changed = state, float(number)
    lines = drawn(Progress(screen(80, 10), made, place, statuses)._render())
    assert [words(line)[0] for line in lines[2:-2]] == ["2", "3", "4", "5"]
    assert lines[-2] == "… 2 done, 6 waiting more"


def test_time_left_gives_every_waiting_job_to_the_first_free_worker(
    made: Plan, statuses: list[Status], place: Place
) -> None:
    watched = Progress(screen(), made, place, statuses)
    assert watched.seconds_left() is None
    statuses[0].state, statuses[0].rows = "running", [epoch_row(4)]  # 6 epochs of 1.234 s left
    statuses[1].state, statuses[1].rows = "running", [epoch_row(9)]  # 1 epoch left
    for status in statuses[5:]:
        finish(status, place, 0.5, epochs_run=10, seconds=12.34)
        status.changed = 1.0
    # Three jobs of 12.34 s wait for workers that are free after 7.404 s and 1.234 s.
    assert watched.seconds_left() == pytest.approx(max(7.404 + 12.34, 1.234 + 2 * 12.34))
    for status in statuses:
        status.state = "done"
    assert watched.seconds_left() == 0


def test_messages_go_above_the_live_table(
    made: Plan, statuses: list[Status], place: Place, package: logging.Logger
) -> None:
    console = screen()
    watched = Progress(console, made, place, statuses)
    handlers = package.handlers
    with watched.shown():
        statuses[3].state, statuses[3].message = "failed", "ValueError: [no] good"
        watched.changed(statuses[3])
        statuses[0].state = "running"
        watched.changed(statuses[0])  # seen in the table
        statuses[1].state, statuses[1].rows = "running", [epoch_row(4)]
        watched.changed(statuses[1])
        log.warning("a warning")
    assert package.handlers is handlers
    text = seen(console)
    path = place.output_of(statuses[3].job)
    assert f"job 3 (optimizer=sgd, learning_rate=0.01, seed=1) failed: ValueError: [no] good; log: {path}\n" in text
    assert "job 1 (optimizer=sgd, learning_rate=0.001, seed=1) resumed after epoch 4\n" in text
    assert "a warning\n" in text
    assert "started" not in text


def test_without_a_terminal_every_change_is_a_line(
    made: Plan, statuses: list[Status], place: Place, package: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    watched = Progress(Console(file=io.StringIO()), made, place, statuses)
    with watched.shown():
        for status, state, before in zip(
            statuses,
            ("running", "running", "interrupted", "done", "done"),
            ("new", "failed", "new", "new", "new"),
            strict=False,
        ):
            status.state, status.before = state, before
            if state == "done":
                finish(status, place, 0.9123)
        statuses[4].record = statuses[4].record.model_copy(update={"sweep": "other", "name": "other/7"})
        for status in statuses[:5]:
            watched.changed(status)
        statuses[5].state, statuses[5].message = "diverged", "DivergedError: the loss of epoch 1 is not finite"
        (place.path / "5").mkdir(parents=True)
        (place.path / "5" / "run.log").touch()
        watched.changed(statuses[5])
    name = "(optimizer=sgd, learning_rate="
    assert capsys.readouterr().out.splitlines() == [
        f"job 0 {name}0.001, seed=0) started",
        f"job 1 {name}0.001, seed=1) started again (failed before)",
        f"job 2 {name}0.01, seed=0) interrupted",
        f"job 3 {name}0.01, seed=1) done: validation accuracy 91.23%, 10 epochs, 20 s",
        f"job 4 {name}0.1, seed=0) done by other/7: validation accuracy 91.23%, 10 epochs, 20 s",
        f"job 5 {name}0.1, seed=1) diverged: the loss of epoch 1 is not finite; log: {place.path / '5' / 'run.log'}",
    ]


def test_reader_that_is_gone_ends_nothing(
    made: Plan, statuses: list[Status], place: Place, package: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go: list[tuple[int, ...]] = []
    monkeypatch.setattr("experiments.screen.write_nowhere", lambda *descriptors: let_go.append(descriptors))
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        with Progress(Console(file=io.StringIO()), made, place, statuses).shown():
            log.warning("into the void")
        monkeypatch.undo()
        with pytest.raises(BrokenPipeError):
            pipe.close()
    assert let_go == [(write,)]
