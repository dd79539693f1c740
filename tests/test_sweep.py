"""Whole sweeps, each a command of its own with an empty home."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pty
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import yaml

import commands
from conftest import SMALL, Ended, Ending, environment, started
from experiments.config import available_cores, load_config
from experiments.results import files, lookup, records
from experiments.results.records import Record
from experiments.upgrades import newest

BASE = ("-m", *SMALL, "model=linear", "sweep.workers=2")
EPOCHS = 30  # of a job that is caught on its way


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


def run_sweep(home: Path, *overrides: str, fork: bool = True) -> Ended:
    with started(home, *BASE, *overrides, fork=fork) as command:
        return command.finish()


def run_changed_sweep(home: Path, change: str, *overrides: str) -> Ended:
    """The same after a line of Python that changes the program."""
    ended = commands.run(
        ["-c", f"{change}\nfrom experiments.run import main; main()", *BASE, *overrides],
        env=environment(home),
        timeout=150,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr, home)


def wait_until(true: Callable[[], Any], seconds: float = 150) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def checkpoints(home: Path, job: int) -> list[Path]:
    return list(home.glob(f"multirun/*/{job}/checkpoint/*.json"))


def wait_for_epoch(home: Path, job: int) -> None:
    """Until a job has finished an epoch more than now."""
    before = checkpoints(home, job)
    wait_until(lambda: checkpoints(home, job) not in ([], before))


def pid_of(home: Path, job: int) -> int:
    (path,) = home.glob(f"multirun/*/{job}/{files.RECORD}")
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
        # The store keeps what is not a number as 0 with a mark.
        question = (
            "SELECT step, CASE is_nan WHEN 1 THEN 'nan' ELSE value END FROM metrics"
            " WHERE run_uuid = ? AND key = ? ORDER BY step"
        )
        for name in ("train/loss", "validation/accuracy", "learning_rate"):
            logged = ask_store(home, question, job.mlflow.run_id, name)
            values = [(row.epoch, row.columns()[name]) for row in job.rows]
            expected = [
                (epoch, "nan" if math.isnan(value) else value if value.is_integer() else float(f"{value:.6g}"))
                for epoch, value in values
            ]
            # A process that was ended at once may have written an epoch that it has not mirrored.
            allowed = [expected] if job.state == "finished" else [expected, expected[:-1]]
            assert logged in allowed, (job.name, name)
    keys = ask_store(home, "SELECT value, count(*) FROM tags WHERE key = 'run_key' GROUP BY value")
    assert sorted(keys) == sorted((job.run_key, 1) for job in jobs)


# What the commands do. `endings` in conftest.py has how they ended.

WHOLE = ("optimizer=sgd,adam", "seed=0,1", "training.epochs=2")


def sweep_again_and_again(home: Path) -> Seen:
    """A sweep, the same once more, and two that have jobs in common with it."""
    return Seen(
        home,
        [
            run_sweep(home, *WHOLE, fork=False),  # as a user starts it
            run_sweep(home, *WHOLE),
            run_sweep(home, "optimizer=adam,sgd", "seed=1,0", "training.epochs=2"),
            run_sweep(home, *WHOLE, "sweep.dry_run=true", "seed=1,2"),
        ],
    )


FAILING = (
    "model=mlp", "model.units=[16]", "optimizer=sgd", "optimizer.learning_rate=0.1,1e37,0.2",
    f"training.epochs={EPOCHS}",
)  # fmt: skip


def sweep_that_fails_and_goes_on(home: Path) -> Seen:
    """One job is killed, one diverges, one is good; then the same again."""
    with started(home, *BASE, *FAILING) as command:
        wait_until(lambda: len(checkpoints(home, 0)) > 1)
        os.kill(pid_of(home, 0), signal.SIGKILL)
        first = command.finish()
    for job in jobs_of(sweep_of(first)):
        shutil.copytree(job.directory, home / "first" / job.directory.name)
    for part in home.glob("mlflow.db*"):
        shutil.copy(part, home / "first")
    return Seen(home, [first, run_sweep(home, *FAILING)])


def one_of_them_alone(home: Path) -> Seen:
    """Two jobs of the sweeps above, each as a single run."""
    ends = []
    for overrides in (
        ["model=linear", "optimizer=adam", "seed=1", "training.epochs=2"],
        [text.replace(",1e37,0.2", "") for text in FAILING],
    ):
        with started(home, *SMALL, "tracking=none", *overrides) as command:
            ends.append(command.finish())
    return Seen(home, ends)


SCENARIOS = (sweep_again_and_again, sweep_that_fails_and_goes_on, one_of_them_alone)


@pytest.fixture
def seen(request: pytest.FixtureRequest, endings: dict[str, Ending[Seen]]) -> Seen:
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
        saved = load_config(job.directory / "config.yaml")
        assert {"format": newest("config")} | saved.model_dump(mode="json") == planned["config"]
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
        "suspects.csv",
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
    assert len(list(lookup.run_directories(seen.home))) == 4
    assert_store_agrees(seen.home, jobs_of(seen.sweep))  # no run of its own, but a parent
    assert ask_store(seen.home, "SELECT status FROM runs WHERE name = ?", sweep_of(other).name) == [("FINISHED",)]


@after(sweep_again_and_again)
def test_dry_run_shows_the_plan_and_leaves_nothing(seen: Seen) -> None:
    dry = seen.ends[3]
    assert (dry.code, dry.err) == (0, "")
    lines = [line.split() for line in dry.out.splitlines() if line.strip()]
    assert re.search(r": 4 jobs: 2 done, 2 new; 2 workers × 1 thread; about \d+:\d\d$", dry.out.splitlines()[0])
    assert lines[1] == ["jobs", "optimizer", "seeds", "state", "parameters", "key"]
    assert lines[3][:-1] == ["0-1", "sgd", "1-2", "1", "done,", "1", "new", "7,850"]
    assert len(list((seen.home / "multirun").glob("[0-9]*"))) == 2


@after(sweep_again_and_again)
def test_nothing_is_left_of_a_sweep_but_its_results(seen: Seen) -> None:
    assert_nothing_runs(seen.home)
    assert list((seen.home / "multirun" / ".locks").iterdir()) == []
    assert {path.name for path in seen.home.iterdir()} == {"multirun", "mlflow.db", "mlartifacts", "looks.jsonl"}


# A sweep that fails.


@after(sweep_that_fails_and_goes_on)
def test_job_that_fails_fails_alone_and_says_why(seen: Seen) -> None:
    ended, sweep = seen.ends[0], seen.sweep
    assert (ended.code, ended.err) == (1, "")
    log = os.path.relpath(sweep / "0" / "run.log", seen.home.parent)
    killed = "Killed: the process ended with SIGKILL (out of memory?)"
    assert f"job 0 (learning_rate=0.1) failed: {killed}; log: {log}\n" in ended.out
    assert re.search(r"^job 1 \(learning_rate=1e\+37\) diverged: the loss of epoch 1 is not .*; log: ", ended.out, re.M)
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
def test_job_has_the_bits_of_the_same_run_alone(seen: Seen, endings: dict[str, Ending[Seen]]) -> None:
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
        (["seed=interval(0,1)"], "seed=interval(0,1): holds any number of values; name them, use range("),
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


def test_one_bad_value_among_fifty_jobs_is_told_before_anything_starts(home: Path) -> None:
    overrides = ("optimizer=glob(*)", "schedule=constant,cosine,step,one_cycle,exponential,cosin")
    with subprocess.Popen(
        [sys.executable, "-m", "experiments.run", *BASE, *overrides],
        env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr
        error = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 2
    assert error.startswith("9 jobs, the first is job 5 (optimizer=adagrad, schedule=cosin): schedule=cosin: no such")
    assert used.ru_utime + used.ru_stime < 6  # seconds of one core, twice what it takes: TensorFlow is not started
    assert list(home.iterdir()) == []


# Sweeps that are stopped.

LONG = ("seed=0,1,2", f"training.epochs={EPOCHS}")


@pytest.mark.slow
@pytest.mark.beside
def test_stopped_sweep_goes_on_where_it_was(home: Path) -> None:
    """Ctrl-C, then SIGTERM and Ctrl-C, then to the end."""
    ends = []
    for signals in ([signal.SIGINT], [signal.SIGTERM, signal.SIGINT]):
        with started(home, *BASE, *LONG) as command:
            command.wait_for("job 1 ")
            for job in (0, 1):
                wait_for_epoch(home, job)
            for number in signals:
                command.process.send_signal(number)
                time.sleep(0.1)
            ends.append(command.finish())
        assert_nothing_runs(home)
        jobs = jobs_of(sweep_of(ends[-1]))
        assert [job.state for job in jobs] == ["interrupted"] * 2
        assert_store_agrees(home, jobs)
    once, twice = ends
    assert [(ended.code, ended.err) for ended in ends] == [(130, "")] * 2
    stopping = "stopping (as you asked): running jobs end with their epoch and can go on; Ctrl-C again stops now"
    assert all(stopping in ended.out for ended in ends)
    assert [("stopping now" in ended.out) for ended in ends] == [False, True]
    assert "2 interrupted, 1 waiting; the same command again does what is missing" in once.out
    assert ": 3 jobs: 2 interrupted, 1 new; " in twice.out.splitlines()[0]
    assert re.search(r"^job 0 \(seed=0\) resumed after epoch \d+$", twice.out, re.M)
    finished = run_sweep(home, *LONG)
    assert finished.code == 0
    assert {sweep_of(ended) for ended in ends} == {sweep_of(finished)}
    jobs = jobs_of(sweep_of(finished))
    assert [[row.epoch for row in job.rows] for job in jobs] == [[*range(1, EPOCHS + 1)]] * 3
    assert_store_agrees(home, jobs)
    with started(home, *SMALL, "model=linear", "tracking=none", "seed=0", *LONG[1:]) as command:
        undisturbed = command.finish().record
    assert digests(jobs[:1]) == digests([undisturbed])  # of a job that was stopped twice


@pytest.mark.slow
@pytest.mark.beside
@pytest.mark.parametrize("moment_seconds", [0.5, 1.5, None], ids=["begins", "plans", "imports TensorFlow"])
def test_sweep_that_is_stopped_before_it_trains_leaves_nothing(home: Path, moment_seconds: float | None) -> None:
    with started(home, *BASE, *LONG, fork=False) as command:
        if moment_seconds is None:
            wait_until(lambda: any("forkserver" in line for line in left_behind(home)))
        else:
            time.sleep(moment_seconds)
        command.process.send_signal(signal.SIGINT)
        ended = command.finish()
    assert ended.code == 130, ended.err
    assert "Traceback" not in ended.err
    assert_nothing_runs(home)
    assert list((home / "multirun").glob("[0-9]*/[0-9]*")) == []


CONTROL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A sweep in the foreground of a terminal of its own."""

    def __init__(self, home: Path, *overrides: str) -> None:
        self._screen, its_end = pty.openpty()
        self._process = commands.start(
            ["-m", "experiments.run", *BASE, *overrides],
            env=environment(home, TERM="xterm", COLUMNS="80", LINES="24"), cwd=home,
            stdin=its_end, stdout=its_end, stderr=its_end, on_terminal=True,
        )  # fmt: skip
        os.close(its_end)
        self.seen = ""

    def read(self, seconds: float = 0.1) -> bool:
        """Reads what is written there; False when it was closed."""
        if select.select([self._screen], [], [], seconds)[0]:
            try:
                self.seen += os.read(self._screen, 65536).decode(errors="replace")
            except OSError:
                return False
        return True

    def read_until(self, true: Callable[[], Any]) -> None:
        def read_on() -> Any:
            self.read()
            return true()

        wait_until(read_on)

    @property
    def text(self) -> str:
        """What was shown so far, without colours and movements of the cursor."""
        lines = CONTROL_CODES.sub("", self.seen).replace("\r", "\n").splitlines()
        return "\n".join(line.rstrip() for line in lines if line.strip())

    def press(self, keys: bytes) -> None:
        os.write(self._screen, keys)

    def close(self) -> None:
        os.close(self._screen)

    def wait(self) -> int:
        return self._process.wait(60)


