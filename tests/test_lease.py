"""Who owns a folder: one process at a time, on every host; what was taken over writes nothing more."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import commands
from conftest import environment, started, write_record
from experiments.config import RunConfig, load_config
from experiments.errors import BusyError, InputError, StoppedError
from experiments.results import files, lease, records
from experiments.results.files import EpochRow
from experiments.results.lease_file import look
from experiments.results.process import Process
from experiments.results.records import Record
from experiments.results.tracking import TrackingError, synchronise
from experiments.sweeps import failures, locks
from experiments.sweeps.directory import Place
from experiments.training import runtime
from hosts import ON_HOST, on_host, require_hosts
from test_lease_file import write_lease

PATIENCE_SECONDS = 60.0


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def wait_until(ready: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := ready()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return found


IMPORTS = (
    "import os, signal, sys, time\nfrom pathlib import Path\n"
    "from experiments.errors import BusyError\nfrom experiments.results import files, lease\n"
)


@contextlib.contextmanager
def script(
    code: str, *arguments: object, prefix: tuple[str, ...] = (), **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `code`, in which the names that most scripts need are there."""
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", IMPORTS + code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(Path.cwd(), **variables),
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def training(code: str, *arguments: object, host: str | None = None, **variables: str) -> Iterator[commands.Process]:
    """The same for code that needs TensorFlow; on a host of its own where that is wanted."""
    code = (ON_HOST.format(host=host) if host else "") + IMPORTS + code
    given = {"env": environment(Path.cwd(), **variables), "stdout": subprocess.PIPE}
    with commands.start(["-c", code, *map(str, arguments)], **given) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: commands.Process) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


# Taking and giving up.


def test_lease_is_held_by_one_and_leaves_nothing(tmp_path: Path) -> None:
    mine = lease.acquire(tmp_path / "run")
    assert mine.number == 1
    with pytest.raises(BusyError, match=rf"run: is in use by process {os.getpid()}$"):
        lease.acquire(tmp_path / "run")
    assert names_in(tmp_path / "run") == [mine.staging.name, "lease-1.json"]
    mine.release()
    mine.release()
    assert names_in(tmp_path / "run") == []


def test_number_goes_on_after_those_that_were_used(tmp_path: Path) -> None:
    mine = lease.acquire(tmp_path, after=6)
    assert (mine.number, names_in(tmp_path)[-1]) == (7, "lease-7.json")
    mine.release()


def test_leases_of_other_names_are_others(tmp_path: Path) -> None:
    held = [lease.acquire(tmp_path, name=name) for name in ("a", "a-1", "lease")]
    assert [mine.number for mine in held] == [1, 1, 1]
    for mine in held:
        mine.release()
    assert names_in(tmp_path) == []


CONTENDERS = """
folder, reader, writer = Path(sys.argv[1]), *os.pipe()
for _ in range(20):
    if os.fork() == 0:
        os.close(writer)
        os.read(reader, 1)
        try:
            mine = lease.acquire(folder, after=int(sys.argv[2]))
            os.write(1, f"{mine.number} ".encode())
        except BusyError:
            os.write(1, b"busy ")
        time.sleep(60)
os.close(writer)
time.sleep(60)
"""


@pytest.mark.parametrize("earlier", [0, 3])
def test_one_of_twenty_contenders_wins(earlier: int, tmp_path: Path) -> None:
    if earlier:
        write_lease(tmp_path, earlier, age_seconds=70)
        (tmp_path / f".lease-{earlier}-0123456789abcdef").mkdir()
    with script(CONTENDERS, tmp_path, earlier) as process:
        assert process.stdout
        said = ""
        while len(said.split()) < 20 or said[-1] != " ":
            said += os.read(process.stdout.fileno(), 1000).decode()
        children = psutil.Process(process.pid).children()
        for child in children:
            child.kill()
        assert len(children) == 20
    assert sorted(said.split()) == [str(earlier + 1), *["busy"] * 19]
    assert [name for name in names_in(tmp_path) if not name.startswith(f".lease-{earlier + 1}-")] == [
        f"lease-{earlier + 1}.json"
    ]


