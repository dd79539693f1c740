"""Searches: their plan, which may grow, and whole commands that are killed and begun again."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from conftest import SMALL, Ended, epoch_row, started, write_record
from experiments.comparison.table import _of_last_epoch
from experiments.conf import CONF
from experiments.errors import InputError
from experiments.results import files, records
from experiments.sweeps.choice import choose
from experiments.sweeps.composition import Composer
from experiments.sweeps.directory import find_place, freeze
from experiments.sweeps.jobs import Plan
from experiments.sweeps.planning import make_plan
from experiments.sweeps.proposals import plan_jobs
from experiments.sweeps.search_table import SearchTable
from experiments.sweeps.searches import final_overrides, final_seeds, planned_epochs, spent
from experiments.sweeps.status import JobState, Status
from experiments.sweeps.strategies.halving import Halving

RANGES = ("optimizer=sgd,adam", "optimizer.learning_rate=tag(log,interval(1e-3,1e-1))", "training.epochs=8")
Searched = Callable[..., Plan]


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield Composer(lambda overrides: hydra_compose("config", overrides=overrides))


@pytest.fixture
def searched(composer: Composer) -> Searched:
    """The plan of a search, `searched("sweep.jobs=8")`."""

    def make(*given: str) -> Plan:
        overrides = OverridesParser.create().parse_overrides([*SMALL, *RANGES, *given])
        jobs, ranges = plan_jobs(overrides, composer.compose)
        return make_plan(jobs, composer, ranges)

    return make


# The plan.


def test_jobs_are_ordinary_ones_and_their_ranges_are_kept(searched: Searched) -> None:
    plan = searched("sweep.jobs=8", "optimizer.beta_1=interval(0.8,0.9)")
    assert len(plan.jobs) == 8
    assert plan.varied == ("optimizer", "learning_rate", "beta_1")
    assert plan.ranges == {
        "optimizer": "choice(sgd,adam)",
        "learning_rate": "tag(log,interval(0.001,0.1))",
        "beta_1": "interval(0.8,0.9)",
    }
    for job in plan.jobs:
        assert ("beta_1" in job.varied) == (job.varied["optimizer"] == "adam")


def test_more_jobs_another_keep_and_other_finalists_are_the_same_search(searched: Searched) -> None:
    keys = {searched(*given).key for given in (
        ["sweep.jobs=8"], ["sweep.jobs=12"], ["sweep.jobs=8", "sweep.keep=0.5"], ["sweep.jobs=8", "sweep.finalists=2"],
    )}  # fmt: skip
    assert len(keys) == 1
    assert searched("sweep.jobs=8", "seed=1").key not in keys
    assert searched("sweep.jobs=8", "regularization.dropout=interval(0.1,0.2)").key not in keys


def test_plan_grows_and_never_shrinks(searched: Searched, home: Path) -> None:
    small = searched("sweep.jobs=6")
    place = find_place(small, home)
    freeze(small, place)
    large = searched("sweep.jobs=9")
    found = find_place(large, home)
    assert (found.path, found.damage, found.grows, len(found.threads)) == (place.path, "", True, 9)
    freeze(large, found)
    frozen = json.loads((place.path / "plan.json").read_text())
    assert [job["run_key"] for job in frozen["jobs"]] == [job.run_key for job in large.jobs]
    assert frozen["search"] == dict(large.ranges)
    again = find_place(small, home)
    assert (again.path, again.damage, again.grows, len(again.threads)) == (place.path, "", False, 6)
    freeze(small, again)
    assert len(json.loads((place.path / "plan.json").read_text())["jobs"]) == 9


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["sweep.jobs=2"], "sweep.jobs: must be at least sweep.finalists=3, received 2"),
        (["sweep.jobs=0"], "sweep.jobs: must be greater than or equal to 1, received 0"),
        (["sweep.jobs=1001"], "sweep.jobs: must be at most sweep.most_jobs=1000, received 1001"),
        (["sweep.jobs=9", "sweep.keep=0"], "sweep.keep: must be greater than 0, received 0"),
        (["sweep.jobs=9", "sweep.finalists=1"], "sweep.finalists: must be greater than or equal to 2, received 1"),
        (["sweep.jobs=9", "seed=auto"], "seed=auto: a search trains with one seed"),
        (
            ["sweep.jobs=9", "optimizer.rho=interval(0.1,0.9)"],
            "optimizer.rho: no such key; it belongs to optimizer=rmsprop",
        ),
    ],
)
def test_what_cannot_be_searched_is_one_line(searched: Searched, given: list[str], told: str) -> None:
    with pytest.raises(InputError) as caught:
        searched(*given)
    (mistake,) = caught.value.mistakes
    assert mistake.startswith(told)


def test_finite_ranges_are_tried_whole_and_that_is_said(composer: Composer, caplog: pytest.LogCaptureFixture) -> None:
    given = [*SMALL, "optimizer=sgd,adam", "training.epochs=1,2", "sweep.jobs=40"]
    with caplog.at_level("INFO"):
        jobs, _ = plan_jobs(OverridesParser.create().parse_overrides(given), composer.compose)
    assert len(jobs) == 4
    assert "the ranges have 4 points: all of them are tried (sweep.jobs=40)" in caplog.text


def test_fewer_points_than_finalists_are_refused(composer: Composer) -> None:
    given = [*SMALL, "optimizer=sgd,adam", "sweep.jobs=40"]
    jobs, ranges = plan_jobs(OverridesParser.create().parse_overrides(given), composer.compose)
    with pytest.raises(InputError, match="must be at most the 2 configurations"):
        choose(make_plan(jobs, composer, ranges))


def test_other_validation_images_and_a_seed_without_followers_are_refused(searched: Searched) -> None:
    with pytest.raises(InputError, match="all jobs must be judged by the same validation images"):
        choose(searched("sweep.jobs=6", "dataset.validation_fraction=0.1,0.2"))
    with pytest.raises(InputError, match="seed: must be at most 4294967265, so that the final has 30 after it"):
        choose(searched("sweep.jobs=6", "seed=4294967266"))
    choose(searched("sweep.jobs=6", "seed=4294967265"))


# What it takes, and what is told.


def test_planned_epochs_are_exact_where_runs_are_equally_long() -> None:
    assert str(planned_epochs(Halving([16] * 40, 0.25, 3))) == "106"
    assert str(planned_epochs(Halving([16] * 40, 1.0, 3))) == "640"
    assert str(planned_epochs(Halving([4, 8, 16, 16], 0.25, 2))) == "14 to 34"


def state_of(searched: Searched) -> tuple[Plan, Halving, list[Status]]:
    """A search of 8 × 8 epochs whose first decision is made, and whose second one is not."""
    plan = searched("sweep.jobs=8", "sweep.finalists=2")
    strategy = choose(plan)
    assert isinstance(strategy, Halving)
    statuses = [Status(job, JobState.PAUSED, rows=[epoch_row(1)]) for job in plan.jobs]
    statuses[3] = Status(plan.jobs[3], JobState.RUNNING, rows=[epoch_row(1)])
    statuses[0] = Status(plan.jobs[0], JobState.PAUSED, rows=[epoch_row(1), epoch_row(2)])
    statuses[5] = Status(plan.jobs[5], JobState.PAUSED, rows=[epoch_row(1), epoch_row(2)])
    return plan, strategy, statuses


def test_table_tells_the_rung_the_rank_and_what_is_paused(searched: Searched) -> None:
    plan, halving, statuses = state_of(searched)
    rows = SearchTable(halving, statuses, plan.varied).rows()
    assert [row["job"] for row in rows] == ["0", "1", "2", "3", "4", "5", "6", "7"]
    assert [row["state"] for row in rows[:4]] == ["goes on", "goes on", "paused", "running to epoch 2, ahead"]
    assert rows[0]["rank"] == "1 of 1 at rung 2"
    assert rows[1]["rank"] == "2 of 8 at rung 1"
    assert rows[0]["epoch"] == "2/8"


def test_epochs_are_counted_once_each(searched: Searched) -> None:
    _, halving, statuses = state_of(searched)
    assert spent(halving, statuses, "here") == (9, 1, 0)  # job 5 ran to epoch 2 and is not kept


def test_final_is_a_race_of_the_finalists_over_fresh_seeds(searched: Searched, composer: Composer) -> None:
    plan = searched("sweep.jobs=4", "sweep.finalists=2", "seed=7", "sweep.title=mine")
    strategy = choose(plan)
    statuses = [Status(job, JobState.WAITING) for job in plan.jobs]
    assert final_overrides(plan, strategy, statuses) == []
    for number, status in enumerate(statuses):
        status.state, status.rows = JobState.DONE, [epoch_row(epoch) for epoch in range(1, 9)]
        metrics = {"validation/accuracy": 0.5 + number / 10, "validation/cross_entropy": 1.0}
        status.record = write_record(Path(os.environ["EXPERIMENTS_HOME"]) / str(number), metrics=metrics)
    final = make_plan(final_overrides(plan, strategy, statuses), composer)
    assert final_seeds(plan) == range(8, 38)
    assert len(final.jobs) == 60
    assert {job.config.seed for job in final.jobs} == set(range(8, 38))
    assert final.execution.until == "decided"
    assert (final.execution.jobs, final.execution.title) == (None, None)
    rates = {job.config.optimizer.learning_rate for job in final.jobs}
    assert rates <= {job.config.optimizer.learning_rate for job in plan.jobs}


def test_paused_run_is_known_by_its_last_epoch(tmp_path: Path) -> None:
    record = write_record(tmp_path / "0", state="paused")
    files.write_history(record.directory / files.HISTORY, [epoch_row(1, loss=0.25)])
    assert _of_last_epoch(record) == {"validation/accuracy": 0.75, "validation/cross_entropy": 0.25}


# Whole commands.

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
        command.wait_for("paused")
        command.process.send_signal(signal.SIGKILL)
    ends = []
    for _ in range(2):
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
def seen(endings: dict[str, Future[Seen]]) -> Seen:
    return endings["search_that_is_killed"].result()


@pytest.mark.slow
def test_search_that_was_killed_goes_on_and_ends_with_a_race(seen: Seen) -> None:
    first, again = seen.ends
    assert (first.code, again.code) == (0, 0)
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
def test_accounting_is_that_of_the_records_on_disk(seen: Seen) -> None:
    found = [records.load(path) for path in seen.first.parent.glob("[0-9]*")]
    epochs = sum(len(record.rows) for record in found)
    assert len(found) == 5
    (cost,) = {line for line in seen.ends[-1].out.splitlines() if line.startswith("cost: 5 runs; ")}
    counted, ahead, reused = (int(part.split()[0]) for part in cost.partition("; ")[2].split(", ")[:3])
    assert counted + ahead + reused == epochs
    assert {record.state for record in found} == {"finished", "paused"}
