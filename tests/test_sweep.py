"""Whole sweeps, each a command of its own with an empty home."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import yaml

from conftest import SMALL, Ended, started
from experiments.config import available_cores, load_config
from experiments.results import records
from experiments.results.records import Record

BASE = ("-m", *SMALL, "model=linear", "sweep.workers=2")
EPOCHS = 60  # of a job that is caught on its way


class Seen(NamedTuple):
    """Commands that ran one after another in one home."""

    home: Path
    ends: list[Ended]

    @property
    def sweep(self) -> Path:
        """The directory of the first sweep."""
        return sweep_of(self.ends[0])


def sweep_of(ended: Ended) -> Path:
    """The last line of a sweep is its directory."""
    return Path(ended.out.splitlines()[-1])


def run_sweep(home: Path, *overrides: str, **variables: str) -> Ended:
    with started(home, *BASE, *overrides, **variables) as command:
        return command.finish()


def wait_until(true: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def checkpoints(home: Path, job: int) -> list[Path]:
    return list(home.glob(f"multirun/*/{job}/checkpoint/*.json"))


def pid_of(home: Path, job: int) -> int:
    (path,) = home.glob(f"multirun/*/{job}/{records.RECORD}")
    return int(json.loads(path.read_bytes())["process"]["pid"])


def jobs_of(sweep: Path) -> list[Record]:
    return [records.load(path) for path in sorted(sweep.glob("[0-9]*"), key=lambda path: int(path.name))]


def digests(jobs: list[Record]) -> dict[str, tuple[Any, ...]]:
    """All bits of finished runs by their keys."""
    return {
        job.run_key: (job.weights_digest, job.predictions_digest, *(row.weights_digest for row in job.rows))
        for job in jobs
    }


def left_behind(home: Path) -> list[str]:
    """Processes that still have this home."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            ours = process.environ().get("EXPERIMENTS_HOME") == str(home)
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


def assert_nothing_runs(home: Path) -> None:
    wait_until(lambda: not left_behind(home), seconds=10)


def ask_store(home: Path, question: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home / "mlflow.db")) as store:
        return store.execute(question, values).fetchall()


def assert_store_agrees(home: Path, jobs: list[Record]) -> None:
    """MLflow has every number of every epoch once, and the same state."""
    for job in jobs:
        (status,) = ask_store(home, "SELECT status FROM runs WHERE run_uuid = ?", job.mlflow.run_id)
        assert status == ({"finished": "FINISHED", "interrupted": "KILLED"}.get(job.state, "FAILED"),)
        question = "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step"
        for name in ("train/loss", "validation/accuracy", "learning_rate"):
            logged = ask_store(home, question, job.mlflow.run_id, name)
            assert logged == [(row.epoch, row.columns()[name]) for row in job.rows], (job.name, name)
    keys = ask_store(home, "SELECT value, count(*) FROM tags WHERE key = 'run_key' GROUP BY value")
    assert sorted(keys) == sorted((job.run_key, 1) for job in jobs)


# What the commands do. `endings` in conftest.py starts them beside the other tests.

WHOLE = ("optimizer=sgd,adam", "seed=0,1", "training.epochs=2")


def sweep_again_and_again(home: Path) -> Seen:
    """A sweep, the same once more, and two that have jobs in common with it."""
    return Seen(
        home,
        [
            run_sweep(home, *WHOLE),
            run_sweep(home, *WHOLE),
            run_sweep(home, "optimizer=adam,sgd", "seed=1,0", "training.epochs=2"),
            run_sweep(home, *WHOLE, "sweep.dry_run=true", "seed=1,2"),
        ],
    )


FAILING = (
    "model=mlp", "model.units=[16]", "optimizer=sgd", "optimizer.learning_rate=0.1,1e30,0.2", f"training.epochs={EPOCHS}",
)  # fmt: skip


def sweep_that_fails_and_goes_on(home: Path) -> Seen:
    """One job is killed, one diverges, one is good; then the same again."""
    with started(home, *BASE, *FAILING) as command:
        wait_until(lambda: checkpoints(home, 0))
        os.kill(pid_of(home, 0), signal.SIGKILL)
        first = command.finish()
    for job in jobs_of(sweep_of(first)):
        shutil.copytree(job.directory, home / "first" / job.directory.name)
    shutil.copy(home / "mlflow.db", home / "first")
    return Seen(home, [first, run_sweep(home, *FAILING)])


