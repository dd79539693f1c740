"""Carries out a sweep: asks the strategy what to run, hands it to the executor, and keeps where every job stands.

It knows neither Hydra nor processes: what runs comes from a strategy, where it runs is the executor's business.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from experiments.errors import InputError
from experiments.runner import check_room
from experiments.sweeps import failures, locks
from experiments.sweeps.executor import Ended, Ending, EpochDone, Event, Executor, Moved, Run
from experiments.sweeps.flights import STATES, Flight, Flights
from experiments.sweeps.followups import Followups
from experiments.sweeps.progress import Progress
from experiments.sweeps.reuse import take
from experiments.sweeps.status import JobState, Status
from experiments.sweeps.strategy import Step, Strategy, first_to_start, seen_of
from experiments.sweeps.sweep import Sweep

log = logging.getLogger(__name__)
TICK_SECONDS = 0.25  # how often time-outs and stop requests are looked at
BUSY_SECONDS = 1.0  # before a key that another sweep is training is looked at again
GRACE_SECONDS = 10.0  # for runs that were told to stop now
LEAVE_SECONDS = 5  # between the first Ctrl-C and the planner's end, where runs go on without it


class Scheduler:
    """The carrying out of one sweep.

    Args:
        sweep: its plan and where its jobs stand.
        strategy: says what to run.
        executor: says where.
        prepare: makes what a worker needs to know of a step.
        progress: is told of every change of state.
        followups: what is done beside the jobs.
        decide: is called when a job has ended: it writes and tells what follows from that.
        wait: False: leaves when everything is submitted that can run, where the executor's runs go on without it.
    """

    def __init__(
        self,
        sweep: Sweep,
        strategy: Strategy,
        executor: Executor,
        *,
        prepare: Callable[[Status, Step], Run],
        progress: Progress,
        followups: Followups,
        decide: Callable[[], None] = lambda: None,
        wait: bool = True,
    ) -> None:
        self._sweep, self._strategy, self._waits = sweep, strategy, wait
        self._prepare, self._progress, self._followups, self._decide = prepare, progress, followups, decide
        self.asked = 0  # how often the user asked to stop
        self.left: Sequence[str] = ()  # what goes on without the planner, once it has left
        self._reason = ""  # why it stops by itself
        self._told = 0  # how often the running jobs were told to stop
        self._in_flight = Flights(executor)
        self._endings: list[Status] = []
        self._not_before: dict[int, float] = {}
        self._seen = [seen_of(status) for status in sweep.statuses]

    def work(self) -> None:
        """Runs until the strategy asks for nothing more, until it is told to stop, or until it leaves."""
        self._drop_what_an_earlier_planner_submitted()
        while self._fill_slots() or self._in_flight:
            if not self._waits and not self._in_flight.are_dropped and self._leave():
                break
            self._take_in(TICK_SECONDS)
            self._pause_what_is_dropped()
            self._in_flight.end_after(self._sweep.plan.execution.timeout_minutes)
            self._pass_the_stop_on()
        if self._reason and not self._told:  # nothing is running any more that has to stop
            self._pass_the_stop_on()
        self._followups.close()

    def _drop_what_an_earlier_planner_submitted(self) -> None:
        """What the strategy does not want any more of that is followed, so that it can be told to stop."""
        if not self._in_flight.last:
            return
        wanted = {step.job for step in self._strategy.look(self._seen)}
        for status in self._sweep.todo:
            if status.job.number not in wanted and self._in_flight.carries(self._sweep.place.directory_of(status.job)):
                self._submit(status, Step(status.job.number))
        self._pause_what_is_dropped()

    def ask(self) -> None:
        """Ctrl-C: once, running jobs stop at the end of their epoch, or the planner leaves them; twice, now."""
        self.asked += 1

    def _stopping(self) -> bool:
        return bool(self.asked or self._reason)

    def _fill_slots(self) -> bool:
        """Starts what may start now; returns whether anything is left to start, now or later."""
        left = False
        while not self._stopping():
            steps = self._strategy.look(self._seen)
            step, left = first_to_start(steps, self._in_flight.jobs, self._not_before, time.monotonic())
            if self._in_flight.are_full or not step:
                break
            self._begin(step)
        return left and not self._stopping()

    def _begin(self, step: Step) -> None:
        """Starts a step, unless another sweep is training or has finished the same run."""
        status = self._sweep.statuses[step.job]
        try:
            check_room(self._sweep.home)
            goes_on = self._in_flight.carries(self._sweep.place.directory_of(status.job))
            if goes_on or (self._is_free(status) and not self._is_done_elsewhere(status)):
                self._submit(status, step)
        except (InputError, OSError) as error:  # the disk is full, say: the next job would not do better
            self._stop_because(str(error))

    def _is_free(self, status: Status) -> bool:
        is_held = locks.is_held(self._sweep.lock_of(status.job))
        if is_held:
            self._put_off(status)
        return not is_held

    def _put_off(self, status: Status) -> None:
        if status.job.number not in self._not_before:
            log.info("%s waits: %s trains the same run", status.job, locks.holder(self._sweep.lock_of(status.job)))
        self._not_before[status.job.number] = time.monotonic() + BUSY_SECONDS
        self._change(status, JobState.WAITING)

    def _is_done_elsewhere(self, status: Status) -> bool:
        if (archive := self._sweep.archive) is None:
            return False
        archive.reread()
        status.record = archive.find(status.job)
        if status.record:
            self._end(status, Ended(Ending.FINISHED))
        return status.record is not None

    def _submit(self, status: Status, step: Step) -> None:
        self._in_flight.submit(status, self._prepare(status, step), self._sweep.place.output_of(status.job))
        status.message = ""
        self._change(status, JobState.QUEUED if self._in_flight.last else JobState.RUNNING)
        if not self._in_flight.last:
            self._progress.changed(status)

    def _change(self, status: Status, state: JobState) -> None:
        status.state = state
        self._seen[status.job.number] = seen_of(status)

    def _take_in(self, timeout_seconds: float) -> None:
        for flight, event in self._in_flight.events(timeout_seconds):
            self._note(flight, event)

    def _note(self, flight: Flight, event: Event) -> None:
        status = flight.status
        if isinstance(event, EpochDone):
            status.rows[event.row.epoch - 1 :] = [event.row]  # it may have gone back to an older checkpoint
            self._seen[status.job.number] = seen_of(status)
            return
        if isinstance(event, Moved):
            self._move(flight, running=event.running)
            return
        if event.state == Ending.WITHDRAWN:
            self._change(status, JobState.WAITING)
            return
        if event.state == Ending.BUSY:  # and what it printed is not for the log of the run that goes on elsewhere
            self._sweep.place.output_of(status.job).unlink(missing_ok=True)
            self._put_off(status)
            return
        failures.gather_output(status.job, self._sweep.place)
        told = event._replace(message=flight.killed or event.message)
        dropped = flight.dropped and self._told < 2
        self._end(status, failures.judge(told, status, self._sweep.place, dropped=dropped, killed=self._told > 1))

    def _move(self, flight: Flight, *, running: bool) -> None:
        state = JobState.RUNNING if running else JobState.QUEUED
        if flight.status.state != state:
            flight.move(running=running)
            self._change(flight.status, state)
            self._progress.changed(flight.status)

    def _end(self, status: Status, ended: Ended) -> None:
        place, status.message = self._sweep.place, ended.message
        status.state = STATES[Ending(ended.state)]
        if status.state == JobState.DONE:
            take(status, place)
        elif status.state == JobState.FAILED:
            failures.record(status, place, self._sweep.parent)
        self._change(status, status.state)
        self._endings.append(status)
        self._progress.changed(status)
        try:
            self._decide()
        except InputError as error:  # what was decided before does not hold: nothing that rests on it is run
            self._stop_because(str(error))
        fail_fast = self._sweep.plan.execution.fail_fast
        self._stop_because(failures.reason_to_stop(self._endings, self._sweep.place, fail_fast=fail_fast))
        more = bool(self._in_flight) or any(True for _ in self._strategy.look(self._seen))
        self._followups.job_ended(status, more_to_come=more)

    def _pause_what_is_dropped(self) -> None:
        if self._in_flight:
            self._in_flight.drop(self._strategy.dropped(self._seen))

    def _stop_because(self, reason: str) -> None:
        self._reason = self._reason or ("" if self.asked else reason)

    def _pass_the_stop_on(self) -> None:
        if self._told >= min(self.asked + bool(self._reason), 2):
            return
        if not self._reason and not self._told and self._leave_unless_asked_again():
            return
        self._told += 1
        self._in_flight.stop(now=self._told > 1)
        if self._told == 1:
            running = ": running jobs end with their epoch and can go on; Ctrl-C again stops now"
            log.warning("stopping (%s)%s", self._reason or "as you asked", running if self._in_flight else "")
            return
        log.warning("stopping now")
        self._wait_for_the_end(GRACE_SECONDS)
        self._in_flight.kill()
        self._wait_for_the_end(GRACE_SECONDS)

    def _leave_unless_asked_again(self) -> bool:
        """The first Ctrl-C where runs go on without the planner: they are not stopped before the second one."""
        if not self._in_flight.last:
            return False
        log.warning("leaving in %d seconds: submitted jobs go on; Ctrl-C again ends them", LEAVE_SECONDS)
        deadline = time.monotonic() + LEAVE_SECONDS
        while self._in_flight and self.asked < 2 and time.monotonic() < deadline:
            self._take_in(TICK_SECONDS)
        return self.asked < 2 and self._leave()

    def _leave(self) -> bool:
        """Lets go of what was submitted, where it goes on by itself."""
        self.left = self._in_flight.leave()
        return bool(self.left)

    def _wait_for_the_end(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._in_flight and time.monotonic() < deadline:
            self._take_in(TICK_SECONDS)
