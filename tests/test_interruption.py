"""Signals as requests to stop; how a process ends at once is tested with the entrance."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest

from experiments.training.interruption import SIGNALS, StopRequest, listening

PATIENCE_SECONDS = 20


class Heard:
    """A request, and what it has called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.twice = threading.Event()
        self.once = threading.Event()
        self.request = StopRequest(on_first=self._first, on_second=self._second)

    def _first(self) -> None:
        self.calls.append("first")
        self.once.set()

    def _second(self) -> None:
        self.calls.append("second")
        self.twice.set()


def test_request_tells_the_first_time_from_the_others() -> None:
    heard = Heard()
    assert not heard.request()
    for _ in range(3):
        heard.request.ask()
    assert heard.request()
    assert heard.calls == ["first", "second", "second"]


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_is_heard_while_the_main_thread_waits(number: signal.Signals) -> None:
    """Without a Python handler being run: an event's `wait` here stands for a call into TensorFlow."""
    heard = Heard()
    with listening(heard.request) as request:
        os.kill(os.getpid(), number)
        assert heard.once.wait(PATIENCE_SECONDS)
        os.kill(os.getpid(), number)
        assert heard.twice.wait(PATIENCE_SECONDS)
        assert request()
    assert heard.calls == ["first", "second"]


def test_signal_that_is_not_listened_to_asks_for_nothing() -> None:
    heard = Heard()
    seen = threading.Event()
    earlier = signal.signal(signal.SIGUSR1, lambda *_: seen.set())
    try:
        with listening(heard.request):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert seen.wait(PATIENCE_SECONDS)
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard.once.wait(PATIENCE_SECONDS)  # SIGUSR1 came before it, through the same socket
    finally:
        signal.signal(signal.SIGUSR1, earlier)
    assert heard.calls == ["first"]


def test_everything_is_as_before_after_the_block() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    threads = threading.active_count()
    with contextlib.suppress(ZeroDivisionError), listening(Heard().request):
        assert [signal.getsignal(number) for number in SIGNALS] != before
        print(1 / 0)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
