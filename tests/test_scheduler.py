"""The scheduler between a strategy and an executor: made-up ones, and one that shares nothing but the disk."""

from __future__ import annotations

import io
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from rich.console import Console

from conftest import SMALL, epoch_row, train, write_record
from experiments.conf import CONF
from experiments.errors import InputError
from experiments.results import files, records
from experiments.sweeps import failures, locks
from experiments.sweeps import scheduler as scheduling
from experiments.sweeps.composition import Composer
from experiments.sweeps.directory import find_place, freeze
from experiments.sweeps.executor import Ended, Ending, EpochDone, Event, Moved, Run
from experiments.sweeps.executors.follow import Follower
from experiments.sweeps.launch import _run_of
from experiments.sweeps.planning import make_plan
from experiments.sweeps.progress import Progress
from experiments.sweeps.scheduler import Scheduler
from experiments.sweeps.status import JobState, Status
from experiments.sweeps.strategies.grid import Grid
from experiments.sweeps.strategy import Seen, Step
from experiments.sweeps.sweep import Sweep
from subprocess_executor import SubprocessExecutor

HYDRA = {"overrides": {"task": []}}


class Script:
    """An executor that does what it is told: for each job a list of what happens, one thing for each look."""

    def __init__(self, slots: int, happens: dict[int, Sequence[Event]]) -> None:
        self.slots, self._happens = slots, happens
        self._left: dict[int, deque[Event]] = {}
        self.submitted: list[tuple[int, int | None]] = []
        self.stops: list[tuple[int, bool]] = []
        self.killed: list[int] = []
        self.most_at_once = 0

    def open(self) -> None: ...

    def submit(self, run: Run, output: Path) -> int:
        del output
        number = run.origin.job
        assert number is not None
        self.submitted.append((number, run.until_epoch))
        self._left[number] = deque(self._happens[number])
        self.most_at_once = max(self.most_at_once, len(self._left))
        return number

    def events(self, timeout_seconds: float) -> Iterator[tuple[int, Event]]:
        del timeout_seconds
        for number, left in list(self._left.items()):
            if number in self.killed:
                del self._left[number]
                yield number, Ended(Ending.KILLED, "Killed: by the test")
            elif left:
                event = left.popleft()
                if isinstance(event, Ended):
                    del self._left[number]
                yield number, event

    def stop(self, handle: int, *, now: bool) -> None:
        self.stops.append((handle, now))
        if now:
            self._left[handle] = deque([Ended(Ending.INTERRUPTED)])

    def kill(self, handle: int) -> None:
        self.killed.append(handle)

    def close(self) -> None: ...


class NoFollowups:
    """Nothing is done beside the jobs."""

    def __init__(self) -> None:
        self.told: list[tuple[int, bool]] = []

    def job_ended(self, status: Status, *, more_to_come: bool) -> None:
        self.told.append((status.job.number, more_to_come))

    def close(self) -> None: ...


@pytest.fixture
def sweep(home: Path) -> Callable[..., Sweep]:
    """A sweep that has been frozen, by its choices."""

    def make(*choices: str, small: Sequence[str] = SMALL) -> Sweep:
        split = [
            [f"{key}={value}" for value in text.split(",")] for key, _, text in (c.partition("=") for c in choices)
        ]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composer = Composer(lambda overrides: hydra_compose("config", overrides=overrides))
            plan = make_plan([[*small, "tracking=none", *job] for job in product(*split)], composer)
        freeze(plan, find_place(plan, home))
        statuses = [Status(job) for job in plan.jobs]
        return Sweep(plan, find_place(plan, home), statuses, None, home, Console(file=io.StringIO()))

    return make


def schedule(
    sweep: Sweep,
    executor: Any,
    strategy: Any = None,
    decide: Callable[[], None] = lambda: None,
    *,
    wait: bool = True,
) -> Scheduler:
    return Scheduler(
        sweep,
        strategy or Grid(),
        executor,
        prepare=partial(_run_of, sweep, HYDRA),
        progress=Progress(sweep.console, sweep.plan, sweep.place, sweep.statuses),
        followups=NoFollowups(),  # type: ignore[arg-type]
        decide=decide,
        wait=wait,
    )


