"""The jobs that are left, carried out by as many workers as the plan allows; what fails fails alone."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.recording import Origin
from experiments.results import environment, files, records
from experiments.runner import check_room
from experiments.sweeps import failures, locks
from experiments.sweeps import worker as tasks
from experiments.sweeps.directory import LOCKS
from experiments.sweeps.executors import processes
from experiments.sweeps.executors.processes import Worker
from experiments.sweeps.progress import Progress
from experiments.sweeps.reuse import link
from experiments.sweeps.status import Status
from experiments.sweeps.sweep import Sweep, hydra_files
from experiments.sweeps.worker import Ended, EpochDone, Run, carry_out
from experiments.training.checkpoint import Checkpoints

log = logging.getLogger(__name__)
TICK_SECONDS = 0.25  # how often time-outs and stop requests are looked at
BUSY_SECONDS = 1.0  # before a key that another sweep is training is looked at again
GRACE_SECONDS = 10.0  # for workers that were told to stop now
REPORT_SECONDS = 30.0  # between the reports of a running sweep: each costs a core a second or more
MIRROR_SECONDS = 30.0  # for MLflow to learn of the runs that were killed
ALIKE = 3  # first jobs that fail with the same error: the rest would too


class Crew:
    """The running of one sweep.

    `parent` is its MLflow run, if it has one; `hydra` Hydra's config of the command.
    """

    def __init__(self, sweep: Sweep, progress: Progress, *, parent: str | None, hydra: Mapping[str, Any]) -> None:
        self.plan, self.place, self.home, self.archive = sweep.plan, sweep.place, sweep.home, sweep.archive
        self.progress, self.parent, self.hydra = progress, parent, hydra
        self.asked = 0  # how often the user asked to stop
        self._reason = ""
        self._told = 0
        self._statuses = sweep.statuses
        self._waiting = deque(sweep.todo)
        self._running: dict[Worker, Status] = {}
        self._endings: list[Status] = []
        self._not_before: dict[int, float] = {}
        self._mirrors: list[Worker] = []
        self._reporter: Worker | None = None

    def work(self) -> None:
        """Runs until nothing is left to run, or until it is told to stop."""
        while self._running or (self._waiting and not self._stopping()):
            while self._start_next():
                pass
            processes.wait(self._running, TICK_SECONDS)
            for worker in list(self._running):
                self._look_at(worker)
            self._pass_the_stop_on()
        deadline = time.monotonic() + MIRROR_SECONDS
        for worker in (*self._mirrors, *filter(None, [self._reporter])):
            worker.leave(max(0.0, deadline - time.monotonic()))

    def ask(self) -> None:
        """Ctrl-C: once, running jobs stop at the end of their epoch; twice, now."""
        self.asked += 1

    def _stopping(self) -> bool:
        return bool(self.asked or self._reason)

    def _start_next(self) -> bool:
        """Starts a job, where one may start now. What another sweep is training has to wait, and may then be done."""
        if self._stopping() or len(self._running) >= self.plan.workers:
            return False
        for status in [s for s in self._waiting if self._not_before.get(s.job.number, 0) <= time.monotonic()]:
            self._waiting.remove(status)
            try:
                check_room(self.home)
                if self._is_free(status) and not self._is_done_elsewhere(status):
                    self._start(status)
                    return True
            except (InputError, OSError) as error:  # the disk is full, say: the next job would not do better
                self._waiting.appendleft(status)
                self._stop_because(str(error))
                return False
        return False

    def _lock_of(self, status: Status) -> Path:
        return self.home / "multirun" / LOCKS / status.job.run_key

    def _is_free(self, status: Status) -> bool:
        with locks.held(self._lock_of(status)) as free:
            if not free:
                self._put_off(status)
            return free

    def _put_off(self, status: Status) -> None:
        if status.job.number not in self._not_before:
            log.info("%s waits: %s trains the same run", status.job, locks.holder(self._lock_of(status)))
        self._not_before[status.job.number] = time.monotonic() + BUSY_SECONDS
        status.state = "waiting"
        self._waiting.append(status)

    def _is_done_elsewhere(self, status: Status) -> bool:
        if self.archive is None:
            return False
        self.archive.reread()
        status.record = self.archive.find(status.job)
        if status.record:
            self._end(status, Ended("finished"))
        return status.record is not None

    def _start(self, status: Status) -> None:
        job, directory = status.job, self.place.directory_of(status.job)
        rows = Checkpoints(directory / files.CHECKPOINT).rows() if directory.exists() else []
        status.row = rows[-1] if rows else None
        origin = Origin(self.place.name, job.number, job.varied, None, self.parent, hydra_files(job, self.hydra))
        run = Run(job.config, directory, origin, self._lock_of(status), environment.code_digest())
        worker = Worker(carry_out, run, output=self.place.output_of(job))
        self._running[worker] = status
        status.state, status.message = "running", ""
        self.progress.changed(status)

    def _look_at(self, worker: Worker) -> None:
        status, ended = self._running[worker], None
        for message in worker.messages():
            if isinstance(message, EpochDone):
                status.row = message.row
            elif isinstance(message, Ended):
                ended = message
        limit = self.plan.execution.timeout_minutes
        if ended is None and not worker.ended:
            if limit is None or time.monotonic() - worker.started < limit * 60:
                return
            worker.explain()
            ended = Ended("killed", f"TimeoutError: took longer than sweep.timeout_minutes={limit:g}")
        ending = worker.leave(0 if ended and ended.state == "killed" else processes.LEAVE_SECONDS)
        if ended is None:
            hint = " (out of memory?)" if ending == "SIGKILL" else ""
            message = f"Killed: the process ended with {ending}{hint}"
            ended = Ended("interrupted") if self._told > 1 else Ended("killed", message)
        cut_short = ended.state in ("killed", "interrupted")
        if cut_short and failures.has_finished(status, self.place):  # its end was not needed any more
            ended = Ended("finished")
        del self._running[worker]
        failures.gather_output(status.job, self.place)
        if ended.state == "busy":
            self._put_off(status)
        else:
            self._end(status, ended)

    def _end(self, status: Status, ended: Ended) -> None:
        status.state = {"finished": "done", "killed": "failed"}.get(ended.state, ended.state)  # type: ignore[assignment]
        status.message = ended.message
        if ended.state == "finished":
            self._take(status)
        elif ended.state in ("killed", "failed"):
            failures.record(status, self.place, self.parent)
        if self.parent and failures.is_unmirrored(status, self.place):
            self._mirrors.append(Worker(tasks.mirror, self.place.directory_of(status.job), self.home, self.parent))
        self._endings.append(status)
        self.progress.changed(status)
        self._give_up_early()
        if status.state == "done" and (self._running or self._waiting):
            self._refresh_report()

    def _refresh_report(self) -> None:
        """Compares what is done so far, beside the jobs and not too often; the end makes the last report."""
        if self._reporter:
            if time.monotonic() < self._reporter.started + REPORT_SECONDS:
                return
            self._reporter.leave(0)
            self._reporter = None
        done = [self.place.directory_of(status.job) for status in self._statuses if status.state == "done"]
        with suppress(InputError):  # the end tells what is wrong
            self._reporter = Worker(tasks.compare, done, self.place.path)

    def _take(self, status: Status) -> None:
        try:
            status.record = status.record or records.load(self.place.directory_of(status.job))
            link(status, self.place)
        except (InputError, OSError) as error:  # somebody has deleted or damaged it
            status.state, status.message = "failed", str(error)

    def _give_up_early(self) -> None:
        failed = [status for status in self._endings if status.state == "failed"]
        if failed and self.plan.execution.fail_fast:
            self._stop_because("sweep.fail_fast=true")
        messages = {status.message.replace(str(self.place.directory_of(status.job)), "") for status in failed}
        if len(self._endings) == len(failed) == ALIKE and len(messages) == 1:
            self._stop_because(f"the first {ALIKE} jobs all failed with the same error")

    def _stop_because(self, reason: str) -> None:
        if not self._stopping():
            self._reason = reason

    def _pass_the_stop_on(self) -> None:
        if self._told >= min(self.asked + bool(self._reason), 2):
            return
        self._told += 1
        for worker in self._running:
            worker.stop()
        if self._told == 1:
            running = ": running jobs end with their epoch and can go on; Ctrl-C again stops now"
            log.warning("stopping (%s)%s", self._reason or "as you asked", running if self._running else "")
            return
        log.warning("stopping now")
        deadline = time.monotonic() + GRACE_SECONDS
        while self._running and time.monotonic() < deadline:
            processes.wait(self._running, TICK_SECONDS)
            for worker in list(self._running):
                self._look_at(worker)
        for worker in list(self._running):
            worker.leave(0)
            self._look_at(worker)