@pytest.mark.slow
@pytest.mark.beside
def test_terminal_shows_a_live_table_and_passes_ctrl_c_on(home: Path) -> None:
    terminal = Terminal(home, *LONG)
    terminal.read_until(lambda: re.search(rf"^ +0 +0 +\d+/{EPOCHS} +\d+\.\d\d% .*running$", terminal.text, re.M))
    terminal.press(b"\x03")
    while terminal.read(0.5):
        pass
    terminal.close()
    assert terminal.wait() == 130
    text = terminal.text
    assert re.search(r"^job +seed +epoch +validation +left +state$", text, re.M)
    assert re.search(r"━+ .*0/3 jobs  0:\d\d  about \d+:\d\d left$", text, re.M)
    assert "stopping (as you asked): running jobs end with their epoch" in text
    assert not re.search(r"^(E0000|I0000|W0000|WARNING|20\d\d-\d\d-\d\d \d\d:)", text, re.M)  # of jobs or TensorFlow
    assert "\x1b[?25h" in terminal.seen[-2000:]  # the cursor is there again
    assert Path(text.splitlines()[-1]).parent == home / "multirun"
    assert_nothing_runs(home)


@pytest.mark.slow
@pytest.mark.beside
def test_terminal_that_is_closed_stops_the_sweep_in_order(home: Path) -> None:
    terminal = Terminal(home, *LONG)
    terminal.read_until(lambda: checkpoints(home, 0))
    terminal.close()
    assert terminal.wait() == 130
    assert_nothing_runs(home)
    (sweep,) = (home / "multirun").glob("[0-9]*")
    jobs = jobs_of(sweep)
    assert {job.state for job in jobs} == {"interrupted"}
    assert_store_agrees(home, jobs)
    assert (sweep / "summary.csv").exists()