def test_lease_of_another_host_is_respected_until_its_time_is_over(tmp_path: Path) -> None:
    write_lease(tmp_path, 4)
    with pytest.raises(BusyError, match=f"is in use by process {os.getpid()} on node7$"):
        lease.acquire(tmp_path)
    assert names_in(tmp_path) == ["lease-4.json"]
    write_lease(tmp_path, 4, age_seconds=70)
    mine = lease.acquire(tmp_path)
    assert (mine.number, names_in(tmp_path)) == (5, [mine.staging.name, "lease-5.json"])
    mine.release()


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    write_lease(tmp_path, 1, age_seconds=70)
    for name in (".lease-1-0123456789abcdef", ".lease-1-fedcba9876543210"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".record.json.1.ab.json").write_text("half")
    for name in (".lease-0123456789abcdef", ".probe-0123456789abcdef", "thesis.tex", ".lease-7-0123456789abcdef"):
        (tmp_path / name).write_text("")
    mine = lease.acquire(tmp_path)
    assert names_in(tmp_path) == [mine.staging.name, ".lease-7-0123456789abcdef", "lease-2.json", "thesis.tex"]
    mine.release()


def test_it_is_renewed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERIMENTS_LEASE_SECONDS", "1")
    mine = lease.acquire(tmp_path)
    before = mine.path.stat().st_mtime
    wait_until(lambda: mine.path.stat().st_mtime > before + 1)
    mine.release()


def test_child_neither_renews_nor_releases(tmp_path: Path) -> None:
    code = """
mine = lease.acquire(Path(sys.argv[1]))
if os.fork() == 0:
    mine.release()
    os.rename(mine.path, mine.path.with_name("moved"))
    mine.check()
    lease.check()
    os.rename(mine.path.with_name("moved"), mine.path)
    print(lease.staging(mine.path), mine.is_mine(), flush=True)
    os._exit(0)
os.wait()
print(mine.is_mine(), mine.path.exists(), mine.staging.exists())
mine.release()
"""
    with script(code, tmp_path) as process:
        assert [line_of(process), line_of(process)] == ["None False", "True True True"]
        assert process.wait(PATIENCE_SECONDS) == 0
    assert names_in(tmp_path) == []


def test_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    mine = lease.acquire(tmp_path)
    with pytest.raises(BusyError):
        lease.acquire(tmp_path)
    mine.release()
    assert names_in(tmp_path) == []


def test_link_whose_answer_got_lost_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS tries again when no answer comes, and is then told that the name is there."""
    link = os.link

    def twice(*names: Any) -> None:
        link(*names)
        link(*names)

    monkeypatch.setattr(os, "link", twice)
    lease.acquire(tmp_path).release()


@pytest.mark.parametrize("function", ["write_text", "mkdir"])
def test_full_disk_leaves_nothing(function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: Any, **options: Any) -> None:
        if "exist_ok" not in options:  # the folder itself is there
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, function, full)
    told = rf"{tmp_path}: cannot be written \(No space left on device\)"
    with pytest.raises(InputError, match=told), lease.owned(tmp_path, after=0, take_over=False):
        pytest.fail("it is not owned")
    assert names_in(tmp_path) == []


def test_wrong_time_is_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERIMENTS_LEASE_SECONDS", "0")
    with pytest.raises(InputError, match="EXPERIMENTS_LEASE_SECONDS"):
        lease.acquire(tmp_path / "run")
    assert names_in(tmp_path) == []


# Taken over.

OWNER = """
path = Path(sys.argv[1]) / "record.json"
if sys.argv[3] == "does not look by itself":
    lease.Lease._renew = lambda self: None
mine = lease.acquire(path.parent)
if not path.exists():
    files.write_atomically(path, "first")
