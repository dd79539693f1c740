"""Each distinct architecture of a sweep, built once before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.config import RunConfig, available_cores
from experiments.errors import InputError
from experiments.gpus import GPU
from experiments.ingredients.registry import chosen, place_of
from experiments.results import own_code
from experiments.sweeps.executors import processes
from experiments.sweeps.executors.choice import memory_of_a_job
from experiments.sweeps.executors.processes import Planner, Worker
from experiments.sweeps.jobs import Plan, name_jobs
from experiments.sweeps.status import Status
from experiments.sweeps.worker import check_code


class Built(NamedTuple):
    """An architecture could be built (`parameters`), or could not (`mistakes`)."""

    parameters: int
    mistakes: tuple[str, ...] = ()


def check(plan: Plan, todo: Sequence[Status]) -> None:
    """Notes how many parameters each job has; as many networks are built at a time as jobs will run.

    Raises:
        InputError: with the jobs that share an architecture which cannot be built.
    """
    groups = _alike(todo)
    side_by_side = min(plan.workers, available_cores())  # here, wherever the jobs run
    running = [_start(plan, group, number) for number, group in enumerate(groups[:side_by_side])]
    mistakes: list[str] = []
    varied = [job.varied for job in plan.jobs]
    for number, group in enumerate(groups):
        built = _built(processes.answer(running[number]))
        if len(running) < len(groups):
            running.append(_start(plan, groups[len(running)], number))
        named = name_jobs([status.job.number for status in group], varied)
        mistakes += [f"{named}: {mistake}" for mistake in built.mistakes]
        for status in group:
            status.parameters = built.parameters
    if mistakes:
        raise InputError(*mistakes)


def _start(plan: Plan, group: Sequence[Status], number: int) -> Worker:
    """Begins to build; `number` counts the workers, one more begins on the GPU of the one that has ended."""
    config = group[0].job.config
    shape = plan.image_shapes[config.dataset.model_dump_json()]
    free = memory_of_a_job(plan)
    gpu = plan.gpus[number % len(plan.gpus)] if plan.gpus else None
    return Worker(try_to_build, config, shape, free, own_code.code_digest(config.model_dump()), gpu)


def _alike(todo: Sequence[Status]) -> list[list[Status]]:
    """The jobs that share a network (the same layers, for the same images) and what they use of the user's code."""
    groups: dict[str, list[Status]] = {}
    for status in todo:
        config = status.job.config
        network = config.model_dump_json(include={"model": True, "dataset": True})
        penalties = config.regularization.dropout > 0, config.regularization.l2 > 0  # how much changes no shape
        own = sorted(map(place_of, chosen(config.model_dump())))
        groups.setdefault(f"{network} {penalties} {own}", []).append(status)
    return list(groups.values())


def _built(answer: Any) -> Built:
    if isinstance(answer, Built):
        return answer
    return Built(0, (f"model: cannot be built (the process that tried ended with {answer})",))


def try_to_build(
    planner: Planner,
    config: RunConfig,
    shape: tuple[int, int, int, int],
    free_bytes: int,
    code_digest: str,
    gpu: GPU | None = None,
) -> None:
    """Builds an architecture in a process of its own, and tells the planner whether it can be built.

    Args:
        planner: is told `Built`.
        config: a job's.
        shape: of the images: height, width, channels, and the number of classes.
        free_bytes: of memory, that one job of the sweep may use.
        code_digest: of the sources that the sweep was planned with.
        gpu: to try a step of training on; None: the job trains on the CPU.
    """
    from experiments.training import devices, runtime

    try:
        if gpu:
            devices.take(gpu)
        check_code(code_digest, config)
        runtime.prepare(config.training)
        from experiments.training import capacity

        planner.tell(Built(capacity.check(config, shape[:3], shape[3], free_bytes=free_bytes).parameters))
    except InputError as error:
        planner.tell(Built(0, error.mistakes))
    except Exception as error:  # whatever Keras says: the user has to see it before anything is trained
        planner.tell(Built(0, (f"model: {type(error).__name__}: {' '.join(str(error).split())}",)))
