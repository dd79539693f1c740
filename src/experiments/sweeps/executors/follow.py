"""Events of a run read from its directory, for executors that share nothing but the disk with their jobs.

`history.csv` tells of epochs, `record.json` of the end. What a run directory held before the run was submitted is no
news.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.results import files, records
from experiments.results.states import RunState
from experiments.sweeps.executor import Ended, Ending, EpochDone, Event, Moved

ALIVE_SECONDS = 5.0  # between looks at the lease of a run that has written nothing new


class Follower:
    """Reads what is new in a run directory; make it before the run is started.

    The end is told once, whoever has written it: `records.load` reads a run whose process or lease is gone as
    interrupted, so a host that has died is seen too.

    Args:
        directory: of the run.
        begun: by an earlier planner: what stands there is of the run that is followed, and told.
    """

    def __init__(self, directory: Path, *, begun: bool = False) -> None:
        self._directory = directory
        self._before = None if begun else _written(directory / files.RECORD)
        self._epochs = 0 if begun else len(_rows(directory))
        self._is_running = self._ended = False
        self._seen: tuple[Any, Any] = None, None  # of record and history
        self._next_look = 0.0

    def events(self) -> Iterator[Event]:
        """Its beginning, epochs that have finished since the last call, and the end.

        A run that is gone without a word was killed.
        """
        written = _written(self._directory / files.RECORD)
        if self._ended or written == self._before:
            return
        seen = written, _written(self._directory / files.HISTORY)
        if seen == self._seen and time.monotonic() < self._next_look:
            return
        with suppress(InputError):  # it is being replaced, or the disk is slow: the next call sees it
            record = records.load(self._directory)
            self._seen, self._next_look = seen, time.monotonic() + ALIVE_SECONDS
            if record.state == RunState.RUNNING and not self._is_running:
                self._is_running = True
                yield Moved(running=True)
            yield from self._new_epochs()
            if record.state != RunState.RUNNING:
                self._ended = True
                yield _ending(record)

    def follow_again(self) -> None:
        """Its end was told, and it is started again: only what is written from now on is news."""
        self._before, self._is_running, self._ended = self._seen[0] or self._before, False, False

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


def _written(path: Path) -> tuple[int, int, int] | None:
    """Changes when a file is replaced, also within one tick of the clock; None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _rows(directory: Path) -> list[files.EpochRow]:
    try:
        return files.read_history(directory / files.HISTORY)
    except (InputError, OSError):
        return []