print("ready", flush=True)
sys.stdin.readline()
exec(sys.argv[2])
print("survived", flush=True)
"""
WRITES = {
    "record": "files.write_atomically(path, 'late')",
    "new file": "files.write_atomically(path.with_name('new'), 'late')",
    "checkpoint": "path.with_name('checkpoint').mkdir(exist_ok=True); "
    "files.write_atomically(path.parent / 'checkpoint' / 'epoch-1.npz', 'late')",
    "model": "with files.replacing(path.with_name('model.keras')) as temporary: temporary.write_text('late')",
    "history": "files.write_history(path.with_name('history.csv'), [])",
    "figure": "from matplotlib.figure import Figure; from experiments.results.plots import canvas; "
    "canvas.save(Figure(), path.with_name('figure.png'))",
    "log": "import logging; lease.LogFile(path.with_name('run.log')).emit("
    "logging.LogRecord('experiments', 10, '', 1, 'late', None, None))",
    "mirror": "from experiments.results.tracking_mirror import Mirror; mirror = object.__new__(Mirror); "
    "mirror._error, mirror._left = None, [lambda: path.with_name('mirrored').write_text('late')]; mirror._try()",
    "elsewhere": "files.write_atomically(path.parent.parent / 'plan.json', 'late')",
}


def end_of(process: subprocess.Popen[str]) -> int:
    assert process.stderr
    code = process.wait(PATIENCE_SECONDS)
    assert "survived" not in (process.stdout.read() if process.stdout else "")
    assert process.stderr.read().endswith(": another process has taken over; this one ends\n")
    return code


@pytest.mark.parametrize("what", WRITES)
def test_owner_that_was_taken_over_writes_nothing_and_ends(what: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with script(OWNER, run, WRITES[what], "does not look by itself") as owner:
        assert line_of(owner) == "ready"
        mine = lease.acquire(run, take_over=True)
        files.write_atomically(run / "record.json", "second")
        assert owner.stdin
        owner.stdin.write("\n")
        owner.stdin.flush()
        assert end_of(owner) == lease.LOST
    mine.release()
    left = {name: (run / name).read_text() for name in names_in(run) if (run / name).is_file()}
    assert left.pop("run.log", "") == ""
    assert left == {"record.json": "second"}
    assert names_in(tmp_path) == ["run"]


def test_owner_that_was_taken_over_ends_without_writing(tmp_path: Path) -> None:
    with script(OWNER, tmp_path, "", "looks", EXPERIMENTS_LEASE_SECONDS="1") as owner:
        assert line_of(owner) == "ready"
        mine = lease.acquire(tmp_path, take_over=True)
        assert end_of(owner) == lease.LOST
    mine.release()
    assert names_in(tmp_path) == ["record.json"]


def freeze_at(point: str) -> str:
    """Code that stops the process at a point of writing a file, once."""
    return f"""
