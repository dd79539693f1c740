"""Whole commands as processes of their own, forked from `command_server.py` where that makes no difference."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from command_server import HEAVY, ROOM, Request, send, take_terminal
from experiments.ingredients import kernels
from experiments.sweeps.executors.late_imports import MLFLOW

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or every command compiles all of our modules again
VARIABLES = dict(os.environ)
# As commands set them before they import a library that reads them while it is imported.
SERVER_VARIABLES = (
    {"OPENBLAS_NUM_THREADS": "1"} | VARIABLES | kernels.variables_of_import() | {"MLFLOW_DISABLE_TELEMETRY": "true"}
)
# What is read later. A command for which another variable is changed is not forked but started.
# Folders of PYTHONPATH have code of ours or of a user, not another version of a library that the server has imported.
READ_LATER = {
    "EXPERIMENTS_HOME", "EXPERIMENTS_DATA", "EXPERIMENTS_LEASE_SECONDS", "MLFLOW_TRACKING_URI",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "PATH", "PYTHONPATH", "TERM", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST",
}  # fmt: skip
# Set by libraries while TensorFlow is imported and by this package for MLflow: in this process and in a command alike.
SET_BY_ITSELF = {
    "ENABLE_RUNTIME_UPTIME_TELEMETRY", "GIT_PYTHON_REFRESH", "HDF5_PLUGIN_PATH", "HYDRA_FULL_ERROR",
    "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "MLFLOW_HTTP_REQUEST_TIMEOUT",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "MPLBACKEND", "TF2_BEHAVIOR", "TPU_ML_PLATFORM",
    "TPU_ML_PLATFORM_VERSION",
}  # fmt: skip
LIBRARIES, PACKAGE = (*HEAVY, *MLFLOW), "experiments"
_starting = threading.Lock()
may_fork = sys.platform == "linux"


class Forked:
    """A command that was forked: of `subprocess.Popen`, what tests use."""

    def __init__(self, request: Request, streams: Sequence[int], stdout: IO[str] | None) -> None:
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._telling = threading.Lock()
        with theirs, _starting:
            send(servers()[_imports_package(request)], request, [theirs.fileno(), *streams])
        weakref.finalize(self, self._connection.close)
        self.pid = int(self._connection.recv(16))
        self.returncode: int | None = None
        self.stdout = stdout

    def poll(self) -> int | None:
        with self._telling:
            if self.returncode is None and self._has_ended(0):
                self.returncode = int(self._connection.recv(16))  # then the server closes its end: ready for ever
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not self._has_ended(timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def _has_ended(self, timeout: float | None) -> bool:
        return bool(select.select([self._connection], [], [], timeout)[0])

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        if self.stdout:
            self.stdout.close()
        self.wait()


Process = Forked | subprocess.Popen[str]


def start(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    fork: bool = True,
    on_terminal: bool = False,
) -> Process:
    """`subprocess.Popen([sys.executable, *arguments], …, text=True)`, forked where that is the same.

    Args:
        arguments: What follows `python`: `-m module …` or `-c code …`.
        env: All variables of the process.
        cwd: Its folder; this process's by default.
        stdin: A descriptor or DEVNULL.
        stdout: A descriptor, a file, PIPE, DEVNULL, or None: where this process's goes.
        stderr: The same, but PIPE.
        fork: False for a test of what happens while libraries are imported, or whether they are.
        on_terminal: Whether `stdin` is a terminal on which Ctrl-C is for the process.
    """
    if not (fork and can_be_forked(env)):
        return subprocess.Popen(
            [sys.executable, *arguments], env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, text=True,
            preexec_fn=take_terminal if on_terminal else None,
        )  # fmt: skip
    with contextlib.ExitStack() as opened:
        reader = None
        if stdout == subprocess.PIPE:
            reading, stdout = os.pipe()
            reader = os.fdopen(reading)
            opened.callback(os.close, stdout)
        nowhere = opened.enter_context(open(os.devnull, "r+b"))
        streams = [_descriptor(stream, number, nowhere) for number, stream in enumerate((stdin, stdout, stderr))]
        request = Request(list(arguments), dict(env), os.fspath(cwd or Path.cwd()), [0, 1, 2], on_terminal)
        return Forked(request, streams, reader)


def _descriptor(stream: int | IO[Any] | None, number: int, nowhere: IO[Any]) -> int:
    if stream is None:
        return number
    if stream == subprocess.DEVNULL:
        return nowhere.fileno()
    return stream if isinstance(stream, int) else stream.fileno()


def run(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    timeout: float | None = None,
    fork: bool = True,
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run([sys.executable, *arguments], …, capture_output=True, text=True)`, forked as `start` does."""
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as errors,
        start(arguments, env=env, cwd=cwd, stdout=out, stderr=errors, fork=fork) as process,
    ):
        try:
            process.wait(timeout)
        finally:
            process.kill()
        for file in (out, errors):
            file.seek(0)
        return subprocess.CompletedProcess(list(arguments), process.wait(), out.read(), errors.read())


def can_be_forked(variables: Mapping[str, str]) -> bool:
    """Whether a process that imports by itself would have imported the same as the server."""
    return may_fork and not changed(variables)


def changed(variables: Mapping[str, str]) -> list[str]:
    """The variables that a process which imports by itself would not have as the server had them."""
    names = (variables.keys() | VARIABLES.keys()) - READ_LATER - SET_BY_ITSELF
    return [name for name in names if variables.get(name) not in (VARIABLES.get(name), SERVER_VARIABLES.get(name))]


def _imports_package(request: Request) -> bool:
    """Whether a command would import this package as the server does, from the same place."""
    here = Path(request.folder)
    elsewhere = request.variables.get("PYTHONPATH") != VARIABLES.get("PYTHONPATH") or (here / PACKAGE).exists()
    return not elsewhere and not (here / "record.json").exists()  # a folder that it refuses to be imported in


@cache
def servers() -> tuple[socket.socket, socket.socket]:
    """The connections to the servers with the libraries alone, and with this package too.

    They are started with the first command and end with this process.
    """
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    theirs = [pair[1].fileno() for pair in pairs]
    room = "x" * (4096 + 2 * sum(len(f"{name}={value}") + 1 for name, value in SERVER_VARIABLES.items()))
    script = Path(__file__).with_name("command_server.py")
    process = subprocess.Popen(
        [sys.executable, str(script), *map(str, theirs), PACKAGE, *LIBRARIES],
        env=SERVER_VARIABLES | {ROOM: room}, pass_fds=theirs,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _, closed in pairs:
        closed.close()

    @atexit.register
    def stop() -> None:
        for ours, _ in pairs:
            ours.close()
        process.wait()

    return pairs[0][0], pairs[1][0]
