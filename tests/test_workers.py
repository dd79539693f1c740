"""Processes that carry out tasks: what they say, how they are stopped, how they end."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import train
from experiments.errors import InputError
from experiments.recording import Origin
from experiments.results import environment, own_code, records
from experiments.results.files import EpochRow
from experiments.sweeps.executor import Ended, EpochDone, Run
from experiments.sweeps.executors import local, processes
from experiments.sweeps.executors.local import LocalExecutor, _carry_out
from experiments.sweeps.executors.processes import Planner, Worker
from experiments.sweeps.followups import compare
from experiments.sweeps.preflight import try_to_build

ROW = EpochRow(1, 0.5, 0.5, 0.8, 0.6, 0.6, 0.7, 0.01, 1.0, "ab", 0.4, 0.9)


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    with processes.none_left():
        yield
    assert processes._alive == set()


# Tasks of these tests; a worker imports them from here.


def echo(planner: Planner, *words: str) -> None:
    for word in words:
        planner.tell(Ended(word))


def say_where(planner: Planner) -> None:
    planner.tell(Ended(f"{os.getpid()} {os.getsid(0)}", str(sorted(signal.Signals(s).name for s in ignored()))))


def ignored() -> list[int]:
    return [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) == signal.SIG_IGN]


def say_what_is_shared(planner: Planner) -> None:
    planner.tell(Ended(f"{'tensorflow' in sys.modules} {gc.isenabled()} {gc.get_freeze_count()}"))


def wait_long(planner: Planner) -> None:
    planner.tell(Ended("waiting"))
    time.sleep(60)


def wait_before_a_run(planner: Planner) -> None:
    planner.tell("waiting")
    time.sleep(60)


def wait_deaf(planner: Planner) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wait_long(planner)


def wait_after_an_epoch(planner: Planner, seconds: float) -> None:
    planner.tell(EpochDone(ROW))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
    planner.tell(Ended("finished"))


def stop_at_once(planner: Planner) -> None:
    try:
        wait_long(planner)
    except KeyboardInterrupt:
        planner.tell(Ended("interrupted"))


def print_much(planner: Planner) -> None:
    print("from Python")
    print("an error", file=sys.stderr)
    os.write(1, b"from C\n")
    os.write(2, b"from C, an error\n")
    logging.getLogger("experiments").warning("from a logger")
    planner.tell(Ended("finished"))


def crash(planner: Planner) -> None:
    ctypes.string_at(0)


def raise_an_error(planner: Planner) -> None:
    raise ValueError("nobody expected it")


def heard(worker: Worker, seconds: float = 20) -> list[Any]:
    """All that it says until it ends."""
    said, end = [], time.monotonic() + seconds
    while not worker.ended and time.monotonic() < end:
        processes.wait([worker], 0.1)
        said += worker.messages()
    return said


def next_word(worker: Worker) -> Any:
    for _ in range(200):
        processes.wait([worker], 0.1)
        for message in worker.messages():
            return message
        if worker.ended:
            break
    pytest.fail("it said nothing")


def next_event(executor: LocalExecutor) -> Any:
    for _ in range(200):
        for _, event in executor.events(0.1):
            return event
    pytest.fail("nothing happened")


# Tests.


def test_messages_arrive_in_order_and_the_end_is_seen() -> None:
    worker = Worker(echo, "a", "b", "c")
    assert heard(worker) == [Ended("a"), Ended("b"), Ended("c")]
    assert worker.ended
    assert worker.leave() == "exit code 0"
    assert not psutil.pid_exists(worker.process.pid)


def test_worker_has_a_session_of_its_own_and_hears_signals() -> None:
    """Also where the planner was started with Ctrl-C ignored, as in the background of a script."""
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        (said,) = heard(Worker(say_where))
    finally:
        signal.signal(signal.SIGINT, earlier)
    pid, session = said.state.split()
    assert pid == session != str(os.getsid(0))
    assert said.message == "[]"


def test_stop_while_no_run_listens_is_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come while a worker takes the lock of its run, or gives it up."""
    monkeypatch.setattr(local, "Worker", lambda *_, output: Worker(wait_before_a_run, output=output))
    executor, run = LocalExecutor(1), None
    worker = executor.submit(run, tmp_path / "output")  # type: ignore[arg-type]
    assert next_event(executor) == "waiting"
    executor.stop(worker, now=False)
    assert next_event(executor) == Ended("interrupted")
    assert (tmp_path / "output").read_text() == ""


