"""Differences between configurations: what is beyond chance, whatever was chosen among however many.

A difference has two parts of variance: V_seeds of the seeds, estimated with ν degrees of freedom, and V_images of the
test images, known well. Among k means the critical value of level p is Cochran's mean of two quantiles of the
studentized range, weighted by these parts,

    c_k(p) = (V_seeds Q_{k,ν}(p) + V_images Q_{k,∞}(p)) / (V √2),   V = V_seeds + V_images

and the p-value solves c_k(p) = |difference| / √V. The first configuration, chosen among all by seeds that favour it on
test images too, is compared with the others step by step: the j-th largest statistic among k − j + 1 means.
Source: R. Games, J. Howell, Pairwise Multiple Comparison Procedures, 1976; W. Cochran, Approximate Significance Levels
of the Behrens-Fisher Test, 1964; J. Hsu, Multiple Comparisons: Theory and Methods, 1996.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from experiments.comparison.spread import Sample, Spread, sample
from experiments.comparison.studentized_range import Floats, Kind, X, log_tail, quantiles
from experiments.results.evaluation import Interval

LEVEL = 0.05
PAIRED_FROM = 10  # matched seeds; with fewer, pairing loses more in degrees of freedom than it gains


@dataclass(frozen=True)
class Difference:
    """Mean of one side minus mean of another.

    Attributes:
        value: the difference.
        of_seeds: variance of `value` from the choice of seeds; 0 for trained networks compared as they are.
        of_images: variance from the choice of test images, which more seeds do not reduce.
        degrees: of freedom of `of_seeds`.
        paired: whether it was taken seed by seed.
    """

    value: float
    of_seeds: float
    of_images: float
    degrees: float
    paired: bool = False

    @property
    def error(self) -> float:
        """Standard error."""
        return math.sqrt(self.of_seeds + self.of_images)

    def p_value(self, means: int = 2) -> float:
        """That a difference as large as this comes about by chance between any two of `means` equal means."""
        if self.error == 0:
            return float(self.value == 0)
        x = np.interp(abs(self.value) / self.error, self._critical(means), X)
        return min(1.0, float(np.exp(np.interp(x, X, log_tail(means)))))

    def critical(self, means: int, level: float = LEVEL, kind: Kind = "range") -> float:
        """What |difference| / `error` must exceed at this level.

        Args:
            means: how many are compared, 2 or more.
            level: the chance of any false difference, in (0, 1).
            kind: `range` for all pairs of means, `one_sided` for one mean against all others.
        """
        x = np.interp(-math.log(level), -log_tail(means, kind), X)
        return float(np.interp(x, X, self._critical(means, kind)))

    def interval(self, means: int = 2, level: float = LEVEL) -> Interval:
        """Holds the true difference, together with those of all pairs of `means`, with probability 1 − level."""
        half = self.critical(means, level) * self.error
        return Interval(self.value - half, self.value + half)

    def _critical(self, means: int, kind: Kind = "range") -> Floats:
        variance = self.of_seeds + self.of_images
        share = self.of_seeds / variance if variance else 0.0
        of_seeds = quantiles(means, self.degrees, kind) if share else X
        return np.asarray((share * of_seeds + (1 - share) * X) / math.sqrt(2))


@dataclass(frozen=True, eq=False)
class Scored:
    """A configuration as it enters comparisons.

    Attributes:
        sample: its runs' scores.
        spread: of its seeds; None where no configuration has repeated seeds.
        seeds: of its runs, in the order of the sample; or their data splits.
        test_set: which images it was scored on; "" where that is not known.
    """

    sample: Sample
    spread: Spread | None
    seeds: tuple[Hashable, ...]
    test_set: str


def difference(first: Sequence[Scored], second: Sequence[Scored], total_degrees: int) -> Difference:
    """Mean of one side minus mean of the other.

    Args:
        first: configurations whose means are averaged.
        second: as many, each the counterpart of one in `first`.
        total_degrees: sum of seeds − 1 over all configurations that gave the spread.
    """
    if _are_paired(first, second):
        return _paired(first, second)
    value = float(np.mean([s.sample.mean for s in first]) - np.mean([s.sample.mean for s in second]))
    both = [*first, *second]
    of_images = variance_of_images(first, second)
    known = [(s.spread, s.sample.seeds * len(first) ** 2) for s in both if s.spread is not None]
    if not known:
        return Difference(value, 0.0, of_images, math.inf)
    parts = [(spread.variance / weight, spread.degrees) for spread, weight in known]
    of_seeds = sum(part for part, _ in parts)
    scatter = sum(part**2 / degrees for part, degrees in parts)
    degrees = min(total_degrees, of_seeds**2 / scatter) if scatter else total_degrees
    return Difference(value, of_seeds, of_images, degrees)


def variance_of_images(first: Sequence[Scored], second: Sequence[Scored]) -> float:
    """The variance that the choice of test images brings to the difference of two sides, see `difference`."""
    both = [*first, *second]
    samples = [s.sample for s in both]
    if any(s.image_means is None for s in samples) or len({s.test_set for s in both}) > 1:
        return sum(_of_own_images(s) for s in samples) / len(first) ** 2
    means = [np.mean([np.asarray(s.sample.image_means) for s in side], axis=0) for side in (first, second)]
    images = samples[0].images
    variance = float((means[0] - means[1]).var(ddof=1)) / images
    known = [s.of_flips for s in samples if s.of_flips is not None]
    typical = float(np.mean(known)) if known else 0.0
    flips = sum((typical if s.of_flips is None else s.of_flips) / s.seeds for s in samples)
    # Without any repeated seed the networks themselves are compared, and all of it is the images'.
    return max(0.0, variance - flips / len(first) ** 2) if both[0].spread else variance


def _of_own_images(s: Sample) -> float:
    """Variance p (1 − p) / n of an accuracy; that of half a miss where there is none."""
    if not s.images:
        return math.inf
    share = min(max(s.mean, 0.5 / s.images), 1 - 0.5 / s.images)
    return share * (1 - share) / s.images


def mean_of(s: Sample, spread: Spread | None) -> Difference:
    """A mean by itself. That of one seed is about this one network, and does not know what another seed would bring."""
    if s.seeds == 1 or spread is None:
        return Difference(s.mean, 0.0, _of_own_images(s) if s.image_means is None else _of_image_means(s), math.inf)
    of_images = _of_own_images(s) if s.image_means is None else _of_image_means(s) - (s.of_flips or 0.0) / s.seeds
    return Difference(s.mean, spread.variance / s.seeds, max(0.0, of_images), spread.degrees)


def _of_image_means(s: Sample) -> float:
    return float(np.var(s.image_means, ddof=1)) / s.images  # type: ignore[arg-type]


def _are_paired(first: Sequence[Scored], second: Sequence[Scored]) -> bool:
    both = [*first, *second]
    return (
        len(both[0].seeds) >= PAIRED_FROM
        and len({s.seeds for s in both}) == len({s.test_set for s in both}) == 1
        and all(s.sample.values is not None for s in both)
    )


def _paired(first: Sequence[Scored], second: Sequence[Scored]) -> Difference:
    a, b = (np.mean([np.asarray(s.sample.values, np.float64) for s in side], axis=0) for side in (first, second))
    of_pairs = sample(np.asarray(a - b))
    flips = (of_pairs.of_flips or 0.0) / of_pairs.seeds
    return Difference(
        value=of_pairs.mean,
        of_seeds=max((of_pairs.of_seeds or 0.0) / of_pairs.seeds, flips),
        of_images=max(0.0, _of_image_means(of_pairs) - flips),
        degrees=of_pairs.degrees,
        paired=True,
    )


def step_down(differences: Sequence[Difference]) -> list[float]:
    """Adjusted p-values of the first of k = len + 1 means against each other, whichever the first is."""
    single = [d.p_value(len(differences) + 1) for d in differences]
    adjusted, largest = [1.0] * len(single), 0.0
    for step, index in enumerate(sorted(range(len(single)), key=lambda index: single[index])):
        largest = max(largest, differences[index].p_value(len(differences) + 1 - step))
        adjusted[index] = largest
    return adjusted


def agreeing(interval: Interval, value: float, p_value: float) -> Interval:
    """A simultaneous interval that says of 0 what the adjusted p-value says.

    Steps may show a sign that the interval of all comparisons leaves open: it then ends at 0. Source: K. Strassburger,
    F. Bretz, Compatible Simultaneous Lower Confidence Bounds for the Holm Procedure, 2008.

    Args:
        interval: of the difference, simultaneous for all comparisons.
        value: the difference; only its sign counts.
        p_value: adjusted for all comparisons, in [0, 1]; above `LEVEL` the interval is made to hold 0.
    """
    low, high = interval.low, interval.high
    if p_value > LEVEL:
        return Interval(min(low, 0.0), max(high, 0.0))
    return Interval(max(low, 0.0), high) if value > 0 else Interval(low, min(high, 0.0))


def may_be_best(scored: Sequence[Scored], total_degrees: int) -> list[bool]:
    """Which may have the highest true mean, at 95 % confidence for all together (Hsu's comparisons with the best).

    One is left out where another is better than it by more than Dunnett's one-sided critical value.
    """
    means = [s.sample.mean for s in scored]
    leaders = sorted(range(len(scored)), key=lambda index: -means[index])[:5]  # fewer rivals leave out fewer

    def is_beaten(index: int) -> bool:
        rivals = [leader for leader in leaders if means[leader] > means[index]]
        found = (difference([scored[rival]], [scored[index]], total_degrees) for rival in rivals)
        return any(bool(d.value > d.critical(len(scored), kind="one_sided") * d.error) for d in found)

    return [not is_beaten(index) for index in range(len(scored))]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the chance of any false positive at their level.

    Source: S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepwise = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, stepwise)
    return [float(value) for value in adjusted]


def holm_over_families(families: Sequence[Sequence[float]]) -> list[list[float]]:
    """Families of p-values, adjusted inside each, adjusted for there being several: Holm's over their smallest."""
    adjusted: list[list[float]] = [[] for _ in families]
    largest = 0.0
    order = sorted((index for index, family in enumerate(families) if family), key=lambda index: min(families[index]))
    for step, index in enumerate(order):
        left = len(order) - step
        adjusted[index] = [min(1.0, max(largest, left * p)) for p in families[index]]
        largest = min(adjusted[index])
    return adjusted


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value that two networks are equally often right on the same images.

    Args:
        only_a: number of images that only network A has right.
        only_b: number of images that only network B has right.

    Source: M. Fagerland, S. Lydersen, P. Laake, The McNemar Test for Binary Matched-Pairs Data, 2013.
    """
    discordant = only_a + only_b
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), discordant, 0.5))) if discordant else 1.0


def count_only(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> tuple[int, int]:
    """How many images only A has right, and how many only B."""
    return int(np.count_nonzero(right_a & ~right_b)), int(np.count_nonzero(right_b & ~right_a))
