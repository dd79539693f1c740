"""Which differences are real: tests and intervals for pairs of runs, many comparisons, and sample sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, gammaln, nctdtr, ndtr, ndtri, stdtrit

from experiments.comparison.estimate import Estimate
from experiments.results.evaluation import Interval, wilson_interval


def mcnemar(only_a: int, only_b: int, *, mid_p: bool = False) -> float:
    """Two-sided p-value that two models are equally often right on the same images.

    Args:
        only_a: number of images that only model A has right.
        only_b: number of images that only model B has right.
        mid_p: count the observed table half; less conservative, but it may exceed its level.

    Source: M. Fagerland, S. Lydersen, P. Laake, The McNemar Test for Binary Matched-Pairs Data, 2013.
    """
    discordant, fewer = only_a + only_b, min(only_a, only_b)
    if discordant == 0:
        return 1.0
    observed = math.exp(gammaln(discordant + 1) - gammaln(only_a + 1) - gammaln(only_b + 1) - discordant * math.log(2))
    return min(1.0, 2 * float(bdtr(fewer, discordant, 0.5)) - (observed if mid_p else 0.0))


def paired_accuracy_difference(only_a: int, only_b: int, images: int, confidence: float = 0.95) -> Interval:
    """Interval of accuracy A − accuracy B on the same images: Wald with one image added to both `only` cells.

    Source: D. Bonett, R. Price, Adjusted Wald Confidence Interval for a Difference of Binomial Proportions
    Based on Paired Data, 2012. Recommended by M. Fagerland, S. Lydersen, P. Laake, Recommended Tests and
    Confidence Intervals for Paired Binomial Proportions, 2014.
    """
    a, b = (only_a + 1) / (images + 2), (only_b + 1) / (images + 2)
    half = _z(confidence) * math.sqrt((a + b - (a - b) ** 2) / (images + 2))
    return Interval(max(-1.0, a - b - half), min(1.0, a - b + half))


def paired_runs(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> Estimate:
    """Accuracy A − accuracy B of two runs on the same images: exact McNemar test, Bonett and Price's interval.

    Args:
        right_a: (images,) whether run A is right.
        right_b: (images,) whether run B is right.
    """
    images = len(right_a)
    only_a, only_b = int(np.count_nonzero(right_a & ~right_b)), int(np.count_nonzero(right_b & ~right_a))
    difference = (only_a - only_b) / images
    return Estimate(
        value=difference,
        interval=paired_accuracy_difference(only_a, only_b, images),
        p_value=mcnemar(only_a, only_b),
        seed_variance=None,
        test_variance=((only_a + only_b) / images - difference**2) / images,
        seeds=1,
    )


def paired_bootstrap(
    losses_a: NDArray[np.floating],
    losses_b: NDArray[np.floating],
    *,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Estimate:
    """Difference of mean losses A − B on the same images, by resampling images (percentile interval).

    The p-value is twice the smaller share of resamples on one side of zero, at least 2 / (resamples + 1).
    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13 and 16.
    """
    differences = np.asarray(losses_a, np.float64) - np.asarray(losses_b, np.float64)
    images, generator = len(differences), np.random.default_rng(seed)
    chunk = max(1, 2_000_000 // images)  # 2 million indices are 16 MB
    means = np.concatenate(
        [
            differences[generator.integers(0, images, (min(chunk, resamples - start), images))].mean(axis=1)
            for start in range(0, resamples, chunk)
        ]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    beyond = 1 + min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    return Estimate(
        value=float(differences.mean()),
        interval=Interval(float(low), float(high)),
        p_value=min(1.0, float(2 * beyond / (resamples + 1))),
        seed_variance=None,
        test_variance=float(means.var()),
        seeds=1,
    )


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


def times_chosen(estimate: Estimate, candidates: int) -> float:
    """By what a p-value of the best of some candidates against another is multiplied, before Holm's correction.

    Where the estimate is over seeds, those that made it the best by validation favour it on the test images too, so
    all pairs of candidates count, not only those with the best. A single run is one model, chosen by other images.
    """
    return 1.0 if estimate.seed_variance is None else candidates / 2


def after_choice(estimate: Estimate, candidates: int) -> float:
    """The p-value of an estimate whose first side was chosen among candidates, see `times_chosen`."""
    return min(1.0, estimate.p_value * times_chosen(estimate, candidates))


def unpaired_difference(right_a: int, images_a: int, right_b: int, images_b: int, confidence: float = 0.95) -> Interval:
    """Interval of accuracy A − accuracy B where the test images differ: Newcombe's hybrid score interval.

    Source: R. Newcombe, Interval Estimation for the Difference Between Independent Proportions, 1998, no. 10.
    """
    of_a, of_b = (
        wilson_interval(right_a, images_a, confidence),
        wilson_interval(right_b, images_b, confidence),
    )
    return independent_difference(right_a / images_a, of_a, right_b / images_b, of_b)


def independent_difference(a: float, of_a: Interval, b: float, of_b: Interval) -> Interval:
    """Interval of a − b from the intervals of two independent estimates; Newcombe's for Wilson intervals.

    Source: G. Zou, A. Donner, Construction of Confidence Limits about Effect Measures, 2008.
    """
    return Interval(a - b - math.hypot(a - of_a.low, of_b.high - b), a - b + math.hypot(of_a.high - a, b - of_b.low))


def images_needed(only_a: float, only_b: float, *, power: float = 0.8, level: float = 0.05) -> int | None:
    """Test images that McNemar's test needs to tell two models apart; None where they are equally good.

    Args:
        only_a: expected share of images that only model A has right.
        only_b: expected share of images that only model B has right.
        power: chance to find the difference.
        level: chance to find one where there is none.

    Source: R. Connor, Sample Size for Testing Differences in Proportions for the Paired-Sample Design, 1987.
    """
    difference, discordant = abs(only_a - only_b), only_a + only_b
    if difference == 0:
        return None
    root = _z(1 - level) * math.sqrt(discordant) + float(ndtri(power)) * math.sqrt(discordant - difference**2)
    return math.ceil((root / difference) ** 2)


MOST_IMAGES = 10**9  # nobody labels more


def images_needed_over_seeds(
    difference: float,
    image_variance: float,
    seed_variance: float,
    seeds: int,
    *,
    power: float = 0.8,
    level: float = 0.05,
) -> int | None:
    """Test images that would show `difference` with the seeds at hand; None where seeds alone hide it.

    Args:
        difference: between the two configurations, as it is believed to be.
        image_variance: variance of the difference from one test image to the next.
        seed_variance: variance of the difference from these seeds, which test images do not reduce.
        seeds: how many pairs of them there are, 2 or more.
        power: chance to find the difference.
        level: chance to find one where there is none.
    """
    low, high = 0, MOST_IMAGES
    if _power(difference, seed_variance, image_variance / high, seeds, level) < power:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = _power(difference, seed_variance, image_variance / middle, seeds, level) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


MOST_SEEDS = 1_000  # nobody trains more: beyond this the answer is "not with seeds"


def seeds_needed(
    difference: float,
    seed_variance: float,
    test_variance: float = 0.0,
    *,
    power: float = 0.8,
    level: float = 0.05,
) -> int | None:
    """Matched pairs of seeds that a paired t-test needs to see `difference`; None where no number would do.

    Args:
        difference: between the two configurations, as it is believed to be.
        seed_variance: variance of the difference from one pair of seeds to the next.
        test_variance: variance of the difference from the choice of test images, which seeds do not reduce.
        power: chance to find the difference.
        level: chance to find one where there is none.
    """
    for seeds in range(2, MOST_SEEDS + 1):
        if _power(difference, seed_variance / seeds, test_variance, seeds, level) >= power:
            return seeds
    return None


def _power(difference: float, seed_part: float, test_part: float, seeds: int, level: float) -> float:
    variance = seed_part + test_part
    if variance == 0:
        return float(difference != 0)
    student, normal = float(stdtrit(seeds - 1, 1 - level / 2)), _z(1 - level)
    critical = (seed_part * student + test_part * normal) / variance
    shift = abs(difference) / math.sqrt(variance)
    degrees = variance**2 / seed_part**2 * (seeds - 1) if seed_part else math.inf
    return 1.0 if shift > critical + 10 else 1 - float(nctdtr(min(degrees, 1e6), shift, critical))


def expected_best_of(n: int, standard_error: float) -> float:
    """By how much the best of n equally good scores overstates on average: the expected maximum of n normals.

    It is exact where the n are equally good, and an upper bound where they are not: so count only those that
    cannot be told apart from the best, and give the standard error of what differs between them (the images'
    difficulty that all share moves every score alike and selects nobody).
    Source: L. Tippett, On the Extreme Individuals and the Range of Samples from a Normal Population, 1925.
    """
    if n < 1:
        raise ValueError(f"`n` must be at least 1, received n={n}")
    x = np.linspace(-9.0, 9.0, 3601)  # the density beyond is below 1e-18
    density = n * ndtr(x) ** (n - 1) * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return float(standard_error * np.trapezoid(x * density, x))


def _z(confidence: float) -> float:
    return float(ndtri((1 + confidence) / 2))
