"""An executor that shares nothing but the disk: plain subprocesses whose run directories are followed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import commands
from conftest import environment
from experiments.results import files
from experiments.sweeps.executor import Ended, Ending, Event, Run
from experiments.sweeps.executors.follow import Follower
from experiments.sweeps.worker import EXIT_CODES, write_run

POLL_SECONDS = 0.05
BUSY = EXIT_CODES[Ending.BUSY]


class SubprocessExecutor:
    """Starts `python -m experiments.sweeps.worker` for each run."""

    def __init__(self, slots: int, folder: Path) -> None:
        self.slots, self._folder = slots, folder
        self._jobs: dict[int, tuple[commands.Process, Follower]] = {}
        self.submitted: list[Run] = []

    def open(self) -> None: ...

    def submit(self, run: Run, output: Path) -> int:
        self.submitted.append(run)
        described = self._folder / f"{len(self.submitted)}.json"
        write_run(run, described)
        follower = Follower(run.directory)
        with output.open("ab") as file:
            command = ["-m", "experiments.sweeps.worker", str(described)]
            process = commands.start(command, env=environment(files.home()), stdout=file, stderr=file)
        self._jobs[process.pid] = process, follower
        return process.pid

    def events(self, timeout_seconds: float) -> Iterator[tuple[int, Event]]:
        deadline = time.monotonic() + timeout_seconds
        found: list[tuple[int, Event]] = []
        while not found and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            for pid in list(self._jobs):
                found += ((pid, event) for event in self._events_of(pid))
        yield from found

    def _events_of(self, pid: int) -> Iterator[Event]:
        process, follower = self._jobs[pid]
        code = process.poll()  # before the files are read: what it wrote last is then there
        last: Ended | None = None
        for event in follower.events():
            if isinstance(event, Ended):
                last = event
            else:
                yield event
        if code is None and last is None:
            return
        code = process.wait()
        del self._jobs[pid]
        yield last or Ended(Ending.BUSY if code == BUSY else Ending.KILLED, f"Killed: exit code {code}")

    def stop(self, handle: int, *, now: bool) -> None:
        for _ in range(1 + now):
            os.kill(handle, signal.SIGINT)

    def kill(self, handle: int) -> None:
        os.kill(handle, signal.SIGKILL)

    def close(self) -> None:
        for process, _ in self._jobs.values():
            process.kill()
            process.wait()