def test_worker_that_is_killed_is_seen_to_end() -> None:
    worker = Worker(wait_long)
    assert next_word(worker) == Ended("waiting")
    os.kill(worker.process.pid, signal.SIGKILL)
    assert heard(worker) == []
    assert worker.leave() == "SIGKILL"


def test_worker_that_does_not_leave_is_ended() -> None:
    worker = Worker(wait_deaf)
    next_word(worker)
    started = time.monotonic()
    assert worker.leave(patience_seconds=0.3) == "SIGKILL"
    assert time.monotonic() - started < 3
    assert not psutil.pid_exists(worker.process.pid)


def test_worker_outlives_the_server_that_it_was_forked_from() -> None:
    worker = Worker(wait_after_an_epoch, 1.5)
    next_word(worker)
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    assert heard(worker) == [Ended("finished")]
    worker.leave()
    orphan = Worker(wait_long)  # of a new server
    next_word(orphan)
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    time.sleep(0.2)
    assert not orphan.ended
    process = psutil.Process(orphan.process.pid)
    orphan.leave(patience_seconds=0)
    _, alive = psutil.wait_procs([process], timeout=5)
    assert [left.status() for left in alive] in ([], [psutil.STATUS_ZOMBIE])  # where nobody asks how orphans ended


def test_stop_interrupts_what_has_not_been_trained() -> None:
    worker = Worker(stop_at_once)
    next_word(worker)
    worker.stop()
    assert heard(worker) == [Ended("interrupted")]


def test_stop_lets_what_has_been_trained_be_evaluated() -> None:
    worker = Worker(wait_after_an_epoch, 1.0)
    assert next_word(worker) == EpochDone(ROW)
    worker.stop()
    assert heard(worker) == [Ended("finished")]


def test_second_stop_ends_it_now() -> None:
    worker = Worker(wait_after_an_epoch, 30.0)
    next_word(worker)
    worker.stop()
    time.sleep(0.3)
    worker.stop()
    assert heard(worker, 5) == []
    assert worker.leave() == "exit code 130"


def test_worker_that_has_ended_may_be_stopped() -> None:
    worker = Worker(echo)
    heard(worker)
    worker.stop()
    worker.explain()
    assert worker.leave() == "exit code 0"


def test_server_that_still_imports_ends_with_its_planner(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n")
    code = (
        "from experiments.sweeps.executors import processes; from multiprocessing import forkserver; import time\n"
        "processes.start_server(); print(forkserver._forkserver._forkserver_pid, flush=True); time.sleep(60)"
    )
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=variables, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as planner:
        assert planner.stdout
        server = psutil.Process(int(planner.stdout.readline()))
        while not (tmp_path / "begun").exists():
            assert server.is_running()
            time.sleep(0.05)
        planner.kill()
    server.wait(timeout=20)


@pytest.mark.slow
def test_workers_share_tensorflow_and_do_not_search_it_for_garbage() -> None:
    code = (
        "from experiments.sweeps.executors import processes; import test_workers; processes.start_server()\n"
        "print(*processes.answer(processes.Worker(test_workers.say_what_is_shared)))"
    )
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    ended = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=60)
    imported, collects, frozen = ended.stdout.split()
    assert (imported, collects) == ("True", "True")
    assert int(frozen) > 100_000


