"""What a worker does, and how it tells the planner.

A worker is alone with its task: it has a session of its own, so that Ctrl-C reaches only the planner, which passes it
on; it holds the lock of its run key, so that no key is trained twice at a time; and it ends when the planner is gone.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from experiments.config import RunConfig, load_config
from experiments.errors import ExperimentsError, InputError
from experiments.recording import Origin
from experiments.results import environment, files, records
from experiments.results.files import EpochRow
from experiments.sweeps import locks
from experiments.training.interruption import exit_now

log = logging.getLogger("experiments")
STOP = "stop"  # what the planner says
EXPLAIN = signal.SIGUSR1  # what it sends to a worker that does not answer


class EpochDone(NamedTuple):
    """An epoch has finished."""

    row: EpochRow


class Ended(NamedTuple):
    """A run has ended: the state of its record, or `busy` where another process is training the same key."""

    state: str
    message: str = ""


class Built(NamedTuple):
    """An architecture could be built (`parameters`), or could not (`mistakes`)."""

    parameters: int
    mistakes: tuple[str, ...] = ()


class Compared(NamedTuple):
    """A comparison was written: its answer, sentence by sentence, and its files."""

    sentences: tuple[str, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Run:
    """What a worker needs to know of its job."""

    config: RunConfig
    directory: Path
    origin: Origin
    lock: Path
    code_digest: str


class Planner:
    """The planner, seen from a worker: what it wants, and where to say something."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asked = 0
        self._trained = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupted)
        threading.Thread(target=self._listen, daemon=True, name="planner").start()

    def tell(self, message: NamedTuple) -> None:
        """Says something; an epoch among it means that there is something to lose."""
        self._trained = self._trained or isinstance(message, EpochDone)
        self._connection.send(message)

    def _listen(self) -> None:
        try:
            while self._connection.recv() == STOP:
                self._asked += 1
                os.kill(os.getpid(), signal.SIGINT)
        except (EOFError, OSError):
            os._exit(1)  # the planner is gone; the checkpoint of the last epoch stays

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        """While there is no training that listens by itself: what has been trained is evaluated and kept."""
        del frame
        self._asked += number == signal.SIGTERM
        if self._asked > 1:
            exit_now()
        if not self._trained:
            raise KeyboardInterrupt


def begin(connection: Connection, output: Path | None, task: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Runs `task(planner, …)` away from the terminal, and not longer than the planner lives."""
    _write_to(output or Path(os.devnull))
    os.setsid()
    task(Planner(connection), *arguments)


def _write_to(path: Path) -> None:
    """Whatever is printed from now on goes to the end of a file, never between the lines of the planner's table."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:  # the disk is full, or the sweep's directory is gone: the run itself will say so
        descriptor = os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
    faulthandler.enable()  # where it was when the system ended it
    faulthandler.register(EXPLAIN)


def carry_out(planner: Planner, run: Run) -> None:
    """Trains one job and tells the planner of every epoch and of the end."""
    with locks.held(run.lock) as mine:
        planner.tell(_carry_out(planner, run) if mine else Ended("busy"))


def _carry_out(planner: Planner, run: Run) -> Ended:
    from experiments.runner import run_experiment

    try:
        _check_code(run.code_digest)
        record = run_experiment(
            run.config, run.directory, origin=run.origin, on_epoch=lambda row: planner.tell(EpochDone(row))
        )
    except KeyboardInterrupt:
        return Ended("interrupted")
    except ExperimentsError as error:
        return Ended("failed", f"{type(error).__name__}: {'; '.join(str(error).splitlines())}")
    except Exception as error:
        log.exception("before the run could be recorded")
        return Ended("failed", f"{type(error).__name__}: {error}")
    return Ended(record.state, f"{record.error.type}: {record.error.message}" if record.error else "")


def _check_code(planned: str) -> None:
    if environment.code_digest() != planned:
        raise InputError("the code was edited after the sweep was planned; give the command again")


def try_to_build(planner: Planner, config: RunConfig, shape: tuple[int, int, int, int], code_digest: str) -> None:
    """Builds an architecture, to see whether it can be, and tells the planner."""
    from experiments.training import runtime

    try:
        _check_code(code_digest)
        runtime.prepare(config.training)
        model = config.model.build(shape[:3], shape[3], config.regularization)
        planner.tell(Built(model.count_params()))
    except InputError as error:
        planner.tell(Built(0, error.mistakes))
    except Exception as error:  # whatever Keras says: the user has to see it before anything is trained
        planner.tell(Built(0, (f"model: {type(error).__name__}: {' '.join(str(error).split())}",)))


def mirror(planner: Planner, directory: Path, home: Path, parent: str) -> None:
    """Mirrors a run that could not do it itself: it was killed, or the store was not there."""
    from experiments.results import tracking

    try:
        record = records.load(directory)
        record.mlflow = record.mlflow.model_copy(update={"parent_run_id": record.mlflow.parent_run_id or parent})
        tracking.synchronise(record, load_config(directory / files.CONFIG), home)
    except ExperimentsError as error:
        planner.tell(Ended("failed", str(error)))
    else:
        planner.tell(Ended("finished"))


def compare(planner: Planner, runs: Sequence[Path], directory: Path) -> None:
    """Compares finished runs, writes the report into `directory`, and tells the planner the answer or what is wrong."""
    from experiments.comparison.answer import sentences
    from experiments.comparison.comparison import compare as compare_runs
    from experiments.comparison.report import write

    try:
        comparison = compare_runs([records.load(run) for run in runs])
        files = write(comparison, directory)
    except (ExperimentsError, OSError) as error:
        planner.tell(Ended("failed", str(error)))
        return
    planner.tell(Compared(tuple(f"{s.topic}: {s.text}" for s in sentences(comparison)), tuple(files)))
