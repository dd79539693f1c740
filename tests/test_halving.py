"""Successive halving: what is run, what is kept, and that neither order, workers nor kills change a decision."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from conftest import epoch_row
from experiments.results.files import EpochRow
from experiments.sweeps.status import JobState
from experiments.sweeps.strategies.halving import Halving, Rung
from experiments.sweeps.strategy import Seen, Step

Curves = Sequence[Sequence[float]]  # validation accuracies by job and epoch
ENDED = (JobState.DONE, JobState.FAILED, JobState.DIVERGED)


def curves(jobs: int, epochs: int, seed: int = 0) -> Curves:
    """Learning curves whose order changes on the way."""
    generator = np.random.default_rng(seed)
    ends, speeds = generator.uniform(0.8, 1, jobs), generator.uniform(0.2, 3, jobs)
    time = np.arange(1, epochs + 1)
    values: Curves = (ends[:, None] * (1 - np.exp(-speeds[:, None] * time))).tolist()
    return values


def row(epoch: int, accuracy: float) -> EpochRow:
    return dataclasses.replace(epoch_row(epoch), validation_accuracy=accuracy, validation_cross_entropy=1 - accuracy)


def seen_of(state: JobState, curve: Sequence[float]) -> Seen:
    rows = tuple(row(epoch + 1, accuracy) for epoch, accuracy in enumerate(curve))
    metrics = {"validation/accuracy": curve[-1], "validation/cross_entropy": 1 - curve[-1]}
    return Seen(state, rows, metrics if state == JobState.DONE else {})


class Fake:
    """A scheduler with fake workers: each message is one epoch or one end, of a worker that chance chooses."""

    def __init__(self, halving: Halving, values: Curves, breaks: dict[int, int] | None = None) -> None:
        self.halving, self.values, self.breaks = halving, values, breaks or {}
        self.seen = [Seen(JobState.WAITING)] * len(values)
        self.running: dict[int, Step] = {}
        self.ahead: set[int] = set()
        self.messages = 0

    def work(self, workers: int, chance: random.Random, most_messages: float = math.inf) -> None:
        while self.messages < most_messages:
            steps = [step for step in self.halving.look(self.seen) if step.job not in self.running]
            for step in steps[: workers - len(self.running)]:
                self.running[step.job] = step
                self.seen[step.job] = self.seen[step.job]._replace(state=JobState.RUNNING)
            if not self.running:
                return
            self._take_in(chance.choice(list(self.running)))
            self.messages += 1

    def stop(self) -> None:
        """Kills all; what is on disk is known when the sweep is begun again."""
        self.running.clear()
        self.seen = [s if s.state in ENDED else s._replace(state=JobState.WAITING) for s in self.seen]

    def _take_in(self, job: int) -> None:
        step, curve = self.running[job], self.values[job]
        epoch = len(self.seen[job].rows) + 1
        state = JobState.RUNNING
        if epoch == self.breaks.get(job):
            self.seen[job] = self.seen[job]._replace(state=JobState.DIVERGED)
            del self.running[job]
            return
        if epoch == len(curve):
            state = JobState.DONE
        elif epoch == step.until_epoch:
            state = JobState.PAUSED
        self.seen[job] = seen_of(state, curve[:epoch])
        if state != JobState.RUNNING:
            del self.running[job]

    @property
    def rungs(self) -> list[Rung]:
        return self.halving.rungs(self.seen)

    @property
    def epochs(self) -> list[int]:
        return [len(seen.rows) for seen in self.seen]


def synchronous(values: Curves, keep: Sequence[int], epochs: Sequence[int]) -> list[list[int]]:
    """Who is kept at each rung, by definition."""
    jobs, kept = list(range(len(values))), []
    for most, epoch in zip(keep, epochs, strict=True):
        jobs = sorted(jobs, key=lambda job: (-values[job][epoch - 1], 1 - values[job][epoch - 1], job))[:most]
        kept.append(jobs)
    return kept


def decided(fake: Fake) -> list[tuple[list[int], dict[int, tuple[float, float, int]]]]:
    assert all(rung.is_complete for rung in fake.rungs)
    return [(rung.kept, rung.scores) for rung in fake.rungs]


def test_forty_jobs_of_sixteen_epochs_cost_what_synchronous_halving_costs() -> None:
    values = curves(40, 16)
    fake = Fake(Halving([16] * 40, 0.25, 3), values)
    fake.work(1, random.Random(0))
    assert [rung.kept for rung in fake.rungs] == synchronous(values, (10, 3, 3), (1, 4, 16))
    assert sum(fake.epochs) == 40 * 1 + 10 * 3 + 3 * 12
    assert fake.epochs == fake.halving.needed_epochs(fake.rungs)
    assert fake.halving.winners(fake.seen) == fake.rungs[-1].kept


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(16, [1, 4, 16]), (15, [1, 4, 15]), (8, [1, 2, 8]), (17, [2, 5, 17]), (3, [1, 1, 3]), (1, [1, 1, 1])],
)
def test_rungs_are_parts_of_the_whole_run_rounded_up(epochs: int, expected: list[int]) -> None:
    halving = Halving([epochs] * 4, 0.25, 2)
    assert [halving.epoch_of(0, number) for number in range(3)] == expected


@pytest.mark.parametrize(
    ("jobs", "keep", "finalists", "expected"),
    [(40, 0.25, 3, [10, 3, 3]), (100, 0.25, 3, [25, 7, 3]), (5, 0.25, 3, [3, 3, 3]), (40, 0.1, 2, [4, 2, 2]),
     (40, 1.0, 3, [40, 40, 3]), (2, 0.25, 2, [2, 2, 2])],
)  # fmt: skip
def test_part_that_is_kept_is_rounded_up_and_never_below_the_finalists(
    jobs: int, keep: float, finalists: int, expected: list[int]
) -> None:
    halving = Halving([16] * jobs, keep, finalists)
    assert [halving.most_kept(number) for number in range(3)] == expected


def test_short_runs_are_decided_at_the_same_epoch_twice() -> None:
    values = curves(9, 2)
    fake = Fake(Halving([2] * 9, 0.25, 2), values)
    fake.work(3, random.Random(1))
    assert [rung.kept for rung in fake.rungs] == synchronous(values, (3, 2, 2), (1, 1, 2))


def test_one_epoch_is_no_pause() -> None:
    assert Halving([1] * 3, 0.25, 2).look([Seen(JobState.WAITING)] * 3) == [Step(0), Step(1), Step(2)]


def test_first_what_is_certain_then_what_leads() -> None:
    halving = Halving([16] * 8, 0.25, 2)
    seen = [seen_of(JobState.PAUSED, [0.5 + job / 100]) for job in range(6)] + [Seen(JobState.RUNNING)] * 2
    assert halving.look(seen) == [Step(5, 4, ahead=True), Step(4, 4, ahead=True)]
    seen[6] = seen_of(JobState.PAUSED, [0.5])
    assert halving.look(seen) == [Step(5, 4), Step(4, 4, ahead=True)]
    seen[7] = Seen(JobState.WAITING)
    assert halving.look(seen) == [Step(5, 4), Step(7, 1), Step(4, 4, ahead=True)]


def test_run_that_was_ahead_and_not_kept_changes_nothing() -> None:
    values = [[0.9, 0.9, 0.9, 0.9], [0.8] * 4, [0.95] * 4, [0.96] * 4]
    halving = Halving([16] * 4, 0.5, 2)
    seen = [seen_of(JobState.PAUSED, value) for value in values]
    assert halving.rungs(seen)[0].kept == [3, 2]
    assert halving.look(seen) == [Step(3, None), Step(2, None)]
    assert halving.needed_epochs(halving.rungs(seen)) == [1, 1, 16, 16]


def test_run_ahead_that_leads_no_more_is_dropped() -> None:
    halving = Halving([16] * 8, 0.25, 2)
    running = {job: seen_of(JobState.RUNNING, [0.5 + job / 100, 0.6]) for job in (4, 5)}
    seen = [running.get(job) or seen_of(JobState.PAUSED, [0.5 + job / 100]) for job in range(6)]
    seen += [Seen(JobState.RUNNING)] * 2
    assert halving.dropped(seen) == []
    seen[7] = seen_of(JobState.PAUSED, [0.99])
    assert halving.dropped(seen) == [4]
    seen[6] = seen_of(JobState.PAUSED, [0.98])
    assert halving.dropped(seen) == [4, 5]


@pytest.mark.parametrize("workers", range(1, 9))
def test_decisions_are_the_same_in_any_order_with_any_number_of_workers(workers: int) -> None:
    values, breaks = curves(16, 16, seed=2), {3: 1, 7: 2, 11: 9}
    halving = Halving([16] * 16, 0.25, 3)
    first = Fake(halving, values, breaks)
    first.work(1, random.Random(0))
    for order in range(25):  # × 8 numbers of workers: 200 orders
        fake = Fake(halving, values, breaks)
        fake.work(workers, random.Random(order))
        assert decided(fake) == decided(first)
        assert all(ran >= needed for ran, needed in zip(fake.epochs, first.epochs, strict=True))


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_search_that_is_killed_after_every_message_goes_on_to_the_same_decisions(workers: int) -> None:
    values = curves(12, 16, seed=3)
    halving = Halving([16] * 12, 0.25, 3)
    whole = Fake(halving, values)
    whole.work(1, random.Random(0))
    broken = Fake(halving, values)
    while not all(rung.is_complete for rung in broken.rungs):
        broken.work(workers, random.Random(broken.messages), most_messages=broken.messages + 1)
        broken.stop()
    assert decided(broken) == decided(whole)


def test_no_worker_idles_before_the_last_jobs_run() -> None:
    fake = Fake(Halving([16] * 40, 0.25, 3), curves(40, 16))
    idle: list[int] = []
    chance = random.Random(0)
    while True:
        fake.work(4, chance, most_messages=fake.messages + 1)
        steps = fake.halving.look(fake.seen)
        if not steps and not fake.running:
            break
        waiting = any(step.job not in fake.running for step in steps)
        idle.append(len(fake.running) < 3 and not waiting and not fake.rungs[1].is_complete)
    assert not any(idle)


def test_larger_keep_goes_on_and_loses_nothing() -> None:
    values = curves(20, 16, seed=4)
    fake = Fake(Halving([16] * 20, 0.25, 3), values)
    fake.work(2, random.Random(0))
    before = fake.epochs
    fake.halving = Halving([16] * 20, 0.5, 3)
    fake.work(2, random.Random(0))
    assert [rung.kept for rung in fake.rungs] == synchronous(values, (10, 5, 3), (1, 4, 16))
    assert all(now >= was for now, was in zip(fake.epochs, before, strict=True))


def test_more_jobs_go_on_and_lose_nothing() -> None:
    values = curves(40, 16, seed=5)
    fake = Fake(Halving([16] * 20, 0.25, 3), values[:20])
    fake.work(2, random.Random(0))
    larger = Fake(Halving([16] * 40, 0.25, 3), values)
    larger.seen[:20] = fake.seen
    larger.work(2, random.Random(0))
    assert [rung.kept for rung in larger.rungs] == synchronous(values, (10, 3, 3), (1, 4, 16))


def test_ties_are_broken_by_cross_entropy_and_then_by_number() -> None:
    rows = [(0.9, 0.3), (0.9, 0.2), (0.9, 0.2), (0.8, 0.1)]
    made = [
        dataclasses.replace(epoch_row(1), validation_accuracy=accuracy, validation_cross_entropy=entropy)
        for accuracy, entropy in rows
    ]
    seen = [Seen(JobState.PAUSED, (one,)) for one in made]
    assert Halving([16] * 4, 0.5, 2).rungs(seen)[0].ranked == [1, 2, 0, 3]


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.DIVERGED])
def test_what_breaks_is_never_kept_and_nobody_waits_for_it(state: JobState) -> None:
    seen = [seen_of(JobState.PAUSED, [0.9]), Seen(state), seen_of(JobState.PAUSED, [0.8])]
    rung = Halving([16] * 3, 0.25, 2).rungs(seen)[0]
    assert (rung.is_complete, rung.kept) == (True, [0, 2])


def test_what_diverges_after_a_rung_has_its_place_in_it() -> None:
    halving = Halving([16] * 4, 0.5, 2)
    seen = [seen_of(JobState.PAUSED, [value]) for value in (0.9, 0.8, 0.7)]
    seen.append(seen_of(JobState.DIVERGED, [0.95, 0.96]))
    rungs = halving.rungs(seen)
    assert rungs[0].kept == [3, 0]
    assert rungs[1].broken == {3}
    assert halving.look(seen) == [Step(0, 4)]


def test_row_that_is_no_number_is_no_result() -> None:
    bad = dataclasses.replace(row(1, 0.99), validation_loss=math.nan)
    seen = [Seen(JobState.DIVERGED, (bad,)), seen_of(JobState.PAUSED, [0.5]), seen_of(JobState.PAUSED, [0.4])]
    assert Halving([16] * 3, 0.25, 2).rungs(seen)[0].ranked == [1, 2]


def test_run_that_stopped_early_counts_with_its_last_epoch() -> None:
    halving = Halving([16] * 3, 1.0, 2)
    seen = [seen_of(JobState.DONE, [0.5, 0.9]), seen_of(JobState.PAUSED, [0.6] * 4), seen_of(JobState.PAUSED, [0.7])]
    rungs = halving.rungs(seen)
    assert (rungs[0].ranked, rungs[1].ranked) == ([2, 1, 0], [0, 1])


def test_job_that_is_interrupted_holds_the_decision_open() -> None:
    seen = [seen_of(JobState.PAUSED, [0.9]), seen_of(JobState.PAUSED, [0.8]), Seen(JobState.INTERRUPTED)]
    halving = Halving([16] * 3, 0.25, 2)
    assert halving.winners(seen) is None
    assert [step.ahead for step in halving.look(seen)] == [False, True]


def test_all_that_fail_leave_no_finalist() -> None:
    assert Halving([16] * 3, 0.25, 2).winners([Seen(JobState.FAILED)] * 3) == []


def test_lengths_may_be_searched_too() -> None:
    halving = Halving([4, 32], 0.25, 2)
    assert halving.look([Seen(JobState.WAITING)] * 2) == [Step(0, 1), Step(1, 2)]


def check_against_brute_force(make: Callable[[], tuple[Curves, list[Seen]]], halving: Halving) -> None:
    values, seen = make()
    for number, rung in enumerate(halving.rungs(seen)):
        whole = synchronous(values, [halving.most_kept(n) for n in range(3)], (1, 4, 16))[number]
        assert set(rung.kept) <= set(whole), "kept before it is certain"


@pytest.mark.parametrize("seed", range(50))
def test_what_is_kept_early_is_kept_in_the_end(seed: int) -> None:
    generator = random.Random(seed)

    def make() -> tuple[Curves, list[Seen]]:
        values = curves(12, 16, seed)
        lengths = [generator.choice((0, 1, 1, 1, 4, 4, 15)) for _ in values]
        return values, [
            seen_of(JobState.PAUSED, curve[:length]) if length else Seen(JobState.WAITING)
            for curve, length in zip(values, lengths, strict=True)
        ]

    check_against_brute_force(make, Halving([16] * 12, 0.5, 3))