def finished(sweep: Sweep, number: int) -> Ended:
    """The end of a job whose record is there."""
    job = sweep.plan.jobs[number]
    metrics = {"validation/accuracy": 0.5}
    write_record(sweep.place.directory_of(job), state="finished", run_key=job.run_key, metrics=metrics)
    return Ended(Ending.FINISHED)


def states(sweep: Sweep) -> list[str]:
    return [status.state for status in sweep.statuses]


def test_as_many_run_side_by_side_as_there_are_slots(sweep: Callable[..., Sweep]) -> None:
    made = sweep("seed=0,1,2,3,4")
    executor = Script(2, {n: [EpochDone(epoch_row(1)), finished(made, n)] for n in range(5)})
    schedule(made, executor).work()
    assert states(made) == ["done"] * 5
    assert [number for number, _ in executor.submitted] == [0, 1, 2, 3, 4]
    assert executor.most_at_once == 2
    assert [status.row.epoch for status in made.statuses if status.row] == [1] * 5


def test_failures_are_kept_and_the_sweep_goes_on(sweep: Callable[..., Sweep]) -> None:
    made = sweep("seed=0,1,2")
    executor = Script(1, {0: [Ended(Ending.FAILED, "ValueError: no")], 1: [Ended(Ending.KILLED, "Killed: gone")],
                          2: [finished(made, 2)]})  # fmt: skip
    schedule(made, executor).work()
    assert states(made) == ["failed", "failed", "done"]
    assert [records.load(made.place.path / str(n)).error.type for n in (0, 1)] == ["ValueError", "Killed"]  # type: ignore[union-attr]


def test_run_that_finished_before_it_was_killed_is_done(sweep: Callable[..., Sweep]) -> None:
    made = sweep("seed=0,1")
    finished(made, 0)
    executor = Script(2, {0: [Ended(Ending.KILLED, "Killed: too late")], 1: [finished(made, 1)]})
    schedule(made, executor).work()
    assert states(made) == ["done", "done"]


def test_first_jobs_that_all_fail_alike_end_the_sweep(sweep: Callable[..., Sweep]) -> None:
    made = sweep("seed=0,1,2,3,4")
    executor = Script(1, {n: [Ended(Ending.FAILED, "ValueError: no")] for n in range(5)})
    schedule(made, executor).work()
    assert states(made) == ["failed"] * 3 + ["waiting"] * 2