@pytest.mark.slow
@pytest.mark.beside
def test_sweep_outlives_the_reader_of_its_output(home: Path) -> None:
    with started(home, *BASE, "seed=0,1", "training.epochs=3") as command:
        command.wait_for("job 0 ")
        command.process.stdout.close()
        assert command.process.wait(60) in (0, 1, 120)
    (sweep,) = (home / "multirun").glob("[0-9]*")
    assert [job.state for job in jobs_of(sweep)] == ["finished"] * 2
    assert (sweep / "report.html").exists()


@pytest.mark.slow
@pytest.mark.beside
def test_job_that_takes_too_long_fails_and_tells_where_it_was(home: Path) -> None:
    endless = ("training.epochs=100000", "sweep.timeout_minutes=0.03", "seed=range(9)")
    alike = run_sweep(home, *endless)
    assert alike.code == 1
    assert "failed: TimeoutError: took longer than sweep.timeout_minutes=0.03; log: " in alike.out
    assert "stopping (the first 3 jobs all failed with the same error)" in alike.out
    jobs = jobs_of(sweep_of(alike))
    assert len(jobs) in (3, 4)
    log = (jobs[0].directory / "run.log").read_text()
    assert "most recent call first" in log
    assert log.splitlines()[-1] == "TimeoutError: took longer than sweep.timeout_minutes=0.03"
    assert_store_agrees(home, jobs)
    first = run_sweep(home, *endless, "sweep.fail_fast=true", "sweep.reuse=never", "sweep.workers=1", "tracking=none")
    assert first.code == 1
    assert "stopping (sweep.fail_fast=true)" in first.out
    assert [job.state for job in jobs_of(sweep_of(first))] == ["failed"]
    assert_nothing_runs(home)


