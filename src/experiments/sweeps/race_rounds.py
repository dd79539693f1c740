"""The decisions of a race as they are written: made from the results alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.comparison.decisions import Entry, Round, Setting
from experiments.comparison.sequential import Decision, Rules
from experiments.sweeps.strategies.race import Race, Standing
from experiments.sweeps.strategy import Results


@dataclass(frozen=True)
class RaceRounds:
    """Makes the decisions of a race, see `decision_log.Maker`."""

    race: Race
    setting: Setting

    def make(self, results: Results) -> list[Round]:
        """Every decision so far, in order."""
        return make_rounds(self.race, results)


def setting_of(race: Race, labels: Sequence[str], seeds: Sequence[int]) -> Setting:
    """A race as it is written.

    Args:
        race: the strategy.
        labels: of the configurations.
        seeds: common to all.
    """
    entries = tuple(Entry(label=label, jobs=tuple(jobs)) for label, jobs in zip(labels, race.jobs, strict=True))
    rules = race.rules
    return Setting(
        metric=race.metric,
        confidence=rules.confidence,
        margin=rules.margin,
        floor=rules.floor,
        seeds=tuple(seeds),
        configurations=entries,
    )


def race_of(setting: Setting) -> Race:
    """The strategy that a setting describes."""
    rules = Rules(setting.confidence, setting.margin, setting.floor)
    return Race(tuple(entry.jobs for entry in setting.configurations), setting.metric, rules)


def make_rounds(race: Race, results: Results) -> list[Round]:
    """Every decision of a race as it is written, made from the results alone."""
    standing = race.standing(results.seen)
    before = tuple(range(len(race.jobs)))
    known: set[int] = set()
    rounds = []
    for made in standing.decisions:
        jobs = [job for c in made.entered for job in race.jobs[c][: made.round] if job not in known]
        known.update(jobs)
        rounds.append(_round(race, standing, made, before, _values(race, results, jobs)))
        before = tuple(c for c in made.entered if c not in made.out)
    return rounds


def _values(race: Race, results: Results, jobs: Sequence[int]) -> tuple[tuple[int, str, float], ...]:
    return tuple((job, results.keys[job], results.seen[job].metrics[race.metric]) for job in jobs)


def _round(
    race: Race,
    standing: Standing,
    made: Decision,
    before: Sequence[int],
    values: tuple[tuple[int, str, float], ...],
) -> Round:
    return Round(
        round=made.round,
        results=values,
        failed={c: race.jobs[c][standing.broken[c]] for c in before if c not in made.entered},
        entered=made.entered,
        means=made.means,
        out=dict(made.out),
        leader=made.leader,
        bound=made.bound,
        bounds=dict(made.bounds),
        verdict=made.verdict,
        level=made.level,
        critical=made.critical,
    )
