"""The mirror on a server that is slow, refuses, fails, forgets, dies and comes back: nothing is lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import epoch_row, write_record
from experiments.config import RunConfig, compose
from experiments.results import files, tracking, tracking_mirror, tracking_sweep
from experiments.results.records import Record
from tracking_server import Server

EPOCHS = 12
ROWS = [epoch_row(number, 1 / number) for number in range(1, EPOCHS + 1)]
ALL = list(range(1, EPOCHS + 1))
SECRET = "s3cret"


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return compose("dataset=digits", "model=linear", "tracking.log_model=false").with_threads(1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    with made.up():
        pass  # it has a port from now on, where nobody listens
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.address.replace("://", f"://user:{SECRET}@"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(tracking_mirror, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(tracking_mirror, "LONGEST_WAIT_SECONDS", 0.01)
    return made


@pytest.fixture
def record(home: Path) -> Record:
    made = write_record(home / "outputs" / "run")
    (made.directory / files.CONFIG).write_text("seed: 7\n")
    (made.directory / files.FIGURES).mkdir()
    (made.directory / files.FIGURES / "loss.png").write_bytes(b"png")
    return made


def begin(record: Record, config: RunConfig, home: Path) -> tracking_mirror.Mirror:
    mirror = tracking.start_mirror(record, config, home)
    assert mirror
    return mirror


def finish(record: Record) -> None:
    files.write_history(record.directory / files.HISTORY, ROWS)
    record.write(state="finished", epochs_run=EPOCHS, seconds=20.0, metrics={"test/accuracy": 0.5})


def train(record: Record, config: RunConfig, home: Path) -> None:
    mirror = begin(record, config, home)
    for row in ROWS:
        mirror.log_epoch(row)
    finish(record)
    mirror.close()


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def assert_whole(server: Server, record: Record) -> None:
    """One run, each epoch once, all files, and the end."""
    assert len(server.runs) == 1
    assert server.curve("train/loss") == ALL
    assert server.curve("test/accuracy") == [0]
    assert server.artifacts >= {"config.yaml", "record.json", "history.csv", "figures/loss.png"}
    (run,) = server.runs.values()
    assert (run["info"]["status"], run["tags"]["state"]) == ("FINISHED", "finished")
    assert (record.mlflow.synced, record.mlflow.error, record.mlflow.run_id) == (True, None, run["info"]["run_id"])


def test_metrics_of_an_epoch_go_in_one_call_and_many_epochs_that_wait_too(
    server: Server, record: Record, config: RunConfig, home: Path
) -> None:
    with server.up():
        mirror = begin(record, config, home)
        for number, row in enumerate(ROWS[:3], 1):
            mirror.log_epoch(row)
            wait_until(lambda number=number: len(server.curve("train/loss")) == number)
        of_epochs = server.calls.count("runs/log-batch") - 1  # the first one has parameters
        server.may_answer.clear()
        for row in ROWS[3:]:  # training does not wait for a server that does not answer
            mirror.log_epoch(row)
        server.may_answer.set()
        finish(record)
        mirror.close()
    assert of_epochs == 3
    assert server.calls.count("runs/log-batch") <= 1 + 3 + 2 + 1  # of what waits, one may be alone; and the end
    assert_whole(server, record)


def test_more_epochs_than_one_call_takes_are_parted(
    server: Server, record: Record, config: RunConfig, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "MOST_METRICS", 40)
    train(record, config, home)
    with server.up():
        tracking.synchronise(record, config, home)
    assert_whole(server, record)
    assert server.calls.count("runs/log-batch") > 4


def test_files_are_uploaded_while_it_trains_and_again_where_they_have_changed(
    server: Server, record: Record, config: RunConfig, home: Path
) -> None:
    with server.up():
        mirror = begin(record, config, home)
        wait_until(lambda: {"config.yaml", "figures/loss.png"} <= server.artifacts)
        uploads = server.calls.count("artifacts")
        finish(record)
        mirror.close()
    assert server.calls.count("artifacts") == uploads + 2  # record.json and history.csv


def test_server_that_is_away_loses_nothing_and_is_made_up_for(
    server: Server, record: Record, config: RunConfig, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(record, config, home)
    assert (record.mlflow.synced, record.mlflow.run_id) == (False, None)
    with pytest.raises(tracking.TrackingError):
        tracking.synchronise(record, config, home)
    with server.up():
        tracking.synchronise(record, config, home)
    assert_whole(server, record)
    assert SECRET not in caplog.text + (record.directory / files.RECORD).read_text()
    assert server.logins == {"Basic dXNlcjpzM2NyZXQ="}


def test_server_that_dies_and_comes_back_gets_all_epochs_while_it_trains(
    server: Server, record: Record, config: RunConfig, home: Path
) -> None:
    with server.up():
        mirror = begin(record, config, home)
        for row in ROWS[:4]:
            mirror.log_epoch(row)
        wait_until(lambda: server.curve("train/loss") == ALL[:4])
    mirror.log_epoch(ROWS[4])
    wait_until(lambda: mirror._error)
    with server.up():
        time.sleep(0.02)
        mirror.log_epoch(ROWS[5])
        wait_until(lambda: server.curve("train/loss") == ALL[:6])
        for row in ROWS[6:]:
            mirror.log_epoch(row)
        finish(record)
        mirror.close()
    assert_whole(server, record)


@pytest.mark.parametrize(
    "call", ["experiments/get-by-name", "runs/create", "runs/get", "runs/update", "runs/log-batch", "artifacts"]
)
@pytest.mark.parametrize("how", ["fails", "forgets"])
def test_every_second_call_of_a_kind_fails_and_nothing_is_lost_or_doubled(
    call: str, how: str, server: Server, record: Record, config: RunConfig, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`forgets`: the server has done what it was asked for, and nobody hears of it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # as where nothing is set
    seen: list[str] = []

    def every_second(name: str) -> bool:
        if name == call:
            seen.append(name)
        return name == call and len(seen) % 2 == 1

    setattr(server, how, every_second)
    with server.up():
        train(record, config, home)
    assert seen
    assert_whole(server, record)


def test_sweep_gets_one_run_though_the_answer_was_lost(server: Server, config: RunConfig, home: Path) -> None:
    sweep = home / "multirun" / "sweep"
    sweep.mkdir(parents=True)
    server.forgets = lambda call: call == "runs/create"
    with server.up():
        assert tracking_sweep.open_sweep(sweep, config, home, None, ["seed"], is_new=True) is None
        server.forgets = lambda call: False
        server.fails = lambda call: call == "runs/get"
        first = next(iter(server.runs))
        assert tracking_sweep.open_sweep(sweep, config, home, first, ["seed"]) is None  # and not a second one
        server.fails = lambda call: False
        assert tracking_sweep.open_sweep(sweep, config, home, None, ["seed"]) == first
    assert list(server.runs) == [first]