@pytest.mark.slow
@pytest.mark.beside
def test_report_is_there_after_the_first_job(home: Path) -> None:
    with started(home, *BASE, "training.epochs=2,100000", "tracking=none") as command:
        (report,) = wait_until(lambda: list(home.glob("multirun/*/runs.csv")))
        with report.open() as file:
            assert [row["epochs_run"] for row in csv.DictReader(file)] == ["2"]
        for _ in range(2):
            command.process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert command.finish().code == 130
    assert_nothing_runs(home)


# Sweeps beside each other, and what stands in their way.


@pytest.mark.slow
@pytest.mark.beside
def test_sweeps_at_the_same_time_share_jobs_but_no_directory(home: Path) -> None:
    """Two that have jobs in common, and one of them twice, all on a fresh store."""
    overrides = "training.epochs=12"
    with (
        started(home, *BASE, overrides, "seed=0,1,2") as a,
        started(home, *BASE, overrides, "seed=1,2,3") as b,
        started(home, *BASE, overrides, "seed=1,2,3") as again,
    ):
        ends = [command.finish() for command in (a, b, again)]
    assert ends[0].code == 0
    assert sorted(ended.code for ended in ends[1:]) == [0, 2]
    (refused,) = [ended for ended in ends if ended.code == 2]
    assert re.fullmatch(r"this sweep is being run already, by process \d+; wait for it or stop it\n", refused.err)
    other = next(ended for ended in ends[1:] if ended.code == 0)
    assert sweep_of(ends[0]) != sweep_of(other)
    trained = [records.load(path) for path in lookup.run_directories(home)]
    assert sorted(job.seed for job in trained) == [0, 1, 2, 3]  # no key was trained twice
    assert [job.seed for job in jobs_of(sweep_of(ends[0]))] == [0, 1, 2]
    assert [job.seed for job in jobs_of(sweep_of(other))] == [1, 2, 3]
    assert_store_agrees(home, trained)
    assert list((home / "multirun" / ".locks").iterdir()) == []


