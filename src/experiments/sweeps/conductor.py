"""Carries a plan out: what is done is reused, what is left goes to the workers, what fails fails alone."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import logging
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from experiments.errors import InputError
from experiments.ingredients.execution import Sweep
from experiments.results import records, tracking
from experiments.results.records import Failure
from experiments.recording import Origin
from experiments.sweeps import workers
from experiments.sweeps.composition import Compose, Composer
from experiments.sweeps.plan import Archive, Plan, make_plan, state_of, write_plan
from experiments.sweeps.progress import Progress, Status, describe_plan, final_table, plan_table
from experiments.sweeps.workers import Built, Ended, EpochDone, Task, Worker
from experiments.training.interruption import StopRequest, listening

log = logging.getLogger(__name__)
TICK_SECONDS = 0.25  # how often time-outs and stop requests are looked at
BUSY_SECONDS = 2.0  # before a key that another sweep is training is looked at again
GRACE_SECONDS = 10.0  # for workers that were told to stop now
ALIKE = 3  # first jobs that fail with the same error: the rest would too
SUMMARY, SWEEP = "summary.csv", "sweep.json"


def conduct(overrides: Sequence[Sequence[str]], compose: Compose) -> int:
    """Plans and carries out a sweep; returns the exit code.

    Raises:
        InputError: a mistake in any job; nothing was started and nothing is left.
    """
    home, console = records.home(), Console()
    plan = make_plan(overrides, Composer(compose), home)
    execution = plan.jobs[0].config.sweep
    archive = None if execution.reuse == "never" else Archive(home, any_code=execution.reuse == "loose")
    statuses = [_status(plan, job, archive) for job in plan.jobs]
    todo = [status for status in statuses if status.state == "waiting"]
    if todo:
        workers.start_server()
    if execution.dry_run:
        _check_architectures(plan, todo)
        console.print(plan_table(plan, statuses, _estimate(todo, home, plan.workers)))
        return 0
    with _owned(plan.directory):
        log.info("%s: %s", plan.name, describe_plan(plan, statuses))
        parent = _open_parent(plan, home)  # while the workers' server imports TensorFlow
        _check_architectures(plan, todo)
        write_plan(plan)
        return _Conductor(plan, statuses, home, console, parent).conduct()


def _status(plan: Plan, job: Any, archive: Archive | None) -> Status:
    state, record = state_of(plan, job, archive)
    # A diverged job is a result: the same seed would diverge at the same epoch again.
    ended = {"done": "done", "diverged": "diverged"}.get(state, "waiting")
    message = record.error.message if record and record.error else ""
    return Status(job, ended, state, record=record, message=message)  # type: ignore[arg-type]


@contextmanager
def _owned(directory: Path) -> Iterator[None]:
    """Holds the sweep's lock, so that the same sweep started twice does not run twice."""
    existed = directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("w")
    except OSError as error:
        raise InputError(f"{directory}: cannot be written ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{directory}: is being run by another process; wait for it or stop it") from None
        try:
            yield
        except InputError:
            if not existed:
                (directory / ".lock").unlink()
                directory.rmdir()
            raise


def _open_parent(plan: Plan, home: Path) -> str | None:
    path = plan.directory / SWEEP
    earlier = None
    with suppress(OSError, ValueError, TypeError, KeyError):
        earlier = json.loads(path.read_bytes())["mlflow_run_id"]
    return tracking.open_sweep(plan.directory, plan.jobs[0].config, home, earlier)


def _check_architectures(plan: Plan, todo: Sequence[Status]) -> None:
    """Builds each distinct architecture once, before anything is trained.

    Raises:
        InputError: with the jobs that share an architecture which cannot be built.
    """
    alike: dict[str, list[Status]] = {}
    for status in todo:
        config = status.job.config
        identity = config.model_dump_json(include={"model": True, "dataset": True, "regularization": {"dropout", "l2"}})
        alike.setdefault(identity, []).append(status)
    mistakes: list[str] = []
    groups = list(alike.values())
    for start in range(0, len(groups), plan.workers):
        batch = groups[start : start + plan.workers]
        builders = [
            Worker(
                workers.try_to_build,
                group[0].job.config,
                plan.image_shapes[group[0].job.config.dataset.model_dump_json()],
            )
            for group in batch
        ]
        for group, builder in zip(batch, builders, strict=True):
            built = _answer(builder)
            mistakes += [f"{_named(group)}: {mistake}" for mistake in built.mistakes]
            for status in group:
                status.parameters = built.parameters
    if mistakes:
        raise InputError(*mistakes)


