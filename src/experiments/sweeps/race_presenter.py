"""How a race is told: what it may take, what has been decided, and where every configuration stands."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from experiments.comparison.decisions import Round
from experiments.comparison.formats import names
from experiments.comparison.races import Scale
from experiments.comparison.sequential import FIRST_ROUND
from experiments.comparison.settings import label
from experiments.console import log_prose
from experiments.errors import InputError
from experiments.sweeps.decision_log import DecisionLog
from experiments.sweeps.jobs import Job, count
from experiments.sweeps.presenter import OnChange
from experiments.sweeps.progress import Progress
from experiments.sweeps.race_progress import RaceProgress
from experiments.sweeps.race_rounds import RaceRounds, make_rounds, setting_of
from experiments.sweeps.race_table import RaceTable
from experiments.sweeps.runtime_estimate import estimate_seconds
from experiments.sweeps.status import JobState, Status, duration, numbers
from experiments.sweeps.strategies.race import Race, Standing
from experiments.sweeps.strategy import results_of, seen_of
from experiments.sweeps.sweep import Sweep
from experiments.sweeps.tables import Row

log = logging.getLogger(__name__)
MOST_NAMES = 8


class RacePresenter:
    """Tells of a race."""

    def __init__(self, sweep: Sweep, race: Race) -> None:
        self._sweep, self._race, self._scale = sweep, race, Scale(race.metric)
        jobs = sweep.plan.jobs
        self._labels = [_label(jobs[numbers_of[0]]) for numbers_of in race.jobs]
        setting = setting_of(race, self._labels, [jobs[number].config.seed for number in race.jobs[0]])
        self._seeds = setting.seeds
        self._log = DecisionLog(RaceRounds(race, setting), sweep.place.path)
        self._table = RaceTable(race, setting, sweep.statuses)

        self._require_metric()

    def _require_metric(self) -> None:
        """Refuses runs of an older version that do not tell what the race is decided by."""
        for status in self._sweep.statuses:
            if status.state == JobState.DONE and status.record and self._race.metric not in status.record.metrics:
                raise InputError(f"{status.record.directory}: its record has no {self._race.metric} to race by")

    def announce(self) -> Sequence[str]:
        """What is raced, the fewest and the most jobs and epochs, and when it ends."""
        plan, rules = self._sweep.plan, self._race.rules
        first = [number for jobs in self._race.jobs for number in jobs[:FIRST_ROUND]]
        epochs = [
            sum(plan.jobs[number].config.training.epochs for number in some) for some in (first, range(len(plan.jobs)))
        ]
        done = sum(status.state == JobState.DONE for status in self._sweep.statuses)
        has = f", {count(done, 'job')} done" if done else ""
        return [
            f"a race of {len(self._race.jobs)} over seeds {numbers(self._seeds)}: {len(first):,} to {len(plan.jobs):,} "
            f"jobs ({epochs[0]:,} to {epochs[1]:,} epochs){has}; "
            f"{plan.resources}",
            f"it ends when no other is better than the leader by more than {self._scale.margin(rules.margin)} "
            f"({100 * rules.confidence:g}%), however often one looks",
        ]

    def forecast(self) -> str:
        """Of the jobs that are needed in any case, and of all that are left."""
        standing = self._stand()
        if standing.verdict != "open":
            return "it is decided"
        left = [status for status in self._sweep.statuses if status.state == JobState.WAITING]
        numbers_in = {number for c in standing.left for number in self._race.jobs[c]}
        round_end = max(standing.round, FIRST_ROUND)
        sure = {number for c in standing.left for number in self._race.jobs[c][:round_end]}
        both = [
            estimate_seconds(self._sweep.plan, [s for s in left if s.job.number in some], self._sweep.home)
            for some in (sure, numbers_in)
        ]
        if None in both:
            return "no earlier run tells how long it takes"
        return "about " + " to ".join(duration(seconds) for seconds in both if seconds is not None)

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
            log_prose(log, self._told(made), self._sweep.console)

    def _told(self, made: Round) -> str:
        leader = self._labels[made.leader]
        parts = [f"after {made.round} seeds {leader} leads"]
        if made.out:
            out = [f"{self._labels[c]} (worse than {self._labels[by]} by {self._scale.gap(-bound)} or more)"
                   for c, (by, bound) in made.out.items()]  # fmt: skip
            parts.append(f"out: {names(out, MOST_NAMES)}")
        if made.bounds:
            parts.append(f"another is better by at most {self._scale.gap(made.bound)} {self._scale.unit}")
        return "; ".join(parts)

    def progress(self, on_change: OnChange) -> Progress:
        """A row for each configuration."""
        return RaceProgress(self._sweep, self._race, stand=self._stand, rows=self.table, on_change=on_change)

    def table(self) -> Sequence[Row]:
        """Where every configuration stands, the leader first."""
        results = results_of(self._sweep.statuses)
        return self._table.rows(self._stand(), make_rounds(self._race, results))

    def missing(self) -> int:
        """The jobs that the running round still needs; none when the race is over."""
        standing = self._stand()
        if standing.verdict != "open":
            return 0
        needed = {number for c in standing.left for number in self._race.jobs[c][: max(standing.round, FIRST_ROUND)]}
        return sum(not _has_result(self._sweep.statuses[number]) for number in needed)

    def closing(self) -> Sequence[str]:
        """None: the comparison has told all."""
        return ()

    def _stand(self) -> Standing:
        return self._race.standing([seen_of(status) for status in self._sweep.statuses])


def _label(job: Job) -> str:
    return label({name: value for name, value in job.varied.items() if name != "seed"})


def _has_result(status: Status) -> bool:
    return status.state in (JobState.DONE, JobState.FAILED, JobState.DIVERGED)
