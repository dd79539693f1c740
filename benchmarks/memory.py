"""Claim: a worker needs little memory of its own; TensorFlow's is shared."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter

import psutil

from benchmarks.measurement import Row, state
from experiments.config import available_cores

EPOCHS, LIMIT, EVERY_SECONDS = 2, 600, 0.2


def measure() -> list[Row]:
    """A sweep of as many jobs as cores on MNIST; the memory that only the worker has (unique set size), at its peak."""
    peaks: Counter[int] = Counter()
    command = ["-m", "experiments.run", "-m", "dataset=mnist", f"training.epochs={EPOCHS}"]
    with tempfile.TemporaryDirectory() as folder:
        environ = os.environ | {"EXPERIMENTS_HOME": folder}
        command.append(f"seed=range({available_cores()})")
        with subprocess.Popen([sys.executable, *command], env=environ, stdout=subprocess.DEVNULL) as process:
            planner = psutil.Process(process.pid)
            while process.poll() is None:
                for worker in workers(planner):
                    peaks[worker.pid] = max(peaks[worker.pid], own_bytes(worker))
                time.sleep(EVERY_SECONDS)
    if process.returncode:
        raise RuntimeError(f"the sweep ended with exit code {process.returncode}")
    largest = sorted((peak / 1e6 for peak in peaks.values()), reverse=True)[: available_cores()]
    return [state("peak memory of a worker beyond what is shared", largest, " MB", f"≤ {LIMIT} MB", digits=0)]


def workers(planner: psutil.Process) -> list[psutil.Process]:
    """The processes that the planner's fork server has made."""
    try:
        return [worker for server in planner.children() for worker in server.children()]
    except psutil.NoSuchProcess:
        return []


def own_bytes(process: psutil.Process) -> int:
    """Bytes of memory that a process shares with no other; 0 where it is gone."""
    try:
        return int(process.memory_full_info().uss)
    except psutil.NoSuchProcess:
        return 0
