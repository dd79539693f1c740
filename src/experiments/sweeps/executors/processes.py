"""One fresh process per task, forked from a server that has imported TensorFlow and run nothing.

A worker is alone with its task: it has a session of its own, so that Ctrl-C reaches only the planner, which passes it
on, and it ends when the planner is gone.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from experiments.errors import InputError
from experiments.ingredients import kernels
from experiments.sweeps.executor import EpochDone
from experiments.training.interruption import STOPPED, exit_now

STOP = "stop"  # what the planner says
EXPLAIN = signal.SIGUSR1  # what it sends to a worker that does not answer
METHODS = ("forkserver", "spawn")
EXPLAIN_SECONDS = 0.5
LEAVE_SECONDS = 5.0  # between a worker's last word and its end


class Planner:
    """The planner, seen from a worker: what it wants, and where to say something."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asked = 0
        self._trained = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupted)
        threading.Thread(target=self._listen, daemon=True, name="planner").start()

    def tell(self, message: Any) -> None:
        """Sends a message. After the first `EpochDone` a stop request finishes the run instead of aborting it."""
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
        """Handles a signal outside of training: before the first epoch it aborts, afterwards the evaluation goes on."""
        del frame
        self._asked += number == signal.SIGTERM
        if self._asked > 1:
            exit_now()
        if not self._trained:
            raise KeyboardInterrupt


def begin(connection: Connection, output: Path | None, task: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Runs `task(planner, …)` away from the terminal, and not longer than the planner lives.

    A stop request that comes while no run listens for it ends the process with the exit code `STOPPED`.

    Args:
        connection: the worker's end of the pipe to the planner.
        output: file to whose end all that is printed goes; None: it is thrown away.
        task: a function of a module, as it is pickled.
        arguments: what `task` gets after the planner; pickled too.
    """
    _write_to(output or Path(os.devnull))
    os.setsid()
    try:
        task(Planner(connection), *arguments)
    except KeyboardInterrupt:
        sys.exit(STOPPED)


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


class Worker:
    """A process that carries out one task, seen from the planner.

    A worker counts as ended when its pipe reaches EOF; the fork server's exit status is lost if the server dies.
    """

    def __init__(self, task: Callable[..., None], *arguments: Any, output: Path | None = None) -> None:
        context = _context()
        self.connection, theirs = context.Pipe()
        self.started = time.monotonic()
        self.ended = False
        self.process = context.Process(target=begin, args=(theirs, output, task, arguments))
        try:
            with _without_main():
                self.process.start()
        except (OSError, EOFError) as error:
            raise InputError(f"no worker can be started ({type(error).__name__}: {error})") from None
        finally:
            theirs.close()
        _alive.add(self)

    def messages(self) -> Iterator[Any]:
        """What it has said since the last call; `ended` is set when nothing more can come."""
        try:
            while self.connection.poll():
                yield self.connection.recv()
        except (EOFError, OSError):
            self.ended = True

    def stop(self) -> None:
        """Asks it to stop: at the end of its epoch, and when asked again, now."""
        with suppress(OSError):  # it has ended just now
            self.connection.send(STOP)

    def explain(self) -> None:
        """Has it print where it is, in every thread: for the log of a job that hangs."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid or 0, EXPLAIN)
        connection.wait([self.process.sentinel], EXPLAIN_SECONDS)  # epochs that it tells meanwhile end no wait

    def leave(self, patience_seconds: float = LEAVE_SECONDS) -> str:
        """Waits until it is gone, ends it if need be, and says how it ended: `SIGKILL`, `exit code 1`."""
        deadline = time.monotonic() + patience_seconds
        while not self.ended and connection.wait([self.connection], max(0.0, deadline - time.monotonic())):
            for _ in self.messages():
                pass
        if not self.ended:
            os.kill(self.process.pid or 0, signal.SIGKILL)
        self.process.join()
        self.connection.close()
        _alive.discard(self)
        code = self.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


@contextmanager
def _without_main() -> Iterator[None]:
    """A worker would import the command's own module again, from a file that may have been edited meanwhile."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_alive: set[Worker] = set()


@contextmanager
def none_left() -> Iterator[None]:
    """Whatever happens inside: when the block ends, no worker is left, and no server, even if it is still importing."""
    try:
        yield
    finally:
        for worker in list(_alive):
            worker.leave(patience_seconds=0)
        server = getattr(forkserver, "_forkserver")  # noqa: B009 - there is no public way
        if server._forkserver_pid:
            with suppress(OSError):
                os.kill(server._forkserver_pid, signal.SIGKILL)
            server._stop()  # waits until it is gone: the next worker would be asked of it otherwise


def wait(workers: Iterable[Worker], seconds: float) -> None:
    """Waits until one of them has something to say, at most `seconds`."""
    connection.wait([worker.connection for worker in workers if not worker.ended], seconds)


def answer(worker: Worker) -> Any:
    """The one message of a short task, or how its process ended (a str)."""
    found = None
    while not worker.ended:
        wait([worker], 1.0)
        for message in worker.messages():
            found = message
    ending = worker.leave()
    return ending if found is None else found


def ask(task: Callable[..., None], *arguments: Any) -> Any:
    """The one message of a short task: of a worker where a sweep has run, so of the code that it began with.

    Raises:
        InputError: it said nothing.
    """
    found = answer(Worker(task, *arguments))
    if isinstance(found, str):
        raise InputError(f"the process ended with {found}")
    return found


def start_server() -> None:
    """Begins to import TensorFlow where workers are forked from, and returns at once."""
    os.environ.update(kernels.variables_of_import())
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if _context().get_start_method() == "forkserver":
        multiprocessing.set_forkserver_preload(["experiments.sweeps.executors.preload"])
        forkserver.ensure_running()


def _context() -> Any:
    available = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context(next(method for method in METHODS if method in available))
