"""All that a set of runs says, as numbers; `sentences` puts it into words, `report` onto paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.comparison.calibration import Calibration, calibrate, overconfidence
from experiments.comparison.certificate import Certificate, certify
from experiments.comparison.comparisons import Difference, may_be_best
from experiments.comparison.configurations import Configuration, gather
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
from experiments.results.evaluation import Interval
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
        intervals: 95 % of the test accuracy of each.
        may_be_best: whether each may have the highest true test accuracy; all False where only networks are compared.
        overconfidence: mean confidence minus accuracy of each; None without predictions.
        overfitting: of each, over its seeds.
        options: names of what varies between them.
        apart: runs that did not finish.
        unfinished: the same, by what was asked of them.
        pairs: the best with each other.
        matrix: every pair of the first thirty.
        effects: of each option, where more than one varies and seeds are repeated.
        importance: shares of the variance of test accuracy; None like `effects`, or where no grid was tried.
        calibration: of the best; None without predictions.
        disagreement: between the best and the runner-up; None without, or over different test images.
        most_missed: test images that most runs miss, the most votes first.
        ensemble: of all runs; None for fewer than two.
        selection: what the best test score would have overstated.
        notes: what must be known to read the rest.
        race: what the sweep has decided, where the runs are those of a race.
        certificates: of its other configurations, the closest first; none while it is open.
        search: what the sweep has tried, where the runs are those of a search.
    """

    configurations: tuple[Configuration, ...]
    intervals: tuple[Interval, ...]
    may_be_best: tuple[bool, ...]
    overconfidence: tuple[Difference | None, ...]
    overfitting: tuple[OverfittingSeeds, ...]
    options: tuple[str, ...]
    apart: tuple[Record, ...]
    unfinished: tuple[Unfinished, ...]
    pairs: tuple[Pair, ...]
    matrix: tuple[Pair, ...]
    effects: tuple[Effect, ...]
    importance: Importance | None
    calibration: Calibration | None
    disagreement: Disagreement | None
    most_missed: tuple[Mistake, ...]
    ensemble: Ensemble | None
    selection: Selection
    notes: tuple[str, ...]
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
    best, options, field = configurations[0], tuple(configurations[0].settings), Field(configurations)
    pairs, unfinished, confident = field.against_first(), _unfinished(apart), overconfidence(configurations)
    failed = {record.keys[1] for record in apart} - {c.records[0].keys[1] for c in configurations}
    best_or_not = may_be_best(field.scored, field.degrees) if field.degrees else [False] * len(configurations)
    return Comparison(
        configurations=configurations,
        intervals=tuple(accuracy_interval(s.sample, s.spread) for s in field.scored),
        may_be_best=tuple(best_or_not),
        overconfidence=tuple(confident),
        overfitting=tuple(map(judge, configurations)),
        options=options,
        apart=apart,
        unfinished=unfinished,
        pairs=tuple(pairs),
        matrix=tuple(field.among(MATRIX, pairs)),
        effects=tuple(find_effects(configurations, field.scored, options, field.degrees)),
        importance=_importance(configurations, options),
        calibration=calibrate(best, confident[0]),
        disagreement=disagreement(best, configurations[1]) if len(configurations) > 1 else None,
        most_missed=most_missed(configurations, best.scores.test_set) if best.scores else (),
        ensemble=ensemble(configurations),
        selection=judge_selection(pairs, len(configurations) + len(failed)),
        notes=(*notes, *race_notes),
        race=race,
        certificates=tuple(certify(race, _raced(race, configurations))) if race and race.is_decided else (),
        search=find_search(records),
    )


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


def _importance(configurations: Sequence[Configuration], options: Sequence[str]) -> Importance | None:
    """None unless a grid was tried: an option with a new value in each configuration explains everything."""
    levels = [len({configuration.settings[option] for configuration in configurations}) for option in options]
    if len(options) < 2 or 2 * max(levels) > len(configurations):
        return None
    runs = [(c.settings, record) for c in configurations for record in c.records]
    known = [run for run in runs if "test/accuracy" in run[1].metrics]
    scores = [record.metrics["test/accuracy"] for _, record in known]
    return importance(scores, [settings for settings, _ in known], options)
