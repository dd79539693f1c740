"""The process that talks to Ray, seen from the planner."""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import Any

from experiments.errors import InputError
from experiments.sweeps.executors.ray_driver import OWN

LEAVE_SECONDS = 10.0  # for a Ray of our own to end
PRINTED_BYTES = 300  # of the end of what Ray has printed, for a message
END: dict[str, Any] = {"end": True}


class Connection:
    """A connection to the Ray at an address. `is_lost` when its process has ended."""

    def __init__(self, address: str) -> None:
        self.is_lost = False
        self._address = address
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close
        command = [sys.executable, "-m", "experiments.sweeps.executors.ray_driver", address, str(os.getpid())]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            start_new_session=True,  # Ctrl-C is the planner's alone
        )
        threading.Thread(target=self._read, daemon=True, name="ray").start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with suppress(ValueError):  # its end was cut off
                self._messages.put(json.loads(line))
        self._messages.put(END)

    def send(self, **order: Any) -> None:
        """Sends an order; it gets lost where the connection is."""
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.write(f"{json.dumps(order)}\n".encode())
                self._process.stdin.flush()

    def receive(self, timeout_seconds: float) -> list[dict[str, Any]]:
        """What has come since the last call; waits for at most `timeout_seconds` where nothing has."""
        found: list[dict[str, Any]] = []
        with suppress(queue.Empty):
            while not self.is_lost:
                message = self._messages.get(timeout=0 if found else timeout_seconds)
                if message == END:
                    self.is_lost = True
                else:
                    found.append(message)
        return found

    def close(self) -> None:
        """Ends the connection, its tasks with it, and a Ray of our own."""
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._printed.close()

    def explain(self) -> str:
        """The end of what Ray has printed, in one line."""
        size = self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(0, size - PRINTED_BYTES))
        return " ".join(self._printed.read().decode(errors="replace").split())


def address_of(given: str | None) -> str:
    """The address of the Ray that is meant: the option's, `$RAY_ADDRESS`, or `local`."""
    return given or os.environ.get("RAY_ADDRESS") or OWN


def require_ray() -> None:
    """Refuses where Ray is not installed.

    Raises:
        InputError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError("sweep=ray needs Ray, which is not installed: pip install 'experiments[ray]'")
