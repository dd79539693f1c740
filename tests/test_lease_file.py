"""What the file of a lease says, whatever it is, and whether the lease is over."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.errors import InputError
from experiments.results.lease_file import Found, Holder, is_trace, lease_seconds, look, server_time
from experiments.results.process import Process


def write_lease(folder: Path, number: int = 1, age_seconds: float = 0.0, **changes: Any) -> Path:
    """A lease of a process on another host, `age_seconds` after its last touch."""
    values = vars(Process.current()) | {"boot": "another boot", "host": "node7", "token": "0" * 16, "seconds": 60.0}
    folder.mkdir(exist_ok=True)
    path = folder / f"lease-{number}.json"
    path.write_text(Holder(**values | changes).model_dump_json())
    touched = path.stat().st_mtime - age_seconds
    os.utime(path, (touched, touched))
    return path


def found_in(folder: Path) -> Found:
    found = look(folder)
    assert found
    return found


def test_folder_without_a_lease_has_none(tmp_path: Path) -> None:
    (tmp_path / "lease-x.json").write_text("")
    (tmp_path / "lease-0.json").write_text("")
    assert look(tmp_path) is None
    assert look(tmp_path / "not there") is None


def test_highest_number_owns(tmp_path: Path) -> None:
    for number, host in ((2, "node2"), (10, "node10"), (9, "node9")):
        write_lease(tmp_path, number, host=host)
    found = found_in(tmp_path)
    assert (found.number, str(found)) == (10, f"process {os.getpid()} on node10")


@pytest.mark.parametrize(("age", "seconds", "over"), [(0, 60, False), (50, 60, False), (70, 60, True), (70, 90, False)])
def test_lease_of_another_host_is_over_after_its_own_time(
    age: float, seconds: float, over: bool, tmp_path: Path
) -> None:
    write_lease(tmp_path, age_seconds=age, seconds=seconds)
    assert found_in(tmp_path).is_over() is over


def test_lease_of_a_process_that_is_gone_is_over_at_once(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = Process.current()
    write_lease(tmp_path, pid=gone.pid, boot=here.boot)
    assert found_in(tmp_path).is_over()


def test_lease_of_a_process_that_is_here_and_frozen_is_over(tmp_path: Path) -> None:
    here = Process.current()
    write_lease(tmp_path, boot=here.boot, age_seconds=50)
    assert not found_in(tmp_path).is_over()
    write_lease(tmp_path, boot=here.boot, age_seconds=70)
    assert found_in(tmp_path).is_over()


@pytest.mark.parametrize("hours", [-30, 30])
def test_clock_of_this_host_plays_no_part(hours: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lease(tmp_path / "fresh")
    write_lease(tmp_path / "old", age_seconds=70)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + hours * 3600)
    assert not found_in(tmp_path / "fresh").is_over()
    assert found_in(tmp_path / "old").is_over()


# The file server's clock.


def test_look_at_the_clock_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server_time(tmp_path) == pytest.approx(time.time(), abs=5)
    monkeypatch.delattr(os, "O_TMPFILE")  # as on NFS
    assert server_time(tmp_path) == pytest.approx(time.time(), abs=5)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_the_age_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server_time(Path("/proc")) is None
    write_lease(tmp_path, age_seconds=1000)
    monkeypatch.setattr("experiments.results.lease_file.server_time", lambda _: None)
    assert not found_in(tmp_path).is_over()


# Files that are no lease.


def damaged(path: Path) -> None:
    path.write_text('{"pid": 1}')


def huge(path: Path) -> None:
    path.write_text(" " * 10_000 + "{}")


def too_long_a_time(path: Path) -> None:
    path.write_text(write_lease(path.parent, 9).read_text().replace("60.0", "1e9"))
    path.with_name("lease-9.json").unlink()


def link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [damaged, huge, too_long_a_time, link, dangling, pipe, folder])
def test_what_is_no_lease_counts_by_its_age(make: Any, tmp_path: Path) -> None:
    make(tmp_path / "lease-1.json")
    found = found_in(tmp_path)
    assert (found.number, found.holder, str(found)) == (1, None, "another process")
    assert not found.is_over()
    old = found.touched - 70
    os.utime(tmp_path / "lease-1.json", (old, old), follow_symlinks=False)
    assert found_in(tmp_path).is_over()


def test_lease_that_is_released_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = write_lease(tmp_path), os.open

    def released(*arguments: Any) -> int:
        path.unlink(missing_ok=True)
        return opened(*arguments)

    monkeypatch.setattr(os, "open", released)
    assert look(tmp_path) is None


def test_error_of_the_disk_hides_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lease(tmp_path)

    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", broken)
        assert found_in(tmp_path).holder is None


def test_traces_are_known_by_their_names() -> None:
    assert all(map(is_trace, ("lease-1.json", ".lease-1-0123456789abcdef", ".probe-0123456789abcdef")))
    assert not any(map(is_trace, ("record.json", "leases", ".record.json.1.ab", "config.yaml")))


# How long it holds.


def test_time_of_a_lease_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPERIMENTS_LEASE_SECONDS", raising=False)
    assert lease_seconds() == 60
    monkeypatch.setenv("EXPERIMENTS_LEASE_SECONDS", "2.5")
    assert lease_seconds() == 2.5


@pytest.mark.parametrize("text", ["0.5", "3601", "-1", "nan", "inf", "soon", "1 2"])
def test_impossible_time_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERIMENTS_LEASE_SECONDS", text)
    told = f"^EXPERIMENTS_LEASE_SECONDS: must be a number of seconds from 1 to 3600, received '{text}'$"
    with pytest.raises(InputError, match=told):
        lease_seconds()
