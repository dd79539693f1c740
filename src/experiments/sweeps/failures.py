"""What a process that is gone could not write itself: its state, its error, and what it printed last."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from experiments.bounded import open_file
from experiments.errors import InputError
from experiments.recording import Origin, new_record
from experiments.results import files, lease, records
from experiments.results.lease_file import look
from experiments.results.records import DatasetSummary, Failure, Record
from experiments.results.states import RunState
from experiments.sweeps.directory import Place
from experiments.sweeps.executor import Ended, Ending
from experiments.sweeps.jobs import Job
from experiments.sweeps.status import JobState, Status

log = logging.getLogger(__name__)
DYING_SECONDS, POLL_SECONDS = 5.0, 0.05
ALIKE = 3  # first jobs that fail with the same error: the rest would too


def gather_output(job: Job, place: Place) -> None:
    """Moves what a job printed to the end of its `run.log`; it stays where it is while there is none.

    A job that is linked to a run made elsewhere keeps nothing: that run has a log of its own.
    """
    output, directory = place.output_of(job), place.directory_of(job)
    with suppress(OSError, InputError), open_file(output) as printed:
        is_empty = not os.fstat(printed.fileno()).st_size
        if directory.is_dir() and not is_empty and not directory.is_symlink():
            with (directory / files.LOG).open("ab") as file:
                shutil.copyfileobj(printed, file)
        if directory.is_dir() or is_empty:
            output.unlink()


def gather_leftovers(sweep_jobs: Sequence[Job], place: Place) -> None:
    """Moves what jobs of an earlier start have printed, whose planner was killed, to where it belongs.

    Files that it was writing are removed.
    """
    for job in sweep_jobs:
        gather_output(job, place)
    for path in place.path.iterdir():
        if files.DRAFT.fullmatch(path.name):
            path.unlink(missing_ok=True)


def record(status: Status, place: Place, parent: str | None) -> None:
    """Writes a job's failure into its record, a new one where it got none: so it is told wherever runs are read.

    A run that another process has taken over is left to it.

    Args:
        status: of the job; its message is `<type>: <text>`.
        place: of the sweep.
        parent: MLflow id of the sweep's run, for a new record; None where there is none.
    """
    directory = place.directory_of(status.job)
    with suppress(InputError, OSError):  # the directory is gone or full: the planner has said what happened
        _wait_for_its_end(directory)
        number = records.load(directory).lease if (directory / files.RECORD).exists() else 0
        with lease.held(directory, after=number) as mine:
            _record(status, place, parent, mine.number)


def _wait_for_its_end(directory: Path) -> None:
    """Until the process of a run is gone: an engine may tell that a job has ended while its process still dies."""
    deadline = time.monotonic() + DYING_SECONDS
    while (found := look(directory)) and found.holder and found.holder.is_comparable():
        if found.is_over() or time.monotonic() > deadline:
            return
        time.sleep(POLL_SECONDS)


def _record(status: Status, place: Place, parent: str | None, lease_number: int) -> None:
    kind, _, text = status.message.partition(": ")
    failure = Failure(type=kind, message=text)
    directory = place.directory_of(status.job)
    try:
        found = records.load(directory)
    except InputError:
        if directory.exists() and not records.is_unused(directory):
            return
        found = _new(status, place, parent)
        found.create(directory)
        files.write_atomically(directory / files.CONFIG, status.job.config.to_yaml())
    if found.state != RunState.FINISHED and status.job.is_run(found.run_key):
        found.write(state=RunState.FAILED, error=failure, lease=lease_number, finished_at=files.now())
        gather_output(status.job, place)  # before the message, which is the last word
        with (directory / files.LOG).open("a") as file:
            file.write(f"{status.message}\n")


def note_pause(status: Status, place: Place) -> None:
    """Writes into a run's record that its sweep has paused it: it was asked to stop, and nobody did so by hand."""
    directory = place.directory_of(status.job)
    with suppress(InputError, OSError):  # it had not begun, or another process has taken it over
        found = records.load(directory)
        with lease.held(directory, after=found.lease) as mine:
            found = records.load(directory)
            if found.state == RunState.INTERRUPTED:
                known = (
                    found.mlflow if found.mlflow.run_id is None else found.mlflow.model_copy(update={"synced": False})
                )
                found.write(state=RunState.PAUSED, mlflow=known, lease=mine.number)


def _new(status: Status, place: Place, parent: str | None) -> Record:
    job = status.job
    dataset = DatasetSummary(name=job.config.dataset.title, digest=job.dataset_digest, source="not loaded")
    origin = Origin(sweep=place.name, job=job.number, varied=job.varied, parent_run_id=parent)
    return new_record(job.config, dataset, status.parameters or 0, origin)


def reason_to_stop(endings: Sequence[Status], place: Place, *, fail_fast: bool) -> str:
    """Why a sweep stops by itself, by how jobs have ended so far; empty where it goes on.

    Args:
        endings: of the jobs that have ended, in that order.
        place: of the sweep.
        fail_fast: whether one failed job is enough.
    """
    if len(endings) == ALIKE and are_alike(endings, place):
        return f"the first {ALIKE} jobs all failed with the same error"
    return "sweep.fail_fast=true" if fail_fast and any(s.state == JobState.FAILED for s in endings) else ""


def are_alike(statuses: Sequence[Status], place: Place) -> bool:
    """Whether all of some jobs have failed with the same error."""
    messages = {status.message.replace(str(place.directory_of(status.job)), "") for status in statuses}
    return len(messages) == 1 and all(status.state == JobState.FAILED for status in statuses)


def judge(ended: Ended, status: Status, place: Place, *, dropped: bool, killed: bool) -> Ended:
    """The ending of a run; one whose process died before it could report is judged by its record.

    Args:
        ended: what was told of it.
        status: of its job.
        place: of the sweep.
        dropped: whether it was asked to pause, because it is not wanted any more.
        killed: whether all runs were ended at the user's second request.
    """
    if ended.state in (Ending.KILLED, Ending.INTERRUPTED) and has_finished(status, place):
        return Ended(Ending.FINISHED)  # its end was not needed any more
    if ended.state == Ending.KILLED and killed:
        return Ended(Ending.INTERRUPTED)
    if ended.state == Ending.INTERRUPTED and dropped:
        note_pause(status, place)
        return Ended(Ending.PAUSED)
    return ended


def has_finished(status: Status, place: Place) -> bool:
    """Whether a job's own run is whole, however its process ended."""
    with suppress(InputError):
        return records.load(place.directory_of(status.job)).state == RunState.FINISHED
    return False


def is_unmirrored(status: Status, place: Place) -> bool:
    """Whether a job's process was gone before it could tell MLflow how the run ended."""
    with suppress(InputError):
        found = records.load(place.directory_of(status.job))
        return found.sweep == place.name and not found.mlflow.synced and found.mlflow.error is None
    return False
