"""What is known of the jobs of a sweep: their own records, and runs that finished elsewhere under the same key."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress

from experiments.errors import InputError
from experiments.results import files, records
from experiments.results.records import Record
from experiments.results.states import RunState
from experiments.sweeps.archive import Archive
from experiments.sweeps.directory import Place, set_aside
from experiments.sweeps.jobs import Job, Plan
from experiments.sweeps.status import JobState, Status
from experiments.training.checkpoint import Checkpoints
from experiments.upgrades import FormatError

log = logging.getLogger(__name__)
STATES = {
    RunState.FINISHED: JobState.DONE,
    RunState.RUNNING: JobState.RUNNING,
    RunState.PAUSED: JobState.PAUSED,
    RunState.INTERRUPTED: JobState.INTERRUPTED,
    RunState.FAILED: JobState.FAILED,
    RunState.DIVERGED: JobState.DIVERGED,
}
# A diverged job is a result: the same seed would diverge at the same epoch again.
RESULTS = (JobState.DONE, JobState.DIVERGED)


def look_at(plan: Plan, place: Place, archive: Archive | None) -> list[Status]:
    """Where every job stands before the sweep begins. Writes nothing.

    Args:
        plan: the jobs, in the order of the result.
        place: of the sweep, new or begun before.
        archive: finished runs that a job may be replaced by; None: only the jobs' own records count.

    Raises:
        InputError: the directory of a job holds another run than the plan says.
    """
    return [_look_at(job, place, archive) for job in plan.jobs]


def _look_at(job: Job, place: Place, archive: Archive | None) -> Status:
    before, record, message = _own(job, place)
    if record and place.directory_of(job).is_symlink() and not (archive and archive.accepts(record)):
        before, record = JobState.NEW, None  # linked when more was accepted
    if before not in RESULTS and archive and (found := archive.find(job)):
        before, record, message = JobState.DONE, found, ""
    state = before if before in RESULTS else JobState.WAITING
    return Status(job, state, before, record=record if state == JobState.DONE else None, message=message)


def read_rows(statuses: Sequence[Status], place: Place) -> None:
    """Notes the epochs that every job has finished, for a strategy that decides by them."""
    for status in statuses:
        directory = place.directory_of(status.job)
        with suppress(InputError, OSError):
            if status.record:
                status.rows = status.record.rows
            elif status.state in RESULTS:
                status.rows = records.load(directory).rows
            elif status.before not in (JobState.NEW, JobState.DAMAGED):
                status.rows = Checkpoints(directory / files.CHECKPOINT).rows()


def _own(job: Job, place: Place) -> tuple[JobState, Record | None, str]:
    directory = place.directory_of(job)
    if place.is_new:
        return JobState.NEW, None, ""
    try:
        record = records.load(directory)
    except FormatError:  # whole, and not ours to set aside
        raise
    except InputError as error:
        is_there = directory.is_dir() and not records.is_unused(directory)
        return (JobState.DAMAGED, None, str(error)) if is_there else (JobState.NEW, None, "")
    if not job.is_run(record.run_key):
        raise InputError(f"{directory}: holds another run than the plan says; move it away and give the command again")
    message = f"{record.error.type}: {record.error.message}" if record.error else ""
    return STATES[record.state], record, message


def tidy(statuses: Sequence[Status], place: Place) -> None:
    """Links what was made elsewhere into the sweep, and clears the way for what is run again.

    Raises:
        InputError: the directory cannot be written.
    """
    try:
        _tidy(statuses, place)
    except OSError as error:
        raise InputError(f"{place.path}: cannot be written ({error.strerror})") from None


def _tidy(statuses: Sequence[Status], place: Place) -> None:
    for status in statuses:
        directory = place.directory_of(status.job)
        if status.state == JobState.DONE:
            link(status, place)
        elif directory.is_symlink():
            directory.unlink()  # what it led to is gone, or no longer accepted
        elif status.before == JobState.DAMAGED:
            log.warning("%s; set aside as %s, and the job is run again", status.message, set_aside(directory, place))


def link(status: Status, place: Place) -> None:
    """Makes the run of a job that is done part of the sweep, where it was made elsewhere; notes its epochs."""
    directory = place.directory_of(status.job)
    if status.record is None or directory.resolve() == status.record.directory.resolve():
        return
    if not status.rows:
        read_rows([status], place)
    if directory.is_symlink():
        directory.unlink()
    elif directory.exists():
        set_aside(directory, place)  # a part of the same run, which has finished elsewhere
    directory.symlink_to(os.path.relpath(status.record.directory, directory.parent))


def take(status: Status, place: Place) -> None:
    """Makes a run that has just finished, here or elsewhere, part of the sweep; one that is gone has failed."""
    try:
        status.record = status.record or records.load(place.directory_of(status.job))
        link(status, place)
    except (InputError, OSError) as error:  # somebody has deleted or damaged it
        status.state, status.message = JobState.FAILED, str(error)
