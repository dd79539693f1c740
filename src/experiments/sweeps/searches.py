"""A search: from its plan to the strategy, what it takes, and the final of its best configurations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from experiments.config import as_text, flatten
from experiments.errors import InputError
from experiments.sweeps.jobs import Job, Plan
from experiments.sweeps.races import validation_images
from experiments.sweeps.status import Status
from experiments.sweeps.strategies.halving import RUNGS, Halving
from experiments.sweeps.strategy import Strategy, seen_of

FINAL_SEEDS = 30  # fresh ones that the final may take: as many as seed=auto
LAST_SEED = 2**32 - 1
FEWEST_SEEDS = 3  # of each finalist, before anything is decided
OWN = ("seed", "sweep.jobs", "sweep.until", "sweep.title")  # what the final sets, or has of its own
FINAL = ("sweep.jobs=null", "sweep.until=decided", "sweep.title=null")


class Range(NamedTuple):
    """At least and at most."""

    least: int
    most: int

    def __str__(self) -> str:
        """`160`, or `160 to 200`."""
        return f"{self.least:,}" if self.least == self.most else f"{self.least:,} to {self.most:,}"


class Spent(NamedTuple):
    """The epochs of a search, each counted once.

    Attributes:
        needed: that its decisions rest on, of runs that were trained here.
        ahead: trained here so that no worker idled, and not needed by any decision.
        reused: of runs that another sweep has made.
    """

    needed: int
    ahead: int
    reused: int


def plan_search(plan: Plan) -> Halving:
    """The halving of a plan's jobs.

    Raises:
        InputError: there are fewer jobs than finalists, some are judged by other images, or the seed leaves none for
            the final.
    """
    execution = plan.execution
    validation_images(plan, "sweep.jobs")
    if final_seeds(plan)[-1] > LAST_SEED:
        rule = f"must be at most {LAST_SEED - FINAL_SEEDS}, so that the final has {FINAL_SEEDS} after it"
        raise InputError(f"seed: {rule}, received {plan.jobs[0].config.seed}")
    if len(plan.jobs) < execution.finalists:
        rule = f"must be at most the {len(plan.jobs)} configurations of the search"
        raise InputError(f"sweep.finalists: {rule}, received {execution.finalists}")
    return Halving([job.config.training.epochs for job in plan.jobs], execution.keep, execution.finalists)


def planned_epochs(halving: Halving) -> Range:
    """What the decisions of a search need, by who goes on where runs have different lengths."""
    least = most = 0
    before = [0] * len(halving.epochs)
    kept = len(halving.epochs)
    for number in range(len(RUNGS)):
        here = [halving.epoch_of(job, number) for job in range(len(halving.epochs))]
        steps = sorted(now - was for now, was in zip(here, before, strict=True))
        least, most = least + sum(steps[:kept]), most + sum(steps[len(steps) - kept :])
        before, kept = here, halving.most_kept(number)
    return Range(least, most)


def final_jobs(halving: Halving) -> Range:
    """Of the race of the finalists."""
    return Range(FEWEST_SEEDS * halving.finalists, FINAL_SEEDS * halving.finalists)


def final_seeds(plan: Plan) -> range:
    """The seeds that follow the search's own."""
    first = plan.jobs[0].config.seed + 1
    return range(first, first + FINAL_SEEDS)


def final_overrides(plan: Plan, strategy: Strategy, statuses: Sequence[Status]) -> list[list[str]]:
    """The jobs of the race of the finalists, each on every fresh seed; none where there is nothing to race.

    Args:
        plan: of the search.
        strategy: of the sweep, which may be no search.
        statuses: of its jobs, by number.
    """
    if not isinstance(strategy, Halving):
        return []
    finalists = strategy.winners([seen_of(status) for status in statuses]) or []
    kept = [[text for text in plan.jobs[job].overrides if _key(text) not in OWN] for job in finalists]
    seeds = final_seeds(plan) if len(kept) > 1 else range(0)
    return [[*texts, *FINAL, f"seed={seed}"] for texts in kept for seed in seeds]


def require_finalists(search: Plan, final: Plan) -> None:
    """Refuses a final of other configurations than the search's: `conf/` or the data may have changed since its plan.

    Raises:
        InputError: with each value, as it was and as it is.
    """
    known = {job.config_key for job in search.jobs}
    other = next((job for job in final.jobs if job.config_key not in known), None)
    if other is None:
        return
    now = _values(other)
    then = min((_values(job) for job in search.jobs), key=lambda values: len(values.items() - now.items()))
    raise InputError(
        *(
            f"{key}: was {then.get(key)} in the search and is {now.get(key)} now, so this would be no final of it; "
            "undo the change, and the same command goes on"
            for key in sorted({**then, **now})
            if then.get(key) != now.get(key)
        )
    )


def _values(job: Job) -> dict[str, str]:
    """What makes its `config_key`, as texts."""
    values = {**flatten(job.config.identity()), "dataset.digest": job.dataset_digest[:12]}
    return {key: as_text(value) for key, value in values.items() if key != "seed"}


def _key(text: str) -> str:
    return text.partition("=")[0].lstrip("+")


def spent(halving: Halving, statuses: Sequence[Status], sweep: str) -> Spent:
    """What a search has trained.

    Args:
        halving: its strategy.
        statuses: of its jobs, by number.
        sweep: its name, which the records of its own runs have.
    """
    wanted = halving.needed_epochs(halving.rungs([seen_of(status) for status in statuses]))
    needed = ahead = reused = 0
    for status, epochs in zip(statuses, wanted, strict=True):
        ran = len(status.rows)
        if status.record and status.record.sweep != sweep:
            reused += ran
        else:
            needed, ahead = needed + min(ran, epochs), ahead + max(0, ran - epochs)
    return Spent(needed, ahead, reused)