real = {point}
def frozen(*arguments, **options):
    {point} = real
    os.kill(os.getpid(), signal.SIGSTOP)
    return real(*arguments, **options)
{point} = frozen
"""


@pytest.mark.parametrize("point", ["Path.write_bytes", "lease.check", "Path.replace"])
@pytest.mark.parametrize("successor", ["at work", "done", "done, and another one at work"])
def test_owner_frozen_inside_a_write_cannot_finish_it(point: str, successor: str, tmp_path: Path) -> None:
    """Also not directly before the rename, where it has looked and found itself the owner."""
    write = freeze_at(point) + WRITES["record"]
    with script(OWNER, tmp_path, write, "does not look by itself") as owner:
        assert line_of(owner) == "ready"
        assert owner.stdin
        owner.stdin.write("\n")
        owner.stdin.flush()
        wait_until(lambda: psutil.Process(owner.pid).status() == psutil.STATUS_STOPPED)
        assert not look(tmp_path).is_over()
        long_ago = time.time() - 70  # it holds for 60 seconds; tests below wait until one has run out
        os.utime(look(tmp_path).path, (long_ago, long_ago))
        mine = lease.acquire(tmp_path)
        files.write_atomically(tmp_path / "record.json", "second")
        if successor != "at work":
            mine.release()
        if successor.endswith("another one at work"):
            mine = lease.acquire(tmp_path)  # nobody said which numbers were used: it has the frozen one's
            assert mine.number == 1
        owner.send_signal(signal.SIGCONT)
        assert end_of(owner) == lease.LOST
    mine.release()
    assert (tmp_path / "record.json").read_text() == "second"
    assert names_in(tmp_path) == ["record.json"]


def test_owner_that_was_frozen_and_not_taken_over_goes_on(tmp_path: Path) -> None:
    """As after a laptop's sleep, or Ctrl-Z and fg."""
    with script(OWNER, tmp_path, WRITES["record"], "looks", EXPERIMENTS_LEASE_SECONDS="1") as owner:
        assert line_of(owner) == "ready"
        owner.send_signal(signal.SIGSTOP)
        wait_until(lambda: look(tmp_path).is_over())
        owner.send_signal(signal.SIGCONT)
        out, _ = owner.communicate("\n", PATIENCE_SECONDS)
        assert (owner.returncode, out) == (0, "survived\n")
    assert (tmp_path / "record.json").read_text() == "late"


def test_late_winner_does_not_disturb_the_next(tmp_path: Path) -> None:
    """Frozen between its link and the cleaning: what it then cleans is not the folder of its own successor."""
    write_lease(tmp_path, 1, age_seconds=70)
    code = freeze_at("lease._remove_traces") + "lease.acquire(Path(sys.argv[1])); time.sleep(0.5); lease.check()"
    with script(code, tmp_path, EXPERIMENTS_LEASE_SECONDS="1") as winner:
        wait_until(lambda: psutil.Process(winner.pid).status() == psutil.STATUS_STOPPED)
        wait_until(lambda: look(tmp_path).is_over())
        mine = lease.acquire(tmp_path)
        assert mine.number == 3
        winner.send_signal(signal.SIGCONT)
        assert winner.wait(PATIENCE_SECONDS) == lease.LOST
        files.write_atomically(tmp_path / "file", "mine")
    mine.release()
    assert names_in(tmp_path) == ["file"]


