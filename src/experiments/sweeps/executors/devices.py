"""How the GPUs of this machine are shared between the jobs of a sweep: `sweep.per_gpu` jobs on each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from experiments import gpus
from experiments.config import available_cores
from experiments.errors import InputError
from experiments.gpus import GPU
from experiments.ingredients.execution import LocalSweep
from experiments.sweeps.executors import processes
from experiments.sweeps.executors.cores import own_threads
from experiments.sweeps.executors.processes import Planner, Worker
from experiments.sweeps.jobs import Plan, count
from experiments.training import devices

log = logging.getLogger(__name__)
CONTEXT_BYTES = 2**29  # of a GPU's memory that CUDA and cuDNN take in each process, beside what TensorFlow allocates
LEAST_BYTES = 2**29  # of a job's share
GIGABYTE = 10**9


def use_gpus(plan: Plan) -> Plan:
    """The plan with one job a GPU, or `sweep.per_gpu`; unchanged where there is no GPU or no job may use one.

    Raises:
        InputError: `sweep.per_gpu` leaves a job too little memory.
    """
    sweep = plan.execution
    portable = all(job.config.training.determinism == "portable" for job in plan.jobs)  # a promise of CPUs alone
    if portable or not isinstance(sweep, LocalSweep):
        return plan
    found = seen_by_tensorflow(gpus.visible())
    return share_gpus(plan, found, per_gpu=sweep.per_gpu, wanted=sweep.workers) if found else plan


def share_gpus(plan: Plan, found: Sequence[GPU], *, per_gpu: int, wanted: int | None) -> Plan:
    """The plan with its workers on some GPUs, and the cores shared between them, at least one thread for each.

    Args:
        plan: of which threads and workers are replaced.
        found: one or more.
        per_gpu: jobs at a time on each, 1 or more.
        wanted: jobs at a time on all; None: as many as may be.

    Raises:
        InputError: `sweep.per_gpu` leaves a job too little memory.
    """
    most = len(found) * per_gpu
    if wanted is not None and wanted > most:
        log.warning("sweep.workers: %d on %s need a larger sweep.per_gpu; using %d", wanted, _count(found), most)
    workers = min(most if wanted is None else wanted, most, len(plan.jobs))
    threads = max(1, available_cores() // workers)
    jobs = [replace(job, config=job.config.with_threads(own_threads(job.composed) or threads)) for job in plan.jobs]
    shares = tuple(gpu._replace(memory_bytes=_share(gpu, per_gpu)) for gpu in found[:workers])
    return replace(plan, jobs=tuple(jobs), workers=workers, gpus=shares)


def _share(gpu: GPU, per_gpu: int) -> int | None:
    """The memory that TensorFlow may take for one job; None: as much as it needs, bit by bit."""
    if per_gpu == 1 or gpu.memory_bytes is None:
        return None
    share = gpu.memory_bytes // per_gpu - CONTEXT_BYTES
    if share < LEAST_BYTES:
        most = max(1, gpu.memory_bytes // (CONTEXT_BYTES + LEAST_BYTES))
        size = f"the {gpu.memory_bytes / GIGABYTE:.1f} GB of {gpu.model}"
        raise InputError(f"sweep.per_gpu: must be ≤ {most} on {size}, received {per_gpu}")
    return share


def seen_by_tensorflow(found: Sequence[GPU], ask: Callable[[], int] | None = None) -> Sequence[GPU]:
    """Those of the visible GPUs that TensorFlow can use; where it sees none, that is said.

    Args:
        found: by the driver; where there are none, nobody is asked.
        ask: how many TensorFlow sees; by default a worker's.
    """
    if not found:
        return found
    seen = (ask or _ask_a_worker)()
    if not seen:
        log.warning("training on the CPU: TensorFlow does not see %s (%s)", _count(found), devices.ADVICE)
    return found[:seen]


def _count(found: Sequence[GPU]) -> str:
    return f"{count(len(found), 'GPU')} ({', '.join(dict.fromkeys(gpu.model for gpu in found))})"


def _ask_a_worker() -> int:
    processes.start_server()
    answer = processes.answer(Worker(_tell_seen))
    return answer if isinstance(answer, int) else 0  # its process has died: nothing could be trained there


def _tell_seen(planner: Planner) -> None:
    planner.tell(devices.count_seen())
