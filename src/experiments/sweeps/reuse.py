"""What is known of the jobs of a sweep: their own records, and runs that finished elsewhere under the same key."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from experiments.config import former_run_keys
from experiments.errors import InputError
from experiments.results import environment, files, lookup, records
from experiments.results.records import Record
from experiments.results.states import RunState
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


class Archive:
    """The finished runs under a home, by their key: what need not be trained again.

    `any_code` accepts runs of another code and other versions too.
    """

    def __init__(self, home: Path, *, any_code: bool = False) -> None:
        self._home, self._any_code = home, any_code
        self._seen: dict[Path, tuple[int, Record | None]] = {}
        self.reread()

    def _read(self, directory: Path) -> tuple[int, Record | None]:
        """When a record was written, and the record if it is accepted."""
        written, record = 0, None
        with suppress(OSError, InputError):  # a damaged one is named when its own sweep looks at it
            written = (directory / files.RECORD).stat().st_mtime_ns
            if (known := self._seen.get(directory)) and known[0] == written:
                return known
            record = records.load(directory)
        return written, record if record and self.accepts(record) else None

    def accepts(self, record: Record) -> bool:
        """Whether a run has finished, with the code and the versions of today."""
        if record.state != RunState.FINISHED or self._any_code:
            return record.state == RunState.FINISHED
        return record.versions == environment.versions() and _has_todays_code(record)

    def find(self, job: Job) -> Record | None:
        """A finished run of the same key, code and versions."""
        keys = (job.run_key, *former_run_keys(job.config, job.dataset_digest))
        return next((self._finished[key] for key in keys if key in self._finished), None)

    def reread(self) -> None:
        """Looks again, at what was written since: another sweep may have finished a job meanwhile."""
        self._seen = {directory: self._read(directory) for directory in lookup.run_directories(self._home)}
        self._finished = {record.run_key: record for _, record in self._seen.values() if record}


def _has_todays_code(record: Record) -> bool:
    """By the sources that make numbers; an older record has only the digest of the whole package."""
    if record.sources_digest is None:
        return record.code_digest == environment.code_digest()
    return record.sources_digest == environment.sources_digest()


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
    if place.is_new or not directory.is_dir() or records.is_unused(directory):
        return JobState.NEW, None, ""
    try:
        record = records.load(directory)
    except FormatError:  # whole, and not ours to set aside
        raise
    except InputError as error:
        return JobState.DAMAGED, None, str(error)
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
