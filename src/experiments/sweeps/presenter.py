"""How a sweep is told while it is planned, while it runs and when it has ended; each strategy has a way of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from experiments.sweeps import tables
from experiments.sweeps.decision_log import check_again
from experiments.sweeps.progress import Progress
from experiments.sweeps.runtime_estimate import estimate_seconds
from experiments.sweeps.status import JobState, Status, duration
from experiments.sweeps.strategy import results_of
from experiments.sweeps.sweep import Sweep
from experiments.sweeps.tables import Row

MISSING = (JobState.INTERRUPTED, JobState.PAUSED, JobState.WAITING)
OnChange = Callable[[Status], None] | None


class Presenter(Protocol):
    """Tells of one sweep."""

    def announce(self) -> Sequence[str]:
        """Lines before it starts, the first without the sweep's name."""
        ...

    def forecast(self) -> str:
        """How long what is left takes, by earlier runs."""
        ...

    def begin(self) -> None:
        """Checks what an earlier start has written, when the sweep's directory is there.

        Raises:
            InputError: it does not agree with the runs.
        """
        ...

    def update(self) -> None:
        """Writes and tells what follows from a job that has ended.

        Raises:
            InputError: it does not agree with what was written before, or cannot be written.
        """
        ...

    def progress(self, on_change: OnChange) -> Progress:
        """The live table."""
        ...

    def table(self) -> Sequence[Row]:
        """How it has ended."""
        ...

    def missing(self) -> int:
        """How many jobs are still needed."""
        ...

    def closing(self) -> Sequence[str]:
        """Lines after the answer."""
        ...


class JobPresenter:
    """Tells of all jobs alike, as in a grid."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep

    def announce(self) -> Sequence[str]:
        """`12 jobs: 7 done, 5 new; 4 workers × 1 thread`."""
        return [tables.describe(self._sweep.plan, self._sweep.statuses)]

    def forecast(self) -> str:
        """Of all jobs that are left."""
        seconds = estimate_seconds(self._sweep.plan, self._sweep.todo, self._sweep.home)
        return f"about {duration(seconds)}" if seconds is not None else "no earlier run tells how long it takes"

    def begin(self) -> None:
        """Checks the decisions of a race that goes on as a grid.

        Raises:
            InputError: one is not what it was.
        """
        check_again(self._sweep.place.path, results_of(self._sweep.statuses))

    def update(self) -> None:
        """Nothing follows."""

    def progress(self, on_change: OnChange) -> Progress:
        """A row for each job."""
        sweep = self._sweep
        return Progress(sweep.console, sweep.plan, sweep.place, sweep.statuses, on_change)

    def table(self) -> Sequence[Row]:
        """A row for each configuration, best validation accuracy first."""
        return tables.ended(self._sweep.plan, self._sweep.statuses)

    def missing(self) -> int:
        """Jobs without a result that may get one."""
        counts = Counter(status.state for status in self._sweep.statuses)
        return sum(counts[state] for state in MISSING)

    def closing(self) -> Sequence[str]:
        """None: the table has told all."""
        return ()