@pytest.mark.slow
@pytest.mark.beside
def test_eight_workers_on_a_fresh_store_lose_nothing(home: Path) -> None:
    """As on a machine of eight cores: more processes than there are here."""
    change = "import experiments.sweeps.executors.cores as cores; cores.available_cores = lambda: 8"
    ended = run_changed_sweep(home, change, "training.epochs=4", "seed=range(8)", "sweep.workers=8")
    assert (ended.code, ended.err) == (0, "")
    assert ": 8 jobs: 8 new; 8 workers × 1 thread" in ended.out
    assert "MLflow" not in ended.out
    jobs = jobs_of(sweep_of(ended))
    assert [job.mlflow.synced for job in jobs] == [True] * 8
    assert_store_agrees(home, jobs)


@pytest.mark.slow
@pytest.mark.beside
def test_locked_store_stops_no_sweep_and_loses_nothing(home: Path) -> None:
    impatient = f"sqlite:///{home}/mlflow.db?timeout=0.5"  # seconds that each look at a locked store waits
    with started(home, *BASE, "seed=0,1", "training.epochs=3", MLFLOW_TRACKING_URI=impatient) as command:
        store = sqlite3.connect(home / "mlflow.db", isolation_level=None)
        store.execute("CREATE TABLE other (thing)")
        store.execute("BEGIN EXCLUSIVE")
        ended = command.finish()
    assert ended.code == 0
    assert re.search(r"MLflow cannot be reached \(.*database is locked\); the sweep runs without it", ended.out)
    assert f"2 runs not in MLflow yet: python -m experiments.sync {sweep_of(ended).name}" in ended.out
    store.execute("ROLLBACK")
    store.execute("DROP TABLE other")
    store.close()
    (home / "mlflow.db").unlink()  # it never was a store
    again = run_sweep(home, "seed=0,1", "training.epochs=3")
    assert ": 2 jobs: 2 done; " in again.out.splitlines()[0]
    assert "not in MLflow" not in again.out
    jobs = jobs_of(sweep_of(again))
    assert_store_agrees(home, jobs)
    (parent,) = ask_store(home, "SELECT run_uuid FROM runs WHERE name = ?", sweep_of(again).name)
    assert ask_store(home, "SELECT DISTINCT value FROM tags WHERE key = 'mlflow.parentRunId'") == [parent]


