"""Whole races on the digits: commands of their own, killed and started again, and what they leave behind."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import commands
from conftest import SMALL, Command, Ended, Ending, environment, started
from experiments.comparison import decisions
from experiments.comparison.decisions import DECISIONS
from experiments.results import records
from test_sweep import (
    Seen,
    after,
    ask_store,
    assert_nothing_runs,
    digests,
    jobs_of,
    run_sweep,
    sweep_again_and_again,
    sweep_of,
    wait_until,
)

# The margin is so wide that three seeds decide: 144 validation images tell 0.7 points apart at best.
RACE = ("optimizer=sgd,adam", "seed=range(4)", "training.epochs=2", "sweep.margin=40")
COST = re.compile(
    r"Cost: (\d+) jobs \((\d+) counted, (\d+) begun ahead, (\d+) from other sweeps\); (\d+) epochs and [\d:]+ of "
)


def check(home: Path, name: str) -> Ended:
    """`reproduce NAME --check`, which tells on its last line whether TensorFlow was imported."""
    code = (
        "import sys; from experiments.reproduce import main\n"
        "try: main()\nfinally: print(any(name in sys.modules for name in ('tensorflow', 'keras')))"
    )
    ended = commands.run(["-c", code, name, "--check"], env=environment(home), timeout=60, fork=False)
    return Ended(ended.returncode, ended.stdout, ended.stderr, home)


def race_and_then_the_rest(home: Path) -> Seen:
    """A race, its check, the same command again, and all that it has left out."""
    first = run_sweep(home, *RACE, "sweep.until=decided")
    records_then = sum(1 for _ in sweep_of(first).glob("*/record.json"))
    (home / "records").write_text(str(records_then))
    (home / DECISIONS).write_bytes((sweep_of(first) / DECISIONS).read_bytes())
    ends = [first, check(home, sweep_of(first).name), run_sweep(home, *RACE, "sweep.until=decided")]
    return Seen(home, [*ends, run_sweep(home, *RACE)])


def race_that_is_killed(home: Path) -> Seen:
    """The planner is killed in the first round; the same command goes on."""
    with started(home, "-m", *SMALL, "model=linear", "sweep.workers=2", *RACE, "sweep.until=decided") as command:
        wait_until(lambda: finished(home) > 1)
        command.process.kill()
        killed = command.finish()
    assert_nothing_runs(home)
    last = run_sweep(home, *RACE, "sweep.until=decided")
    return Seen(home, [last, killed])


def finished(home: Path) -> int:
    """How many runs have finished."""
    count = 0
    for path in home.glob("multirun/*/*/record.json"):
        with suppress(Exception):
            count += records.load(path.parent).state == "finished"
    return count


SCENARIOS = (race_and_then_the_rest, race_that_is_killed, sweep_again_and_again)


@pytest.fixture
def seen(request: pytest.FixtureRequest, endings: dict[str, Ending[Seen]]) -> Seen:
    return endings[request.param.__name__].result()


@after(race_and_then_the_rest)
def test_race_says_what_it_does_what_it_has_found_and_what_it_took(seen: Seen) -> None:
    first = seen.ends[0]
    assert (first.code, first.err) == (0, "")
    lines = first.out.splitlines()
    assert re.fullmatch(
        r"[\w-]+: a race of 2 over seeds 0-3: 6 to 8 jobs \(12 to 16 epochs\); \d workers? × 1 thread", lines[0]
    )
    assert lines[1].startswith("it ends when no other is better than the leader by more than 40 points (95%), ")
    (decided,) = (line for line in lines if line.startswith("after 3 seeds "))
    (head,) = (line for line in lines if line.startswith("configuration "))
    assert re.split(r"\s{2,}", head.strip()) == ["configuration", "seeds", "validation", "behind the leader", "state"]
    leader = decided.split()[3]
    assert any(line.startswith(f"{leader}. ") and "for all claims together" in line for line in lines)
    assert any(line.startswith(f"Test images, looked at once: {leader} ") for line in lines)


@after(race_and_then_the_rest)
def test_cost_is_exact(seen: Seen) -> None:
    found = COST.search(seen.ends[0].out)
    assert found
    jobs, counted, ahead, reused, epochs = map(int, found.groups())
    assert jobs == counted + ahead + reused == int((seen.home / "records").read_text())
    assert (counted, reused) == (6, 0)
    assert 2 * counted <= epochs <= 2 * jobs


@after(race_and_then_the_rest)
def test_decisions_can_be_checked_without_training(seen: Seen) -> None:
    ended = seen.ends[1]
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "a race of 2 by validation/accuracy, margin 40, 95%: 1 decision made again, all the same", "False",
    ]  # fmt: skip


@after(race_and_then_the_rest)
def test_decided_race_runs_nothing_again(seen: Seen) -> None:
    again = seen.ends[2]
    assert (again.code, again.err) == (0, "")
    assert "started" not in again.out
    assert seen.ends[0].out.splitlines()[-6:] == again.out.splitlines()[-6:]
    assert (seen.sweep / DECISIONS).read_bytes() == (seen.home / DECISIONS).read_bytes()


@after(race_and_then_the_rest)
def test_rest_of_a_race_equals_the_grid(seen: Seen, endings: dict[str, Ending[Any]]) -> None:
    rest = seen.ends[3]
    assert (rest.code, rest.err) == (0, ""), rest.out
    assert sweep_of(rest) == seen.sweep
    jobs = jobs_of(seen.sweep)
    assert [job.state for job in jobs] == ["finished"] * 8
    grid = digests(jobs_of(endings[sweep_again_and_again.__name__].result().sweep))
    ours = digests(jobs)
    assert len(grid.keys() & ours.keys()) == 4
    assert all(ours[key] == grid[key] for key in grid)
    assert [job.mlflow.synced for job in jobs] == [True] * 8
    parent = "SELECT run_uuid FROM tags WHERE key = 'kind' AND value = 'sweep'"
    note = f"SELECT value FROM tags WHERE key = 'mlflow.note.content' AND run_uuid IN ({parent})"
    ((told,),) = ask_store(seen.home, note)
    assert "- **race**: " in told
    assert "for all claims together" in told


@pytest.mark.exhaustive
@after(race_that_is_killed)
def test_killed_race_ends_with_the_decisions_of_an_undisturbed_one(seen: Seen, endings: dict[str, Ending[Any]]) -> None:
    last = seen.ends[0]
    assert (last.code, last.err) == (0, "")
    undisturbed = endings[race_and_then_the_rest.__name__].result().home / DECISIONS
    assert (seen.sweep / DECISIONS).read_bytes() == undisturbed.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["seed=auto"], "seed=auto: is a race of configurations over seeds, as in -m optimizer=sgd,adam seed=auto"),
        (["-m", "optimizer=sgd,adam", "seed=auto", "seed=3"],
         "seed=auto: chooses the seeds and must stand alone, received seed=auto seed=3"),
        (["-m", "optimizer=sgd", "seed=auto"],
         "sweep.until=decided: a race needs 2 to 1,000 configurations, received 1; optimizer=sgd,adam gives two"),
        (["-m", "optimizer=sgd,adam", "seed=auto", "sweep.metric=test/accuracy"],
         "every job: sweep.metric: the test images choose nothing; valid: validation/accuracy, "
         "validation/cross_entropy, received 'test/accuracy'"),
    ],
)  # fmt: skip
def test_bad_race_is_one_line_and_leaves_nothing(home: Path, arguments: list[str], told: str) -> None:
    with started(home, *SMALL, "tracking=none", *arguments) as command:
        ended = command.finish()
    assert (ended.code, ended.out, ended.err) == (2, "", f"{told}\n")
    assert list(home.iterdir()) == []


# Killed again and again.


def goes_on(home: Path, command: Command, before: int) -> bool:
    """Whether one more run has finished, or the command has ended."""
    return finished(home) > before or command.process.poll() is not None


def harassed(home: Path, chance: random.Random, *race: str) -> Ended:
    """Kills the planner at moments that nobody chose, until it comes through."""
    while True:
        with started(home, "-m", *SMALL, "model=linear", "sweep.workers=2", *race) as command:
            wait_until(partial(goes_on, home, command, finished(home)))
            time.sleep(chance.uniform(0, 2))
            if command.process.poll() is not None:
                return command.finish()
            os.kill(command.process.pid, signal.SIGKILL)
            command.finish()
        assert_nothing_runs(home)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [1, 2])
def test_race_killed_again_and_again_decides_the_same(tmp_path: Path, seed: int) -> None:
    race = ("optimizer=sgd,adam,rmsprop", "seed=auto", "training.epochs=3", "sweep.margin=3", "tracking=none")
    calm, home = tmp_path / "calm", tmp_path / "harassed"
    calm.mkdir()
    home.mkdir()
    undisturbed = run_sweep(calm, *race)
    last = harassed(home, random.Random(seed), *race)
    assert last.code == undisturbed.code == 0
    texts = [(sweep_of(ended) / DECISIONS).read_bytes() for ended in (undisturbed, last)]
    assert texts[0] == texts[1]
    rest = run_sweep(home, *race[:1], "seed=range(30)", *race[2:], "sweep.until=all")
    grid = run_sweep(calm, *race[:1], "seed=range(30)", *race[2:], "sweep.until=all")
    assert digests(jobs_of(sweep_of(rest))) == digests(jobs_of(sweep_of(grid)))
    _, (known,) = decisions.read(sweep_of(rest) / DECISIONS)
    assert known.rounds
