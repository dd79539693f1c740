"""Whether a process is still there, from the same host and from others."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from experiments.results.process import Process


def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_this_process_is_here() -> None:
    me = Process.current()
    assert me.is_comparable()
    assert not me.is_gone()
    assert str(me) == f"process {os.getpid()}"


@pytest.mark.parametrize("changed", [{"boot": "another boot"}, {"namespace": "pid:[1]"}])
def test_number_of_another_boot_or_namespace_says_nothing(changed: dict[str, str]) -> None:
    other = Process.current().model_copy(update=changed | {"pid": ended(), "host": "node7"})
    assert not other.is_comparable()
    assert not other.is_gone()
    assert str(other) == f"process {other.pid} on node7"


def test_number_counts_under_another_host_name_of_the_same_boot() -> None:
    """As in a container that shares the namespace, or after the host was renamed."""
    assert Process.current().model_copy(update={"pid": ended(), "host": "node7"}).is_gone()


def test_without_a_boot_id_the_host_name_counts() -> None:
    older = Process.current().model_copy(update={"boot": "", "namespace": "", "started_after_boot": None})
    assert not older.is_gone()
    assert older.model_copy(update={"pid": ended()}).is_gone()
    assert not older.model_copy(update={"pid": ended(), "host": "node7"}).is_gone()


def test_step_of_the_clock_does_not_make_a_process_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel dates a start by the boot time, which moves with the clock."""
    me = Process.current()
    later = psutil.boot_time() + 7200
    monkeypatch.setattr(psutil, "boot_time", lambda: later)
    monkeypatch.setattr("psutil._psplatform.boot_time", lambda: later)
    assert abs(Process.current().started - me.started) == pytest.approx(7200, abs=1)
    assert not me.is_gone()
