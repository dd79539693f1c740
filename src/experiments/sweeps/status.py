"""Where each job of a sweep stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from experiments.results.files import EpochRow
from experiments.results.records import Record
from experiments.sweeps.jobs import Job


class JobState(StrEnum):
    """Where a job stands, in the order in which states are counted."""

    DONE = "done"
    RUNNING = "running"
    QUEUED = "queued"  # submitted, where an executor has a queue
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DIVERGED = "diverged"
    DAMAGED = "damaged"  # its record cannot be read; found only before a sweep begins
    NEW = "new"  # nothing of it is there; found only before a sweep begins
    WAITING = "waiting"


NOT_ENDED = (JobState.WAITING, JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)


@dataclass(eq=False)
class Status:
    """Where one job stands.

    Attributes:
        before: what was found of it when the sweep began.
        rows: its finished epochs, as far as this sweep has seen them.
        record: of a run that is done.
        message: what went wrong.
        changed: when its state changed last, by the monotonic clock.
    """

    job: Job
    state: JobState = JobState.WAITING
    before: JobState = JobState.NEW
    rows: list[EpochRow] = field(default_factory=list)
    record: Record | None = None
    parameters: int | None = None
    message: str = ""
    changed: float = 0.0

    @property
    def row(self) -> EpochRow | None:
        """Its last finished epoch."""
        return self.rows[-1] if self.rows else None

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it in this sweep."""
        return self.state not in NOT_ENDED

    def seconds_left(self) -> float | None:
        """Of a running job, by the length of its last epoch."""
        if self.row is None:
            return None
        return (self.job.config.training.epochs - self.row.epoch) * self.row.seconds


def folded(statuses: Iterable[Status]) -> list[list[Status]]:
    """Jobs that differ only in their seed, the repetitions of one configuration, stand together."""
    groups: dict[str, list[Status]] = {}
    for status in statuses:
        groups.setdefault(status.job.config_key, []).append(status)
    return list(groups.values())


def count_states(states: Iterable[str]) -> str:
    """`7 done, 1 interrupted, 4 new`."""
    counts = Counter(states)
    return ", ".join(f"{counts[state]} {state}" for state in JobState if counts[state])


def numbers(values: Sequence[int]) -> str:
    """`[0, 1, 2, 5]` → `0-2, 5`."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def duration(seconds: float) -> str:
    """`1:05`, `2:00:07`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
