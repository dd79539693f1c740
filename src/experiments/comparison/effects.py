"""What each varied option contributes: contrasts over matched pairs of runs, and shares of the variance."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.comparison.estimate import Estimate, mean_estimate
from experiments.comparison.statistics import paired_runs

Settings = Sequence[Mapping[str, Hashable]]


@dataclass(frozen=True)
class Contrast:
    """Mean score with the level of an option that is best by validation minus that with another, all else equal.

    Attributes:
        option: the option that varies.
        best: the level that is best by validation.
        other: the level it is compared with.
        effect: `best` minus `other`; its "seeds" are the matched pairs.
        pairs: number of pairs of runs that differ in nothing else.
        levels: number of levels that `best` was chosen from.
    """

    option: str
    best: Hashable
    other: Hashable
    effect: Estimate
    pairs: int
    levels: int


@dataclass(frozen=True)
class Importance:
    """Shares of the variance of a score between runs, each in [0, 1]; they sum to 1 in a complete grid.

    Attributes:
        options: what each option explains by itself, on average over the others (η²).
        interactions: what only combinations of options explain.
        repetitions: what differs between runs of one configuration.
    """

    options: Mapping[str, float]
    interactions: float
    repetitions: float


def matched_blocks(settings: Settings, option: str) -> list[dict[Hashable, int]]:
    """Level of `option` → run, for each setting of all else, seed included, that occurs more than once."""
    blocks: dict[frozenset[tuple[str, Hashable]], dict[Hashable, int]] = {}
    for run, values in enumerate(settings):
        others = frozenset((name, value) for name, value in values.items() if name != option)
        blocks.setdefault(others, {})[values[option]] = run
    return [block for block in blocks.values() if len(block) > 1]


def contrasts(right: NDArray[np.bool_], chosen_by: Sequence[float], settings: Settings, option: str) -> list[Contrast]:
    """The option's best level against each of its other levels, the largest effect first.

    Pairs are matched in everything else and share their test images, so the interval of an effect contains
    what seeds and the other options do to it as well as the finite test set; a single pair is two runs alone.
    The best level is the one that gains most over the mean of its blocks in `chosen_by`.

    Args:
        right: (runs, images) whether a run is right.
        chosen_by: each run's score on other images, higher is better.
        settings: each run's varied options, its seed among them; the same names in all.
        option: the name of one of them.
    """
    blocks = matched_blocks(settings, option)
    best = _best_level(chosen_by, blocks)
    levels = dict.fromkeys(level for block in blocks for level in block)
    results = []
    for level in dict.fromkeys(level for block in blocks for level in block if best in block and level != best):
        pairs = [(block[best], block[level]) for block in blocks if best in block and level in block]
        results.append(Contrast(option, best, level, _effect(right, pairs), len(pairs), len(levels)))
    return sorted(results, key=lambda contrast: -contrast.effect.value)


def _effect(right: NDArray[np.bool_], pairs: Sequence[tuple[int, int]]) -> Estimate:
    first, second = (list(side) for side in zip(*pairs, strict=True))
    if len(pairs) == 1:
        return paired_runs(right[first[0]], right[second[0]])
    return mean_estimate(right[first].astype(np.float32) - right[second].astype(np.float32))


def _best_level(scores: Sequence[float], blocks: list[dict[Hashable, int]]) -> Hashable:
    gains: dict[Hashable, list[float]] = {}
    for block in blocks:
        mean = np.mean([scores[run] for run in block.values()])
        for level, run in block.items():
            gains.setdefault(level, []).append(float(scores[run] - mean))
    return max(gains, key=lambda level: np.mean(gains[level]), default=None)


def importance(scores: Sequence[float], settings: Settings, options: Sequence[str]) -> Importance:
    """How much of the variance between runs each option explains (ANOVA, type II sums of squares).

    Source: F. Hutter, H. Hoos, K. Leyton-Brown, An Efficient Approach for Assessing Hyperparameter
    Importance, 2014 (functional ANOVA; a grid needs no trees); D. Montgomery, Design and Analysis of
    Experiments, ch. 5.

    Args:
        scores: one of each run, any metric.
        settings: each run's varied options.
        options: those that make a configuration, without the seed.
    """
    y = np.asarray(scores, np.float64)
    total = float(np.square(y - y.mean()).sum())
    if total == 0:
        return Importance(dict.fromkeys(options, 0.0), 0.0, 0.0)
    columns = {option: _indicators([run.get(option) for run in settings]) for option in options}
    cells = [tuple(run.get(option) for option in options) for run in settings]
    additive, within = _unexplained(y, list(columns.values())), _within(y, cells)
    without = {option: _unexplained(y, [columns[other] for other in options if other != option]) for option in options}
    return Importance(
        options={option: max(0.0, rest - additive) / total for option, rest in without.items()},
        interactions=max(0.0, additive - within) / total,
        repetitions=within / total,
    )


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
