"""A sweep whose workers and planner are killed again and again, at moments that nobody chose."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import Command, started
from experiments.errors import InputError
from experiments.results import lookup, records
from test_sweep import (
    BASE,
    assert_nothing_runs,
    assert_store_agrees,
    digests,
    jobs_of,
    run_sweep,
    sweep_of,
    wait_until,
)

JOBS, EPOCHS, LIVES = 4, 20, 3
OVERRIDES = (f"seed=range({JOBS})", f"training.epochs={EPOCHS}")
LONGEST_WAIT_SECONDS = 1.5  # a job takes about this long: so a kill may fall on its start, its epochs and its end


def running(home: Path) -> list[int]:
    """The processes that train now."""
    found = []
    for directory in lookup.run_directories(home):
        with suppress(InputError):
            record = records.load(directory)
            if record.state == "running":
                found.append(record.process.pid)
    return found


def harass(command: Command, home: Path, chance: random.Random) -> None:
    """Kills one worker after the other, and at last the planner."""
    for _ in range(chance.randint(1, 2)):
        wait_until(lambda: running(home) or command.process.poll() is not None)
        time.sleep(chance.uniform(0, LONGEST_WAIT_SECONDS))
        if pids := running(home):
            with suppress(ProcessLookupError):
                os.kill(chance.choice(pids), signal.SIGKILL)
    wait_until(lambda: running(home) or command.process.poll() is not None)
    time.sleep(chance.uniform(0, LONGEST_WAIT_SECONDS))
    victims = [*running(home), command.process.pid] if chance.random() < 0.5 else [command.process.pid]
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.beside
@pytest.mark.parametrize("seed", [1])
def test_killed_sweep_ends_like_an_undisturbed_one(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    calm, home = tmp_path / "calm", tmp_path / "harassed"
    calm.mkdir()
    home.mkdir()
    undisturbed = run_sweep(calm, *OVERRIDES)
    for _ in range(LIVES):
        with started(home, *BASE, *OVERRIDES) as command:
            harass(command, home, chance)
            command.finish()
        assert_nothing_runs(home)
    last = run_sweep(home, *OVERRIDES)
    assert (last.code, last.err) == (0, "")
    (sweep,) = (home / "multirun").glob("[0-9]*")
    assert sweep_of(last) == sweep
    jobs = jobs_of(sweep)
    assert [job.state for job in jobs] == ["finished"] * JOBS
    assert [[row.epoch for row in job.rows] for job in jobs] == [[*range(1, EPOCHS + 1)]] * JOBS
    assert digests(jobs) == digests(jobs_of(sweep_of(undisturbed)))
    assert_store_agrees(home, jobs)
    assert [job.mlflow.synced for job in jobs] == [True] * JOBS
    assert list((home / "multirun" / ".locks").iterdir()) == []
    assert_nothing_runs(home)
