"""One run that Ray carries out: what its files and its task's end say together."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.results import lease
from experiments.sweeps.executor import Ended, Ending, EpochDone, Event, Run
from experiments.sweeps.executors.follow import Follower

log = logging.getLogger(__name__)
TRIES = 3  # of a job that is lost again and again before it has finished another epoch
LAST_BYTES = 4000  # of its output, in which the last line stands


class Job:
    """A run that was submitted.

    Attributes:
        description: file that the job's process reads.
        number: of the task that carries it out; None while no task does.
        stops: how often it was asked to stop.
        killed: whether the scheduler has ended it.
    """

    def __init__(self, run: Run, output: Path) -> None:
        self.run, self.output = run, output.absolute()
        self.description = self.output.with_name(f".run-{run.directory.name}.json")
        self.number: int | None = None
        self.stops = 0
        self.killed = False
        self._follower = Follower(run.directory)
        self._last: Ended | None = None  # as its record tells
        self._outcome: Mapping[str, Any] | None = None  # of the last task
        self._lost = 0  # tasks, since the last finished epoch

    def begin(self, number: int) -> None:
        """A task begins with it, from its last checkpoint."""
        self.number, self._outcome, self._last = number, None, None
        self._follower = Follower(self.run.directory)

    def end(self, outcome: Mapping[str, Any]) -> None:
        """Its task has ended: `code` of its process, `failed` before there was one, `cancelled` or `lost`."""
        self.number, self._outcome = None, outcome

    def news(self) -> Iterator[Event]:
        """What its files tell since the last call, but for its end."""
        for event in self._follower.events():
            if isinstance(event, Ended):
                self._last = event
                continue
            if isinstance(event, EpochDone):
                self._lost = 0
            yield event

    def ending(self) -> Ended | None:
        """How it has ended, where no task carries it out; None: it is to be begun, for the first time or again."""
        outcome, self._outcome = self._outcome, None
        if self._last and self._last.state != Ending.KILLED:
            return self._last
        if outcome and (ended := self._told(outcome)):
            return ended
        if self.killed or self.stops:
            return Ended(Ending.KILLED if self.killed else Ending.INTERRUPTED)
        if outcome is None:
            return None
        self._lost += 1
        why = outcome.get("lost") or f"the process ended with {_name(outcome.get('code', -signal.SIGKILL))}"
        if self._lost >= TRIES:
            return Ended(Ending.KILLED, f"Killed: {why}")
        log.warning("job %s is lost (%s); it goes on after its last epoch", self.run.origin.job, why)
        return None

    def _told(self, outcome: Mapping[str, Any]) -> Ended | None:
        """The end of a process that has ended by itself, or could not be started."""
        if "failed" in outcome:
            return Ended(Ending.FAILED, outcome["failed"])
        code = outcome.get("code", -1)
        if code == lease.LOST:
            return Ended(Ending.BUSY)
        return self._last_words(code) if code >= 0 else None

    def _last_words(self, code: int) -> Ended | None:
        """The end as the job's process has printed it; of one that could not be begun, what it printed instead."""
        line = last_line(self.output)
        state, _, message = line.partition(" ")
        with suppress(ValueError):
            return Ended(Ending(state), message)
        return Ended(Ending.FAILED, f"InputError: {line}") if code == 1 and line else None


def last_line(path: Path) -> str:
    """The last line of a file; "" where there is none."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
        return lines[-1] if lines else ""
    return ""


def _name(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
