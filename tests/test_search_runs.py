"""A whole search: killed, begun again, ended with a race, and compared with a run that was never paused."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import SMALL, Ended, Ending, started
from experiments.comparison import decisions
from experiments.comparison.decisions import DECISIONS
from experiments.results import records
from experiments.results.states import RunState
from experiments.sweeps import decision_log
from test_sweep import check_out, spoil_code

RANGES = ("optimizer=sgd,adam", "optimizer.learning_rate=tag(log,interval(1e-3,1e-1))", "training.epochs=8")
SEARCH = (
    "-m", *SMALL, *RANGES, "model=linear", "tracking=none", "sweep.workers=2", "sweep.jobs=5", "sweep.finalists=2",
    "sweep.margin=50",
)  # fmt: skip


class Seen(NamedTuple):
    """A search that was killed and begun again, the same command once more, and its best job alone."""

    first: Path
    ends: list[Ended]
    alone: Ended


def search_that_is_killed(home: Path) -> Seen:
    with started(home, *SEARCH) as command:
        command.wait_for("job 2 ")  # two workers: one has been paused
        command.process.send_signal(signal.SIGKILL)
    checkout = check_out(home / "checkout")
    with started(home, *SEARCH, PYTHONPATH=str(checkout / "src")) as command:
        command.wait_for("rung 1 ")
        spoil_code(checkout)  # the final goes on with the code that the search began with
        ends = [command.finish()]
    with started(home, *SEARCH) as command:
        ends.append(command.finish())
    (search,) = (path for path in (home / "multirun").glob("[0-9]*") if "-final-" not in path.name)
    best = next(path for path in sorted(search.glob("[0-9]*")) if records.load(path).state == "finished")
    job = json.loads((search / "plan.json").read_text())["jobs"][int(best.name)]
    alone = [text for text in job["overrides"] if not text.startswith("sweep.")]
    with started(home, *alone) as command:
        return Seen(best, ends, command.finish())


SCENARIOS = (search_that_is_killed,)


@pytest.fixture
def seen(endings: dict[str, Ending[Seen]]) -> Seen:
    return endings["search_that_is_killed"].result()


@pytest.mark.slow
def test_search_that_was_killed_goes_on_and_ends_with_a_race(seen: Seen) -> None:
    first, again = seen.ends
    assert (first.code, again.code) == (0, 0), first.out
    assert "a search of 5 configurations" in first.out
    assert "rung 3 is decided: 2 of 2 go to the final" in first.out
    assert "a race of 2 over seeds 1-30" in first.out
    assert "-final-" in first.out.splitlines()[-1]
    assert again.out.splitlines()[-1] == first.out.splitlines()[-1]
    assert "started" not in again.out


@pytest.mark.slow
def test_finalist_equals_a_run_that_was_never_paused(seen: Seen) -> None:
    paused, whole = records.load(seen.first), seen.alone.record
    assert [row.weights_digest for row in paused.rows] == [row.weights_digest for row in whole.rows]
    assert [row.learning_rate for row in paused.rows] == [row.learning_rate for row in whole.rows]
    assert paused.metrics == whole.metrics
    assert paused.run_key == whole.run_key


@pytest.mark.slow
def test_decisions_are_written_and_can_be_made_again_from_the_runs(seen: Seen) -> None:
    search = seen.first.parent
    _, (known,) = decisions.read(search / DECISIONS)
    assert [made.number for made in known.rounds] == [1, 2, 3]
    assert decision_log.check(search) == ["a search of 5, keeping 25%: 3 decisions made again, all the same"]


@pytest.mark.slow
def test_accounting_is_that_of_the_records_on_disk(seen: Seen) -> None:
    found = [records.load(path) for path in seen.first.parent.glob("[0-9]*")]
    epochs = sum(len(decision_log._rows(record)) for record in found)  # with what a killed run has in its checkpoint
    assert len(found) == 5
    (cost,) = {line for line in seen.ends[-1].out.splitlines() if line.startswith("cost: 5 runs; ")}
    counted, ahead, reused = (int(part.split()[0]) for part in cost.partition("; ")[2].split(", ")[:3])
    assert counted + ahead + reused == epochs
    states = [record.state for record in found]
    assert {"finished", "paused"} <= {*states} <= {"finished", "paused", "interrupted"}
    assert states.count(RunState.INTERRUPTED) <= 2  # that were killed when they had all that the search wanted of them
