"""All that a set of runs says, as numbers; `answer` puts it into sentences, `report` onto paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.comparison.configurations import Configuration, gather
from experiments.comparison.duels import Duel, against_best, all_pairs, bootstrap_cross_entropy
from experiments.comparison.effects import Contrast, Importance, contrasts, importance
from experiments.comparison.ensemble import Ensemble, ensemble
from experiments.comparison.mistakes import Disagreement, Mistake, disagreement, most_missed
from experiments.comparison.statistics import after_choice, expected_best_of, holm
from experiments.errors import InputError
from experiments.results.evaluation import Interval
from experiments.results.records import Record
from experiments.results.states import RunState

MATRIX = 12  # configurations in the pairwise matrix: 66 tests, still readable on one page


@dataclass(frozen=True)
class Selection:
    """What choosing by test score instead of validation would have done.

    Attributes:
        tried: configurations.
        contenders: those that cannot be told apart from the best, itself included.
        overstated: expected by how much the best test accuracy of the contenders overstates, in [0, 1].
    """

    tried: int
    contenders: int
    overstated: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that the reports show.

    Attributes:
        configurations: best validation accuracy first.
        options: names of what varies between them.
        apart: runs that did not finish.
        duels: the best against each other, corrected together.
        bootstrap: interval of the difference in cross-entropy, best minus runner-up; None unless both are one
            run.
        matrix: every pair of the first twelve, corrected together.
        contrasts: of each option, on test accuracy, corrected together (`p_values`).
        p_values: of each contrast, corrected for all of them and for the choice of the best level.
        importance: shares of the variance of test accuracy; None unless more than two options vary.
        disagreement: between the best and the runner-up; None without, or over different test images.
        most_missed: test images that most runs miss, the most votes first.
        ensemble: of all runs; None for fewer than two.
        notes: what must be known to read the rest.
    """

    configurations: tuple[Configuration, ...]
    options: tuple[str, ...]
    apart: tuple[Record, ...]
    duels: tuple[Duel, ...]
    bootstrap: Interval | None
    matrix: tuple[Duel, ...]
    contrasts: tuple[Contrast, ...]
    p_values: tuple[float, ...]
    importance: Importance | None
    disagreement: Disagreement | None
    most_missed: tuple[Mistake, ...]
    ensemble: Ensemble | None
    selection: Selection
    notes: tuple[str, ...]

    @property
    def best(self) -> Configuration:
        return self.configurations[0]


def compare(records: Sequence[Record]) -> Comparison:
    """Compares the finished runs among `records`.

    Raises:
        InputError: none has finished, or a config cannot be read.
    """
    finished = [record for record in records if record.state == RunState.FINISHED]
    apart = tuple(record for record in records if record.state != RunState.FINISHED)
    if not finished:
        raise InputError(_nothing_finished(apart))
    configurations, notes = gather(finished)
    best, options = configurations[0], tuple(configurations[0].settings)
    duels = against_best(configurations)
    found, p_values = _contrasts(configurations, options)
    return Comparison(
        configurations=configurations,
        options=options,
        apart=apart,
        duels=tuple(duels),
        bootstrap=bootstrap_cross_entropy(duels[0]) if duels else None,
        matrix=tuple(all_pairs(configurations[:MATRIX])),
        contrasts=found,
        p_values=p_values,
        importance=_importance(configurations, options),
        disagreement=disagreement(best, configurations[1]) if len(configurations) > 1 else None,
        most_missed=most_missed(configurations, best.scores.test_set) if best.scores else (),
        ensemble=ensemble(configurations),
        selection=_selection(configurations, duels),
        notes=notes,
    )


def _nothing_finished(apart: Sequence[Record]) -> str:
    if not apart:
        return "no run was given; `python -m experiments.run -m optimizer=sgd,rmsprop,adam` makes some"
    states = ", ".join(f"{record.name} {record.state}" for record in apart[:5])
    more = f" and {len(apart) - 5} more" if len(apart) > 5 else ""
    return f"none of the {len(apart)} runs has finished ({states}{more}); the same command again finishes them"


def _contrasts(
    configurations: Sequence[Configuration], options: Sequence[str]
) -> tuple[tuple[Contrast, ...], tuple[float, ...]]:
    """On test accuracy, over the runs that share the best configuration's test images."""
    first = configurations[0].scores
    comparable = [(c, c.scores) for c in configurations if c.scores and first and c.scores.test_set is first.test_set]
    chosen_by = [record.metrics.get("validation/accuracy", np.nan) for c, _ in comparable for record in c.records]
    if len(comparable) < 2 or not np.isfinite(chosen_by).all():
        return (), ()
    right = np.concatenate([scores.right for _, scores in comparable])
    settings = [{**c.settings, "seed": seed} for c, _ in comparable for seed in c.seeds]
    found = tuple(contrast for option in options for contrast in contrasts(right, chosen_by, settings, option))
    return found, tuple(holm([after_choice(contrast.effect, contrast.levels) for contrast in found]))


def _importance(configurations: Sequence[Configuration], options: Sequence[str]) -> Importance | None:
    """None unless a grid was tried: an option with a new value in each configuration explains everything."""
    levels = [len({configuration.settings[option] for configuration in configurations}) for option in options]
    if len(options) <= 2 or 2 * max(levels) > len(configurations):
        return None
    runs = [(c.settings, record) for c in configurations for record in c.records]
    known = [run for run in runs if "test/accuracy" in run[1].metrics]
    scores = [record.metrics["test/accuracy"] for _, record in known]
    return importance(scores, [settings for settings, _ in known], options)


def _selection(configurations: Sequence[Configuration], duels: Sequence[Duel]) -> Selection:
    rivals = [duel for duel in duels if not duel.is_real]
    # Half the variance of a difference belongs to each side; what both share cannot select one of them. The
    # median, because one configuration that jumps about from seed to seed says nothing about the others.
    variances = [(duel.accuracy.seed_variance or 0.0) + duel.accuracy.test_variance for duel in rivals]
    error = float(np.sqrt(np.median(variances) / 2)) if variances else 0.0
    return Selection(len(configurations), len(rivals) + 1, expected_best_of(len(rivals) + 1, error))
