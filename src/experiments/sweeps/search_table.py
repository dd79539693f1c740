"""The table of a search: a row for each configuration, the furthest and best first."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.sweeps.status import JobState, Status
from experiments.sweeps.strategies.halving import RUNGS, Halving, Rung, wanted_jobs
from experiments.sweeps.strategy import seen_of
from experiments.sweeps.tables import Row, value_text


class SearchTable:
    """Where every configuration of a search stands.

    Args:
        halving: the strategy.
        statuses: of all jobs, which change while the search runs.
        varied: short names of what it chooses.
    """

    def __init__(self, halving: Halving, statuses: Sequence[Status], varied: Sequence[str]) -> None:
        self._halving, self._statuses, self._varied = halving, statuses, varied

    def rungs(self) -> list[Rung]:
        """The decisions as they stand now."""
        return self._halving.rungs([seen_of(status) for status in self._statuses])

    def rows(self) -> list[Row]:
        """Those that have got furthest first, the best of them before the others; what has not begun comes last."""
        rungs = self.rungs()
        place: dict[int, tuple[int, int]] = {}
        for number, rung in enumerate(rungs):
            place |= {job: (-number, rank) for rank, job in enumerate(rung.ranked)}
        order = sorted(range(len(self._statuses)), key=lambda job: (*place.get(job, (1, 0)), job))
        wanted = wanted_jobs(rungs)
        finalists = set(rungs[-1].kept) if rungs[-1].is_complete else set()
        return [
            {
                **self._result(self._statuses[job]),
                "rung": str(1 - place[job][0]) if job in place else "",
                "rank": f"{place[job][1] + 1}/{len(rungs[-place[job][0]].scores)}" if job in place else "",
                "state": "finalist" if job in finalists else self._state(job, wanted=job in wanted),
            }
            for job in order
        ]

    def _result(self, status: Status) -> Row:
        epochs, accuracy = len(status.rows), status.rows[-1].validation_accuracy if status.rows else 0.0
        if status.record and status.state == JobState.DONE:
            epochs, accuracy = status.record.epochs_run, status.record.metrics["validation/accuracy"]
        return {
            "job": str(status.job.number),
            **{name: value_text(status.job.varied.get(name)) for name in self._varied},
            "epoch": f"{epochs}/{status.job.config.training.epochs}" if epochs else "",
            "validation": f"{accuracy:.2%}" if epochs else "",
        }

    def _state(self, job: int, *, wanted: bool) -> str:
        status = self._statuses[job]
        if status.state == JobState.RUNNING:
            return f"to epoch {self._goal(job)}" + ", ahead" * (not wanted)
        if status.state in (JobState.PAUSED, JobState.WAITING) and status.rows:
            return "goes on" if wanted else "paused"
        return str(status.state)

    def _goal(self, job: int) -> int:
        """The next rung of a job, whether it will be kept there or not."""
        goals = [self._halving.epoch_of(job, number) for number in range(len(RUNGS))]
        return next((epoch for epoch in goals if epoch > len(self._statuses[job].rows)), goals[-1])


def progress_of(rungs: Sequence[Rung]) -> str:
    """`rung 1: 33/40, rung 2: 4/10, rung 3: 0/3`."""
    return ", ".join(f"rung {n}: {len(r.scores) + len(r.broken)}/{r.size}" for n, r in enumerate(rungs, 1))
