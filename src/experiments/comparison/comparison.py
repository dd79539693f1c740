"""All that a set of runs says, as numbers; `sentences` puts it into words, `report` onto paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.comparison.calibration import Calibration, calibrate, overconfidence
from experiments.comparison.certificate import Certificate, certify
from experiments.comparison.comparisons import Difference, may_be_best
from experiments.comparison.configurations import Configuration, gather, key_of
from experiments.comparison.effects import Effect, Importance, find_effects, importance
from experiments.comparison.ensemble import Ensemble, ensemble
from experiments.comparison.intervals import accuracy_interval
from experiments.comparison.mistakes import Disagreement, Mistake, disagreement, most_missed
from experiments.comparison.overfitting import OverfittingSeeds, judge
from experiments.comparison.pairs import Field, Pair
from experiments.comparison.races import RaceResult, find
from experiments.comparison.searches import SearchResult
from experiments.comparison.searches import find as find_search
from experiments.comparison.selection import Selection, judge_selection
from experiments.comparison.settings import label, of_sweep
from experiments.errors import InputError
from experiments.results import files
from experiments.results.evaluation import Interval
from experiments.results.looks import Ledger, read_or_none
from experiments.results.records import Record
from experiments.results.states import RunState

_PASSED_OVER = (RunState.FINISHED, RunState.PAUSED)  # a pause is the sweep's own, and no missing result
MATRIX = 30  # configurations whose pairs are shown: 435 of them


@dataclass(frozen=True)
class Unfinished:
    """Runs of one configuration that have no result, for the same reason.

    Attributes:
        label: what was asked of them.
        state: how they ended.
        reason: what they say about it, "" where nothing.
        records: the runs.
    """

    label: str
    state: str
    reason: str
    records: tuple[Record, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that the reports show.

    Attributes:
        configurations: best validation accuracy first.
        overfitting: of each, over its seeds.
        options: names of what varies between them.
        apart: runs that did not finish.
        unfinished: the same, by what was asked of them.
        selection: what the best test score would have overstated.
        notes: what must be known to read the rest.
        ledger: who has looked at these test images; None where it cannot be read.
        sealed: whether the test images of a run have not been looked at; then nothing is said of any test number.
        intervals: 95 % of the test accuracy of each.
        may_be_best: whether each may have the highest true test accuracy; all False where only networks are compared.
        overconfidence: mean confidence minus accuracy of each; None without predictions.
        pairs: the best with each other.
        matrix: every pair of the first thirty.
        effects: of each option, where more than one varies and seeds are repeated.
        importance: shares of the variance of test accuracy; None like `effects`, or where no grid was tried.
        calibration: of the best; None without predictions.
        disagreement: between the best and the runner-up; None without, or over different test images.
        most_missed: test images that most runs miss, the most votes first.
        ensemble: of all runs; None for fewer than two.
        race: what the sweep has decided, where the runs are those of a race.
        certificates: of its other configurations, the closest first; none while it is open.
        search: what the sweep has tried, where the runs are those of a search.
    """

    configurations: tuple[Configuration, ...]
    overfitting: tuple[OverfittingSeeds, ...]
    options: tuple[str, ...]
    apart: tuple[Record, ...]
    unfinished: tuple[Unfinished, ...]
    selection: Selection
    notes: tuple[str, ...]
    ledger: Ledger | None
    sealed: bool
    intervals: tuple[Interval, ...]
    may_be_best: tuple[bool, ...]
    overconfidence: tuple[Difference | None, ...]
    pairs: tuple[Pair, ...] = ()
    matrix: tuple[Pair, ...] = ()
    effects: tuple[Effect, ...] = ()
    importance: Importance | None = None
    calibration: Calibration | None = None
    disagreement: Disagreement | None = None
    most_missed: tuple[Mistake, ...] = ()
    ensemble: Ensemble | None = None
    race: RaceResult | None = None
    certificates: tuple[Certificate, ...] = ()
    search: SearchResult | None = None

    @property
    def raced(self) -> dict[int, Configuration]:
        """The configurations by their number in the race."""
        return _raced(self.race, self.configurations)

    @property
    def best(self) -> Configuration:
        return self.configurations[0]

    @property
    def of_networks(self) -> bool:
        """Whether no configuration has a second seed, so that nothing can be said of options."""
        return all(len(c.records) == 1 for c in self.configurations)


