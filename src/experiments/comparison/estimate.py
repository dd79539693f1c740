"""Scores over seeds and test images: means and differences with both sources of variance.

A score of a configuration is uncertain twice: another seed would give another model, and other test images
another score. Let y[s, i] be what the model of seed s scores on image i: 1 or 0 for right or wrong, or its
cross-entropy. All seeds are scored on the same n images, so with seeds and images as crossed random effects

    y[s, i] = μ + seed[s] + image[i] + rest[s, i]
    Var(mean) = σ²_seed / S + σ²_image / n + σ²_rest / (S·n)

and σ²_image / n does not shrink with more seeds. The mean squares of the two-way layout estimate the parts:
E[MS_seed] = n·σ²_seed + σ²_rest, E[MS_image] = S·σ²_image + σ²_rest, E[MS_rest] = σ²_rest. A difference of
two configurations over matched seeds is the same with y = y_a − y_b. Seeds whose means are exactly equal, as
those of a few may be on a small test set, have MS_seed = 0; MS_rest, the least that it can be expected to be, then
stands for it. The critical value is the mean of Student's quantiles for the two parts (S − 1 and n − 1 degrees of
freedom), weighted by their variances: 95 % intervals then cover in 94-98 % of trials from two seeds on, whatever
the parts are, where Satterthwaite's degrees of freedom cover in as few as 87 %.
Source: S. Searle, G. Casella, C. McCulloch, Variance Components, 1992, ch. 4; W. Cochran, Approximate
Significance Levels of the Behrens-Fisher Test, 1964.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from experiments.results.evaluation import Interval, wilson_interval

Values = NDArray[np.floating] | NDArray[np.integer] | NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval and the two-sided test against zero.

    Attributes:
        value: the estimate.
        interval: 95 % unless asked otherwise.
        p_value: two-sided, of the hypothesis that the true value is 0.
        seed_variance: variance of `value` from the choice of seeds; None where one seed cannot show it.
        test_variance: variance of `value` from the choice of test images, which more seeds do not reduce.
        seeds: how many seeds (pairs of seeds, the smaller group) stand behind it.
    """

    value: float
    interval: Interval
    p_value: float
    seed_variance: float | None
    test_variance: float
    seeds: int


class Source(NamedTuple):
    """One estimated part of a variance and the degrees of freedom that it was estimated with."""

    variance: float
    degrees: float


class _Layout(NamedTuple):
    """Mean of y (seeds, images), the parts of its variance, and what the rest brings to `of_seeds`."""

    mean: float
    image_means: NDArray[np.float64]
    seeds: int
    of_seeds: Source | None
    of_images: Source
    rest: float


def t_interval(values: Sequence[float] | NDArray[np.floating], confidence: float = 0.95) -> Interval:
    """Student's interval of a mean over seeds, the test set held fixed; infinite for one value."""
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return Interval(-math.inf, math.inf)
    half = float(stdtrit(len(array) - 1, (1 + confidence) / 2) * array.std(ddof=1) / math.sqrt(len(array)))
    return Interval(float(array.mean()) - half, float(array.mean()) + half)


def mean_estimate(values: Values, confidence: float = 0.95) -> Estimate:
    """Mean over seeds and images with both sources of variance (the module's formula).

    Args:
        values: (seeds, images), all seeds on the same images. With one seed only the images' part is known.
        confidence: of the interval.
    """
    layout = _layout(values)
    of_seeds = [layout.of_seeds] if layout.of_seeds else []
    return _estimate(layout.mean, of_seeds, layout.of_images, layout.seeds, confidence)


def difference_estimate(values_a: Values, values_b: Values, *, matched: bool, confidence: float = 0.95) -> Estimate:
    """Mean A − mean B on the same images, with both sources of variance.

    Args:
        values_a: (seeds, images).
        values_b: (seeds, images), the same images.
        matched: row s of both has the same seed, so differences are taken seed by seed. Otherwise the parts
            that seeds bring to A and to B are added (Welch's degrees of freedom), and the images' part is
            that of the difference of the images' means. A configuration with one seed then borrows the seed
            variance of the other.
        confidence: of the interval.
    """
    if matched:
        return mean_estimate(np.asarray(values_a, np.float64) - np.asarray(values_b, np.float64), confidence)
    a, b = _layout(values_a), _layout(values_b)
    difference = a.image_means - b.image_means
    variance = float(difference.var(ddof=1)) / len(difference)
    of_images = Source(max(0.0, variance - a.rest - b.rest), len(difference) - 1)
    return _estimate(a.mean - b.mean, _seed_sources(a, b), of_images, min(a.seeds, b.seeds), confidence)