def test_full_disk_is_told_though_nothing_runs_any_more(
    sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = sweep("seed=0,1")
    left = [10**9, 10**6]
    monkeypatch.setattr("experiments.runner.shutil.disk_usage", lambda _: SimpleNamespace(free=left.pop(0)))
    schedule(made, Script(1, {0: [finished(made, 0)]})).work()
    assert states(made) == ["done", "waiting"]
    assert re.search(r"^stopping \(.*: has 1 MB free; a run needs 50 MB\)$", caplog.messages[-1])


def test_stop_is_passed_on_once_and_twice(sweep: Callable[..., Sweep]) -> None:
    made = sweep("seed=0,1,2")
    executor = Script(2, {n: [EpochDone(epoch_row(1))] * 3 for n in range(3)})
    scheduler = schedule(made, executor)
    scheduler.ask()
    scheduler.work()
    assert executor.submitted == []
    scheduler = schedule(made, executor)
    taken = scheduler._take_in

    def ask_twice(seconds: float) -> None:
        taken(seconds)
        if not scheduler.asked:
            scheduler.asked = 2

    scheduler._take_in = ask_twice  # type: ignore[method-assign]
    scheduler.work()
    assert executor.stops == [(0, False), (1, False), (0, True), (1, True)]
    assert states(made) == ["interrupted", "interrupted", "waiting"]


def test_run_that_does_not_stop_is_killed_and_can_go_on(
    sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sweep("seed=0,1")
    monkeypatch.setattr(scheduling, "GRACE_SECONDS", 0.01)
    executor = Script(1, {0: [EpochDone(epoch_row(1))], 1: []})
    monkeypatch.setattr(executor, "stop", lambda handle, now: None)
    scheduler = schedule(made, executor)
    taken = scheduler._take_in

    def ask(seconds: float) -> None:
        taken(seconds)
        scheduler.asked = 2

    scheduler._take_in = ask  # type: ignore[method-assign]
    scheduler.work()
    assert executor.killed == [0]
    assert states(made) == ["interrupted", "waiting"]


class UntilTheFirst(Grid):
    """Wants nothing any more when the first job is done."""

    def look(self, seen: Sequence[Seen]) -> Sequence[Step]:
        return [] if seen[0].state == JobState.DONE else super().look(seen)

    def dropped(self, seen: Sequence[Seen]) -> Sequence[int]:
        running = [number for number, job in enumerate(seen) if job.state == JobState.RUNNING]
        return running if seen[0].state == JobState.DONE else []


def test_run_that_is_not_wanted_any_more_is_paused(
    sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sweep("seed=0,1,2")
    executor = Script(2, {0: [EpochDone(epoch_row(1)), finished(made, 0)], 1: [EpochDone(epoch_row(1))] * 9, 2: []})

    def stop(handle: int, *, now: bool) -> None:
        executor.stops.append((handle, now))
        write_record(made.place.path / "1", state="interrupted", run_key=made.plan.jobs[1].run_key)
        executor._left[handle] = deque([Ended(Ending.INTERRUPTED)])

    monkeypatch.setattr(executor, "stop", stop)
    schedule(made, executor, UntilTheFirst()).work()
    assert executor.stops == [(1, False)]
    assert [number for number, _ in executor.submitted] == [0, 1]
    assert states(made) == ["done", "paused", "waiting"]
    assert records.load(made.place.path / "1").state == "paused"


def test_decision_that_does_not_hold_ends_the_sweep(
    sweep: Callable[..., Sweep], caplog: pytest.LogCaptureFixture
) -> None:
    made = sweep("seed=0,1,2")

    def decide() -> None:
        raise InputError("the decision after 3 seeds is not what it was")

    executor = Script(1, {n: [finished(made, n)] for n in range(3)})
    schedule(made, executor, decide=decide).work()
    assert states(made) == ["done", "waiting", "waiting"]
    assert "stopping (the decision after 3 seeds is not what it was)" in caplog.text


def test_job_that_takes_too_long_is_killed_and_says_so(sweep: Callable[..., Sweep]) -> None:
    made = sweep("seed=0,1", small=(*SMALL, "sweep.timeout_minutes=1.0e-9"))
    executor = Script(1, {0: [EpochDone(epoch_row(1))], 1: [EpochDone(epoch_row(1))]})
    schedule(made, executor).work()
    assert executor.killed == [0, 1]
    assert {status.message for status in made.statuses} == {
        "TimeoutError: took longer than sweep.timeout_minutes=1e-09"
    }
    assert states(made) == ["failed", "failed"]


def test_what_a_killed_planner_left_is_gathered(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    made = sweep("seed=0,1,2")
    elsewhere = write_record(tmp_path / "elsewhere", state="finished").directory
    write_record(made.place.path / "0", state="interrupted")
    (made.place.path / "1").symlink_to(elsewhere)
    for job in made.plan.jobs:
        made.place.output_of(job).write_text("printed\n")
    failures.gather_leftovers(made.plan.jobs, made.place)
    assert (made.place.path / "0" / files.LOG).read_text() == "printed\n"
    assert not (elsewhere / files.LOG).exists()
    assert [made.place.output_of(job).exists() for job in made.plan.jobs] == [False, False, True]


class TwoStages(Grid):
    """A strategy that pauses every job after its first epoch and continues the one with the best accuracy."""

    def look(self, seen: Sequence[Seen]) -> list[Step]:
        first = [Step(n, until_epoch=1) for n, job in enumerate(seen) if job.state == JobState.WAITING]
        if first or any(job.state == JobState.RUNNING for job in seen):
            return first
        paused = [n for n, job in enumerate(seen) if job.state == JobState.PAUSED]
        if len(paused) < len(seen):
            return []
        return [Step(max(paused, key=lambda n: seen[n].rows[-1].validation_accuracy))]


def test_strategy_pauses_jobs_and_continues_one_of_them(sweep: Callable[..., Sweep]) -> None:
    made = sweep("seed=0,1,2")

    class Pausing(Script):
        def submit(self, run: Run, output: Path) -> int:
            number = run.origin.job or 0
            row = epoch_row(run.until_epoch or 2)
            end = Ended(Ending.PAUSED) if run.until_epoch else finished(made, number)
            self._happens = {number: [EpochDone(row), end]}
            return super().submit(run, output)

    executor = Pausing(2, {})
    schedule(made, executor, TwoStages()).work()
    assert executor.submitted == [(0, 1), (1, 1), (2, 1), (0, None)]
    assert states(made) == ["done", "paused", "paused"]


def test_strategy_is_asked_about_the_same_jobs_in_the_same_order(sweep: Callable[..., Sweep]) -> None:
    made = sweep("seed=0,1")
    asked: list[list[str]] = []

    class Watching(Grid):
        def look(self, seen: Sequence[Seen]) -> Sequence[Step]:
            asked.append([job.state for job in seen])
            return super().look(seen)

    schedule(made, Script(1, {n: [finished(made, n)] for n in range(2)}), Watching()).work()
    assert asked[0] == ["waiting", "waiting"]
    assert asked[-1] == ["done", "done"]


# An executor whose runs go on when the planner is gone.


class Lasting(Script):
    """Has job 0 already, from an earlier planner."""

    def carries(self, directory: Path) -> bool:
        return directory.name == "0"

    def leave(self) -> Sequence[str]:
        return ["they go on"]


def test_planner_that_does_not_wait_leaves_when_all_is_submitted(sweep: Callable[..., Sweep]) -> None:
    made = sweep("seed=0,1")
    executor = Lasting(2, {0: [], 1: []})
    scheduler = schedule(made, executor, wait=False)
    scheduler.work()
    assert ([number for number, _ in executor.submitted], list(scheduler.left)) == ([0, 1], ["they go on"])
    assert (states(made), executor.stops) == (["queued", "queued"], [])


def test_run_of_an_earlier_planner_is_followed_though_its_key_is_locked(sweep: Callable[..., Sweep]) -> None:
    made = sweep("seed=0,1")
    lock = made.lock_of(made.plan.jobs[0])
    lock.parent.mkdir(parents=True, exist_ok=True)
    executor = Lasting(2, {n: [Moved(running=True), finished(made, n)] for n in range(2)})
    with locks.held(lock):
        schedule(made, executor).work()
    assert states(made) == ["done", "done"]


@pytest.mark.parametrize("asked", [1, 2])
def test_first_interrupt_leaves_runs_that_go_on_and_the_second_ends_them(
    sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    monkeypatch.setattr("experiments.sweeps.scheduler.LEAVE_SECONDS", 0)
    made = sweep("seed=0")
    executor = Lasting(1, {0: [Moved(running=True), EpochDone(epoch_row(1))]})
    scheduler = schedule(made, executor)
    monkeypatch.setattr(executor, "events", _asks_when_it_runs(executor, scheduler, asked))
    scheduler.work()
    assert bool(scheduler.left) == (asked == 1)
    assert executor.stops == ([] if asked == 1 else [(0, False), (0, True)])
    assert states(made) == ["running" if asked == 1 else "interrupted"]


def _asks_when_it_runs(executor: Script, scheduler: Scheduler, asked: int) -> Callable[[float], Iterator[Any]]:
    events = executor.events

    def told(timeout_seconds: float) -> Iterator[Any]:
        for handle, event in events(timeout_seconds):
            yield handle, event
            if isinstance(event, EpochDone):
                scheduler.asked = asked

    return told


def test_run_that_is_withdrawn_from_a_queue_waits(sweep: Callable[..., Sweep]) -> None:
    made = sweep("seed=0")
    executor = Lasting(1, {0: [Moved(running=False), Ended(Ending.WITHDRAWN)]})
    scheduler = schedule(made, executor)
    events = executor.events

    def once(timeout_seconds: float) -> Iterator[Any]:
        for handle, event in events(timeout_seconds):
            scheduler.asked = 2  # nothing new is submitted
            scheduler._told = 2
            yield handle, event

    executor.events = once  # type: ignore[method-assign]
    scheduler.work()
    assert states(made) == ["waiting"]


class Queueing(Lasting):
    """Job 0 of what it is given ends, the others wait in its queue until they are withdrawn; it has 1 already."""

    def carries(self, directory: Path) -> bool:
        return directory.name == "1"

    def stop(self, handle: int, *, now: bool) -> None:
        super().stop(handle, now=now)
        self._left[handle] = deque([Ended(Ending.WITHDRAWN)])


def test_queued_runs_that_a_decision_has_made_needless_are_withdrawn(sweep: Callable[..., Sweep]) -> None:
    made = sweep("seed=0,1,2")
    queued = [Moved(running=False)]
    executor = Queueing(3, {0: [*queued, finished(made, 0)], 1: queued, 2: queued})
    schedule(made, executor, UntilTheFirst()).work()
    assert executor.stops == [(1, False), (2, False)]
    assert states(made) == ["done", "waiting", "waiting"]


@pytest.mark.parametrize("wait", [True, False])
def test_planner_that_comes_back_withdraws_what_was_decided_meanwhile(sweep: Callable[..., Sweep], wait: bool) -> None:
    made = sweep("seed=0,1,2")
    finished(made, 0)
    made.statuses[0].state = JobState.DONE
    executor = Queueing(3, {1: [Moved(running=False)]})
    scheduler = schedule(made, executor, UntilTheFirst(), wait=wait)
    scheduler.work()
    assert ([number for number, _ in executor.submitted], executor.stops) == ([1], [(1, False)])
    assert (states(made), scheduler.left) == (["done", "waiting", "waiting"], ())


# An executor that shares nothing but the disk.


def test_follower_tells_what_is_new_in_a_run_directory(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    record = write_record(directory, state="interrupted", epochs_run=1)
    files.write_history(directory / files.HISTORY, [epoch_row(1)])
    follower = Follower(directory)
    assert list(follower.events()) == []
    record.write(state="running")
    assert list(follower.events()) == [Moved(running=True)]
    files.write_history(directory / files.HISTORY, [epoch_row(1), epoch_row(2), epoch_row(3)])
    assert [event.row.epoch for event in follower.events() if isinstance(event, EpochDone)] == [2, 3]
    record.write(state="diverged", error={"type": "DivergedError", "message": "nan"})
    assert list(follower.events()) == [Ended(Ending.DIVERGED, "DivergedError: nan")]
    assert list(follower.events()) == []


def test_follower_sees_a_run_that_is_gone(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "run")
    assert list(follower.events()) == []
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    process = records.Process.current().model_copy(update={"pid": child})
    write_record(tmp_path / "run", state="running", process=process)
    assert list(follower.events()) == [Ended(Ending.KILLED, "Killed: the process is gone and has said nothing")]


class KillsOnce(SubprocessExecutor):
    """Kills the process of job 1 after the first epoch that is seen of it."""

    killed: int | None = None

    def events(self, timeout_seconds: float) -> Iterator[tuple[int, Event]]:
        for handle, event in super().events(timeout_seconds):
            yield handle, event
            is_of_job_1 = handle in self._jobs and self._jobs[handle][1]._directory.name == "1"
            if self.killed is None and is_of_job_1 and isinstance(event, EpochDone):
                self.killed = handle
                os.kill(handle, signal.SIGKILL)


class PausesJob0(Grid):
    """Pauses job 0 after two epochs, and continues it when nothing else waits."""

    def look(self, seen: Sequence[Seen]) -> Sequence[Step]:
        steps = super().look(seen)
        return [step._replace(until_epoch=2) if seen[step.job].state == JobState.WAITING and step.job == 0 else step
                for step in steps]  # fmt: skip


@pytest.mark.slow
def test_sweep_by_followed_subprocesses_has_the_bits_of_runs_alone(
    tensorflow: Any, sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    """One job is paused and continued, the other one is killed and goes on when the sweep is carried out again."""
    made = sweep("seed=0,1", small=(*SMALL, "model=linear", "training.epochs=40"))
    trained = [train(job.config, job.config.dataset.load()) for job in made.plan.jobs]
    executor = KillsOnce(2, tmp_path)
    schedule(made, executor, PausesJob0()).work()
    assert states(made) == ["done", "failed"]
    made.statuses[1].state = JobState.WAITING
    schedule(made, executor).work()
    assert states(made) == ["done", "done"]
    runs = sorted((run.origin.job, run.until_epoch or 0) for run in executor.submitted)
    assert runs == [(0, 0), (0, 2), (1, 0), (1, 0)]
    assert made.statuses[1].rows[0].epoch == 1
    digests = [records.load(made.place.path / str(number)).weights_digest for number in (0, 1)]
    assert digests == [alone.trainer.weights_digest() for alone in trained]
