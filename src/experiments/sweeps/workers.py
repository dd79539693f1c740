"""One fresh process per job, forked from a server that has imported TensorFlow and run nothing.

A worker is alone with its job: it has a session of its own, so that Ctrl-C reaches only the planner, which passes it
on; it holds the lock of its run key, so that no key is trained twice at a time; and it ends when the planner is gone.
"""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from experiments.config import RunConfig
from experiments.errors import ExperimentsError, InputError
from experiments.results import records
from experiments.results.records import EpochRow
from experiments.recording import Origin

STOP = "stop"
METHODS = ("forkserver", "spawn")


class EpochDone(NamedTuple):
    """A worker has finished an epoch."""

    row: EpochRow


class Ended(NamedTuple):
    """A worker has finished: the state of its record, or why there is none."""

    state: str
    message: str = ""


class Built(NamedTuple):
    """An architecture could be built (`parameters`), or could not (`mistakes`)."""

    parameters: int
    mistakes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """What a worker needs to know of its job."""

    config: RunConfig
    directory: Path
    origin: Origin
    lock: Path
    environment: dict[str, str] = field(default_factory=dict)


class Worker:
    """A process that carries out one task, seen from the planner."""

    def __init__(self, target: Any, *arguments: Any) -> None:
        context = _context()
        self.connection, theirs = context.Pipe()
        self.started = time.monotonic()
        self.process = context.Process(target=_alone, args=(target, theirs, arguments), daemon=False)
        self.process.start()
        theirs.close()

    def messages(self) -> Iterator[Any]:
        """What it has said since the last call."""
        try:
            while self.connection.poll():
                yield self.connection.recv()
        except (EOFError, OSError):
            return

    def stop(self) -> None:
        """Asks it to stop: at the end of its epoch, and when asked again, now."""
        try:
            self.connection.send(STOP)
        except OSError:
            return  # it has ended just now

    def kill(self) -> None:
        """Ends it at once and waits until it is gone."""
        self.process.kill()
        self.process.join()


def start_server() -> None:
    """Begins to import TensorFlow where workers are forked from; returns at once. Where there is no fork, does nothing."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if _context().get_start_method() == "forkserver":
        multiprocessing.set_forkserver_preload(["experiments.sweeps.preloaded"])
        forkserver.ensure_running()


def _context() -> Any:
    available = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context(next(method for method in METHODS if method in available))


# In the worker.


def _alone(target: Any, connection: Connection, arguments: tuple[Any, ...]) -> None:
    """Runs `target(connection, …)` away from the terminal, and not longer than the planner lives."""
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_listen, args=(connection,), daemon=True, name="planner").start()
    target(connection, *arguments)
    connection.close()


def _listen(connection: Connection) -> None:
    try:
        while connection.recv() == STOP:
            os.kill(os.getpid(), signal.SIGINT)
    except (EOFError, OSError):
        os._exit(1)  # the planner is gone; the checkpoint of the last epoch stays


def carry_out(connection: Connection, task: Task) -> None:
    """Trains one job and tells the planner of every epoch and of the end."""
    os.environ.update(task.environment)
    from experiments.runner import run_experiment

    with _output_to_log(task.directory), _locked(task.lock) as locked:
        if not locked:
            connection.send(Ended("busy"))
            return
        try:
            record = run_experiment(
                task.config, task.directory, origin=task.origin, on_epoch=lambda row: connection.send(EpochDone(row))
            )
            connection.send(Ended(record.state, f"{record.error.type}: {record.error.message}" if record.error else ""))
        except KeyboardInterrupt:
            connection.send(Ended("interrupted"))
        except ExperimentsError as error:
            connection.send(Ended("failed", str(error)))
        except Exception as error:
            logging.getLogger("experiments").exception("before the run could be recorded")
            connection.send(Ended("failed", f"{type(error).__name__}: {error}"))


def try_to_build(connection: Connection, config: RunConfig, shape: tuple[int, int, int, int]) -> None:
    """Builds an architecture, to see whether it can be, and tells the planner."""
    from experiments.training import runtime

    with runtime.quiet():
        try:
            runtime.prepare(config.training)
            *image_shape, classes = shape
            model = config.model.build(tuple(image_shape), classes, config.regularization)
            connection.send(Built(model.count_params()))
        except InputError as error:
            connection.send(Built(0, error.mistakes))
        except Exception as error:  # whatever Keras says: the user has to see it before anything is trained
            connection.send(Built(0, (f"model: {type(error).__name__}: {' '.join(str(error).split())}",)))


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Holds the lock of a run key, if nobody else does. The system lets go of it when the process ends, however."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def _output_to_log(directory: Path) -> Iterator[None]:
    """Whatever the job prints goes to the end of its `run.log`, never between the lines of the planner's table."""
    with tempfile.TemporaryFile() as printed:
        for descriptor in (1, 2):
            os.dup2(printed.fileno(), descriptor)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(d), "w", buffering=1) for d in (1, 2))
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            printed.seek(0)
            if directory.is_dir() and (text := printed.read()):
                with (directory / records.LOG).open("ab") as log:
                    log.write(text)