def accuracy_interval(right: Values, confidence: float = 0.95) -> Interval:
    """Interval of an accuracy over seeds and images that stays in [0, 1].

    Wilson's interval for the number of images that would give `mean_estimate`'s variance on their own, with
    its critical value. For one seed it is the Wilson interval.

    Args:
        right: (seeds, images) bool.
        confidence: of the interval.
    """
    layout = _layout(right)
    all_images = len(layout.image_means)
    if layout.of_seeds is None or layout.of_seeds.variance + layout.of_images.variance == 0:
        return wilson_interval(round(layout.mean * all_images), all_images, confidence)
    t = _critical([layout.of_seeds, layout.of_images], (1 - confidence) / 2)
    spread = layout.mean * (1 - layout.mean)
    images = spread / (layout.of_seeds.variance + layout.of_images.variance)
    shrink = 1 / (1 + t * t / images)
    centre = (layout.mean + t * t / (2 * images)) * shrink
    half = t * shrink * math.sqrt(spread / images + (t / (2 * images)) ** 2)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def _layout(values: Values) -> _Layout:
    y = np.atleast_2d(np.asarray(values, np.float64))
    seeds, images = y.shape
    seed_means, image_means = y.mean(axis=1), y.mean(axis=0)
    mean = float(seed_means.mean())
    by_image = float(image_means.var(ddof=1)) / images  # MS_image / (S·n)
    if seeds == 1:
        return _Layout(mean, image_means, 1, None, Source(by_image, images - 1), 0.0)
    tied = np.ptp(seed_means) == 0  # the variance of equal numbers need not be exactly 0
    by_seed = 0.0 if tied else float(seed_means.var(ddof=1)) / seeds  # MS_seed / (S·n)
    total = float(np.square(y - mean).sum()) / (seeds * images)
    rest = max(0.0, total - by_seed * (seeds - 1) - by_image * (images - 1))
    rest /= (seeds - 1) * (images - 1)  # MS_rest / (S·n)
    of_images = Source(max(0.0, by_image - rest), images - 1)
    of_seeds = Source(rest if tied else by_seed, seeds - 1)
    return _Layout(mean, image_means, seeds, of_seeds, of_images, rest)


def _seed_sources(a: _Layout, b: _Layout) -> list[Source]:
    if a.of_seeds and b.of_seeds:
        total = a.of_seeds.variance + b.of_seeds.variance
        scatter = sum(source.variance**2 / source.degrees for source in (a.of_seeds, b.of_seeds))
        return [Source(total, total**2 / scatter)] if total else []
    known = a if a.of_seeds else b
    if known.of_seeds is None:
        return []
    borrowed = known.seeds * max(0.0, known.of_seeds.variance - known.rest)
    return [Source(known.of_seeds.variance + borrowed, known.of_seeds.degrees)]


def _estimate(value: float, of_seeds: list[Source], of_images: Source, seeds: int, confidence: float) -> Estimate:
    sources = [*of_seeds, of_images]
    error = math.sqrt(sum(source.variance for source in sources))
    half = _critical(sources, (1 - confidence) / 2) * error if error else 0.0
    return Estimate(
        value=value,
        interval=Interval(value - half, value + half),
        p_value=_p_value(sources, abs(value) / error) if error else float(value == 0),
        seed_variance=sum(source.variance for source in of_seeds) if of_seeds else None,
        test_variance=of_images.variance,
        seeds=seeds,
    )


def _critical(sources: Sequence[Source], tail: float) -> float:
    """Cochran's upper quantile: that of each source, weighted by its share of the variance."""
    total = sum(source.variance for source in sources)
    return -sum(source.variance * float(stdtrit(source.degrees, tail)) for source in sources) / total


def _p_value(sources: Sequence[Source], statistic: float) -> float:
    """The level at which `_critical` equals the statistic, by bisection of its logarithm; at least 1e-300."""
    low, high = -300.0, 0.0
    for _ in range(40):
        middle = (low + high) / 2
        too_strict = _critical(sources, 10**middle / 2) > statistic
        low, high = (middle, high) if too_strict else (low, middle)
    return float(10**high)
