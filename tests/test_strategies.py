"""Which steps a strategy asks for: pure functions of what is known of the jobs."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from experiments.comparison.sequential import Rules
from experiments.sweeps.status import JobState
from experiments.sweeps.strategies.grid import Grid
from experiments.sweeps.strategies.race import Race, Standing
from experiments.sweeps.strategy import Seen, Step


def test_grid_runs_what_is_left_to_its_end_in_order() -> None:
    states = (JobState.DONE, JobState.WAITING, JobState.DIVERGED, JobState.PAUSED, JobState.WAITING)
    assert list(Grid().look([Seen(state) for state in states])) == [Step(1), Step(3), Step(4)]


@pytest.mark.parametrize("state", sorted({*JobState} - {JobState.WAITING, JobState.PAUSED}))
def test_grid_asks_for_nothing_where_all_have_ended(state: JobState) -> None:
    assert list(Grid().look([Seen(state)] * 3)) == []


# Races.

RULES = Rules(confidence=0.95, margin=0.1, floor=100 / 6000)
A = [99.20, 99.25, 99.18, 99.22, 99.27]
B = [99.18, 99.20, 99.22, 99.17, 99.23]
C = [98.70, 98.78, 98.66, 98.75, 98.72]


def race_of(configurations: int, seeds: int) -> Race:
    jobs = [[c * seeds + s for s in range(seeds)] for c in range(configurations)]
    return Race(jobs, "validation/accuracy", RULES)


def done(points: float) -> Seen:
    return Seen(JobState.DONE, metrics={"validation/accuracy": points / 100})


def run(
    race: Race, result: Callable[[int], Seen], workers: int, chance: random.Random, stops: float = 0.0
) -> tuple[Standing, list[int]]:
    """Carries a race out with fake workers that end in any order; returns how it stands and what was run.

    After each end it is stopped with the chance `stops`: what runs is lost, and all begins anew from the results.
    """
    seen = [Seen(JobState.WAITING)] * sum(len(jobs) for jobs in race.jobs)
    running: list[int] = []
    ran: list[int] = []
    while True:
        for step in race.look(seen):
            if len(running) < workers:
                seen[step.job] = Seen(JobState.RUNNING)
                running.append(step.job)
                ran.append(step.job)
        if not running:
            return race.standing(seen), ran
        ended = running.pop(chance.randrange(len(running)))
        seen[ended] = result(ended)
        if chance.random() < stops:
            for lost in running:
                seen[lost] = Seen(JobState.WAITING)
            running = []


def test_race_ends_as_the_worked_example_does() -> None:
    race, values = race_of(3, 5), [*A, *B, *C]
    standing, ran = run(race, lambda job: done(values[job]), 1, random.Random(0))
    assert (standing.verdict, standing.leader, standing.round) == ("within", 0, 5)
    assert [set(made.out) for made in standing.decisions] == [{2}, set(), set()]
    assert len(ran) == 13


def test_first_round_asks_for_every_seed_of_every_configuration_by_seed() -> None:
    race = race_of(2, 5)
    steps = race.look([Seen(JobState.WAITING)] * 10)
    assert steps == [Step(job) for job in (0, 5, 1, 6, 2, 7)]


def test_what_is_begun_ahead_is_said_to_be() -> None:
    race = race_of(2, 6)
    seen = [done(points) for points in (*A[:3], 0, 0, 0, *B[:3], 0, 0, 0)]
    for job in (3, 4, 5, 9, 10, 11):
        seen[job] = Seen(JobState.WAITING)
    assert race.look(seen) == [Step(3), Step(9), Step(4, ahead=True), Step(10, ahead=True)]


def test_what_runs_for_nothing_is_dropped() -> None:
    race = race_of(3, 5)
    seen = [done(points) for points in (*A, *B, *C)]
    for job in (3, 4, 8, 9, 13, 14):
        seen[job] = Seen(JobState.RUNNING)
    assert race.dropped(seen) == [13, 14]  # C is out
    seen[3], seen[8] = done(A[3]), done(B[3])
    assert race.dropped(seen) == [13, 14]  # seed 4 of A and B is the running round
    seen[4], seen[9] = done(A[4]), done(B[4])
    assert race.dropped(seen) == [13, 14]
    assert race.counted(race.standing(seen)) == {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
    assert race.needed(race.standing(seen)) == race.counted(race.standing(seen))


def test_grid_drops_nothing() -> None:
    assert Grid().dropped([Seen(JobState.RUNNING)] * 3) == ()


def test_diverged_seed_takes_its_configuration_out_without_a_claim() -> None:
    race, values = race_of(3, 5), [*A, *B, *C]
    standing, ran = run(
        race, lambda job: Seen(JobState.DIVERGED) if job == 11 else done(values[job]), 1, random.Random(0)
    )
    assert standing.broken == {2: 1}
    assert standing.leader == 0
    assert all(2 not in made.entered for made in standing.decisions)
    assert 12 not in ran


def test_all_broken_is_undecided() -> None:
    standing, _ = run(race_of(2, 3), lambda job: Seen(JobState.FAILED), 1, random.Random(0))
    assert (standing.verdict, standing.left, standing.leader) == ("undecided", (), None)


def test_one_that_is_left_needs_the_first_round_and_is_the_best() -> None:
    standing, ran = run(
        race_of(2, 5), lambda job: Seen(JobState.FAILED) if job > 4 else done(99.0), 1, random.Random(0)
    )
    assert (standing.verdict, standing.leader, len(ran)) == ("best", 0, 4)


def test_seeds_that_end_leave_it_undecided() -> None:
    generator = np.random.default_rng(0)
    values = 99 + generator.standard_normal(6)
    standing, ran = run(race_of(2, 3), lambda job: done(values[job]), 2, random.Random(0))
    assert standing.verdict == "undecided"
    assert sorted(ran) == [0, 1, 2, 3, 4, 5]


def test_decisions_are_the_same_in_200_orders_with_1_to_8_workers_and_any_stops() -> None:
    generator = np.random.default_rng(1)
    values = (np.linspace(99, 99.3, 6)[:, None] + 0.06 * generator.standard_normal((6, 12))).ravel()
    race = race_of(6, 12)
    first, _ = run(race, lambda job: done(values[job]), 1, random.Random(0))
    for order in range(200):
        chance = random.Random(order)
        assert run(race, lambda job: done(values[job]), 1 + order % 8, chance, stops=order % 3 / 4)[0] == first


def test_race_that_is_stopped_after_any_message_goes_on_to_the_same_decisions() -> None:
    race, values = race_of(3, 5), [*A, *B, *C]
    whole, ran = run(race, lambda job: done(values[job]), 1, random.Random(0))
    for stop in range(len(ran)):
        seen = [done(values[job]) if job in ran[:stop] else Seen(JobState.WAITING) for job in range(15)]
        while steps := race.look(seen):
            seen[steps[0].job] = done(values[steps[0].job])
        assert race.standing(seen) == whole


def test_cross_entropy_is_better_when_it_is_lower() -> None:
    race = Race([[0, 1, 2], [3, 4, 5]], "validation/cross_entropy", Rules(0.95, 0.0, 0.0))
    values = (0.0501, 0.0502, 0.0503, 0.2, 0.3, 0.25)
    seen = [Seen(JobState.DONE, metrics={"validation/cross_entropy": value}) for value in values]
    assert race.standing(seen).leader == 0


@pytest.mark.parametrize(
    ("jobs", "told"),
    [
        ([[0, 1, 2]], "at least 2 configurations, received 1"),
        ([[0, 1], [2, 3]], "3 or more seeds"),
        ([[0, 1, 2], [3, 4, 5, 6]], "same 3 or more seeds"),
    ],
)
def test_what_cannot_be_raced_is_refused(jobs: list[list[int]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Race(jobs, "validation/accuracy", RULES)
