"""Two configurations against each other: which test fits, what it says, what it would take to know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from experiments.comparison.configurations import Configuration, Scores
from experiments.comparison.estimate import Estimate, difference_estimate
from experiments.comparison.statistics import (
    after_choice,
    holm,
    images_needed,
    images_needed_over_seeds,
    independent_difference,
    paired_bootstrap,
    paired_runs,
    seeds_needed,
    times_chosen,
)
from experiments.results.evaluation import Interval

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Duel:
    """Configuration A against configuration B.

    Attributes:
        method: which test, in words.
        accuracy: test accuracy A − B.
        cross_entropy: test cross-entropy A − B, nats; None over different test images.
        only_a: images that A has right and B has not (by the majority of their seeds); None if not paired.
        only_b: the same the other way round.
        p_adjusted: `accuracy.p_value` corrected for the comparisons that it was made with, and for the choice of A.
        level: what `accuracy.p_value` must not exceed to be distinguishable whatever the other comparisons say.
    """

    a: Configuration
    b: Configuration
    method: str
    accuracy: Estimate
    cross_entropy: Estimate | None
    only_a: int | None
    only_b: int | None
    p_adjusted: float
    level: float = LEVEL

    @property
    def is_real(self) -> bool:
        """The difference of accuracies is distinguishable from none."""
        return self.p_adjusted <= LEVEL


def fight(pairs: Sequence[tuple[Configuration, Configuration]]) -> list[Duel]:
    """All duels, their p-values corrected together."""
    return _corrected([_duel(a, b) for a, b in pairs], candidates=2)


def against_best(configurations: Sequence[Configuration]) -> list[Duel]:
    """The first configuration, chosen among all by validation, against each other."""
    duels = [_duel(configurations[0], other) for other in configurations[1:]]
    return _corrected(duels, candidates=len(configurations))


def _corrected(duels: Sequence[Duel], *, candidates: int) -> list[Duel]:
    adjusted = holm([after_choice(duel.accuracy, candidates) for duel in duels])
    levels = [LEVEL / len(duels) / times_chosen(duel.accuracy, candidates) for duel in duels]
    both = zip(duels, adjusted, levels, strict=True)
    return [replace(duel, p_adjusted=p, level=level) for duel, p, level in both]


def all_pairs(configurations: Sequence[Configuration]) -> list[Duel]:
    """Every configuration against every one after it."""
    return fight(list(combinations(configurations, 2)))


def _duel(a: Configuration, b: Configuration) -> Duel:
    if a.scores is None or b.scores is None or a.scores.test_set is not b.scores.test_set:
        return _unpaired(a, b)
    if len(a.records) == len(b.records) == 1:
        return _one_run_each(a, b, a.scores, b.scores)
    return _over_seeds(a, b, a.scores, b.scores)


def _one_run_each(a: Configuration, b: Configuration, of_a: Scores, of_b: Scores) -> Duel:
    accuracy = paired_runs(of_a.right[0], of_b.right[0])
    cross_entropy = difference_estimate(of_a.losses, of_b.losses, matched=True)
    method = f"exact McNemar test on the same {of_a.right.shape[1]:,} images"
    return Duel(a, b, method, accuracy, cross_entropy, _only(of_a, of_b), _only(of_b, of_a), accuracy.p_value)


def _over_seeds(a: Configuration, b: Configuration, of_a: Scores, of_b: Scores) -> Duel:
    matched = a.seeds == b.seeds
    seeds = f"{len(a.seeds)} matched seeds" if matched else f"{len(a.seeds)} and {len(b.seeds)} seeds (Welch)"
    accuracy = difference_estimate(of_a.right, of_b.right, matched=matched)
    cross_entropy = difference_estimate(of_a.losses, of_b.losses, matched=matched)
    method = f"t-test over {seeds} and the same {of_a.right.shape[1]:,} images"
    return Duel(a, b, method, accuracy, cross_entropy, _only(of_a, of_b), _only(of_b, of_a), accuracy.p_value)


def _unpaired(a: Configuration, b: Configuration) -> Duel:
    values = a.mean("test/accuracy"), b.mean("test/accuracy")
    interval = independent_difference(values[0], a.accuracy_interval, values[1], b.accuracy_interval)
    value = values[0] - values[1]
    towards_zero = value - interval.low if value > 0 else interval.high - value
    error = towards_zero / 1.96  # the interval's half that decides whether zero is inside
    p_value = 2 * float(ndtr(-abs(value) / error)) if error > 0 and math.isfinite(error) else 1.0
    accuracy = Estimate(value, interval, p_value, None, error**2, min(len(a.records), len(b.records)))
    reason = "the test images differ" if a.scores and b.scores else "predictions are missing"
    return Duel(a, b, f"unpaired interval, for {reason}", accuracy, None, None, None, p_value)


def missed(scores: Scores) -> NDArray[np.bool_]:
    """(n,) whether more than half of the runs have an image wrong."""
    return np.asarray(2 * np.count_nonzero(scores.right, axis=0) < len(scores.right))


def _only(winner: Scores, loser: Scores) -> int:
    return int(np.count_nonzero(missed(loser) & ~missed(winner)))


def bootstrap_cross_entropy(duel: Duel) -> Interval | None:
    """Bootstrap interval of the cross-entropy difference of two single runs; None for anything else."""
    of_a, of_b = duel.a.scores, duel.b.scores
    if of_a is None or of_b is None or duel.cross_entropy is None or len(of_a.losses) + len(of_b.losses) > 2:
        return None
    # 4,000 resamples: the interval's ends then wobble by 4 % of the standard error, for 0.3 s
    return paired_bootstrap(of_a.losses[0], of_b.losses[0], resamples=4_000).interval


@dataclass(frozen=True)
class Needed:
    """What would show a difference of this size in 80 % of repetitions, corrected alike; None: no number would."""

    images: int | None
    seeds: int | None


def needed(duel: Duel) -> Needed | None:
    """Test images, or seeds on these images, that would tell the two apart; None where that cannot be known."""
    if duel.a.scores is None or duel.only_a is None or duel.only_b is None:
        return None
    images, difference = duel.a.scores.right.shape[1], duel.accuracy
    if difference.seed_variance is None:
        return Needed(images_needed(duel.only_a / images, duel.only_b / images, level=duel.level), None)
    value, of_seeds, of_images = difference.value, difference.seed_variance, difference.test_variance
    if difference.seeds < 2:  # one side has a single seed: the other's tell too little of what more would bring
        return None
    return Needed(
        images_needed_over_seeds(value, of_images * images, of_seeds, difference.seeds, level=duel.level),
        seeds_needed(value, of_seeds * difference.seeds, of_images, level=duel.level),
    )
