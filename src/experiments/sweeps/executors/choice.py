"""What the options of a sweep decide: which executor carries out its plan, and what a job gets of the machine.

A new executor is a file beside this one, its options, and an entry here.
"""

from __future__ import annotations

from collections.abc import Sequence

import psutil

from experiments.ingredients.execution import RaySweep, SlurmSweep
from experiments.sweeps.executor import Executor
from experiments.sweeps.executors import cores, ray_resources, slurm_resources
from experiments.sweeps.executors.local import LocalExecutor
from experiments.sweeps.executors.ray_cluster import RayExecutor
from experiments.sweeps.executors.slurm import SlurmExecutor
from experiments.sweeps.jobs import Plan
from experiments.sweeps.sweep import Sweep


def make_executor(sweep: Sweep) -> Executor:
    """The executor that the sweep's options ask for."""
    plan = sweep.plan
    if isinstance(plan.execution, SlurmSweep):
        return SlurmExecutor(plan.execution, plan.key, sweep.place.path, len(plan.jobs))
    if isinstance(plan.execution, RaySweep):
        return RayExecutor(plan.execution, threads=plan.threads, home=sweep.home)
    return LocalExecutor(plan.workers, plan.gpus)


def share_resources(plan: Plan) -> Plan:
    """The plan with workers and threads.

    Raises:
        InputError: the sweep's options ask for what is not there.
    """
    if isinstance(plan.execution, SlurmSweep):
        return slurm_resources.share(plan, plan.execution)
    if isinstance(plan.execution, RaySweep):
        return ray_resources.share(plan, plan.execution)
    return cores.share_cores(plan)


def share_again(plan: Plan, threads: Sequence[int]) -> Plan:
    """The plan of a sweep that was begun before, with the threads that its jobs were begun with."""
    if isinstance(plan.execution, SlurmSweep | RaySweep):
        return cores.keep_threads(plan, threads)
    return cores.with_threads(plan, threads)


def memory_of_a_job(plan: Plan) -> int:
    """Bytes that a job may use: its part of what is free here, or of a node what the options say."""
    if isinstance(plan.execution, SlurmSweep):
        return slurm_resources.memory_bytes(plan.execution)
    if isinstance(plan.execution, RaySweep):
        return ray_resources.memory_bytes(plan.execution)
    return int(psutil.virtual_memory().available) // plan.workers


def unmet(sweep: Sweep) -> str:
    """What the options asked of the machines in vain, told when the sweep ends; empty where there is nothing."""
    plan = sweep.plan
    if isinstance(plan.execution, SlurmSweep):
        return slurm_resources.unmet(plan.execution, [s.record for s in sweep.statuses if s.record])
    return ""


def waits(plan: Plan) -> bool:
    """Whether the planner stays until its jobs have ended."""
    return not isinstance(plan.execution, SlurmSweep) or plan.execution.wait
