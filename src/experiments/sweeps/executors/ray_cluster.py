"""Runs as tasks of a Ray cluster that shares the home with this host.

The run directories tell of epochs, Ray tells when a task has ended or is lost. What is lost is begun again from its
last checkpoint: a node that dies costs the epochs that were running on it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.ingredients.execution import RaySweep
from experiments.sweeps.executor import Ended, Ending, Event, Run
from experiments.sweeps.executors.ray_connection import Connection, address_of, require_ray
from experiments.sweeps.executors.ray_job import Job
from experiments.sweeps.executors.ray_resources import as_options, needs_of, require_room, room
from experiments.sweeps.executors.ray_task import OF_THE_PLANNER, Task
from experiments.sweeps.worker import write_run

log = logging.getLogger(__name__)
LOOK_SECONDS = 1.0  # between looks at the files of jobs, of which there are many
CONNECT_SECONDS = 120.0  # at the start: a Ray of our own takes 3 s on a quiet machine, and 45 s on a busy one
RECONNECT_SECONDS = 900.0  # for a cluster whose head has died to come back
AGAIN_SECONDS = 5.0  # between attempts
# Variables that a job has from the planner and not from its node.
PASSED_ON = ("EXPERIMENTS_", "MLFLOW_", "TF_", "ONEDNN_", "XLA_", "KERAS_", "PYTHONPATH", *OF_THE_PLANNER)


class RayExecutor:
    """Each run is a task, whose process is a fresh one on whichever node has room.

    Args:
        options: of the sweep.
        threads: of the job that has most.
        home: of the project, for the jobs.
    """

    def __init__(self, options: RaySweep, *, threads: int, home: Path) -> None:
        self.slots = options.workers or 1
        self._options, self._threads, self._home = options, threads, home.absolute()
        self._address = address_of(options.address)
        self._connection: Connection | None = None
        self._is_ready = False  # the connection
        self._jobs: list[Job] = []
        self._tasks = 0  # so many were begun
        self._next_look = self._next_attempt = 0.0
        self._lost_at: float | None = None  # the connection, for the first time since a task has ended

    def open(self) -> None:
        """Connects to the cluster.

        Raises:
            InputError: it cannot be reached, or no node of it can carry out a job.
        """
        require_ray()
        self._connection = connection = Connection(self._address)
        why, deadline = "", time.monotonic() + CONNECT_SECONDS
        while not (self._is_ready or connection.is_lost) and (left := deadline - time.monotonic()) > 0:
            for message in connection.receive(left):
                why = message.get("refused", why)
                if "nodes" in message:
                    require_room(needs_of(self._options, self._threads), message["nodes"])
                    self._note_nodes(message["nodes"])
        if not self._is_ready:
            why = why or connection.explain() or f"no answer within {CONNECT_SECONDS:g} seconds"
            raise InputError(f"sweep.address: Ray at {self._address} cannot be used ({why})")

    def submit(self, run: Run, output: Path) -> Job:
        """Hands a run to Ray, which begins it where there is room.

        Raises:
            InputError: the cluster has not come back.
        """
        if self._is_gone():
            raise InputError(f"Ray at {self._address} is gone")
        job = Job(run, output)
        write_run(run, job.description)
        self._jobs.append(job)
        if self._is_ready:
            self._begin(job)
        return job

    def _begin(self, job: Job) -> None:
        self._tasks += 1
        job.begin(self._tasks)
        task = Task(
            arguments=["-m", "experiments.sweeps.worker", str(job.description)],
            folder=os.getcwd(),
            output=str(job.output),
            variables=variables(self._home),
        )
        self._send(
            submit=job.number,
            task=task,
            needs=as_options(needs_of(self._options, job.run.config.training.threads or 1)),
        )

    def _send(self, **order: Any) -> None:
        if self._connection:
            self._connection.send(**order)

    def events(self, timeout_seconds: float) -> Iterator[tuple[Job, Event]]:
        """What Ray and the files of the jobs tell; the files of a job that runs are looked at once a second."""
        for message in self._receive(timeout_seconds):
            if "nodes" in message:
                self._note_nodes(message["nodes"])
            for job in self._jobs:
                if "ended" in message and message["ended"] == job.number:
                    job.end(message)
                    self._lost_at = None
        is_time = time.monotonic() >= self._next_look
        if is_time:
            self._next_look = time.monotonic() + LOOK_SECONDS
        for job in [job for job in self._jobs if is_time or job.number is None]:
            yield from ((job, event) for event in self._events_of(job))

    def _events_of(self, job: Job) -> Iterator[Event]:
        yield from job.news()
        if job.number is not None:
            return
        ended = Ended(Ending.INTERRUPTED, f"Ray at {self._address} is gone") if self._is_gone() else job.ending()
        if ended:
            self._jobs.remove(job)
            job.description.unlink(missing_ok=True)
            yield ended
        elif self._is_ready:
            self._begin(job)

    def _receive(self, timeout_seconds: float) -> list[dict[str, Any]]:
        if self._connection is None:
            if time.monotonic() >= self._next_attempt and not self._is_gone():
                self._connection = Connection(self._address)
            else:
                time.sleep(timeout_seconds)
            return []
        messages = self._connection.receive(timeout_seconds)
        if self._connection.is_lost:
            self._lose_connection()
        return messages

    def _lose_connection(self) -> None:
        """What was begun over a connection ends with it; it is begun again over the next one."""
        why = self._connection.explain() if self._connection else ""
        self.close()
        self._is_ready, self._next_attempt = False, time.monotonic() + AGAIN_SECONDS
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            log.warning("Ray at %s: the connection is lost (%s); the jobs go on when it is back", self._address, why)
        for job in self._jobs:
            job.number = None

    def _is_gone(self) -> bool:
        lost_at = self._lost_at
        return not self._is_ready and lost_at is not None and time.monotonic() > lost_at + RECONNECT_SECONDS

    def _note_nodes(self, nodes: Sequence[Mapping[str, float]]) -> None:
        self._is_ready = True
        self.slots = self._options.workers or max(1, room(needs_of(self._options, self._threads), nodes))

    def stop(self, handle: Job, *, now: bool) -> None:
        """Asks a run to stop: the first time at the end of its epoch, the second time now."""
        while handle.stops < 1 + now:
            handle.stops += 1
            self._send(stop=handle.number)

    def kill(self, handle: Job) -> None:
        """Ends a run's process at once."""
        handle.killed = True
        self._send(kill=handle.number)

    def close(self) -> None:
        """Ends the connection, and with it every task and a Ray of our own."""
        if self._connection:
            self._connection.close()
            self._connection = None


def variables(home: Path) -> dict[str, str]:
    """Those of the environment that a job has from the planner and not from its node."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    return kept | {"EXPERIMENTS_HOME": str(home)}
