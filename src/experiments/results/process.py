"""Processes: whether one is still there, and how this one ends at once."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil
from pydantic import BaseModel

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PR_SET_PDEATHSIG = 1  # of prctl(2)
SHOW_CURSOR = b"\x1b[?25h"


class Process(BaseModel):
    """A process, and what it takes to know whether it is still there.

    Attributes:
        host: the name of its host.
        pid: its number.
        started: seconds since the epoch, by its host's clock.
        boot: the boot id of its host; empty where it is not known.
        namespace: of its number.
        started_after_boot: seconds, which no change of the clock moves.
    """

    host: str
    pid: int
    started: float
    boot: str = ""
    namespace: str = ""
    started_after_boot: float | None = None

    @classmethod
    def current(cls) -> Process:
        """This process."""
        boot, namespace = _boot()
        me = psutil.Process()
        return cls(
            host=socket.gethostname(),
            pid=me.pid,
            started=me.create_time(),
            boot=boot,
            namespace=namespace,
            started_after_boot=_after_boot(me),
        )

    def __str__(self) -> str:
        """`process 1234`, with its host where that is another one."""
        return f"process {self.pid}" + ("" if self.is_comparable() else f" on {self.host}")

    def is_comparable(self) -> bool:
        """Whether its number means the same process here."""
        boot, namespace = _boot()
        if self.boot and boot:
            return (self.boot, self.namespace) == (boot, namespace)
        return self.host == socket.gethostname()

    def is_gone(self) -> bool:
        """True only where that can be known: where its number means the same process."""
        if not self.is_comparable():
            return False
        try:
            process = psutil.Process(self.pid)
            dead = process.status() == psutil.STATUS_ZOMBIE  # killed, and its parent has not asked how it ended
            then, now = self.started_after_boot, _after_boot(process)
            if then is None:
                then, now = self.started, process.create_time()
            # Two readings of a start time may differ by clock rounding; a reused pid differs by far more than 1 s.
            return bool(dead or abs(now - then) > 1)
        except psutil.Error:
            return True


def _boot() -> tuple[str, str]:
    """This host's boot id and the namespace of process numbers here; empty where the system has neither."""
    with suppress(OSError):
        return BOOT_ID.read_text().strip(), os.readlink("/proc/self/ns/pid")
    return "", ""


def _after_boot(process: psutil.Process) -> float:
    return float(process.create_time() - psutil.boot_time())


def end_process(code: int) -> NoReturn:
    """Ends the process at once: nothing is waited for, nothing more is written but the cursor, which a bar may hide."""
    with suppress(OSError):
        if os.isatty(1):
            os.write(1, SHOW_CURSOR)
    os._exit(code)


def end_with(parent: int) -> None:
    """Has the system end this process at once when `parent`, its parent, is gone; it may be gone already.

    Only on Linux: elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
