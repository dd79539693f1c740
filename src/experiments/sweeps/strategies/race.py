"""A race over seeds: round by round, until the best configuration is known or the seeds end.

Decisions are made on complete rounds only, from the results alone; so neither the order in which jobs end nor the
number of workers, a kill or a new start changes them. What is dropped is not yet run, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from experiments.comparison.sequential import FIRST_ROUND, Decision, Rules, decide
from experiments.sweeps.status import JobState
from experiments.sweeps.strategy import Seen, Step

BROKEN = (JobState.FAILED, JobState.DIVERGED)
LEFT = (JobState.WAITING, JobState.PAUSED)
POINTS = 100.0  # a point is a hundredth, of accuracy or of a nat


@dataclass(frozen=True)
class Standing:
    """What is known of a race.

    Attributes:
        decisions: of every complete round so far, in order.
        left: the configurations that are still in, ascending.
        broken: those that are out without a claim, with the index of the seed that failed or diverged.
        verdict: `open` while a round is missing; `undecided` when the seeds have ended without an answer.
        round: the round that is running, or the one that has decided.
    """

    decisions: tuple[Decision, ...]
    left: tuple[int, ...]
    broken: dict[int, int]
    verdict: Literal["open", "best", "within", "undecided"]
    round: int

    @property
    def leader(self) -> int | None:
        """The configuration with the best mean after the last complete round."""
        return self.decisions[-1].leader if self.decisions else None


@dataclass(frozen=True)
class Race:
    """Runs the seeds of all configurations that may still be the best, and one seed ahead so that no worker idles.

    Attributes:
        jobs: of each configuration, the job of each seed; all have the same seeds in the same order.
        metric: `validation/accuracy`, in percent points, or `validation/cross_entropy`, negated, in hundredths of a
            nat.
        rules: what the race is decided by.
    """

    jobs: Sequence[Sequence[int]]
    metric: str
    rules: Rules

    def look(self, seen: Sequence[Seen]) -> Sequence[Step]:
        """The jobs that the running round still needs, then those of the next round."""
        standing = self.standing(seen)
        return list(self._steps(standing, seen)) if standing.verdict == "open" else []

    def dropped(self, seen: Sequence[Seen]) -> Sequence[int]:
        """Running jobs whose configuration is out, or whose race is over."""
        standing = self.standing(seen)
        needed = self.needed(standing)
        return [number for number, job in enumerate(seen) if job.state == JobState.RUNNING and number not in needed]

    def needed(self, standing: Standing) -> set[int]:
        """The jobs that the race rests on, and those that it still wants."""
        if standing.verdict != "open":
            return self.counted(standing)
        return self.counted(standing) | {job for c in standing.left for job in self.jobs[c][: _begun(standing)]}

    def counted(self, standing: Standing) -> set[int]:
        """The jobs that the decisions and the running round rest on."""
        rounds = dict.fromkeys(standing.left, standing.round)
        rounds |= {c: index + 1 for c, index in standing.broken.items()}
        rounds |= {c: made.round for made in standing.decisions for c in made.out}
        return {job for c, number in rounds.items() for job in self.jobs[c][:number]}

    def standing(self, seen: Sequence[Seen]) -> Standing:
        """All decisions, made anew from what is known."""
        left, broken = list(range(len(self.jobs))), dict[int, int]()
        decisions: list[Decision] = []
        seeds = len(self.jobs[0])
        for number in range(1, seeds + 1):
            broken |= {c: number - 1 for c in left if self._state(seen, c, number - 1) in BROKEN}
            left = [c for c in left if c not in broken]
            if any(self._state(seen, c, number - 1) != JobState.DONE for c in left):
                return Standing(tuple(decisions), tuple(left), broken, "open", number)
            if not left:
                return Standing(tuple(decisions), (), broken, "undecided", number)
            if number < FIRST_ROUND:
                continue
            points = tuple((c, tuple(self._points(seen[job]) for job in self.jobs[c][:number])) for c in left)
            made = _decide(points, len(self.jobs), self.rules)
            decisions.append(made)
            left = [c for c in left if c not in made.out]
            if made.verdict != "open":
                return Standing(tuple(decisions), tuple(left), broken, made.verdict, number)
        return Standing(tuple(decisions), tuple(left), broken, "undecided", seeds)

    def _steps(self, standing: Standing, seen: Sequence[Seen]) -> Iterator[Step]:
        for index in range(min(_begun(standing), len(self.jobs[0]))):
            for c in standing.left:
                if self._state(seen, c, index) in LEFT:
                    yield Step(self.jobs[c][index], ahead=index >= max(standing.round, FIRST_ROUND))

    def _state(self, seen: Sequence[Seen], configuration: int, index: int) -> JobState:
        return seen[self.jobs[configuration][index]].state

    def _points(self, job: Seen) -> float:
        value = job.metrics[self.metric]
        return POINTS * value if self.metric.endswith("accuracy") else -POINTS * value

    def __post_init__(self) -> None:
        """Refuses what cannot be raced.

        Raises:
            ValueError: fewer than two configurations, fewer than three seeds, or unequal numbers of seeds.
        """
        if len(self.jobs) < 2:
            raise ValueError(f"a race needs at least 2 configurations, received {len(self.jobs)}")
        counts = {len(jobs) for jobs in self.jobs}
        if len(counts) > 1 or min(counts) < FIRST_ROUND:
            raise ValueError(f"a race needs the same {FIRST_ROUND} or more seeds of every configuration")


def _begun(standing: Standing) -> int:
    """How many seeds of a configuration may be begun: one ahead of the round, and all that the first decision needs."""
    return max(standing.round + 1, FIRST_ROUND)


@lru_cache(maxsize=256)
def _decide(points: tuple[tuple[int, tuple[float, ...]], ...], k: int, rules: Rules) -> Decision:
    """`decide`, remembered: a race is looked at several times a second, and equal results decide alike."""
    return decide(dict(points), k, rules)