@pytest.mark.slow
def test_spawned_worker_comes_to_the_same_bits(
    tensorflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Callable[..., Any]
) -> None:
    """Where no process can be forked from a server. A whole sweep of such workers is among the exhaustive tests."""
    monkeypatch.setattr(processes, "METHODS", ("spawn",))
    config = small("model=linear", "training.epochs=2", "tracking=none")
    run = Run(config, tmp_path / "0", Origin(), tmp_path / "lock", own_code.code_digest(config.model_dump()))
    worker = Worker(_carry_out, run, output=tmp_path / "output")
    assert type(worker.process).__name__ == "SpawnProcess"
    assert heard(worker, seconds=100)[-1] == Ended("finished"), (tmp_path / "output").read_text()
    worker.leave()
    alone = train(config, config.dataset.load())
    assert records.load(tmp_path / "0").weights_digest == alone.trainer.weights_digest()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_worker_ends_with_its_planner(how: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import time; from experiments.sweeps.executors.processes import Planner, Worker, wait; import test_workers\n"
        "workers = [Worker(test_workers.wait_deaf) for _ in range(2)]\n"
        "[test_workers.next_word(worker) for worker in workers]\n"
        "print(*[worker.process.pid for worker in workers], flush=True)\n"
        "time.sleep(60)\n"
    )
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", code], env=variables, stdout=subprocess.PIPE, text=True) as planner:
        assert planner.stdout
        pids = [int(pid) for pid in planner.stdout.readline().split()]
        family = [psutil.Process(pid) for pid in pids] + psutil.Process(planner.pid).children()
        assert len(pids) == 2
        planner.send_signal(how)
        planner.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_what_a_task_prints_goes_to_its_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "output"
    output.write_text("before\n")
    assert processes.answer(Worker(print_much, output=output)) == Ended("finished")
    lines = ["before", "from Python", "an error", "from C", "from C, an error", "from a logger"]
    assert sorted(output.read_text().splitlines()) == sorted(lines)
    processes.answer(Worker(print_much))
    processes.answer(Worker(print_much, output=tmp_path / "nowhere" / "output"))
    assert capfd.readouterr() == ("", "")


def test_crash_and_error_leave_where_they_happened(tmp_path: Path) -> None:
    assert processes.answer(Worker(crash, output=tmp_path / "crash")) == "SIGSEGV"
    assert "in crash" in (tmp_path / "crash").read_text()
    assert processes.answer(Worker(raise_an_error, output=tmp_path / "error")) == "exit code 1"
    assert "ValueError: nobody expected it" in (tmp_path / "error").read_text()


def test_worker_that_hangs_tells_where(tmp_path: Path) -> None:
    worker = Worker(wait_deaf, output=tmp_path / "output")
    next_word(worker)
    worker.explain()
    worker.leave(0)
    assert "in wait_long" in (tmp_path / "output").read_text()


def test_question_without_answer_is_an_input_error() -> None:
    assert processes.ask(echo, "yes") == Ended("yes")
    with pytest.raises(InputError, match="the process ended with SIGSEGV"):
        processes.ask(crash)


def test_comparison_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{")
    worker = Worker(compare, [tmp_path], tmp_path)
    (ended,) = heard(worker)
    worker.leave()
    assert ended.state == "failed"
    assert str(tmp_path / "record.json") in ended.message


def test_run_of_code_that_was_edited_is_refused(tmp_path: Path, small: Callable[..., Any]) -> None:
    run = Run(small(), tmp_path / "0", Origin(), tmp_path / "lock", "another digest")
    said = processes.answer(Worker(_carry_out, run))
    told = "the code was edited after the sweep was planned; give the command again"
    assert said == Ended("failed", f"InputError: {told}")
    built = processes.answer(Worker(try_to_build, small(), (28, 28, 1, 10), 10**9, "another digest"))
    assert built.mistakes == (told,)
    assert not (tmp_path / "0").exists()


def test_run_whose_key_is_locked_is_left_to_its_holder(tmp_path: Path, small: Callable[..., Any]) -> None:
    from experiments.sweeps.locks import held

    run = Run(small(), tmp_path / "0", Origin(), tmp_path / "lock", environment.code_digest())
    with held(tmp_path / "lock"):
        assert processes.answer(Worker(_carry_out, run)) == Ended("busy")
    assert not (tmp_path / "0").exists()