def _answer(builder: Worker) -> Built:
    builder.process.join()
    for message in builder.messages():
        if isinstance(message, Built):
            return message
    return Built(0, (f"model: cannot be built (the process ended with {builder.process.exitcode})",))


def _named(group: Sequence[Status]) -> str:
    first = str(group[0].job)
    return first if len(group) == 1 else f"{len(group)} jobs, the first is {first}"


def _estimate(todo: Sequence[Status], home: Path, width: int) -> float | None:
    """Seconds that the jobs would take, by earlier runs of the same network; None where one has no such run."""
    known: dict[tuple[str, str], list[float]] = {}
    for directory in records.run_directories(home):
        with suppress(InputError, OSError, KeyError):
            record = records.load(directory)
            if record.state == "finished":
                per_epoch = record.seconds / max(record.epochs_run, 1)
                known.setdefault((record.dataset.name, json.dumps(record.config["model"])), []).append(per_epoch)
    total = 0.0
    for status in todo:
        config = status.job.config
        alike = known.get((config.dataset.name, json.dumps(config.model.model_dump(mode="json"))))
        if not alike:
            return None
        total += median(alike) * config.training.epochs
    return total / width


class _Conductor:
    """The running of one sweep."""

    def __init__(
        self, plan: Plan, statuses: Sequence[Status], home: Path, console: Console, parent: str | None
    ) -> None:
        self.plan, self.statuses, self.home, self.console, self.parent = plan, statuses, home, console, parent
        self.execution: Sweep = plan.jobs[0].config.sweep
        self.waiting = deque(status for status in statuses if status.state == "waiting")
        self.running: dict[Worker, Status] = {}
        self.progress = Progress(console, plan, statuses)
        self.not_before: dict[int, float] = {}
        self.asked = 0
        self.reason = ""

    def conduct(self) -> int:
        """Runs until nothing is left to run, and tells how it ended."""
        records.write_json(self.plan.directory / SWEEP, {"mlflow_run_id": self.parent})
        for status in self.statuses:
            self._link(status)
        request = StopRequest(on_first=self._ask, on_second=self._ask)
        with listening(request), self.progress.shown():
            self._run()
        return self._finish()

    def _ask(self) -> None:
        self.asked += 1

    def _run(self) -> None:
        told = 0
        while self.running or (self.waiting and not self._stopping()):
            while self._has_room():
                self._start(self.waiting.popleft())
            wait([*(w.connection for w in self.running), *(w.process.sentinel for w in self.running)], TICK_SECONDS)
            for worker in list(self.running):
                self._look_at(worker)
            if self._stopping() and told < max(self.asked, 1):
                told += 1
                self._tell_to_stop(told)

    def _stopping(self) -> bool:
        return bool(self.asked or self.reason)

    def _has_room(self) -> bool:
        if not self.waiting or self._stopping() or len(self.running) >= self.plan.workers:
            return False
        if self.not_before.get(self.waiting[0].job.number, 0) > time.monotonic():
            self.waiting.rotate(-1)
            return self.not_before.get(self.waiting[0].job.number, 0) <= time.monotonic()
        return True

    def _tell_to_stop(self, times: int) -> None:
        why = self.reason or "you asked to stop"
        if times == 1:
            log.warning("stopping (%s): running jobs end with their epoch and can go on; Ctrl-C again stops now", why)
        for worker in self.running:
            worker.stop()
        if times > 1:
            deadline = time.monotonic() + GRACE_SECONDS
            for worker in self.running:
                worker.process.join(max(0.0, deadline - time.monotonic()))
                worker.kill()

    def _start(self, status: Status) -> None:
        job, plan = status.job, self.plan
        hydra = {"overrides.yaml": "".join(f"- {override}\n" for override in job.overrides)}
        origin = Origin(plan.name, job.number, job.varied, None, self.parent, hydra)
        lock = self.home / "multirun" / ".locks" / job.run_key
        worker = Worker(workers.carry_out, Task(job.config, plan.directory_of(job), origin, lock))
        self.running[worker] = status
        status.state, status.started = "running", time.monotonic()
        self.progress.changed(status)

    def _look_at(self, worker: Worker) -> None:
        status = self.running[worker]
        ended: Ended | None = None
        for message in worker.messages():
            if isinstance(message, EpochDone):
                status.row = message.row
            elif isinstance(message, Ended):
                ended = message
        limit = self.execution.timeout_minutes
        if ended is None and limit is not None and time.monotonic() - worker.started > limit * 60:
            worker.kill()
            ended = Ended("failed", f"TimeoutError: took longer than sweep.timeout_minutes={limit:g}")
            self._mark_failed(status, ended.message)
        elif ended is None and not worker.process.is_alive():
            ended = self._died(worker, status)
        if ended is not None:
            worker.process.join()
            del self.running[worker]
            self._end(status, ended)

    def _died(self, worker: Worker, status: Status) -> Ended:
        for message in worker.messages():  # said between the last look and its end
            if isinstance(message, Ended):
                return message
        code = worker.process.exitcode or 0
        if self.asked > 1:
            return Ended("interrupted")
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        ended = Ended("failed", f"Killed: the process ended with {name}{hint}")
        self._mark_failed(status, ended.message)
        return ended

    def _mark_failed(self, status: Status, message: str) -> None:
        """Writes into record and MLflow what a process that is gone could not write itself."""
        with suppress(InputError):
            record = records.load(self.plan.directory_of(status.job))
            kind, _, text = message.partition(": ")
            record.write(state="failed", error=Failure(type=kind, message=text), finished_at=records.now())
            with (record.directory / records.LOG).open("a") as file:
                file.write(f"{message}\n")
            if self.parent:
                with suppress(tracking.TrackingError):
                    tracking.synchronise(record, status.job.config, self.home)

    def _end(self, status: Status, ended: Ended) -> None:
        if ended.state == "busy":  # another sweep is training this very key: its result will do
            status.state = "waiting"
            self.not_before[status.job.number] = time.monotonic() + BUSY_SECONDS
            archive = Archive(self.home)
            if (found := archive.find(status.job)) is None:
                self.waiting.append(status)
                return
            status.record, ended = found, Ended("finished")
        elif ended.state == "finished":
            status.record = records.load(self.plan.directory_of(status.job))
        status.state = "done" if ended.state == "finished" else ended.state  # type: ignore[assignment]
        status.message = ended.message
        self._link(status)
        self.progress.changed(status)
        self._give_up_early()

    def _give_up_early(self) -> None:
        ended = [s for s in self.statuses if s.before != "done" and s.state in ("done", "failed", "diverged")]
        failed = [status for status in ended if status.state == "failed"]
        if failed and self.execution.fail_fast:
            self.reason = "sweep.fail_fast=true"
        if len(ended) == len(failed) == ALIKE and len({status.message for status in failed}) == 1:
            self.reason = f"the first {ALIKE} jobs all failed alike"

    def _link(self, status: Status) -> None:
        """A run that was made elsewhere is linked into the sweep, so that the sweep is whole."""
        place = self.plan.directory_of(status.job)
        if status.state == "done" and status.record and not place.exists():
            with suppress(FileExistsError):
                place.symlink_to(os.path.relpath(status.record.directory, place.parent))

    def _finish(self) -> int:
        counts = Counter(status.state for status in self.statuses)
        records.write_atomically(self.plan.directory / SUMMARY, _summary(self.plan, self.statuses))
        self.console.print(final_table(self.plan, self.statuses))
        failed, missing = counts["failed"] + counts["diverged"], counts["interrupted"] + counts["waiting"]
        if self.parent:
            status = "FAILED" if failed else "KILLED" if missing else "FINISHED"
            numbers = {state: float(counts[state]) for state in ("done", "failed", "diverged", "interrupted")}
            tracking.close_sweep(self.parent, self.plan.directory, self.home, numbers, status=status)
        if failed or missing:
            log.warning("%d failed, %d not finished; the same command again does what is missing", failed, missing)
        log.info("next: python -m experiments.compare %s", self.plan.name)
        print(self.plan.directory)  # noqa: T201 - scripts read the last line
        return 130 if self.asked else 1 if failed or missing else 0


def _summary(plan: Plan, statuses: Sequence[Status]) -> str:
    """The table of all jobs as CSV."""
    metrics = ("validation/accuracy", "validation/cross_entropy", "test/accuracy", "test/cross_entropy")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["job", *plan.varied, "state", "run_key", *metrics, "epochs", "seconds", "error"])
    for status in statuses:
        record = status.record if status.state == "done" else None
        numbers = [record.metrics.get(name, "") if record else "" for name in metrics]
        length = [record.epochs_run, record.seconds] if record else ["", ""]
        writer.writerow([status.job.number, *status.job.varied.values(), status.state, status.job.run_key,
                         *numbers, *length, status.message])  # fmt: skip
    return text.getvalue()
