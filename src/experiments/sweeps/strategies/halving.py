"""Successive halving: many configurations for few epochs, the best of them for more, the last ones to their end.

Source: K. Jamieson and A. Talwalkar, Non-stochastic Best Arm Identification, 2016. Whatever is not kept is paused and
can go on to the same bits. Decisions are those of synchronous halving, functions of the results at each rung alone; so
neither the order in which jobs end nor the number of workers, a kill or a new start changes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from experiments.sweeps.status import JobState
from experiments.sweeps.strategy import Seen, Step

RUNGS = (16, 4, 1)  # what a whole run's epochs are divided by: decisions are made after these parts of it
BROKEN = (JobState.FAILED, JobState.DIVERGED)
LEFT = (JobState.WAITING, JobState.PAUSED)
EXACT = 9  # decimals: 40 × 0.1 is 4, not 5

Score = tuple[float, float, int]  # the lowest is the best: -accuracy, cross-entropy, number


@dataclass(frozen=True)
class Rung:
    """What is known of one decision.

    Attributes:
        entered: the jobs that certainly take part in it, the best of the rung before first.
        scores: of those that have got here.
        broken: those that failed or diverged on the way.
        size: how many will take part at most.
        most: how many are kept at most.
        is_complete: nobody is missing, so that `kept` is final.
    """

    entered: tuple[int, ...]
    scores: dict[int, Score]
    broken: frozenset[int]
    size: int
    most: int
    is_complete: bool

    @property
    def ranked(self) -> list[int]:
        """Those that have got here, the best first."""
        return sorted(self.scores, key=lambda job: self.scores[job])

    @property
    def kept(self) -> list[int]:
        """Those that go on whatever the missing ones show, the best first."""
        missing = 0 if self.is_complete else self.size - len(self.scores) - len(self.broken)
        return self.ranked[: max(0, self.most - missing)]

    @property
    def leading(self) -> list[int]:
        """Those that would go on if nobody else were better, the best first; `kept` are left out."""
        return self.ranked[len(self.kept) : self.most]


@dataclass(frozen=True)
class Halving:
    """Runs all jobs to the first rung, the best ones on to the next, and so on.

    Attributes:
        epochs: of each job, its whole run's; a rung is at the same part of each.
        keep: the part that is kept at each rung, in (0, 1].
        finalists: so many are kept at least.
    """

    epochs: Sequence[int]
    keep: float
    finalists: int

    def look(self, seen: Sequence[Seen]) -> Sequence[Step]:
        """First what is certain to be needed, the furthest first; then, ahead, who leads in an open decision."""
        rungs = self.rungs(seen)
        return [*self._needed(rungs, seen), *self._ahead(rungs, seen)]

    def dropped(self, seen: Sequence[Seen]) -> Sequence[int]:
        """Jobs that were begun ahead and lead no more."""
        rungs = self.rungs(seen)
        wanted = wanted_jobs(rungs) | {job for rung in rungs[:-1] for job in rung.leading}
        return [job for job, one in enumerate(seen) if one.state == JobState.RUNNING and job not in wanted]

    def rungs(self, seen: Sequence[Seen]) -> list[Rung]:
        """Every decision with what is known of it, made anew."""
        rungs: list[Rung] = []
        entered, size, is_final = tuple(range(len(self.epochs))), len(self.epochs), True
        for number in range(len(RUNGS)):
            scores = {job: score for job in entered if (score := self._score(seen[job], job, number)) is not None}
            broken = frozenset(job for job in entered if job not in scores and seen[job].state in BROKEN)
            is_final = is_final and len(scores) + len(broken) == size
            rung = Rung(entered, scores, broken, size, self.most_kept(number), is_final)
            rungs.append(rung)
            entered, size = tuple(rung.kept), min(size - len(broken), rung.most)
        return rungs

    def winners(self, seen: Sequence[Seen]) -> list[int] | None:
        """The finalists, the best first; None while a decision is open."""
        last = self.rungs(seen)[-1]
        return last.ranked[: self.finalists] if last.is_complete else None

    def most_kept(self, number: int) -> int:
        """How many go on from a rung; from the last one they go to the final."""
        if number + 1 == len(RUNGS):
            return self.finalists
        part = math.ceil(round(len(self.epochs) * self.keep ** (number + 1), EXACT))
        return min(max(part, self.finalists), len(self.epochs))

    def epoch_of(self, job: int, number: int) -> int:
        """The epoch of a job at a rung, from 1 to its last one."""
        return math.ceil(self.epochs[job] / RUNGS[number])

    def needed_epochs(self, rungs: Sequence[Rung]) -> list[int]:
        """For each job the epochs that the decisions need, however far it has run."""
        needed = [0] * len(self.epochs)
        for number, rung in enumerate(rungs):
            for job in rung.entered:
                needed[job] = self.epoch_of(job, number)
        return needed

    def _needed(self, rungs: Sequence[Rung], seen: Sequence[Seen]) -> Iterator[Step]:
        for number in reversed(range(len(rungs))):
            rung = rungs[number]
            for job in rung.entered:
                if job not in rung.scores and seen[job].state in LEFT:
                    yield self._step(job, number)

    def _ahead(self, rungs: Sequence[Rung], seen: Sequence[Seen]) -> Iterator[Step]:
        for number in reversed(range(len(rungs) - 1)):
            for job in rungs[number].leading:
                if self._score(seen[job], job, number + 1) is None and seen[job].state in LEFT:
                    yield self._step(job, number + 1, ahead=True)

    def _step(self, job: int, number: int, *, ahead: bool = False) -> Step:
        epoch = self.epoch_of(job, number)
        return Step(job, epoch if epoch < self.epochs[job] else None, ahead)

    def _score(self, seen: Seen, job: int, number: int) -> Score | None:
        """The result of a job at a rung; None where it has not got there."""
        is_last = number + 1 == len(RUNGS)
        if seen.state == JobState.DONE and seen.metrics and (is_last or not seen.rows):
            return (-seen.metrics["validation/accuracy"], seen.metrics["validation/cross_entropy"], job)
        epoch = self.epoch_of(job, number)
        if len(seen.rows) < epoch and seen.state != JobState.DONE:
            return None
        if is_last or not seen.rows:  # it has to be evaluated
            return None
        row = seen.rows[min(epoch, len(seen.rows)) - 1]  # it may have stopped early
        return None if row.diverged else (-row.validation_accuracy, row.validation_cross_entropy, job)


def wanted_jobs(rungs: Sequence[Rung]) -> set[int]:
    """Those that certainly take part in a decision and have not got there."""
    return {job for rung in rungs for job in rung.entered if job not in rung.scores}