def test_run_whose_directory_was_deleted_fails_in_order(tmp_path: Path) -> None:
    mine = lease.acquire(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(FileNotFoundError):
        files.write_atomically(tmp_path / "run" / "file", "text")
    mine.release()


# Records.


def test_state_follows_the_lease(tmp_path: Path) -> None:
    write_record(tmp_path, lease=4, process=Process(host="node7", pid=1, started=0.0))
    assert records.load(tmp_path).state == "interrupted"  # given up
    write_lease(tmp_path, 4)
    assert records.load(tmp_path).state == "running"
    write_lease(tmp_path, 4, age_seconds=70)
    assert records.load(tmp_path).state == "interrupted"
    write_lease(tmp_path, 5)  # taken over, and nothing written yet
    assert records.load(tmp_path).state == "running"


def test_run_of_an_older_format_counts_as_running_for_a_day(tmp_path: Path) -> None:
    record = write_record(tmp_path, process=Process(host="node7", pid=1, started=0.0))
    files.write_history(record.directory / files.HISTORY, [])
    for hours, state in ((23, "running"), (25, "interrupted")):
        for name in (files.RECORD, files.HISTORY):
            touched = time.time() - hours * 3600
            os.utime(tmp_path / name, (touched, touched))
        assert records.load(tmp_path).state == state
    (tmp_path / files.LOG).write_text("still here")
    assert records.load(tmp_path).state == "running"


def test_run_that_ends_between_two_looks_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = write_record(tmp_path, lease=1)
    monkeypatch.setattr(records, "look", lambda _: record.write(state="finished"))
    assert records.load(tmp_path).state == "finished"


def test_ended_runs_are_read_without_a_look_at_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(tmp_path, state="finished", lease=1)
    monkeypatch.setattr(records, "look", lambda _: pytest.fail("it looked"))
    assert records.load(tmp_path).state == "finished"


def test_record_may_be_made_where_a_process_was_killed_before(tmp_path: Path) -> None:
    write_lease(tmp_path, 1)
    (tmp_path / ".lease-1-0123456789abcdef").mkdir()
    (tmp_path / ".probe-0123456789abcdef").write_text("")
    assert records.is_unused(tmp_path)
    write_record(tmp_path)
    assert not records.is_unused(tmp_path)


# Who writes into the directory of a run that it does not train.


def test_interrupt_while_a_lease_is_taken_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lease.acquire(tmp_path)
    assert names_in(tmp_path) == []


def test_failure_is_recorded_under_a_lease_and_nothing_is_left(tmp_path: Path) -> None:
    write_record(tmp_path / "0", lease=3)
    write_lease(tmp_path / "0", 3, age_seconds=70)
    failures.record(*killed(tmp_path))
    record = records.load(tmp_path / "0")
    assert (record.state, record.lease, record.error and record.error.type) == ("failed", 4, "Killed")
    assert names_in(tmp_path / "0") == ["record.json", "run.log"]


def test_failure_is_recorded_once_the_process_that_was_ended_is_gone(tmp_path: Path) -> None:
    """Ray tells that a task was cancelled before its process, and that of the job, have died."""
    code = "from experiments.results.process import Process; print(Process.current().model_dump_json()); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(tmp_path)
    ) as dying:
        assert dying.stdout
        write_record(tmp_path / "0", lease=3)
        write_lease(tmp_path / "0", 3, **json.loads(dying.stdout.readline()))
        threading.Timer(0.5, dying.kill).start()
        failures.record(*killed(tmp_path))
    record = records.load(tmp_path / "0")
    assert (record.state, record.lease, record.error and record.error.type) == ("failed", 4, "Killed")


def test_failure_of_a_run_that_goes_on_elsewhere_is_not_recorded(tmp_path: Path) -> None:
    write_record(tmp_path / "0", lease=3)
    write_lease(tmp_path / "0", 4)
    before = contents(tmp_path)
    failures.record(*killed(tmp_path))
    assert contents(tmp_path) == before


def killed(sweep: Path) -> tuple[Any, Place, None]:
    """What the planner says of a job whose process is gone."""
    job = SimpleNamespace(number=0, is_run=lambda run_key: run_key == "a" * 64)
    return SimpleNamespace(job=job, message="Killed: the process is gone"), Place(sweep, is_new=False), None


def test_mirror_is_not_made_up_for_while_a_run_goes_on(tmp_path: Path, small: Callable[..., RunConfig]) -> None:
    record = write_record(tmp_path, state="interrupted", lease=1)
    write_lease(tmp_path, 2)
    with pytest.raises(TrackingError, match=r"could not be mirrored .*: is in use by process .* on node7"):
        synchronise(record, small(), tmp_path)
    write_lease(tmp_path, 2, age_seconds=70)
    later = records.load(tmp_path)
    later.write(state="finished", lease=2)
    with pytest.raises(TrackingError, match="another process has gone on with it"):
        synchronise(record, small(), tmp_path)
    assert json.loads((tmp_path / files.RECORD).read_text())["state"] == "finished"
    assert names_in(tmp_path) == ["record.json"]


def test_lock_is_looked_at_without_being_taken(tmp_path: Path) -> None:
    path = tmp_path / ".locks" / "key"
    assert not locks.is_held(path)
    with locks.held(path):
        assert locks.is_held(path)
    assert not locks.is_held(path)
    (tmp_path / ".locks" / "key-1.json").write_text(write_lease(tmp_path).read_text())
    assert locks.is_held(path)
    assert locks.holder(path) == f"process {os.getpid()} on node7"


# Runs.

CONFIG = ("model=linear", "training.epochs=4", "tracking=none")


