"""Claim: the same command again finds out in seconds that all of 500 jobs are done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measurement import Row, run, state
from experiments.errors import InputError
from experiments.results import files, records

JOBS, ROUNDS, POLL_SECONDS = 500, 5, 0.02
SWEEP = Path("multirun") / "many"
COMMAND = [
    "-m", "experiments.run", "-m", "dataset=digits", "model=linear", "training.epochs=1", "tracking=none",
    "sweep.title=many", f"seed=range({JOBS})",
]  # fmt: skip


def measure() -> list[Row]:
    """A sweep that was stopped after its first job, whose others are copies of that one under their own keys."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        begin(home, COMMAND)
        fill(home / SWEEP)
        run(COMMAND, home)  # finds all done, and compares the runs: once
        taken = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            printed = run(COMMAND, home)
            taken.append(time.perf_counter() - started)
            if f"{JOBS} jobs: {JOBS} done" not in printed:
                raise RuntimeError(printed[:1000])
    return [state(f"planning and resuming a sweep of {JOBS} finished jobs, with unchanged code", taken, " s", "≤ 5 s")]


def begin(home: Path, command: Sequence[str]) -> float:
    """Starts a sweep and stops it when its first job has finished; returns the seconds until then."""
    environ = os.environ | {"EXPERIMENTS_HOME": str(home)}
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, *command], env=environ, stdout=subprocess.DEVNULL) as process:
        while not is_finished(home / SWEEP / "0") and process.poll() is None:
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - started
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
    return seconds


def is_finished(directory: Path) -> bool:
    """Whether the run there has finished."""
    try:
        return records.load(directory).state == "finished"
    except InputError:
        return False


def fill(sweep: Path) -> None:
    """Makes every job of the plan a copy of the first."""
    first = json.loads((sweep / "0" / files.RECORD).read_text())
    for job in json.loads((sweep / "plan.json").read_text())["jobs"][1:]:
        directory = sweep / str(job["number"])
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(sweep / "0", directory)
        own = {key: job[key] for key in ("run_key", "config_key", "varied")}
        own |= {"job": job["number"], "seed": job["varied"]["seed"], "name": f"many/{job['number']}"}
        (directory / files.RECORD).write_text(json.dumps(first | own))
