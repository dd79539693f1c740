"""Runs as processes of this machine, forked from a server that has imported TensorFlow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.gpus import GPU
from experiments.results import lease
from experiments.sweeps import worker
from experiments.sweeps.executor import Ended, Ending, Event, Run
from experiments.sweeps.executors import processes
from experiments.sweeps.executors.processes import LEAVE_SECONDS, Planner, Worker
from experiments.training import devices
from experiments.training.interruption import STOPPED


class LocalExecutor:
    """At most `slots` runs side by side, each in a fresh process that tells of its epochs through a pipe.

    Args:
        slots: 1 or more.
        gpus: what the runs train on, evenly; empty: the CPU.
    """

    def __init__(self, slots: int, gpus: Sequence[GPU] = ()) -> None:
        self.slots = slots
        self._gpus = gpus
        self._gpu_of: dict[Worker, GPU | None] = {}
        self._stops: dict[Worker, int] = {}  # how often each was asked to stop
        self._killed: set[Worker] = set()

    def open(self) -> None:
        """Nothing: this machine is there, and `share_cores` has counted its cores."""

    def submit(self, run: Run, output: Path) -> Worker:
        """Starts a process for a run."""
        busy = Counter(self._gpu_of.values())
        gpu = min(self._gpus, key=lambda each: busy[each], default=None)
        started = Worker(_carry_out, run, gpu, output=output)
        self._stops[started], self._gpu_of[started] = 0, gpu
        return started

    def events(self, timeout_seconds: float) -> Iterator[tuple[Worker, Event]]:
        """What the processes have said, and how those that are gone have ended."""
        processes.wait(self._stops, timeout_seconds)
        for process in list(self._stops):
            yield from ((process, event) for event in self._events_of(process))

    def _events_of(self, process: Worker) -> Iterator[Event]:
        last: Ended | None = None
        for message in process.messages():
            if isinstance(message, Ended):
                last = message
            else:
                yield message
        if last is None and not process.ended and process not in self._killed:
            return
        ending = process.leave(0 if process in self._killed else LEAVE_SECONDS)
        del self._stops[process], self._gpu_of[process]
        self._killed.discard(process)
        if ending == f"exit code {lease.LOST}":
            yield Ended(Ending.BUSY)
            return
        if ending == f"exit code {STOPPED}":
            yield last or Ended(Ending.INTERRUPTED)
            return
        hint = " (out of memory?)" if ending == "SIGKILL" else ""
        yield last or Ended(Ending.KILLED, f"Killed: the process ended with {ending}{hint}")

    def stop(self, handle: Worker, *, now: bool) -> None:
        """Asks a process to stop: the first time at the end of its epoch, the second time now."""
        while self._stops[handle] < 1 + now:
            handle.stop()
            self._stops[handle] += 1

    def kill(self, handle: Worker) -> None:
        """Has a process print where it is, and ends it."""
        handle.explain()
        self._killed.add(handle)

    def close(self) -> None:
        """Ends every process that is left."""
        for process in list(self._stops):
            process.leave(0)
        self._stops.clear()
        self._gpu_of.clear()


def _carry_out(planner: Planner, run: Run, gpu: GPU | None = None) -> None:
    if gpu:
        devices.take(gpu)
    worker.carry_out(run, planner.tell)
