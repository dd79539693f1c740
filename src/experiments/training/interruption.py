"""Ctrl-C and SIGTERM: once, the run stops at the end of its epoch and can be resumed; twice, it stops now.

A Python signal handler has to wait until TensorFlow's call for the epoch returns. So a thread of its own reads the
signals from the wake-up descriptor, which the interpreter feeds at once.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from experiments.results.process import end_process

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED = 130  # exit code of what was asked to stop: 128 + SIGINT, as shells tell it


class StopRequest:
    """Whether the run has been asked to stop."""

    def __init__(self, *, on_first: Callable[[], None], on_second: Callable[[], None]) -> None:
        self._on_first, self._on_second = on_first, on_second
        self._asked = threading.Event()

    def __call__(self) -> bool:
        """Whether anybody asked."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Asks once more."""
        if self._asked.is_set():
            self._on_second()
        else:
            self._asked.set()
            self._on_first()


@contextmanager
def listening(request: StopRequest, *, signals: Collection[int] = SIGNALS) -> Iterator[StopRequest]:
    """Turns the signals of this process into requests for the length of a block. Only in the main thread."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    earlier = {number: signal.signal(number, lambda *_: None) for number in signals}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_read, args=(reader, request, signals), daemon=True, name="signals")
    thread.start()
    try:
        yield request
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in earlier.items():
            signal.signal(number, handler)
        writer.close()
        thread.join()
        reader.close()


def _read(reader: socket.socket, request: StopRequest, signals: Collection[int]) -> None:
    while numbers := reader.recv(1):
        if numbers[0] in signals:
            request.ask()


def exit_now() -> None:
    """Ends the process without waiting for TensorFlow, and shows the cursor again, which a progress bar has hidden."""
    end_process(STOPPED)