@pytest.fixture(scope="module")
def config(small: Callable[..., RunConfig]) -> RunConfig:
    return small(*CONFIG)


@pytest.fixture
def interrupted(config: RunConfig, tensorflow: Any, tmp_path: Path) -> Record:
    """A run that was stopped after its second epoch, in order: it holds nothing of its lease."""
    from experiments.runner import run_experiment

    def stop(row: EpochRow) -> None:
        if row.epoch == 2:
            raise StoppedError("stopped after epoch 2 of 4")

    record = run_experiment(config, tmp_path / "run", on_epoch=stop)
    assert (record.state, record.epochs_run, record.lease) == ("interrupted", 2, 1)
    assert not any(name.startswith(("lease", ".lease", ".probe")) for name in names_in(record.directory))
    return record


def go_on(directory: Path, **options: Any) -> Record:
    from experiments.runner import run_experiment

    return run_experiment(load_config(directory / files.CONFIG), directory, **options)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_run_goes_on_under_the_next_lease(interrupted: Record) -> None:
    record = go_on(interrupted.directory)
    assert (record.state, record.lease) == ("finished", 2)
    assert not any("lease" in name for name in names_in(record.directory))


def test_run_of_a_living_process_is_taken_over_where_that_is_asked_for(interrupted: Record) -> None:
    directory = interrupted.directory
    interrupted.write(state="running")
    with script(OWNER, directory, WRITES["record"], "looks") as owner:
        assert line_of(owner) == "ready"
        told = rf"run: is being run by process {owner.pid}; if you know .* resume=.*/run take_over=true$"
        with pytest.raises(BusyError, match=told):
            go_on(directory)
        record = go_on(directory, take_over=True)
        assert (record.state, record.lease, len(record.rows)) == ("finished", 2, 4)
        before = contents(directory)
        owner.communicate("\n", PATIENCE_SECONDS)
        assert owner.returncode == lease.LOST
    assert contents(directory) == before


def test_run_that_another_process_has_finished_is_left_as_it_is(
    interrupted: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = lease.acquire

    def late(folder: Path, **options: Any) -> lease.Lease:
        monkeypatch.undo()
        with monkeypatch.context() as other_process:
            other_process.setattr(runtime, "_run", threading.Lock())
            assert go_on(folder).state == "finished"
        return acquire(folder, **options)

    monkeypatch.setattr(lease, "acquire", late)
    record = go_on(interrupted.directory)
    assert (record.state, record.lease) == ("finished", 2)
    assert not any("lease" in name for name in names_in(record.directory))


def test_refused_directory_keeps_no_lease(config: RunConfig, tensorflow: Any, tmp_path: Path) -> None:
    from experiments.runner import run_experiment

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="is not empty"):
        run_experiment(config, tmp_path / "full")
    assert names_in(tmp_path / "full") == ["thesis.tex"]


FROZEN_RUNS = """
import json
from experiments.config import load_config
from experiments.ingredients import kernels
from experiments.training import runtime
os.environ.update(kernels.variables_of_import())
with runtime.quiet():
    import tensorflow
    from experiments.training import loop
    import experiments.runner

def freeze():
    os.kill(os.getpid(), signal.SIGSTOP)

def inside_an_epoch(row):
    real = loop._validate
    def once(*arguments):
        loop._validate = real
        row.epoch == 2 and freeze()
        return real(*arguments)
    loop._validate = once

def between_epochs(row):
    row.epoch == 2 and freeze()

def before_a_rename(row):
    real = Path.replace
    if row.epoch == 2:
        Path.replace = lambda self, to: (to.name == "record.json" and freeze(), real(self, to))[1]

children = {}
for freezer, looks in ((between_epochs, True), (inside_an_epoch, False), (before_a_rename, False)):
    child = os.fork()
    if child == 0:
        if not looks:
            lease.Lease._renew = lambda self: None
        config = load_config(Path(sys.argv[1]))
        directory = Path(sys.argv[2]) / f"{freezer.__name__}-{looks}"
        experiments.runner.run_experiment(config, directory, on_epoch=freezer)
        os._exit(0)
    children[child] = freezer.__name__
print(*children, flush=True)
print(json.dumps([os.waitstatus_to_exitcode(os.wait()[1]) for _ in children]), flush=True)
"""