def compare(records: Sequence[Record]) -> Comparison:
    """Compares the finished runs among `records`.

    Raises:
        InputError: none has finished, or a config cannot be read.
    """
    finished = [record for record in records if record.state == RunState.FINISHED]
    race, race_notes = find(records)
    apart = tuple(record for record in records if record.state not in _PASSED_OVER)
    if not finished:
        raise InputError(_nothing_finished(records))
    configurations, notes = gather(finished)
    failed = {key_of(record) for record in apart} - {key_of(c.records[0]) for c in configurations}
    sealed = any(record.sealed for c in configurations for record in c.records)
    field = None if sealed else Field(configurations)
    pairs = field.against_first() if field else []
    certified = tuple(certify(race, _raced(race, configurations))) if race and race.is_decided and not sealed else ()
    ledger = read_or_none(files.home())
    return Comparison(
        configurations=configurations,
        overfitting=tuple(map(judge, configurations)),
        options=tuple(configurations[0].settings),
        apart=apart,
        unfinished=_unfinished(apart),
        selection=judge_selection(pairs, len(configurations) + len(failed)),
        notes=(*notes, *race_notes),
        ledger=ledger and ledger.at({record.dataset.digest for c in configurations for record in c.records}),
        sealed=sealed,
        race=race,
        certificates=certified,
        search=find_search(records),
        **(_of_test(configurations, field, pairs) if field else _of_none(len(configurations))),
    )


def _of_none(count: int) -> dict[str, Any]:
    """What is known of test images that were not looked at."""
    unknown = Interval(-math.inf, math.inf)
    return {"intervals": (unknown,) * count, "may_be_best": (False,) * count, "overconfidence": (None,) * count}


def _of_test(configurations: Sequence[Configuration], field: Field, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The parts of a comparison that the test images tell."""
    best, options, confident = configurations[0], tuple(configurations[0].settings), overconfidence(configurations)
    best_or_not = may_be_best(field.scored, field.degrees) if field.degrees else [False] * len(configurations)
    return {
        "intervals": tuple(accuracy_interval(s.sample, s.spread) for s in field.scored),
        "may_be_best": tuple(best_or_not),
        "overconfidence": tuple(confident),
        "pairs": tuple(pairs),
        "matrix": tuple(field.among(MATRIX, pairs)),
        "effects": tuple(find_effects(configurations, field.scored, options, field.degrees)),
        "importance": _importance(configurations, options),
        "calibration": calibrate(best, confident[0]),
        "disagreement": disagreement(best, configurations[1]) if len(configurations) > 1 else None,
        "most_missed": most_missed(configurations, best.scores.test_set) if best.scores else (),
        "ensemble": ensemble(configurations),
    }


def _raced(race: RaceResult | None, configurations: Sequence[Configuration]) -> dict[int, Configuration]:
    """Number in the race → configuration with predictions."""
    if race is None:
        return {}
    of_run = {record.run_key: c for c in configurations if c.scores for record in c.records}
    found = {}
    for number, entry in enumerate(race.setting.configurations):
        keys = (race.records[job].run_key for job in entry.jobs if job in race.records)
        if c := next((of_run[key] for key in keys if key in of_run), None):
            found[number] = c
    return found


def _nothing_finished(apart: Sequence[Record]) -> str:
    if not apart:
        return "no run was given; `python -m experiments.run -m optimizer=sgd,rmsprop,adam` makes some"
    states = ", ".join(f"{record.name} {record.state}" for record in apart[:5])
    more = f" and {len(apart) - 5} more" if len(apart) > 5 else ""
    return f"none of the {len(apart)} runs has finished ({states}{more}); the same command again finishes them"


def _unfinished(apart: Sequence[Record]) -> tuple[Unfinished, ...]:
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in apart:
        error = f"{record.error.type}: {record.error.message}" if record.error else ""
        groups.setdefault((label(of_sweep(record)) or record.name, record.state, error), []).append(record)
    return tuple(Unfinished(*what, tuple(members)) for what, members in groups.items())


def title(comparison: Comparison) -> str:
    """The name of the sweep that all runs are of; "" where there is none."""
    sweeps = {record.sweep for c in comparison.configurations for record in c.records}
    return sweeps.pop() or "" if len(sweeps) == 1 else ""


def _importance(configurations: Sequence[Configuration], options: Sequence[str]) -> Importance | None:
    """None unless a grid was tried: an option with a new value in each configuration explains everything."""
    levels = [len({configuration.settings[option] for configuration in configurations}) for option in options]
    if len(options) < 2 or 2 * max(levels) > len(configurations):
        return None
    runs = [(c.settings, record) for c in configurations for record in c.records]
    known = [run for run in runs if "test/accuracy" in run[1].metrics]
    scores = [record.metrics["test/accuracy"] for _, record in known]
    return importance(scores, [settings for settings, _ in known], options)