def check_out(folder: Path) -> Path:
    """A copy of the package and `conf/`, to be edited; with what Python has compiled, which is of the same sources."""
    root = Path(__file__).parents[1]
    for name in ("src", "conf"):
        shutil.copytree(root / name, folder / name)
    return folder


def spoil_code(checkout: Path) -> None:
    for path in checkout.rglob("*.py"):
        path.write_text("raise SystemError('edited')\n")


@pytest.mark.slow
@pytest.mark.beside
def test_editing_code_and_conf_changes_nothing_in_a_sweep(home: Path) -> None:
    checkout = check_out(home / "checkout")
    overrides = ("training.epochs=10", "tracking=none")
    with started(home, *BASE, "seed=0,1,2", *overrides, PYTHONPATH=str(checkout / "src")) as command:
        command.wait_for("job 1 ")
        spoil_code(checkout)
        for path in checkout.rglob("*.yaml"):
            path.write_text("edited: [")
        ended = command.finish()
    assert (ended.code, ended.err) == (0, "")
    assert (sweep_of(ended) / "report.html").exists()
    jobs = jobs_of(sweep_of(ended))
    assert len({job.code_digest for job in jobs}) == 1
    with started(home, *SMALL, "model=linear", "seed=2", *overrides) as command:
        assert digests(jobs[2:]) == digests([command.finish().record])  # of the job that began afterwards


@pytest.mark.exhaustive
def test_without_fork_workers_are_spawned(home: Path) -> None:
    change = "import experiments.sweeps.executors.processes as workers; workers.METHODS = ('spawn',)"
    overrides = ("training.epochs=2", "seed=0", "tracking=none")
    ended = run_changed_sweep(home, change, *overrides)
    assert (ended.code, ended.err) == (0, "")
    forked = run_sweep(home, *overrides, "sweep.reuse=never")
    assert digests(jobs_of(sweep_of(ended))) == digests(jobs_of(sweep_of(forked)))
    assert_nothing_runs(home)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 80 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
def test_full_disk_stops_the_sweep_which_goes_on_when_there_is_room(small_disk: Path) -> None:
    overrides = ("seed=range(3)", f"training.epochs={EPOCHS}")  # one more than may run side by side
    filler = small_disk / "filler"
    with started(small_disk, *BASE, *overrides) as command:
        wait_until(lambda: checkpoints(small_disk, 0))
        with suppress(OSError):
            filler.write_bytes(bytes(100_000_000))
        ended = command.finish()
    assert ended.code == 1
    assert ended.err == ""
    assert "No space left on device" in ended.out
    assert re.search(r"^stopping \(.*: has \d+ MB free; a run needs 50 MB\)", ended.out, re.M), ended.out
    refused = run_sweep(small_disk, *overrides)
    assert refused.code == 2, refused.err
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=300m", str(small_disk)], check=True)
    again = run_sweep(small_disk, *overrides)
    assert again.code == 0
    jobs = jobs_of(sweep_of(again))
    assert [job.state for job in jobs] == ["finished"] * 3
    assert_store_agrees(small_disk, jobs)
