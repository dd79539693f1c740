"""The processes that tests' commands are forked from.

One has imported the heavy libraries, and nothing of ours. The other one has imported this package, too, for commands
that would import the same. A command forked from them is what `python -m …` would be, without the seconds that the
imports take: a fresh process with its own arguments, variables, folder, input and output. They tell its pid and how it
ended.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import importlib.util
import json
import os
import pkgutil
import re
import runpy
import select
import signal
import socket
import sys
import termios
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import util
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from mlflow_tables import copy_tables

HEAVY = (
    "tensorflow", "keras", "h5py", "alembic.command", "sqlalchemy.dialects.sqlite", "hydra.main",
    "hydra.core.plugins", "omegaconf", "pydantic.dataclasses", "matplotlib.backends.backend_agg", "matplotlib.figure",
    "PIL.PngImagePlugin", "scipy.special", "sklearn.utils", "rich.live", "rich.progress", "rich.table",
    "rich._emoji_codes", "jinja2", "psutil", "yaml", "multiprocessing.forkserver",
)  # fmt: skip
PROGRAM = re.compile(r"^if __name__ == |^if .*sys\.orig_argv", re.MULTILINE)
ROOM = "COMMAND_SERVER_ROOM"  # a variable as long as those of a command may become: see `show_variables`
MESSAGE_BYTES = 100_000  # of a request
UNUSED_DESCRIPTORS = 200  # from here on


class Request(NamedTuple):
    """A process to be: what follows `python`, its variables, its folder, and which descriptors it has.

    Its input may be a terminal that becomes its own.
    """

    arguments: list[str]
    variables: dict[str, str]
    folder: str
    descriptors: list[int]
    on_terminal: bool = False


def send(connection: socket.socket, request: Request, given: Sequence[int]) -> None:
    """Sends a request with the descriptors that shall become its own."""
    socket.send_fds(connection, [json.dumps(request).encode()], list(given))


def receive(connection: socket.socket) -> tuple[Request, list[int]] | None:
    """The next request and descriptors; None when nobody is left to send one."""
    message, given, *_ = socket.recv_fds(connection, MESSAGE_BYTES, UNUSED_DESCRIPTORS)
    return (Request(*json.loads(message)), given) if message else None


# The server.


def import_libraries(libraries: Sequence[str]) -> None:
    gc.disable()
    for library in libraries:
        importlib.import_module(library)
    if "mlflow" in sys.modules:
        # What it would find out anew in every command that logs a model: the modules of all installed packages.
        sys.modules["mlflow.utils.requirements_utils"]._init_modules_to_packages_map()
        copy_tables()
    gc.enable()
    gc.freeze()  # or every command's first collection would touch, and so copy, all that it shares with the server


def import_package(name: str) -> None:
    """All its modules but those that are a program, or a part of one: they are what a command begins with."""
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        found = importlib.util.find_spec(module.name)
        if not module.ispkg and found and not PROGRAM.search(Path(str(found.origin)).read_text()):
            importlib.import_module(module.name)
    gc.freeze()


def serve(tests: socket.socket) -> Request:
    """Forks a process for every request, in which it returns. The server itself ends with the tests."""
    running: dict[int, socket.socket] = {}
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    signal.set_wakeup_fd(wakes)
    while True:
        ready, _, _ = select.select([tests, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            tell_ends(running)
        if tests not in ready:
            continue
        received = receive(tests)
        if received is None:
            os._exit(0)  # at once: TensorFlow takes a second to clean up for nobody
        request, (theirs, *given) = received
        starter = socket.socket(fileno=theirs)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for opened in (tests, starter, *running.values()):
                opened.close()
            for end in (woken, wakes):
                os.close(end)
            become(request, given)
            return request
        for descriptor in given:
            os.close(descriptor)
        running[pid] = starter
        starter.sendall(f"{pid}\n".encode())


def tell_ends(running: dict[int, socket.socket]) -> None:
    """Tells each command that has ended to who started it, as `subprocess` tells exit codes."""
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with running.pop(pid) as starter, suppress(OSError):
                starter.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


# A process that was forked.


def become(request: Request, given: Sequence[int]) -> None:
    """Takes over what a process has from the one that starts it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, UNUSED_DESCRIPTORS) for descriptor in given]
    for descriptor in given:
        os.close(descriptor)
    for descriptor, number in zip(moved, request.descriptors, strict=True):
        os.dup2(descriptor, number, inheritable=number <= 2)
        os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        server = getattr(sys, name)
        stream = open(  # noqa: SIM115 - never closed
            number,
            "w" if number else "r",
            buffering=1 if number == 2 else -1,
            encoding=server.encoding,
            errors=server.errors,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if request.on_terminal:
        take_terminal()
    os.chdir(request.folder)
    change_path(os.environ.get("PYTHONPATH", ""), request.variables.get("PYTHONPATH", ""))
    os.environ.clear()
    os.environ.update(request.variables)
    show_variables(request.variables)
    sys.modules["numpy"].random.seed()  # once more, as when it is imported


def take_terminal() -> None:
    """Makes the terminal that is the input the controlling one of a new session, as a shell's is."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def change_path(server: str, own: str) -> None:
    """Replaces the server's PYTHONPATH in `sys.path` by the process's own."""
    removed, added = (
        [os.path.abspath(folder) for folder in text.split(os.pathsep) if folder] for text in (server, own)
    )
    sys.path[:] = [*added, *(folder for folder in sys.path if folder not in removed)]


def show_variables(variables: dict[str, str]) -> None:
    """Writes them where /proc/<pid>/environ is read from. What `os.environ` sets stands elsewhere."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    block = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in variables.items())
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, block, min(len(block), end - start))


