"""Hosts of their own on one disk: a name, a network, process numbers and, if wanted, a clock that nobody shares."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import commands
from conftest import Command, environment, killed_at_the_end

# A host for a command, on the same disk as all others.
HOST = ("unshare", "--uts", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
# The same from inside of a process that was forked: namespaces for mounts, the host's name, processes and the network.
# The first process of the host stays until all others have ended, as a host's does; what follows runs in the second.
ON_HOST = """
import ctypes, os, signal, socket
system = ctypes.CDLL(None, use_errno=True)
assert system.unshare(0x20000 | 0x4000000 | 0x20000000 | 0x40000000) == 0, os.strerror(ctypes.get_errno())
if first := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 255)
system.prctl(1, signal.SIGKILL)
socket.sethostname("{host}")
system.mount(b"none", b"/", None, 0x4000 | 0x40000, None)
assert system.mount(b"proc", b"/proc", b"proc", 0, None) == 0, os.strerror(ctypes.get_errno())
if second := os.fork():
    for stream in (0, 1, 2):
        os.close(stream)
    ended, code = None, 0
    while True:
        try:
            ended, status = os.wait()
        except ChildProcessError:
            os._exit(code & 255)
        code = os.waitstatus_to_exitcode(status) if ended == second else code
"""
# Then `experiments.run` as a user gives it there; its fork server is forked too, and so has the clock of the host.
PLANNER = """
import sys, time
from datetime import timedelta
from experiments.results import files
now, clock = files.now, time.time
files.now = lambda: now() + timedelta(seconds={ahead})
time.time = lambda: clock() + {ahead}
sys.path.append({tests!r})
import command_server
if spare := command_server.fork_spare():
    try:
        command_server.run(spare.arguments)
    finally:
        command_server.leave(None)
sys.argv[:] = ["-m", *{arguments!r}]
from experiments.run import main
main()
"""


def require_hosts() -> None:
    """Skips a test where a process cannot have a host of its own."""
    allowed = subprocess.run([*HOST, "true"], capture_output=True, text=True)
    if allowed.returncode:
        pytest.skip(f"NOT TESTED, two hosts on one disk: {' '.join(HOST)} is not permitted here ({allowed.stderr})")


def on_host(name: str) -> tuple[str, ...]:
    """The beginning of a command that runs on a host of that name; processes here and there cannot see each other."""
    require_hosts()
    return (*HOST, "sh", "-c", f'hostname {name} && exec "$@"', "sh")


class Planner(Command):
    """`experiments.run` on a host of its own."""

    @property
    def pid(self) -> int:
        """Of the command; the process that was started waits for its host."""
        (first,) = psutil.Process(self.process.pid).children()
        return int(first.children()[0].pid)

    def family(self) -> list[psutil.Process]:
        """The command and all that it has started."""
        planner = psutil.Process(self.pid)
        return [planner, *planner.children(recursive=True)]


@contextlib.contextmanager
def planner(home: Path, *arguments: str, host: str, ahead_seconds: int = 0, **variables: str) -> Iterator[Planner]:
    """`python -m experiments.run <arguments>` on a host whose clock is ahead; the host is gone after the block."""
    code = ON_HOST.format(host=host) + PLANNER.format(
        ahead=ahead_seconds, tests=str(Path(__file__).parent), arguments=list(arguments)
    )
    with (
        tempfile.TemporaryFile("w+") as errors,
        commands.start(
            ["-c", code], env=environment(home, **variables), cwd=home.parent, stdout=subprocess.PIPE, stderr=errors
        ) as process,
        killed_at_the_end(process),
    ):
        yield Planner(process, errors, home)
