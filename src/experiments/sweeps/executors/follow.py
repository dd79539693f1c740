"""Events of a run read from its directory, for executors that share nothing but the disk with their jobs.

`history.csv` tells of epochs, `record.json` of the end. What a run directory held before the run was submitted is no
news.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from experiments.errors import InputError
from experiments.results import files, records
from experiments.results.states import RunState
from experiments.sweeps.executor import Ended, Ending, EpochDone, Event


class Follower:
    """Reads what is new in a run directory; make it before the run is started.

    The end is told once, whoever has written it: `records.load` reads a run whose process or lease is gone as
    interrupted, so a host that has died is seen too.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._before = _written(directory / files.RECORD)
        self._epochs = len(_rows(directory))
        self._ended = False

    def events(self) -> Iterator[Event]:
        """Epochs that have finished since the last call, and the end; a run that is gone without a word was killed."""
        if self._ended or _written(self._directory / files.RECORD) == self._before:
            return
        with suppress(InputError):  # it is being replaced, or the disk is slow: the next call sees it
            record = records.load(self._directory)
            yield from self._new_epochs()
            if record.state != RunState.RUNNING:
                self._ended = True
                yield _ending(record)

    def _new_epochs(self) -> Iterator[EpochDone]:
        rows = _rows(self._directory)
        self._epochs = min(self._epochs, len(rows))  # it went back to an older checkpoint
        for row in rows[self._epochs :]:
            self._epochs = row.epoch
            yield EpochDone(row)


def _ending(record: records.Record) -> Ended:
    if record.state == RunState.INTERRUPTED and record.finished_at is None:  # it has not written that itself
        return Ended(Ending.KILLED, "Killed: the process is gone and has said nothing")
    error = record.error
    return Ended(Ending(record.state), f"{error.type}: {error.message}" if error else "")


def _written(path: Path) -> int | None:
    """When a file was replaced last, nanoseconds; None where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _rows(directory: Path) -> list[files.EpochRow]:
    try:
        return files.read_history(directory / files.HISTORY)
    except (InputError, OSError):
        return []