def run(arguments: Sequence[str]) -> None:
    """Does what `python` does with `-m module …` or `-c code …`."""
    sys.orig_argv[:] = [sys.executable, *arguments]
    option, what, *rest = arguments
    if option == "-m":
        sys.argv[:] = [what, *rest]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = ["-c", *rest]
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(what, vars(main))


# The server that a sweep forks its workers from.


def fork_spare() -> Request | None:
    """Forks a process that will be what the command starts as `multiprocessing.forkserver`: another fresh one.

    Returns:
        Its request in that process, when it is there; None in the command itself.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        return wait_for_request(theirs)
    theirs.close()
    start = util.spawnv_passfds

    def start_or_use_spare(path: bytes, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
        if "multiprocessing.forkserver" not in arguments[-1] or ours.fileno() < 0:
            return int(start(path, arguments, descriptors))
        used = [0, 1, 2, *descriptors]
        with ours:
            send(ours, Request(list(arguments[-2:]), dict(os.environ), os.getcwd(), used), used)
        return pid

    util.spawnv_passfds = start_or_use_spare
    return None


def wait_for_request(command: socket.socket) -> Request:
    """Waits without holding what the command writes to, whose reader would wait too; ends with the command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    with command:
        received = receive(command)
    if received is None:
        os._exit(0)
    become(*received)
    return received[0]


def leave(code: object) -> None:
    """Ends the process as `multiprocessing` ends its own, without the half second in which Python takes all apart."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        os._exit(120)  # as Python does
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    del sys.path[0]  # the tests' folder
    del os.environ[ROOM]
    import_libraries(sys.argv[4:])
    with_libraries, with_package = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    if os.fork():
        with_package.close()
        asked = serve(with_libraries)
    else:
        with_libraries.close()
        import_package(sys.argv[3])
        asked = serve(with_package)
    if "-m" in asked.arguments[2:] or "experiments.unseal" in asked.arguments:
        asked = fork_spare() or asked
    try:
        run(asked.arguments)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        leave(end.code)
    leave(None)