def one_of_them_alone(home: Path) -> Seen:
    """Two jobs of the sweeps above, each as a single run."""
    ends = []
    for overrides in (
        ["model=linear", "optimizer=adam", "seed=1", "training.epochs=2"],
        [*FAILING, "optimizer.learning_rate=0.1"],
    ):
        with started(home, *SMALL, "tracking=none", *overrides) as command:
            ends.append(command.finish())
    return Seen(home, ends)


SCENARIOS = (sweep_again_and_again, sweep_that_fails_and_goes_on, one_of_them_alone)


@pytest.fixture
def seen(request: pytest.FixtureRequest, endings: dict[str, Future[Seen]]) -> Seen:
    return endings[request.param.__name__].result()


def after(scenario: Callable[[Path], Seen]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("seen", [scenario], indirect=True, ids=[scenario.__name__])


# A sweep that succeeds.


@after(sweep_again_and_again)
def test_sweep_says_what_it_does_and_its_directory_last(seen: Seen) -> None:
    ended = seen.ends[0]
    assert (ended.code, ended.err) == (0, "")
    lines = [line for line in ended.out.splitlines() if line.strip()]
    name = seen.sweep.name
    assert re.fullmatch(r"\d{8}-\d{6}-optimizer-seed-[0-9a-f]{4}", name)
    assert seen.sweep.parent == seen.home / "multirun"
    assert lines[0] == f"{name}: 4 jobs: 4 new; {min(2, available_cores())} workers × 1 thread"
    assert lines[1] == "job 0 (optimizer=sgd, seed=0) started"
    done = [
        line for line in lines if re.match(r"job \d \(.*\) done: validation accuracy [\d.]+%, 2 epochs, \d+ s$", line)
    ]
    assert len(done) == 4
    assert lines[-2] == f"next: python -m experiments.compare {name}"
    assert f"report: {seen.sweep / 'report.html'}" in lines


@after(sweep_again_and_again)
def test_sweep_ends_with_a_table_of_configurations(seen: Seen) -> None:
    lines = seen.ends[0].out.splitlines()
    (head,) = [number for number, line in enumerate(lines) if line.lstrip().startswith("jobs ")]
    assert lines[head].split() == ["jobs", "optimizer", "n", "validation", "test", "gap", "epochs", "seconds", "state"]
    rows = {line.split()[1]: line.split() for line in lines[head + 2 : head + 4]}
    assert rows["sgd"][0] == "0-1"
    assert rows["adam"][0] == "2-3"
    assert all(row[2] == "2" and row[-1] == "done" for row in rows.values())
    jobs = jobs_of(seen.sweep)
    mean = (jobs[2].metrics["validation/accuracy"] + jobs[3].metrics["validation/accuracy"]) / 2
    assert rows["adam"][3] == f"{mean:.2%}"


@after(sweep_again_and_again)
def test_every_job_has_a_whole_run_directory(seen: Seen) -> None:
    plan = json.loads((seen.sweep / "plan.json").read_text())
    jobs = jobs_of(seen.sweep)
    assert [job.state for job in jobs] == ["finished"] * 4
    for planned, job in zip(plan["jobs"], jobs, strict=True):
        assert (job.sweep, job.job, job.varied) == (seen.sweep.name, planned["number"], planned["varied"])
        assert job.run_key == planned["run_key"]
        assert load_config(job.directory / "config.yaml").model_dump(mode="json") == planned["config"]
        assert {path.name for path in (job.directory / ".hydra").iterdir()} == {
            "config.yaml",
            "hydra.yaml",
            "overrides.yaml",
        }
        overrides = yaml.safe_load((job.directory / ".hydra" / "overrides.yaml").read_text())
        assert overrides == planned["overrides"]
        hydra = yaml.safe_load((job.directory / ".hydra" / "hydra.yaml").read_text())["hydra"]
        assert hydra["overrides"]["task"] == overrides
        assert not (job.directory / "checkpoint").exists()
        assert "Traceback" not in (job.directory / "run.log").read_text()
    names = {path.name for path in seen.sweep.iterdir()}
    assert names == {
        "0",
        "1",
        "2",
        "3",
        "plan.json",
        "sweep.json",
        "summary.csv",
        "report.html",
        "report.md",
        "runs.csv",
    }


@after(sweep_again_and_again)
def test_summary_has_the_numbers_of_the_records(seen: Seen) -> None:
    rows = list(csv.DictReader(io.StringIO((seen.sweep / "summary.csv").read_text())))
    for row, job in zip(rows, jobs_of(seen.sweep), strict=True):
        assert float(row["validation/accuracy"]) == job.metrics["validation/accuracy"]
        assert (row["state"], row["run_key"], row["mlflow_run_id"]) == ("done", job.run_key, job.mlflow.run_id)


@after(sweep_again_and_again)
def test_store_has_a_parent_and_children_that_can_be_found_without_it(seen: Seen) -> None:
    home, name = seen.home, seen.sweep.name
    assert_store_agrees(home, jobs_of(seen.sweep))
    ((parent, status),) = ask_store(home, "SELECT run_uuid, status FROM runs WHERE name = ?", name)
    assert status == "FINISHED"
    of_sweep = "SELECT run_uuid FROM tags WHERE key = 'sweep' AND value = ?"
    children = {run for (run,) in ask_store(home, of_sweep, name)}
    assert children == {job.mlflow.run_id for job in jobs_of(seen.sweep)}
    for job in jobs_of(seen.sweep):
        tags = dict(ask_store(home, "SELECT key, value FROM tags WHERE run_uuid = ?", job.mlflow.run_id))
        assert tags["mlflow.parentRunId"] == parent
        assert (tags["run_key"], tags["config_key"], tags["job"]) == (job.run_key, job.config_key, str(job.job))
        parameters = dict(ask_store(home, "SELECT key, value FROM params WHERE run_uuid = ?", job.mlflow.run_id))
        assert (parameters["optimizer"], parameters["seed"]) == (job.varied["optimizer"], str(job.varied["seed"]))
    ((uri,),) = ask_store(home, "SELECT artifact_uri FROM runs WHERE run_uuid = ?", parent)
    artifacts = {path.name for path in Path(uri.removeprefix("file://")).iterdir()}
    assert {"plan.json", "summary.csv", "report.html", "report.md"} <= artifacts


@after(sweep_again_and_again)
def test_same_command_again_runs_nothing(seen: Seen) -> None:
    first, again = seen.ends[:2]
    assert again.code == 0
    assert sweep_of(again) == seen.sweep
    assert ": 4 jobs: 4 done; " in again.out.splitlines()[0]
    assert "started" not in again.out
    table = [line for line in first.out.splitlines() if re.match(r"\s*\d-\d ", line)]
    assert table == [line for line in again.out.splitlines() if re.match(r"\s*\d-\d ", line)]


@after(sweep_again_and_again)
def test_jobs_of_another_sweep_are_linked(seen: Seen) -> None:
    other = seen.ends[2]
    assert other.code == 0
    assert ": 4 jobs: 4 done; " in other.out.splitlines()[0]
    assert sweep_of(other) != seen.sweep
    assert [os.readlink(sweep_of(other) / str(job)) for job in range(4)] == [
        f"../{seen.sweep.name}/{job}" for job in (3, 2, 1, 0)
    ]
    assert len(list(records.run_directories(seen.home))) == 4
    assert_store_agrees(seen.home, jobs_of(seen.sweep))  # no run of its own, but a parent
    assert ask_store(seen.home, "SELECT status FROM runs WHERE name = ?", sweep_of(other).name) == [("FINISHED",)]


@after(sweep_again_and_again)
def test_dry_run_shows_the_plan_and_leaves_nothing(seen: Seen) -> None:
    dry = seen.ends[3]
    assert (dry.code, dry.err) == (0, "")
    lines = [line.split() for line in dry.out.splitlines() if line.strip()]
    assert re.search(r": 4 jobs: 2 done, 2 new; 2 workers × 1 thread; about \d+:\d\d$", dry.out.splitlines()[0])
    assert lines[1] == ["jobs", "optimizer", "seeds", "state", "parameters", "key"]
    assert lines[3][:-1] == ["0-1", "sgd", "1-2", "1", "done,", "1", "new"] or lines[3][-2] == "7,850"
    assert len(list((seen.home / "multirun").glob("[0-9]*"))) == 2


@after(sweep_again_and_again)
def test_nothing_is_left_of_a_sweep_but_its_results(seen: Seen) -> None:
    assert_nothing_runs(seen.home)
    assert list((seen.home / "multirun" / ".locks").iterdir()) == []
    assert {path.name for path in seen.home.iterdir()} == {"multirun", "mlflow.db", "mlartifacts"}


# A sweep that fails.


@after(sweep_that_fails_and_goes_on)
def test_job_that_fails_fails_alone_and_says_why(seen: Seen) -> None:
    ended, sweep = seen.ends[0], seen.sweep
    assert (ended.code, ended.err) == (1, "")
    log = os.path.relpath(sweep / "0" / "run.log", seen.home.parent)
    killed = "Killed: the process ended with SIGKILL (out of memory?)"
    assert f"job 0 (learning_rate=0.1) failed: {killed}; log: {log}\n" in ended.out
    assert re.search(r"^job 1 \(learning_rate=1e\+30\) diverged: the loss of epoch 1 is not .*; log: ", ended.out, re.M)
    assert re.search(r"^job 2 \(learning_rate=0.2\) done: ", ended.out, re.M)
    assert "1 failed, 1 diverged; the same command again does what is missing" in ended.out


@after(sweep_that_fails_and_goes_on)
def test_failure_stands_in_record_log_and_store(seen: Seen) -> None:
    first = [records.load(seen.home / "first" / str(job)) for job in range(3)]
    assert [job.state for job in first] == ["failed", "diverged", "finished"]
    assert first[0].error is not None
    assert first[0].error.message == "the process ended with SIGKILL (out of memory?)"
    assert 1 <= first[0].epochs_run < EPOCHS
    assert (first[0].directory / "run.log").read_text().splitlines()[-1] == f"Killed: {first[0].error.message}"
    assert_store_agrees(seen.home / "first", first)
    question = "SELECT value FROM tags WHERE key = 'error' AND run_uuid = ?"
    assert ask_store(seen.home / "first", question, first[0].mlflow.run_id) == [(f"Killed: {first[0].error.message}",)]
    assert [job.mlflow.synced for job in first] == [True] * 3


@after(sweep_that_fails_and_goes_on)
def test_same_command_retries_what_failed_from_its_last_epoch(seen: Seen) -> None:
    again = seen.ends[1]
    assert sweep_of(again) == seen.sweep
    assert again.code == 1  # the diverged job stays: it would diverge again
    assert ": 3 jobs: 1 done, 1 failed, 1 diverged; " in again.out.splitlines()[0]
    assert re.search(r"^job 0 \(learning_rate=0.1\) resumed after epoch \d+$", again.out, re.M)
    assert "job 1 " not in again.out
    jobs = jobs_of(seen.sweep)
    assert [job.state for job in jobs] == ["finished", "diverged", "finished"]
    assert [row.epoch for row in jobs[0].rows] == [*range(1, EPOCHS + 1)]
    assert_store_agrees(seen.home, jobs)
    assert (
        ask_store(seen.home, "SELECT value FROM tags WHERE key = 'error' AND run_uuid = ?", jobs[0].mlflow.run_id) == []
    )
    assert_nothing_runs(seen.home)


# Bits.


@after(one_of_them_alone)
def test_job_has_the_bits_of_the_same_run_alone(seen: Seen, endings: dict[str, Future[Seen]]) -> None:
    """Among others in a worker, and killed and resumed."""
    whole, failed = (endings[s.__name__].result() for s in (sweep_again_and_again, sweep_that_fails_and_goes_on))
    in_sweeps = digests([jobs_of(whole.sweep)[3], jobs_of(failed.sweep)[0]])
    assert digests([ended.record for ended in seen.ends]) == in_sweeps


# Mistakes.


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["optimizer=sgd,adma"], "job 1 (optimizer=adma): optimizer=adma: no such option; did you mean adam? valid: "),
        (["seed=1,1"], "job 1 is the same run as job 0; jobs must differ in something that changes the result"),
        (["seed=range(0)"], "seed=range(0): the sweep is empty, because this gives no value"),
        (["optimizer=glob(zz*)"], "optimizer=glob(zz*): the sweep is empty, because this gives no value"),
        (["seed=interval(0,1)"], "seed=interval(0,1): holds any number of values; name them, or use range("),
        (["seed=0,"], "seed=0,: is not `key=value` in Hydra's grammar; "),
        (["seed=0,1", "sweep.workers=0"], "every job: sweep.workers: must be greater than or equal to 1, received 0"),
    ],
)
def test_mistake_is_one_line_and_leaves_nothing(home: Path, overrides: list[str], told: str) -> None:
    ended = run_sweep(home, *overrides)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(told)
    assert ended.err.count("\n") == 1
    assert list(home.iterdir()) == []


def test_one_bad_value_among_fifty_jobs_is_told_in_three_seconds(home: Path) -> None:
    started_at = time.monotonic()
    ended = run_sweep(home, "optimizer=glob(*)", "schedule=constant,cosine,step,one_cycle,exponential,cosin")
    assert time.monotonic() - started_at < 3
    assert ended.code == 2
    assert ended.err.startswith(
        "9 jobs, the first is job 5 (optimizer=adagrad, schedule=cosin): schedule=cosin: no such option"
    )
    assert list(home.iterdir()) == []
