"""A race: from its plan to the strategy."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.comparison.decisions import MOST_CONFIGURATIONS
from experiments.comparison.sequential import FIRST_ROUND, Rules
from experiments.errors import InputError
from experiments.sweeps.jobs import Job, Plan
from experiments.sweeps.status import numbers
from experiments.sweeps.strategies.race import POINTS, Race


def plan_race(plan: Plan) -> Race:
    """The race of a plan's configurations over its seeds.

    Raises:
        InputError: it has one configuration or too many, fewer than three seeds, unequal seeds, or other validation
            images in some jobs than in others.
    """
    groups = _configurations(plan)
    execution = plan.execution
    if not 2 <= len(groups) <= MOST_CONFIGURATIONS:
        rule = f"a race needs 2 to {MOST_CONFIGURATIONS:,} configurations"
        raise InputError(f"sweep.until=decided: {rule}, received {len(groups)}; optimizer=sgd,adam gives two")
    seeds = [sorted(job.config.seed for job in group) for group in groups]
    if any(others != seeds[0] for others in seeds):
        odd = next(group for group, others in zip(groups, seeds, strict=True) if others != seeds[0])
        raise InputError(
            f"sweep.until=decided: all configurations need the same seeds; {odd[0]} has {_seeds(odd)}, "
            f"{groups[0][0]} has {_seeds(groups[0])}"
        )
    if len(seeds[0]) < FIRST_ROUND:
        rule = f"a race needs {FIRST_ROUND} or more seeds of every configuration"
        raise InputError(f"sweep.until=decided: {rule}, received {len(seeds[0])}; seed=auto takes up to 30")
    images = validation_images(plan, "sweep.until=decided")
    order = {job.config.seed: place for place, job in enumerate(groups[0])}
    jobs = tuple(tuple(job.number for job in sorted(g, key=lambda job: order[job.config.seed])) for g in groups)
    floor = POINTS / images if execution.metric.endswith("accuracy") else 0.0
    return Race(jobs, execution.metric, Rules(execution.confidence, execution.margin, floor))


def _seeds(group: Sequence[Job]) -> str:
    return numbers(sorted(job.config.seed for job in group))


def _configurations(plan: Plan) -> list[list[Job]]:
    groups: dict[str, list[Job]] = {}
    for job in plan.jobs:
        groups.setdefault(job.config_key, []).append(job)
    return list(groups.values())


def validation_images(plan: Plan, asked: str) -> int:
    """How many images all jobs are judged by; `asked` is what needs that they are the same.

    Raises:
        InputError: some are judged by others.
    """
    first = plan.validation[plan.jobs[0].config.dataset.model_dump_json()]
    for job in plan.jobs:
        own = plan.validation[job.config.dataset.model_dump_json()]
        if own != first:
            raise InputError(
                f"{asked}: all jobs must be judged by the same validation images; those of {job} are not "
                f"those of {plan.jobs[0]} ({own.images:,} and {first.images:,}, or others)"
            )
    return first.images