@pytest.mark.slow
def test_frozen_run_that_wakes_up_does_not_touch_what_its_successor_has_finished(
    config: RunConfig, tensorflow: Any, tmp_path: Path
) -> None:
    from experiments.runner import run_experiment

    undisturbed = run_experiment(config, tmp_path / "undisturbed")
    homes = tmp_path / "frozen"
    with training(FROZEN_RUNS, undisturbed.directory / files.CONFIG, homes, EXPERIMENTS_LEASE_SECONDS="1") as owners:
        pids = [int(pid) for pid in line_of(owners).split()]
        wait_until(lambda: all(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in pids))
        assert len(list(homes.iterdir())) == len(pids) == 3
        finished = {}
        for directory in homes.iterdir():
            wait_until(lambda run=directory: records.load(run).state == "interrupted")
            record = go_on(directory)
            assert (record.state, record.lease, len(record.rows)) == ("finished", 2, 4)
            assert record.weights_digest == undisturbed.weights_digest
            finished[directory] = contents(directory)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert json.loads(line_of(owners)) == [lease.LOST] * 3
    assert {directory: contents(directory) for directory in homes.iterdir()} == finished


# Several hosts.

IN_TURN = """
from experiments.sweeps.locks import held
home, taken = Path(sys.argv[1]), 0
print("ready", flush=True)
while taken < 50:
    with held(home / ".locks" / "a") as mine:
        if mine:
            os.close(os.open(home / "inside", os.O_CREAT | os.O_EXCL))
            os.unlink(home / "inside")
            taken += 1
"""


def test_hosts_take_a_lock_in_turn(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(script(IN_TURN, tmp_path, prefix=on_host(f"node{i}"))) for i in range(2)]
        assert [host.wait(PATIENCE_SECONDS) for host in hosts] == [0, 0]
    assert names_in(tmp_path / ".locks") == []


@pytest.mark.slow
def test_run_of_a_host_that_dies_is_taken_over_by_one_other(config: RunConfig, tensorflow: Any, home: Path) -> None:
    from experiments.runner import run_experiment

    undisturbed = run_experiment(config, home / "undisturbed")
    code = """
from experiments.config import load_config
from experiments.runner import run_experiment
def tell(row):
    if row.epoch == 2:
        print("trained", flush=True)
        time.sleep(600)
run_experiment(load_config(Path(sys.argv[1])), Path(sys.argv[2]), on_epoch=tell)
"""
    source, run = undisturbed.directory / files.CONFIG, home / "run"
    require_hosts()
    with training(code, source, run, host="nodea", EXPERIMENTS_LEASE_SECONDS="3") as first:
        wait_until(lambda: (run / files.RECORD).exists() and records.load(run).epochs_run == 2)
        assert records.load(run).state == "running"
        with started(home, f"resume={run}") as refused:
            ended = refused.finish()
        assert (ended.code, ended.out) == (2, "")
        assert " on nodea; if you know that it has stopped: " in ended.err
        first.kill()
        first.wait()
    assert look(run)
    wait_until(lambda: records.load(run).state == "interrupted")
    code = "from experiments.run import main; sys.argv[0] = 'run'; main()"
    with training(code, f"resume={run}", host="nodeb") as second:
        with contextlib.suppress(InputError):  # the other one is at it
            go_on(run)
        assert second.wait(PATIENCE_SECONDS * 2) in (0, 2)
    record = records.load(run)
    assert (record.state, record.lease) == ("finished", 2)
    assert record.weights_digest == undisturbed.weights_digest
    assert (run / files.LOG).read_text().count("resumed after epoch 2") == 1
    assert not any("lease" in name for name in names_in(run))
