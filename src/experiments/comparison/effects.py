"""What each varied option contributes: its best level against the others, and its share of the variance."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.comparison.comparisons import (
    LEVEL,
    Difference,
    Scored,
    agreeing,
    difference,
    holm_over_families,
    step_down,
)
from experiments.comparison.configurations import Configuration
from experiments.comparison.settings import Settings
from experiments.results.evaluation import Interval


@dataclass(frozen=True)
class Effect:
    """Mean test accuracy with an option's level that is best by validation minus that with another, all else equal.

    Attributes:
        option: the option that varies.
        best: the level that is best by validation.
        other: the level it is compared with.
        difference: `best` minus `other`, averaged over settings of all else.
        interval: 95 %, together with all effects.
        p_value: adjusted for the levels of the option, and for all options.
        settings: how many settings of all else it is averaged over.
    """

    option: str
    best: Hashable
    other: Hashable
    difference: Difference
    interval: Interval
    p_value: float
    settings: int


@dataclass(frozen=True)
class Importance:
    """Shares of the variance of a score between runs (ω², corrected for what chance alone would explain).

    Attributes:
        options: what each option explains by itself, on average over the others; may be just below 0.
        combinations: what only combinations of options explain; may be below 0.
        seeds: what differs between seeds.
    """

    options: Mapping[str, float]
    combinations: float
    seeds: float

    def shares(self) -> dict[str, float]:
        """The same in [0, 1], with `combinations` and `seeds` the last; they sum to 1."""
        known = {**self.options, "combinations": self.combinations, "seeds": self.seeds}
        floored = {name: max(0.0, share) for name, share in known.items()}
        total = sum(floored.values())
        return {name: share / total for name, share in floored.items()}


def find_effects(
    configurations: Sequence[Configuration], scored: Sequence[Scored], options: Sequence[str], degrees: int
) -> list[Effect]:
    """Of each option that varies beside others, the largest first; none without repeated seeds or common test images.

    Args:
        configurations: the best by validation first; those on its test images are compared.
        scored: the same, with their spread.
        options: names of what varies. Of a single one the ranking says all.
        degrees: of freedom over all configurations.
    """
    kept = [index for index, s in enumerate(scored) if s.test_set and s.test_set == scored[0].test_set]
    if len(options) < 2 or not degrees:
        return []
    inside, settings = [scored[index] for index in kept], [configurations[index].settings for index in kept]
    chosen_by = [configurations[index].mean("validation/accuracy") for index in kept]
    families = [_differences(option, inside, settings, chosen_by, degrees) for option in options]
    adjusted = holm_over_families([step_down([d for _, _, d, _ in family]) for family in families])
    count = sum(bool(family) for family in families)
    found = []
    for option, family, p_values in zip(options, families, adjusted, strict=True):
        effects = [
            Effect(
                option, best, other, d, agreeing(d.interval(len(family) + 1, LEVEL / count), d.value, p), p, settings
            )
            for (best, other, d, settings), p in zip(family, p_values, strict=True)
        ]  # fmt: skip
        found += sorted(effects, key=lambda effect: -effect.difference.value)
    return found


def matched_settings(settings: Sequence[Settings], option: str) -> list[dict[Hashable, int]]:
    """Level of `option` → configuration, for each setting of all else that occurs with more than one level."""
    blocks: dict[frozenset[tuple[str, Hashable]], dict[Hashable, int]] = {}
    for index, values in enumerate(settings):
        others = frozenset((name, value) for name, value in values.items() if name != option)
        blocks.setdefault(others, {})[values[option]] = index
    return [block for block in blocks.values() if len(block) > 1]


def _differences(
    option: str, scored: Sequence[Scored], settings: Sequence[Settings], chosen_by: Sequence[float], degrees: int
) -> list[tuple[Hashable, Hashable, Difference, int]]:
    blocks = matched_settings(settings, option)
    best = _best_level(chosen_by, blocks)
    found = []
    for level in dict.fromkeys(level for block in blocks for level in block if best in block and level != best):
        pairs = [(block[best], block[level]) for block in blocks if best in block and level in block]
        first, second = ([scored[index] for index in side] for side in zip(*pairs, strict=True))
        found.append((best, level, difference(first, second, degrees), len(pairs)))
    return found


def _best_level(scores: Sequence[float], blocks: list[dict[Hashable, int]]) -> Hashable:
    """The level that gains most over the mean of its blocks."""
    gains: dict[Hashable, list[float]] = {}
    for block in blocks:
        mean = np.mean([scores[index] for index in block.values()])
        for level, index in block.items():
            gains.setdefault(level, []).append(float(scores[index] - mean))
    return max(gains, key=lambda level: np.mean(gains[level]), default=None)


def importance(scores: Sequence[float], settings: Sequence[Settings], options: Sequence[str]) -> Importance | None:
    """How much of the variance between runs each option explains; None without repeated runs or any variance.

    ω² of an analysis of variance with type II sums of squares.
    Source: W. Hays, Statistics for Psychologists, 1963; F. Hutter, H. Hoos, K. Leyton-Brown, An Efficient Approach for
    Assessing Hyperparameter Importance, 2014 (functional ANOVA; a grid needs no trees).

    Args:
        scores: one of each run, any metric.
        settings: each run's varied options.
        options: those that make a configuration, without the seed.
    """
    y = np.asarray(scores, np.float64)
    total = float(np.square(y - y.mean()).sum())
    cells = [tuple(run.get(option) for option in options) for run in settings]
    degrees = len(y) - len(set(cells))
    if total == 0 or degrees == 0:
        return None
    columns = {option: _indicators([run.get(option) for run in settings]) for option in options}
    additive, within = _unexplained(y, list(columns.values())), _within(y, cells)
    without = {option: _unexplained(y, [columns[other] for other in options if other != option]) for option in options}
    by_chance = within / degrees  # mean square of the seeds

    def share(explained: float, parameters: int) -> float:
        return (explained - parameters * by_chance) / (total + by_chance)

    alone = {option: share(without[option] - additive, columns[option].shape[1] - 1) for option in options}
    together = share(total - within, len(set(cells)) - 1)
    return Importance(alone, together - sum(alone.values()), 1 - together)


def _indicators(levels: Sequence[Hashable]) -> NDArray[np.float64]:
    index = {level: column for column, level in enumerate(dict.fromkeys(levels))}
    return np.eye(len(index))[[index[level] for level in levels]]


def _unexplained(y: NDArray[np.float64], columns: list[NDArray[np.float64]]) -> float:
    design = np.hstack([np.ones((len(y), 1)), *columns])
    # By the normal equations, which are small; least squares because levels may be confounded with each other.
    fitted = design @ np.linalg.lstsq(design.T @ design, design.T @ y, rcond=None)[0]
    return float(np.square(y - fitted).sum())


def _within(y: NDArray[np.float64], cells: Sequence[Hashable]) -> float:
    """Sum of squares around the mean of each cell."""
    index = {cell: place for place, cell in enumerate(dict.fromkeys(cells))}
    place = np.array([index[cell] for cell in cells])
    means = np.bincount(place, weights=y) / np.bincount(place)
    return float(np.square(y - means[place]).sum())
