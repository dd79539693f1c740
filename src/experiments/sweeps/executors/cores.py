"""How the cores of this machine are shared between the jobs of a sweep: workers × threads ≤ cores."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from experiments.config import RunConfig, available_cores
from experiments.ingredients.execution import LocalSweep
from experiments.runner import warn_of_threads
from experiments.sweeps.jobs import Plan, count

log = logging.getLogger(__name__)


def with_threads(plan: Plan, threads: Sequence[int]) -> Plan:
    """The plan with the threads that its jobs were begun with, and as many workers as the cores then allow."""
    plan = keep_threads(plan, threads)
    most = plan.workers if plan.gpus else available_cores() // max(threads)  # beside a GPU a core may be shared
    return replace(plan, workers=max(1, min(plan.workers, most)))


def keep_threads(plan: Plan, threads: Sequence[int]) -> Plan:
    """The plan with the threads that its jobs were begun with: results depend on them."""
    jobs = [replace(job, config=job.config.with_threads(n)) for job, n in zip(plan.jobs, threads, strict=True)]
    if any(job.composed.training.threads not in (None, n) for job, n in zip(jobs, threads, strict=True)):
        log.warning(
            "training.threads: this sweep was begun with %s; it goes on with that", count(max(threads), "thread")
        )
    return replace(plan, jobs=tuple(jobs))


def share_cores(plan: Plan) -> Plan:
    """The plan with workers and threads, so that workers × threads ≤ cores."""
    cores, wanted = available_cores(), _workers(plan)
    most = max(own_threads(job.composed) or 1 for job in plan.jobs)
    warn_of_threads(most)
    workers = min(max(1, cores // most) if wanted is None else wanted, len(plan.jobs))
    if workers > 1 and workers * most > cores:
        capped = max(1, cores // most)
        needed = f"{count(workers, 'worker')} × {count(most, 'thread')}"
        log.warning("sweep.workers: %s need more than the %s here; using %d", needed, count(cores, "core"), capped)
        workers = capped
    share = max(1, cores // workers)
    jobs = [replace(job, config=job.config.with_threads(own_threads(job.composed) or share)) for job in plan.jobs]
    return replace(plan, jobs=tuple(jobs), workers=workers)


def _workers(plan: Plan) -> int | None:
    return plan.execution.workers if isinstance(plan.execution, LocalSweep) else None


def own_threads(config: RunConfig) -> int | None:
    """The threads that a config asks for by itself; None: a share of the cores."""
    return 1 if config.training.determinism == "portable" else config.training.threads
