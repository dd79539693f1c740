"""How a search is told: what it takes, who goes on, and who goes to the final."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from experiments.comparison.formats import count, names
from experiments.comparison.settings import label
from experiments.console import log_prose
from experiments.sweeps.decision_log import DecisionLog
from experiments.sweeps.presenter import OnChange
from experiments.sweeps.progress import Progress
from experiments.sweeps.runtime_estimate import estimate_seconds
from experiments.sweeps.search_progress import SearchProgress
from experiments.sweeps.search_rungs import SearchRungs
from experiments.sweeps.search_table import SearchTable
from experiments.sweeps.searches import final_jobs, final_seeds, planned_epochs, spent
from experiments.sweeps.status import JobState, count_states, duration
from experiments.sweeps.strategies.halving import RUNGS, Halving
from experiments.sweeps.strategy import results_of
from experiments.sweeps.sweep import Sweep
from experiments.sweeps.tables import Row

log = logging.getLogger(__name__)
MOST_NAMES = 4
MOST_ROWS = 12  # of the table at the end: the others have run for few epochs, and the report has them all


class SearchPresenter:
    """Tells of a search."""

    def __init__(self, sweep: Sweep, halving: Halving) -> None:
        self._sweep, self._halving = sweep, halving
        self._table = SearchTable(halving, sweep.statuses, sweep.plan.varied)
        self._log = DecisionLog(SearchRungs(halving), sweep.place.path)

    def announce(self) -> Sequence[str]:
        """What is searched, the epochs that it needs, and the final that follows."""
        plan, halving = self._sweep.plan, self._halving
        states = count_states(status.before for status in self._sweep.statuses)
        steps = ", ".join(f"the best {halving.most_kept(n)} to {_part(n + 1)}" for n in range(len(RUNGS) - 1))
        first = max(halving.epoch_of(job, 0) for job in range(len(halving.epochs)))
        seeds, races = final_seeds(plan), final_jobs(halving)
        return [
            f"a search of {len(plan.jobs)} configurations ({states}): {planned_epochs(halving)} of "
            f"{sum(halving.epochs):,} epochs; {plan.resources}",
            f"all run to epoch {first}, {steps}; then the best {halving.finalists} race over the fresh seeds "
            f"{seeds[0]}-{seeds[-1]}: {races} jobs",
        ]

    def forecast(self) -> str:
        """Of the epochs that the decisions still need, without the final."""
        seconds = estimate_seconds(self._sweep.plan, self._sweep.todo, self._sweep.home)
        if seconds is None:
            return "no earlier run tells how long it takes"
        whole = sum(status.job.config.training.epochs for status in self._sweep.todo)
        left = planned_epochs(self._halving).most - sum(len(status.rows) for status in self._sweep.statuses)
        return f"about {duration(seconds * max(0, left) / max(1, whole))} for the search"

    def begin(self) -> None:
        """Makes the decisions of earlier starts again, and compares.

        Raises:
            InputError: one is not what it was.
        """
        self._log.begin(results_of(self._sweep.statuses))

    def update(self) -> None:
        """Writes and tells what has been decided since.

        Raises:
            InputError: it is not what was decided before, or cannot be written.
        """
        for made in self._log.update(results_of(self._sweep.statuses)):
            best = names([self._label(job) for job in made.kept], MOST_NAMES)
            goal = "to the final" if made.rung == len(RUNGS) else f"on to {_part(made.rung)}"
            entered = len(made.results) + len(made.failed)
            told = f"rung {made.rung} is decided: {len(made.kept)} of {entered} go {goal}: {best}"
            log_prose(log, told, self._sweep.console)

    def progress(self, on_change: OnChange) -> Progress:
        """A row for each configuration."""
        return SearchProgress(self._sweep, self._halving, self._table, on_change=on_change)

    def table(self) -> Sequence[Row]:
        """The configurations that have got furthest, the best first."""
        rows = self._table.rows()
        others = len(rows) - MOST_ROWS
        rest = [dict.fromkeys(rows[0], "") | {"job": "…", "state": f"{others} more"}] if others > 0 else []
        return [*rows[:MOST_ROWS], *rest]

    def missing(self) -> int:
        """The jobs that a decision still waits for."""
        return sum(len(rung.entered) - len(rung.scores) - len(rung.broken) for rung in self._table.rungs())

    def closing(self) -> Sequence[str]:
        """What the search has cost, and who goes to the final."""
        statuses, rungs = self._sweep.statuses, self._table.rungs()
        used = spent(self._halving, statuses, self._sweep.place.name)
        records = sum(bool(status.rows) or status.state in (JobState.FAILED, JobState.DIVERGED) for status in statuses)
        lines = [
            f"cost: {count(records, 'run')}; {used.needed:,} epochs counted, {used.ahead:,} begun ahead, "
            f"{used.reused:,} from other sweeps, of {sum(self._halving.epochs):,}. "
            "A larger sweep.keep or sweep.jobs goes on from here"
        ]
        if rungs[-1].is_complete and rungs[-1].kept:
            lines.append(f"finalists: {names([self._label(job) for job in rungs[-1].kept], len(statuses))}")
        return lines

    def _label(self, job: int) -> str:
        return label(self._sweep.plan.jobs[job].varied)


def _part(number: int) -> str:
    """`1/4 of the run`, `their end`."""
    return "their end" if RUNGS[number] == 1 else f"1/{RUNGS[number]} of the run"
