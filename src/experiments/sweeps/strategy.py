"""What to run next: the interface between the scheduler and a strategy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from experiments.results.files import EpochRow
from experiments.sweeps.status import JobState, Status


class Seen(NamedTuple):
    """What is known of one job.

    Attributes:
        state: where it stands.
        rows: its finished epochs, as far as they were told to this sweep; none of a run that is only linked.
        metrics: of a run that is done, `<split>/<metric>`; else empty.
    """

    state: JobState
    rows: Sequence[EpochRow] = ()
    metrics: Mapping[str, float] = {}


class Step(NamedTuple):
    """What to run next.

    Attributes:
        job: its number.
        until_epoch: the job pauses after this epoch and can be continued to the same bits; None: to its end.
        ahead: begun so that no worker idles; it may turn out not to be needed.
    """

    job: int
    until_epoch: int | None = None
    ahead: bool = False


class Strategy(Protocol):
    """Decides what a sweep runs. It has no clock, no files and no processes, so equal knowledge gives equal steps."""

    def look(self, seen: Sequence[Seen]) -> Iterable[Step]:
        """The steps that may run now, the most useful first; empty when the sweep's question is answered.

        They are read as far as they are needed: of thousands the first.

        Args:
            seen: every job of the plan, by its number. Steps of jobs that are running already may be named again: the
                scheduler takes the first one that is not.
        """
        ...

    def dropped(self, seen: Sequence[Seen]) -> Sequence[int]:
        """The running jobs that are not wanted any more: they pause at the end of their epoch."""
        ...


def first_to_start(
    steps: Iterable[Step], running: Collection[int], not_before: Mapping[int, float], now: float
) -> tuple[Step | None, bool]:
    """The first step that may start now, and whether there is any whose job does not run.

    Args:
        steps: of a strategy; they are read as far as they are needed.
        running: numbers of jobs.
        not_before: job → the earliest time that it may start.
        now: by the same clock.
    """
    left = False
    for step in steps:
        if step.job not in running:
            left = True
            if not_before.get(step.job, 0.0) <= now:
                return step, True
    return None, left


def seen_of(status: Status) -> Seen:
    """What a strategy sees of a job; whether it waits in an executor's queue is none of its business."""
    state = JobState.RUNNING if status.state == JobState.QUEUED else status.state
    return Seen(state, tuple(status.rows), status.record.metrics if status.record else {})


class Results(NamedTuple):
    """What decisions rest on.

    Attributes:
        seen: every job, by its number.
        keys: SHA-256 (hex) of the run of each job that has a result, by its number.
    """

    seen: Sequence[Seen]
    keys: Mapping[int, str]


def results_of(statuses: Sequence[Status]) -> Results:
    """What is known of the jobs of a sweep."""
    keys = {s.job.number: s.record.run_key if s.record else s.job.run_key for s in statuses}
    return Results([seen_of(status) for status in statuses], keys)
