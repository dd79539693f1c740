"""The thread that mirrors a run while it trains: a slow, locked or dead store never stops a training."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple, Protocol

from experiments.results import lease
from experiments.results.files import EpochRow
from experiments.results.records import Record
from experiments.screen import without_login

log = logging.getLogger(__name__)
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
PATIENCE_SECONDS = 120.0  # how long the end of a run waits for a slow store
LAST_TRIES, LAST_SECONDS = 3, 5.0  # at the end of a run, one after the other; none begins after that time
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0  # after a failure, twice as long each time


class Epoch(NamedTuple):
    """An epoch, and the seconds of training up to its end."""

    row: EpochRow
    elapsed_seconds: float


class Target(Protocol):
    """The run in the store. Everything can be done again without doubling anything; any of it may raise anything."""

    record: Record

    def open(self) -> None: ...

    def log_epochs(self, epochs: Sequence[Epoch]) -> None: ...

    def log_model(self) -> None: ...

    def log_files(self) -> None: ...

    def close(self) -> None: ...


class Mirror:
    """Mirrors a run in the order in which it happens; what fails is tried again, with all that has come meanwhile."""

    def __init__(self, run: Target) -> None:
        self._run = run
        self._elapsed = 0.0
        self._error: str | None = None
        self._tasks: queue.Queue[Epoch | Callable[[], None] | None] = queue.Queue()
        self._left: deque[Epoch | Callable[[], None]] = deque([run.open, run.log_files])
        self._wait, self._next_try = FIRST_WAIT_SECONDS, 0.0
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow-mirror")
        self._thread.start()

    def log_epoch(self, row: EpochRow) -> None:
        """Hands one epoch to the thread."""
        self._elapsed += seconds_of(row)
        self._tasks.put(Epoch(row, self._elapsed))

    def log_model(self) -> None:
        """Hands the saved model to the thread."""
        self._tasks.put(self._run.log_model)

    def close(self, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Mirrors the rest, waits for the thread, and writes into the record whether the mirror is complete."""
        self._tasks.put(self._run.close)
        self._tasks.put(None)
        self._thread.join(patience_seconds)
        if self._thread.is_alive():
            self._error = f"the store did not answer within {patience_seconds:.0f} s"
        record = self._run.record
        record.write(mlflow=record.mlflow.model_copy(update={"synced": not self._error, "error": self._error}))
        if self._error:
            log.warning("MLflow mirror incomplete (%s); the run itself is whole.", self._error)
            log.warning("Mirror it later: python -m experiments.sync %s", record.name)

    def _work(self) -> None:
        self._try()
        while self._take_in():
            if time.monotonic() >= self._next_try:
                self._try()
        deadline = time.monotonic() + LAST_SECONDS
        for _ in range(LAST_TRIES):
            if self._left and time.monotonic() < deadline:
                self._try()

    def _take_in(self) -> bool:
        """Waits for a task and takes all that are there; False when no more will come."""
        task = self._tasks.get()
        while task is not None:
            self._left.append(task)
            if self._tasks.empty():
                return True
            task = self._tasks.get()
        return False

    def _try(self) -> None:
        """Does all that is left, up to the first failure; after one, no call takes its time to try again itself."""
        try:
            with once() if self._error else nullcontext():
                while self._left:
                    lease.check()  # whoever took over mirrors the run now
                    self._do_next()
            self._error, self._wait = None, FIRST_WAIT_SECONDS
        except Exception as error:
            self._error = first_line(error)
            log.debug("mirroring failed (%s)", self._error)  # its traceback would tell a login
            self._next_try = time.monotonic() + self._wait
            self._wait = min(2 * self._wait, LONGEST_WAIT_SECONDS)

    def _do_next(self) -> None:
        first, epochs = self._left[0], list[Epoch]()
        for task in self._left:
            if not isinstance(task, Epoch):
                break
            epochs.append(task)
        if epochs:
            self._run.log_epochs(epochs)
        elif not isinstance(first, Epoch):
            first()
        for _ in epochs or (first,):
            self._left.popleft()


@contextmanager
def once() -> Iterator[None]:
    """MLflow repeats no call by itself in the block: one whose answer got lost would create something twice."""
    earlier = os.environ.get(RETRIES)
    os.environ[RETRIES] = "0"
    try:
        yield
    finally:
        if earlier is None:
            del os.environ[RETRIES]
        else:
            os.environ[RETRIES] = earlier


def seconds_of(row: EpochRow) -> float:
    """The length of an epoch; 0 where an older history does not tell."""
    return 0.0 if "seconds" in row.unknown else row.seconds


def first_line(error: Exception) -> str:
    """An error in one line, without a login that it names."""
    lines = without_login(str(error)).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
