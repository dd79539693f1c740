"""Claim: a run that is paused and goes on later costs seconds, not a start from the beginning."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measurement import HERE, Row, on, state

ROUNDS, JOBS, PAUSES = 5, 4, 2  # a search that keeps all pauses each job at 1/16 and at 1/4 of its epochs
WAIT_SECONDS = 600
GRID = (
    "-m", "experiments.run", "-m", "dataset=mnist", "dataset.train_limit=6000", "training.epochs=8", "tracking=none",
    "training.threads=1", "sweep.workers=1", "optimizer=sgd,adam", "optimizer.learning_rate=0.003,0.01",
)  # fmt: skip
SEARCH = (*GRID, f"sweep.jobs={JOBS}", "sweep.keep=1", "sweep.finalists=2")


def measure() -> list[Row]:
    """The same jobs one after another, with and without pauses, on one core: the default network, 6,000 images."""
    seconds = []
    with on(1):
        for number in range(ROUNDS):
            sides = {side: lasted(side) for side in ((GRID, SEARCH) if number % 2 == 0 else (SEARCH, GRID))}
            seconds.append((sides[SEARCH] - sides[GRID]) / (JOBS * PAUSES))
            print(f"  round {number + 1}: {sides[SEARCH]:.1f} s with pauses, {sides[GRID]:.1f} s without", flush=True)
    return [state("a pause and its continuation, beside training", seconds, " s", "≤ 3 s")]


def lasted(arguments: tuple[str, ...]) -> float:
    """Seconds from the plan of a sweep to its summary; the race of a search's finalists is not waited for.

    Raises:
        RuntimeError: the sweep ended without a summary, or took longer than 10 minutes.
    """
    here = os.pathsep.join([str(HERE.parent / "src"), str(HERE.parent)])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environ = os.environ | {"EXPERIMENTS_HOME": folder, "PYTHONPATH": here}
        command = [sys.executable, *arguments]
        with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + WAIT_SECONDS
            while not (summaries := list(Path(folder).glob("multirun/*/summary.csv"))):
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    raise RuntimeError(f"{' '.join(arguments)}: ended without a summary")
                time.sleep(0.1)
            summary = summaries[0]
            taken = summary.stat().st_mtime - summary.with_name("plan.json").stat().st_mtime
            process.terminate()
            process.terminate()
    return taken
