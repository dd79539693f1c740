"""A sweep whose workers and planner are killed again and again, at moments that nobody chose."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from conftest import Command, started
from experiments.errors import InputError
from experiments.results import lookup, records
from test_sweep import (
    BASE,
    ask_store,
    assert_nothing_runs,
    assert_store_agrees,
    digests,
    jobs_of,
    run_sweep,
    sweep_of,
    wait_until,
)

JOBS, EPOCHS, LIVES = 4, 12, 2
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
    undisturbed = run_sweep(calm, *OVERRIDES, "tracking=none")
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


# Very many kills. Each life of a sweep ends within seconds, by a signal at a moment and to a process that chance names.

SHORT = (f"seed=range({JOBS})", "training.epochs=40")
KILLS, PARTS, ROOM_SECONDS = 50, 5, 2.5  # of each part of the test; the time in which a life ends


def family(pid: int) -> list[psutil.Process]:
    """The planner and all that it has started: the fork server, workers, what writes reports and mirrors runs."""
    with suppress(psutil.Error):
        planner = psutil.Process(pid)
        return [planner, *planner.children(recursive=True)]
    return []


def kill_one(command: Command, chance: random.Random) -> bool:
    """Kills a member of the family, the planner in half of all cases; False where the sweep had ended before."""
    if command.process.poll() is not None:
        return False
    time.sleep(chance.uniform(0, ROOM_SECONDS))
    members = family(command.process.pid)
    if not members or command.process.poll() is not None:
        return False
    victim = members[0] if chance.random() < 0.5 else chance.choice(members)
    with suppress(psutil.Error):
        victim.kill()
        return True
    return False


def assert_nothing_is_left(home: Path, sweep: Path) -> None:
    """No lock, no lease, no draft, no output beside its log."""
    names = [path.relative_to(home).as_posix() for path in home.rglob("*")]
    passing = [name for name in names if re.search(r"/\.(?!hydra$|locks$)[^/]*$|/lease-|^\.|-(wal|shm|journal)$", name)]
    assert passing == []
    assert list((home / "multirun" / ".locks").iterdir()) == []
    assert not any((sweep / str(job) / "checkpoint").exists() for job in range(JOBS))


def assert_nothing_is_doubled(home: Path, runs: int) -> None:
    """MLflow has each run once, and each of its numbers; the final ones too."""
    assert ask_store(home, "SELECT count(*) FROM runs") == [(runs,)]
    twice = "SELECT key, step, value, count(*) FROM metrics GROUP BY run_uuid, key, step, value HAVING count(*) > 1"
    assert ask_store(home, twice) == []
    finals = "SELECT count(*) FROM metrics WHERE key = 'test/accuracy' AND step = 0 GROUP BY run_uuid"
    assert ask_store(home, finals) == [(1,)] * JOBS


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, ...]]:
    """The digests of a sweep that nobody disturbs."""
    home = tmp_path_factory.mktemp("calm") / "home"
    home.mkdir()
    return digests(jobs_of(sweep_of(run_sweep(home, *SHORT))))


def harass_to_the_end(home: Path, chance: random.Random) -> int:
    """Starts a sweep again and again until it ends by itself; returns how often something of it was killed."""
    kills = 0
    for life in itertools.count():
        # Every fourth is started as a user starts it, and is importing TensorFlow when it is killed.
        with started(home, *BASE, *SHORT, fork=life % 4 != 0) as command:
            while kill_one(command, chance):
                kills += 1
            ended = command.finish()
        assert_nothing_runs(home)
        if ended.code == 0:
            break
    return kills


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(PARTS))
def test_sweeps_that_are_killed_very_often_end_like_an_undisturbed_one(
    calm: dict[str, tuple[object, ...]], tmp_path: Path, part: int
) -> None:
    chance, kills = random.Random(part), 0
    for number in itertools.count():
        home = tmp_path / f"home-{number}"
        home.mkdir()
        kills += harass_to_the_end(home, chance)
        sys.stdout.write(f"{home.name}: {kills} kills so far\n")
        last = run_sweep(home, *SHORT)
        assert (last.code, last.err) == (0, "")
        jobs = jobs_of(sweep_of(last))
        assert digests(jobs) == calm
        assert_store_agrees(home, jobs)
        assert_nothing_is_doubled(home, len(jobs) + 1)
        assert_nothing_is_left(home, sweep_of(last))
        assert_nothing_runs(home)
        if kills >= KILLS:
            break
