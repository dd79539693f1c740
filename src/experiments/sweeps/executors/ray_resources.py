"""What the jobs of a sweep take of the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import psutil

from experiments.errors import InputError
from experiments.ingredients.execution import RaySweep
from experiments.sweeps.executors.cores import own_threads
from experiments.sweeps.jobs import Plan

GB = 10**9
OPTIONS = {"CPU": "sweep.cpus", "GPU": "sweep.gpus", "memory": "sweep.memory"}


def share(plan: Plan, options: RaySweep) -> Plan:
    """The plan with threads, as many as a job has cores, and with the workers that are known before Ray is asked."""
    jobs = [
        replace(job, config=job.config.with_threads(own_threads(job.composed) or options.cpus)) for job in plan.jobs
    ]
    return replace(plan, jobs=tuple(jobs), workers=min(options.workers or len(jobs), len(jobs)))


def memory_bytes(options: RaySweep) -> int:
    """Memory of one job; where the options say nothing, as if nodes had as much as this machine."""
    return int(options.memory * GB) if options.memory else int(psutil.virtual_memory().total)


def needs_of(options: RaySweep, threads: int) -> dict[str, float]:
    """What a job with so many threads takes of a node, by Ray's names."""
    needs = {"CPU": max(options.cpus, threads), "GPU": options.gpus, "memory": (options.memory or 0) * GB}
    return {name: need for name, need in (needs | (options.resources or {})).items() if need}


def as_options(needs: Mapping[str, float]) -> dict[str, Any]:
    """Needs as the options of a task."""
    names = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    known = {option: needs[name] for name, option in names.items() if name in needs}
    return known | {"resources": {name: need for name, need in needs.items() if name not in names}}


def room(needs: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> int:
    """How many jobs with such needs the nodes can carry out at a time."""
    return sum(min(int(node.get(name, 0) / need) for name, need in needs.items()) for node in nodes)


def require_room(needs: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuses jobs that no node could ever begin: Ray would let them wait for ever.

    Raises:
        InputError: no node has enough of something, or of everything together.
    """
    if room(needs, nodes):
        return
    for name, need in needs.items():
        most = max((node.get(name, 0.0) for node in nodes), default=0.0)
        if need > most:
            scale = GB if name == "memory" else 1
            key = OPTIONS.get(name, f"sweep.resources.{name}")
            raise InputError(f"{key}: must be ≤ {most / scale:g}, what one node has at most, received {need / scale:g}")
    wanted = ", ".join(f"{need:g} {name}" for name, need in needs.items())
    raise InputError(f"sweep: no node of the cluster has all of {wanted}")
