"""Where jobs run: the interface between the scheduler and an executor, and what they say to each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from experiments.config import RunConfig
from experiments.recording import Origin
from experiments.results.files import EpochRow


@dataclass(frozen=True)
class Run:
    """What a worker needs to know of its job.

    Attributes:
        directory: the run directory.
        origin: what its record says about where it comes from.
        lock: held while its key is trained, so that nobody trains it at the same time.
        code_digest: of the sources that the sweep was planned with; another code refuses to run it.
        until_epoch: the epoch after which it pauses; None: it runs to its end.
    """

    config: RunConfig
    directory: Path
    origin: Origin
    lock: Path
    code_digest: str
    until_epoch: int | None = None


class EpochDone(NamedTuple):
    """An epoch has finished."""

    row: EpochRow


class Moved(NamedTuple):
    """The run has left its queue for a worker (`running`), or waits in a queue, for the first time or again."""

    running: bool


class Ending(StrEnum):
    """How the work on a job ended."""

    FINISHED = "finished"
    FAILED = "failed"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    PAUSED = "paused"
    BUSY = "busy"  # another process trains the same key
    KILLED = "killed"  # the process is gone and has said nothing
    WITHDRAWN = "withdrawn"  # it was told to stop before it had begun


class Ended(NamedTuple):
    """Nothing more comes of a submitted run."""

    state: str  # one of `Ending`
    message: str = ""


Event = EpochDone | Moved | Ended
Handle = Any  # whatever an executor knows a submitted run by; hashable


class Executor(Protocol):
    """Carries out runs somewhere. Every submitted run gets exactly one `Ended`, after all its other events.

    The run directory is what all executors share: an executor that has no connection to its jobs follows their files
    (`executors.follow`).
    """

    slots: int  # how many runs may be in flight at a time

    def open(self) -> None:
        """Gets ready, before anything of the sweep is written.

        Raises:
            InputError: it cannot carry out what is asked.
        """
        ...

    def submit(self, run: Run, output: Path) -> Handle:
        """Starts a run; what it prints goes to the end of the file `output`.

        Raises:
            InputError: it cannot be started.
        """
        ...

    def events(self, timeout_seconds: float) -> Iterable[tuple[Handle, Event]]:
        """What has happened since the last call; waits for at most `timeout_seconds` where nothing has."""
        ...

    def stop(self, handle: Handle, *, now: bool) -> None:
        """Asks a run to stop: at the end of its epoch, or now. It can be resumed, and its `Ended` still comes."""
        ...

    def kill(self, handle: Handle) -> None:
        """Ends a run that does not answer, and has it print first where it hangs, if that can be. Its `Ended` comes."""
        ...

    def close(self) -> None:
        """Lets go of everything. Nothing is left running that nobody follows, unless it is a `LastingExecutor`."""
        ...


@runtime_checkable
class LastingExecutor(Executor, Protocol):
    """One whose runs go on when the planner is gone, and are found again by the next planner."""

    def carries(self, directory: Path) -> bool:
        """Whether an earlier planner has submitted the run of a run directory, and it has not ended."""
        ...

    def leave(self) -> Sequence[str]:
        """Follows nothing any more; lines on what goes on, and how it can be looked at and ended."""
        ...
