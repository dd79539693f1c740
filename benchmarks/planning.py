"""Claim: the planner of a sweep of thousands of jobs is quick, and takes little memory."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from benchmarks.measurement import HERE, Row, run, state
from benchmarks.resume import SWEEP, begin, fill

SIZES = {5_000: 5, 20_000: 9}  # jobs → the most seconds to the first that is done
STARTS, ROUNDS = 200, 5
MOST_MILLISECONDS, MOST_MB, MOST_SECONDS = 5, 500, 2


def measure() -> list[Row]:
    """Starts with runs that are done at once, first jobs of real sweeps, and a second look at a finished one."""
    rows: list[Row] = []
    for jobs, seconds in SIZES.items():
        starts = [_start(jobs) for _ in range(ROUNDS)]
        each = [one["milliseconds"] for one in starts]
        rows.append(state(f"the planner's part of a start, of {jobs:,} jobs", each, " ms", f"≤ {MOST_MILLISECONDS} ms"))
        firsts = [_first(jobs) for _ in range(ROUNDS)]
        rows.append(state(f"a sweep of {jobs:,} jobs, until its first is done", firsts, " s", f"≤ {seconds} s"))
    peaks = [one["megabytes"] for one in starts]
    rows.append(state(f"memory of the planner of {jobs:,} jobs", peaks, " MB", f"≤ {MOST_MB} MB", digits=0))
    return [*rows, _second_look(min(SIZES))]


def _start(jobs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        printed = run([str(HERE / "planned_starts.py"), str(jobs), str(STARTS)], Path(folder))
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    print(f"  {jobs:,} jobs: {found['milliseconds']:.1f} ms a start, {found['megabytes']:.0f} MB", flush=True)
    return found


def _first(jobs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        seconds = begin(Path(folder), command(jobs))
    print(f"  {jobs:,} jobs: the first is done after {seconds:.1f} s", flush=True)
    return seconds


def command(jobs: int, *more: str) -> list[str]:
    """The sweep, as `python` is given it."""
    return [
        "-m", "experiments.run", "-m", "dataset=digits", "model=linear", "training.epochs=1", "tracking=none",
        "figures=false", "sweep.title=many", f"sweep.most_jobs={jobs}", f"seed=range({jobs})", *more,
    ]  # fmt: skip


def _second_look(jobs: int) -> Row:
    """What is known of every job, without the comparison of the runs: the plan is printed."""
    with tempfile.TemporaryDirectory() as folder:
        home, taken = Path(folder), []
        begin(home, command(jobs))
        fill(home / SWEEP)
        for _ in range(ROUNDS):
            started = time.perf_counter()
            printed = run(command(jobs, "sweep.dry_run=true"), home)
            taken.append(time.perf_counter() - started)
            if f"{jobs} jobs: {jobs} done" not in printed:
                raise RuntimeError(printed[:1000])
    return state(f"a second look at a finished sweep of {jobs:,} jobs", taken, " s", f"≤ {MOST_SECONDS} s")
