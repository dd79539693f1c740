"""One run on Slurm: a task of an array, told by its files and, where these are silent, by the queue."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from experiments.bounded import open_file
from experiments.errors import InputError
from experiments.sweeps.executor import Ended, Ending, EpochDone, Event, Moved, Run
from experiments.sweeps.executors.follow import Follower
from experiments.sweeps.executors.slurm_commands import Entry
from experiments.sweeps.executors.slurm_script import STOPPED

LOST_SECONDS = 10.0  # between a task's end in the queue and its submission anew: what it wrote may arrive late
MOST_STARTS = 5  # without a finished epoch in between
MOST_TRIES = 3  # at what ends before the run has a record: the node cannot read the folder, or a line of setup fails
LAST_BYTES = 2000  # of an output, which hold its last line
LEFT_TO_ANOTHER = 79  # the exit code of `results.lease.LOST`: the run goes on in another process
OUT_OF_MEMORY = "OUT_OF_MEMORY"
NOTHING = "it has printed nothing"


class Task:
    """A submitted run.

    Attributes:
        run: what it carries out.
        folder: of its array; None until it is submitted.
        array: job id of its array.
        index: of the task in its array.
        stopping: whether it was told to stop.
        killed: whether it was told to end at once.
        is_silent: the process has ended and the run has not; the queue tells whether it goes on.
    """

    def __init__(self, run: Run, output: Path) -> None:
        self.run, self._output = run, output
        self.folder: Path | None = None
        self.array = self.index = 0
        self.stopping = self.killed = self.is_silent = False
        self._follower = Follower(run.directory)
        self._begun = self._placed = False
        self._silence = Ended(Ending.INTERRUPTED)
        self._starts = 0
        self._has_run = False
        self._fate = "Slurm has forgotten it"
        self._missing_since: float | None = None

    def place(self, folder: Path, array: int, index: int, *, begun: bool = False) -> None:
        """Notes where it was submitted.

        Args:
            folder: of the array, which holds its description.
            array: job id.
            index: in the array.
            begun: by an earlier planner.
        """
        self.folder, self.array, self.index = folder, array, index
        self.is_silent, self._missing_since = False, None
        self._starts += 1
        if begun:
            self._follower = Follower(self.run.directory, begun=True)

    @property
    def id(self) -> str:
        """As Slurm's commands take it."""
        return f"{self.array}_{self.index}"

    @property
    def is_unsure(self) -> bool:
        """Whether the queue has to be asked soon how it is."""
        return self.is_silent or self.stopping or self._missing_since is not None

    @property
    def has_begun(self) -> bool:
        """Whether it has been seen running."""
        return self._begun

    def file(self, ending: str) -> Path:
        """A file of the task in the folder of its array, as `exit`."""
        return (self.folder or Path()) / f"{self.index}.{ending}"

    def told_by_files(self, *, exited: bool) -> Iterator[Event]:
        """What the run directory tells that is new.

        Args:
            exited: whether the script has written an exit code.
        """
        for event in self._follower.events():
            if isinstance(event, EpochDone):
                self._starts = 1
            elif isinstance(event, Moved):
                self._begun, self._has_run, self.is_silent = True, True, False
            if isinstance(event, Ended) and event.state in (Ending.INTERRUPTED, Ending.KILLED):
                self.is_silent, self._silence = True, event
            else:
                yield event
                if isinstance(event, Ended):
                    return
        if exited and (self.is_silent and self.stopping):  # and so it is not queued again
            yield self._stopped()
        elif exited:
            yield from self._told_by_exit_code()

    def _told_by_exit_code(self) -> Iterator[Event]:
        code = self._exit_code()
        if code is None or code == LEFT_TO_ANOTHER:
            return
        if code in STOPPED:
            self.is_silent = True
        elif code == 1:
            yield Ended(Ending.FAILED, self._last_line().removeprefix("failed "))
        elif code:
            hint = " (out of memory?)" if code == 137 else ""
            yield Ended(Ending.KILLED, f"Killed: the job ended with exit code {code}{hint}; {self._last_line()}")

    def _exit_code(self) -> int | None:
        with suppress(OSError, ValueError, InputError), open_file(self.file("exit")) as file:
            return int(file.read(10))
        return None

    def _last_line(self) -> str:
        with suppress(OSError, InputError), open_file(self.file("out")) as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LAST_BYTES))
            lines = [line for line in file.read(LAST_BYTES).decode(errors="replace").splitlines() if line.strip()]
            ours = [line for line in lines if not line.startswith(("srun:", "slurmstepd"))]
            return (ours or lines or [NOTHING])[-1]
        return NOTHING

    def told_by_queue(self, entry: Entry | None) -> Iterator[Event]:
        """What the queue tells of a task; `is_lost` where it must be submitted anew.

        Args:
            entry: its own; None where Slurm does not know it any more.
        """
        if entry and entry.is_active:
            self._missing_since = None
            yield from self._told_by_place(entry)
            return
        if self._missing_since is None:
            self._missing_since = time.monotonic()
        if entry:
            self._fate = f"Slurm says {entry.state}"
        if self.stopping:
            if self.is_silent or not self._begun:
                yield self._stopped()
        elif entry and entry.state == "CANCELLED":
            if self.is_silent or not self._begun:
                yield Ended(Ending.INTERRUPTED, "Cancelled: scancel has ended it")
        elif entry and entry.state == OUT_OF_MEMORY and self.is_silent:
            yield Ended(Ending.KILLED, "Killed: out of memory, says Slurm; see sweep.memory")

    def _stopped(self) -> Ended:
        if self.killed:
            return Ended(Ending.KILLED)
        return self._silence if self.is_silent else Ended(Ending.WITHDRAWN)

    def _told_by_place(self, entry: Entry) -> Iterator[Event]:
        waits = entry.state == "PENDING"
        if waits and (self.is_silent or self._begun):
            self._starts += self._begun or not self._waits_for_another()
            self._follow_again()
            self.file("exit").unlink(missing_ok=True)
        if waits and not self._placed:
            self._placed = True
            yield Moved(running=False)
        if self._starts > MOST_STARTS:
            why = "" if self._has_run else f" ({self._last_line()})"
            yield Ended(Ending.KILLED, f"Killed: {MOST_STARTS} starts without a finished epoch{why}; see sweep.time")

    def _waits_for_another(self) -> bool:
        """Whether its process stepped back because another one trains the same run."""
        return self._last_line().strip() == Ending.BUSY

    def is_lost(self) -> bool:
        """Whether the queue has not known it for a while, and no process works on it."""
        since = self._missing_since
        gone = since is not None and time.monotonic() - since >= LOST_SECONDS
        return gone and not self.stopping and (self.is_silent or not self._begun)

    def lost(self) -> Ended | None:
        """Makes it ready to be submitted anew; its end where that was done too often."""
        if not self._has_run and self._starts >= MOST_TRIES:
            return Ended(
                Ending.KILLED, f"Killed: {MOST_TRIES} tries, and it never began ({self._fate}): {self._last_line()}"
            )
        if self._starts >= MOST_STARTS:
            return self._silence if self._silence.message else Ended(Ending.KILLED, "Killed: Slurm has lost it")
        self._follow_again()
        return None

    def _follow_again(self) -> None:
        self._follower.follow_again()
        self.is_silent = self._begun = self._placed = False

    def collect_output(self) -> None:
        """Adds what it has printed to the file where the scheduler looks for it."""
        with suppress(OSError, InputError), open_file(self.file("out")) as printed, self._output.open("ab") as file:
            shutil.copyfileobj(printed, file)
            self.file("out").unlink()
