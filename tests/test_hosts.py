"""Two planners of one sweep on two hosts, which share a folder and neither clock, network nor process numbers."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import SMALL
from experiments.errors import InputError
from experiments.results import files, lease, records
from experiments.results.lease_file import look
from experiments.sweeps.directory import ASIDE
from hosts import Planner, planner, require_hosts
from test_sweep import digests, jobs_of, run_sweep, sweep_of, wait_until

HOUR_SECONDS = 3600
JOBS = 4
SWEEP = ("-m", *SMALL, "model=linear", "sweep.workers=2", "tracking=none", f"seed=range({JOBS})")
SHORT, LONG, LONGER = "training.epochs=20", "training.epochs=100", "training.epochs=250"
LEASE = {"EXPERIMENTS_LEASE_SECONDS": "3"}


@pytest.fixture(autouse=True)
def hosts() -> None:
    require_hosts()


def first(home: Path, *arguments: str) -> Any:
    """A planner whose clock is right."""
    return planner(home, *SWEEP, *arguments, host="nodea", **LEASE)


def second(home: Path, *arguments: str) -> Any:
    return planner(home, *SWEEP, *arguments, host="nodeb", ahead_seconds=HOUR_SECONDS, **LEASE)


def wait_for_epochs(home: Path, *jobs: int) -> None:
    """Until each of some jobs has finished five epochs."""

    def trained(job: int) -> bool:
        with suppress(InputError):
            return any(records.load(path).epochs_run >= 5 for path in home.glob(f"multirun/2*/{job}"))
        return False

    wait_until(lambda: all(map(trained, jobs)))


def plan_lease(home: Path) -> Any:
    """Who plans the sweep, as the files say."""
    locks = home / "multirun" / ".locks"
    names = {path.name.rpartition("-")[0] for path in locks.glob("plan-*.json")}
    return look(locks, names.pop()) if names else None


def assert_trained_once(home: Path) -> list[records.Record]:
    """One sweep, in which each run was trained to its end by one process, whoever began it."""
    (sweep,) = home.glob("multirun/2*")
    assert not (sweep / ASIDE).exists()
    jobs = jobs_of(sweep)
    assert [job.state for job in jobs] == ["finished"] * JOBS
    assert len({job.run_key for job in jobs}) == JOBS
    for job in jobs:
        epochs = job.rows[-1].epoch
        assert [row.epoch for row in job.rows] == [*range(1, epochs + 1)]
        assert (job.directory / files.LOG).read_text().count(f" epoch {epochs}/{epochs} ") == 1
    return jobs


def beginnings(job: records.Record) -> int:
    """How many processes have worked on a run."""
    return (job.directory / files.LOG).read_text().count(" parameters, ")


def contents(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_of_two_planners_that_start_together_one_steps_back(home: Path) -> None:
    with first(home, SHORT) as one, second(home, SHORT) as other:
        ends = sorted((one.finish(), other.finish()), key=lambda ended: ended.code)
    assert [ended.code for ended in ends] in ([0, 2], [0, 0]), ends
    if ends[1].code:
        assert "this sweep is being run already, by process" in ends[1].err
        assert " on node" in ends[1].err
    assert [beginnings(job) for job in assert_trained_once(home)] == [1] * JOBS
    assert list((home / "multirun" / ".locks").iterdir()) == []


@pytest.mark.exhaustive
def test_planner_that_is_killed_is_followed_by_one_on_another_host(home: Path, tmp_path_factory: Any) -> None:
    with first(home, LONGER) as killed:
        wait_for_epochs(home, 0, 1)
        with second(home, LONGER) as refused:
            ended = refused.finish()
        assert (ended.code, ended.out) == (2, "")
        assert " on nodea; wait for it or stop it" in ended.err
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.finish().code == 256 - signal.SIGKILL
    wait_until(lambda: plan_lease(home).is_over())
    with second(home, LONGER) as heir:
        ended = heir.finish()
    assert ended.code == 0, ended
    assert_bits_of_an_undisturbed_sweep(home, tmp_path_factory, LONGER)
    assert max(beginnings(job) for job in jobs_of(sweep_of(ended))) == 2, "some went on"


@pytest.mark.exhaustive
@pytest.mark.parametrize("woken", ["meanwhile", "afterwards"])
@pytest.mark.parametrize("frozen", ["planner", "host"])
def test_planner_that_was_frozen_steps_back_when_it_wakes(
    home: Path, tmp_path_factory: Any, frozen: str, woken: str
) -> None:
    with first(home, LONG) as sleeper:
        wait_for_epochs(home, 0, 1)
        asleep = sleeper.family()[: 1 if frozen == "planner" else None]
        for process in asleep:
            process.suspend()
        wait_until(lambda: plan_lease(home).is_over())
        with second(home, LONG) as heir:
            if woken == "meanwhile":
                wait_until(lambda: plan_lease(home).holder.host == "nodeb")
                wake(asleep)
                assert_stepped_back(sleeper)
            ended = heir.finish()
        assert ended.code == 0, ended
        if woken == "afterwards":
            before = contents(home)
            wake(asleep)
            assert_stepped_back(sleeper)
            assert contents(home) == before
    assert_bits_of_an_undisturbed_sweep(home, tmp_path_factory)


def wake(asleep: list[psutil.Process]) -> None:
    for process in asleep:
        with suppress(psutil.NoSuchProcess):  # one that woke before has ended it
            process.resume()


def assert_stepped_back(sleeper: Planner) -> None:
    ended = sleeper.finish()
    assert ended.code == lease.LOST, ended
    assert ended.err.endswith(": another process has taken over; this one ends\n")


def assert_bits_of_an_undisturbed_sweep(home: Path, tmp_path_factory: Any, epochs: str = LONG) -> None:
    calm = tmp_path_factory.getbasetemp() / f"calm-{epochs}"
    if not calm.exists():
        calm.mkdir()
        ended = run_sweep(calm, f"seed=range({JOBS})", epochs, "tracking=none")
        assert ended.code == 0, ended
    assert digests(assert_trained_once(home)) == digests(assert_trained_once(calm))
