"""Searches: their plan, which may grow, and whole commands that are killed and begun again."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console

from conftest import SMALL, epoch_row, write_record
from experiments.comparison.settings import label
from experiments.comparison.table import _of_last_epoch
from experiments.conf import CONF
from experiments.errors import InputError
from experiments.results import files
from experiments.sweeps.choice import choose, present
from experiments.sweeps.composition import Composer
from experiments.sweeps.directory import find_place, freeze
from experiments.sweeps.executor import Ended as WorkerEnded
from experiments.sweeps.executor import Ending, EpochDone, Event
from experiments.sweeps.jobs import Plan
from experiments.sweeps.planning import make_plan
from experiments.sweeps.proposals import plan_jobs
from experiments.sweeps.scheduler import Scheduler
from experiments.sweeps.search_table import SearchTable
from experiments.sweeps.searches import final_overrides, final_seeds, planned_epochs, require_finalists, spent
from experiments.sweeps.status import JobState, Status
from experiments.sweeps.strategies.halving import Halving
from experiments.sweeps.strategy import seen_of
from experiments.sweeps.sweep import Sweep
from test_scheduler import NoFollowups

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
    assert [row["state"] for row in rows[:4]] == ["goes on", "goes on", "paused", "to epoch 2, ahead"]
    assert [(row["rung"], row["rank"]) for row in rows[:2]] == [("2", "1/1"), ("1", "2/8")]
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
    require_finalists(plan, final)


def test_final_of_options_that_were_edited_meanwhile_is_refused(searched: Searched, composer: Composer) -> None:
    plan = searched("sweep.jobs=4", "sweep.finalists=2")
    final = make_plan([[*plan.jobs[0].overrides, "sweep.jobs=null", "training.batch_size=32"]], composer)
    with pytest.raises(InputError) as caught:
        require_finalists(plan, final)
    assert caught.value.mistakes == (
        "training.batch_size: was 16 in the search and is 32 now, so this would be no final of it; undo the change, "
        "and the same command goes on",
    )


def test_final_of_changed_data_is_refused(searched: Searched) -> None:
    plan = searched("sweep.jobs=4", "sweep.finalists=2")
    job = dataclasses.replace(plan.jobs[2], config_key="f" * 64, dataset_digest="d" * 64)
    with pytest.raises(InputError) as caught:
        require_finalists(plan, dataclasses.replace(plan, jobs=(job,)))
    (mistake,) = caught.value.mistakes
    was = plan.jobs[2].dataset_digest[:12]
    assert mistake.startswith(f"dataset.digest: was {was} in the search and is dddddddddddd now, so")


def test_paused_run_is_known_by_its_last_epoch(tmp_path: Path) -> None:
    record = write_record(tmp_path / "0", state="paused")
    files.write_history(record.directory / files.HISTORY, [epoch_row(1, loss=0.25)])
    assert _of_last_epoch(record) == {"validation/accuracy": 0.75, "validation/cross_entropy": 0.25}


# Carried out, with made-up workers.


class Workers:
    """An executor whose runs get better at a pace of their own, an epoch at each look."""

    def __init__(self, sweep: Sweep, slots: int) -> None:
        self.slots, self._sweep = slots, sweep
        self._running: dict[int, int | None] = {}

    def open(self) -> None: ...

    def submit(self, run: tuple[int, int | None], output: Path) -> int:
        del output
        self._running[run[0]] = run[1]
        return run[0]

    def events(self, timeout_seconds: float) -> Iterator[tuple[int, Event]]:
        del timeout_seconds
        for number, until in list(self._running.items()):
            epoch = len(self._sweep.statuses[number].rows) + 1
            accuracy = 1 - (number % 5 + 1) / (10 * epoch)
            row = dataclasses.replace(epoch_row(epoch), validation_accuracy=accuracy)
            yield number, EpochDone(row)
            if epoch in (until, 8):
                del self._running[number]
                if epoch == 8:
                    metrics = {
                        "validation/accuracy": accuracy,
                        "validation/cross_entropy": row.validation_cross_entropy,
                    }
                    directory = self._sweep.place.directory_of(self._sweep.plan.jobs[number])
                    write_record(directory, state="finished", sweep=self._sweep.place.name, metrics=metrics)
                yield number, WorkerEnded(Ending.FINISHED if epoch == 8 else Ending.PAUSED)

    def stop(self, handle: int, *, now: bool) -> None: ...

    def kill(self, handle: int) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("slots", [1, 3])
def test_scheduler_carries_a_search_out_and_tells_of_it(
    searched: Searched, home: Path, caplog: pytest.LogCaptureFixture, slots: int
) -> None:
    plan = searched("sweep.jobs=12", "sweep.finalists=2")
    freeze(plan, find_place(plan, home))
    statuses = [Status(job) for job in plan.jobs]
    sweep = Sweep(plan, find_place(plan, home), statuses, None, home, Console(file=io.StringIO(), width=150))
    strategy = choose(plan)
    presenter = present(strategy, sweep)
    assert isinstance(strategy, Halving)
    told = presenter.announce()
    assert told[0].startswith("a search of 12 configurations (12 new): 27 of 96 epochs; ")
    assert told[1].endswith("then the best 2 race over the fresh seeds 1-30: 6 to 60 jobs")
    progress = presenter.progress(None)
    with caplog.at_level("INFO"):
        Scheduler(
            sweep,
            strategy,
            Workers(sweep, slots),  # type: ignore[arg-type]
            prepare=lambda status, step: (status.job.number, step.until_epoch),  # type: ignore[arg-type, return-value]
            progress=progress,
            followups=NoFollowups(),  # type: ignore[arg-type]
            decide=presenter.update,
        ).work()
    assert strategy.winners([seen_of(status) for status in statuses]) == [0, 5]  # the best, by number where alike
    assert [line for line in caplog.messages if line.startswith("rung 2")] == [
        "rung 2 is decided: 2 of 3 go on to their end: " + "; ".join(label(plan.jobs[job].varied) for job in (0, 5))
    ]
    used = spent(strategy, statuses, sweep.place.name)
    assert used.needed == 27
    assert used.needed + used.ahead == sum(len(status.rows) for status in statuses)
    assert used.ahead == 0 or slots > 1
    rows = presenter.table()
    assert [row["state"] for row in rows[:3]] == ["finalist", "finalist", "paused"]
    assert presenter.missing() == 0
    assert presenter.closing()[0].startswith(
        f"cost: 12 runs; 27 epochs counted, {used.ahead} begun ahead, 0 from other"
    )
    sweep.console.print(progress._render())
    assert "rung 1: 12/12, rung 2: 3/3, rung 3: 2/2; 27/27 epochs" in sweep.console.file.getvalue()  # type: ignore[attr-defined]
