"""Which executor carries out a plan. A new one is a file beside this one, its options, and an entry here."""

from __future__ import annotations

from experiments.sweeps.executor import Executor
from experiments.sweeps.executors.local import LocalExecutor
from experiments.sweeps.sweep import Sweep


def make_executor(sweep: Sweep) -> Executor:
    """The executor that the sweep's options ask for."""
    return LocalExecutor(sweep.plan.workers, sweep.plan.gpus)
