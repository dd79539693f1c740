"""A sweep of JOBS jobs whose first STARTS are done at once: what its planner takes is printed as JSON.

Run as `planned_starts.py JOBS STARTS`, with EXPERIMENTS_HOME: an empty folder.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from benchmarks.planning import command
from experiments import run
from experiments.results import environment
from experiments.results.process import Process
from experiments.results.records import DatasetSummary, Record
from experiments.sweeps import launch
from experiments.sweeps.executor import Ended, Ending, Event, Run
from experiments.sweeps.sweep import Sweep


class AtOnce:
    """An executor whose runs have finished when they are submitted; it leaves after so many, and keeps the time.

    Attributes:
        spent: seconds in `submit`, which are not the planner's.
    """

    slots = 2

    def __init__(self, sweep: Sweep, starts: int) -> None:
        self._jobs, self._starts = {job.number: job for job in sweep.plan.jobs}, starts
        self._ended: list[int] = []
        self._began = self.spent = 0.0
        self.count = 0

    def open(self) -> None: ...

    def submit(self, run: Run, output: Path) -> int:
        del output
        began = time.perf_counter()
        self._began = self._began or began
        if self.count == self._starts:
            self._tell(began)
        number = run.origin.job or 0
        job = self._jobs[number]
        Record(
            name=f"many/{number}", run_key=job.run_key, config_key=job.config_key, seed=run.config.seed, job=number,
            started_at=datetime.now(UTC), process=Process.current(), parameters=650, state="finished", epochs_run=1,
            dataset=DatasetSummary(name="digits", digest=job.dataset_digest, source="made up"), code_digest="c" * 64,
            versions=environment.versions(), sources_digest=environment.sources_digest(), sweep=run.origin.sweep,
            metrics={"validation/accuracy": 0.5},
        ).create(run.directory)  # fmt: skip
        self._ended.append(number)
        self.count += 1
        self.spent += time.perf_counter() - began
        return number

    def _tell(self, now: float) -> NoReturn:
        each = (now - self._began - self.spent) / self._starts
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(json.dumps({"milliseconds": 1000 * each, "megabytes": peak}))
        sys.stdout.flush()
        raise SystemExit(0)

    def events(self, timeout_seconds: float) -> Iterator[tuple[int, Event]]:
        del timeout_seconds
        ended, self._ended = self._ended, []
        for number in ended:
            yield number, Ended(Ending.FINISHED)

    def stop(self, handle: int, *, now: bool) -> None: ...

    def kill(self, handle: int) -> None: ...

    def close(self) -> None: ...


def main(jobs: int, starts: int) -> None:
    """Plans, starts, and ends the process."""
    launch.make_executor = lambda sweep: AtOnce(sweep, starts)  # type: ignore[attr-defined]
    launch.processes.start_server = lambda: None  # type: ignore[attr-defined]
    launch.preflight.check = lambda *_: None  # type: ignore[attr-defined]
    sys.argv = command(jobs)[1:]
    run.main()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
