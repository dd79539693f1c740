"""What is done beside the jobs of a sweep: reports on what is finished so far, and mirroring what was killed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from experiments.config import load_config
from experiments.errors import ExperimentsError, InputError
from experiments.results import files, records
from experiments.sweeps import failures
from experiments.sweeps.executor import Ended, Ending
from experiments.sweeps.executors import processes
from experiments.sweeps.executors.processes import Planner, Worker
from experiments.sweeps.status import JobState, Status
from experiments.sweeps.sweep import Sweep

REPORT_SECONDS = 30.0  # between the reports of a running sweep: each costs a core a second or more
MIRROR_SECONDS = 30.0  # for MLflow to learn of the runs that were killed


class Compared(NamedTuple):
    """A comparison was written: its answer, sentence by sentence, and its files."""

    sentences: tuple[str, ...]
    files: tuple[Path, ...]


class Followups:
    """The work beside the jobs of one sweep; `parent` is its MLflow run, if it has one."""

    def __init__(self, sweep: Sweep, parent: str | None) -> None:
        self._sweep, self._parent = sweep, parent
        self._mirrors: list[Worker] = []
        self._reporter: Worker | None = None

    def job_ended(self, status: Status, *, more_to_come: bool) -> None:
        """Mirrors a run whose process could not do it, and refreshes the report while the sweep goes on."""
        place = self._sweep.place
        if self._parent and failures.is_unmirrored(status, place):
            directory = place.directory_of(status.job)
            self._mirrors.append(Worker(mirror, directory, self._sweep.home, self._parent))
        if more_to_come and status.state == JobState.DONE:
            self._refresh_report()

    def _refresh_report(self) -> None:
        """Compares what is done so far, beside the jobs and not too often; the end makes the last report."""
        if self._reporter:
            if time.monotonic() < self._reporter.started + REPORT_SECONDS:
                return
            self._reporter.leave(0)
            self._reporter = None
        with suppress(InputError):  # the end tells what is wrong
            known = [*self._sweep.directories(JobState.DONE), *self._sweep.directories(JobState.PAUSED)]
            self._reporter = Worker(compare, known, self._sweep.place.path)

    def close(self) -> None:
        """Waits for what is under way, not for long."""
        deadline = time.monotonic() + MIRROR_SECONDS
        for worker in (*self._mirrors, *filter(None, [self._reporter])):
            worker.leave(max(0.0, deadline - time.monotonic()))


def catch_up(sweep: Sweep, parent: str) -> None:
    """Mirrors runs that could not be mirrored in their time, until one fails again."""
    for record in sweep.records():
        if record.mlflow.synced:
            continue
        with suppress(InputError):
            processes.ask(mirror, record.directory, sweep.home, parent)
            record.mlflow = records.load(record.directory).mlflow
        if not record.mlflow.synced:
            return


def mirror(planner: Planner, directory: Path, home: Path, parent: str) -> None:
    """Mirrors a run that could not do it itself: it was killed, or the store was not there.

    Args:
        planner: is told how it ended.
        directory: of the run.
        home: which holds the store.
        parent: the sweep's MLflow run.
    """
    from experiments.results import tracking

    try:
        record = records.load(directory)
        record.mlflow = record.mlflow.model_copy(update={"parent_run_id": record.mlflow.parent_run_id or parent})
        tracking.synchronise(record, load_config(directory / files.CONFIG), home)
    except ExperimentsError as error:
        planner.tell(Ended(Ending.FAILED, str(error)))
    else:
        planner.tell(Ended(Ending.FINISHED))


def compare(planner: Planner, runs: Sequence[Path], directory: Path) -> None:
    """Compares finished runs in a process of its own.

    Args:
        planner: is told `Compared`, or what is wrong.
        runs: their directories.
        directory: where the report is written.
    """
    try:
        planner.tell(compare_runs(runs, directory))
    except (ExperimentsError, OSError) as error:
        planner.tell(Ended(Ending.FAILED, str(error)))


def compare_runs(runs: Sequence[Path], directory: Path) -> Compared:
    """Compares finished runs and writes the report into `directory`.

    Raises:
        InputError: a run cannot be read, or nothing can be compared.
        OSError: the report cannot be written.
    """
    from experiments.comparison import comparison
    from experiments.comparison.report import write
    from experiments.comparison.sentences import headlines

    compared = comparison.compare([records.load(run) for run in runs])
    written = write(compared, directory)
    return Compared(tuple(sentence.text for sentence in headlines(compared)), tuple(written))
