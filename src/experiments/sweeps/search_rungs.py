"""The decisions of a search as they are written: made from the results alone."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.comparison.decisions import Rung, SearchSetting
from experiments.sweeps.strategies import halving
from experiments.sweeps.strategies.halving import Halving
from experiments.sweeps.strategy import Results


@dataclass(frozen=True)
class SearchRungs:
    """Makes the decisions of a search, see `decision_log.Maker`."""

    halving: Halving

    @property
    def setting(self) -> SearchSetting:
        """The search as it is written."""
        search = self.halving
        return SearchSetting(epochs=tuple(search.epochs), keep=search.keep, finalists=search.finalists)

    def make(self, results: Results) -> list[Rung]:
        """Every decision so far, in order."""
        rungs = self.halving.rungs(results.seen)
        return [_rung(number, rung, results) for number, rung in enumerate(rungs, 1) if rung.is_complete]


def halving_of(setting: SearchSetting) -> Halving:
    """The strategy that a setting describes."""
    return Halving(setting.epochs, setting.keep, setting.finalists)


def _rung(number: int, rung: halving.Rung, results: Results) -> Rung:
    scores = {job: rung.scores[job] for job in sorted(rung.scores)}
    return Rung(
        rung=number,
        results=tuple((job, results.keys[job], -score[0], score[1]) for job, score in scores.items()),
        failed=tuple(sorted(rung.broken)),
        kept=tuple(rung.kept),
    )
