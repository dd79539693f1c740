"""The runs in flight: submitted to an executor, and not ended."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.results import lease
from experiments.sweeps.executor import Ended, Ending, Event, Executor, Handle, LastingExecutor, Run
from experiments.sweeps.status import JobState, Status

NEVER = float("inf")
STATES = {
    Ending.FINISHED: JobState.DONE,
    Ending.FAILED: JobState.FAILED,
    Ending.KILLED: JobState.FAILED,
    Ending.DIVERGED: JobState.DIVERGED,
    Ending.INTERRUPTED: JobState.INTERRUPTED,
    Ending.PAUSED: JobState.PAUSED,
}


@dataclass
class Flight:
    """A run that was submitted.

    Attributes:
        begun: when it left the executor's queue, by the monotonic clock; infinite while it waits in one.
        killed: why the scheduler ended it, if it did.
        dropped: whether the strategy does not want it any more.
    """

    status: Status
    begun: float
    killed: str = ""
    dropped: bool = False

    def move(self, *, running: bool) -> None:
        """Notes that it has left the queue, or is in it again: the time there counts for no time-out."""
        self.begun = time.monotonic() if running else NEVER


class Flights:
    """All runs in flight of one sweep, with what carries them out.

    A planner that was frozen, and has a successor, ends here before it starts a run or notes what has happened to one.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._flights: dict[Handle, Flight] = {}

    def __len__(self) -> int:
        """How many they are."""
        return len(self._flights)

    @property
    def jobs(self) -> set[int]:
        """The numbers of their jobs."""
        return {flight.status.job.number for flight in self._flights.values()}

    @property
    def are_full(self) -> bool:
        """Whether the executor takes no more."""
        return len(self) >= self._executor.slots

    @property
    def are_dropped(self) -> bool:
        """Whether there are some, and none of them is wanted any more."""
        return bool(self._flights) and all(flight.dropped for flight in self._flights.values())

    @property
    def last(self) -> bool:
        """Whether they go on when the planner is gone."""
        return isinstance(self._executor, LastingExecutor)

    def carries(self, directory: Path) -> bool:
        """Whether the executor has the run of a directory already, submitted by an earlier planner."""
        return isinstance(self._executor, LastingExecutor) and self._executor.carries(directory)

    def submit(self, status: Status, run: Run, output: Path) -> None:
        """Starts a run.

        Args:
            status: of its job.
            run: what a worker needs to know.
            output: file to which it prints.

        Raises:
            InputError: it cannot be started.
        """
        lease.check()
        handle = self._executor.submit(run, output)
        self._flights[handle] = Flight(status, NEVER if self.last else time.monotonic())

    def events(self, timeout_seconds: float) -> Iterator[tuple[Flight, Event]]:
        """What has happened since the last call; a run that has ended is in flight no more."""
        for handle, event in self._executor.events(timeout_seconds):
            lease.check()
            if flight := self._flights.get(handle):
                if isinstance(event, Ended):
                    del self._flights[handle]
                yield flight, event

    def drop(self, jobs: Collection[int]) -> None:
        """Has runs of jobs that are not wanted any more stop at the end of their epoch."""
        for handle, flight in self._flights.items():
            if flight.status.job.number in jobs and not flight.dropped:
                flight.dropped = True
                self._executor.stop(handle, now=False)

    def end_after(self, minutes: float | None) -> None:
        """Ends runs that take longer, if there is a limit."""
        if minutes is None:
            return
        for handle, flight in self._flights.items():
            if time.monotonic() - flight.begun >= minutes * 60 and not flight.killed:
                flight.killed = f"TimeoutError: took longer than sweep.timeout_minutes={minutes:g}"
                self._executor.kill(handle)

    def stop(self, *, now: bool) -> None:
        """Asks all to stop: at the end of their epoch, or now."""
        for handle in self._flights:
            self._executor.stop(handle, now=now)

    def kill(self) -> None:
        """Ends all."""
        for handle in self._flights:
            self._executor.kill(handle)

    def leave(self) -> Sequence[str]:
        """Lets go of all that go on without the planner; lines on what does. Empty where none does."""
        if not isinstance(self._executor, LastingExecutor):
            return ()
        self._flights.clear()
        return self._executor.leave()
