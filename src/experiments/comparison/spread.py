"""How far seeds scatter: each configuration's own variance, steadied by those of the others.

A score is uncertain twice: another seed gives another model, other test images another score. y[s, i] is what the model
of seed s scores on image i: 1 or 0 for right or wrong, or its cross-entropy. With seeds and images as crossed random
effects y[s, i] = μ + seed[s] + image[i] + rest[s, i],

    Var(mean) = σ²_seed / S + σ²_image / n + σ²_rest / (S·n)

and σ²_image / n does not shrink with more seeds. The variance of seed means estimates σ²_seed + σ²_rest / n from S − 1
degrees of freedom only, so it is drawn towards that of the other configurations, but never below its own value, and
never below σ²_rest / n: what independent flips of images alone would give.
Source: S. Searle, G. Casella, C. McCulloch, Variance Components, 1992, ch. 4; G. Smyth, Linear Models and Empirical
Bayes Methods for Assessing Differential Expression, 2004.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, polygamma

Values = NDArray[np.floating] | NDArray[np.bool_]
FEWEST = 3  # configurations with repeated seeds that tell how far their variances scatter
ALIKE = 0.01  # variance of log variances beyond chance up to which all share one variance


@dataclass(frozen=True, eq=False)
class Sample:
    """The scores of one configuration's runs.

    Attributes:
        seed_means: (S,) score of each run.
        of_seeds: variance of `seed_means`; None for one seed.
        of_flips: σ²_rest / n, the floor of `of_seeds`; None for one seed or without images.
        images: how many each run was tested on; 0 where that is not known.
        image_means: (n,) mean over seeds; None where only the runs' metrics are known.
        values: (S, n) all scores; None like `image_means`.
    """

    seed_means: NDArray[np.float64]
    of_seeds: float | None
    of_flips: float | None
    images: int
    image_means: NDArray[np.float64] | None = None
    values: Values | None = None

    @property
    def mean(self) -> float:
        return float(self.seed_means.mean())

    @property
    def seeds(self) -> int:
        return len(self.seed_means)

    @property
    def degrees(self) -> int:
        return self.seeds - 1


class Spread(NamedTuple):
    """Variance of one seed's score around its configuration's, and the degrees of freedom behind it."""

    variance: float
    degrees: float


class Prior(NamedTuple):
    """What the configurations' variances have in common: a variance worth some degrees of freedom."""

    variance: float
    degrees: float


def sample(values: Values) -> Sample:
    """Scores (seeds, images) of runs on the same images."""
    seeds, images = values.shape
    seed_means, image_means = values.mean(axis=1, dtype=np.float64), values.mean(axis=0, dtype=np.float64)
    if seeds == 1:
        return Sample(seed_means, None, None, images, image_means, values)
    mean = seed_means.mean()
    squares = float(np.einsum("ij,ij->", values, values, dtype=np.float64)) - seeds * images * mean**2
    between = float(np.square(seed_means - mean).sum())
    rest = squares - images * between - seeds * float(np.square(image_means - mean).sum())
    flips = max(0.0, rest) / ((seeds - 1) * (images - 1)) / images
    return Sample(seed_means, between / (seeds - 1), flips, images, image_means, values)


def sample_of_means(seed_means: Sequence[float] | Values, images: int) -> Sample:
    """A configuration of which only the runs' scores are known.

    Args:
        seed_means: one for each run.
        images: how many test images; 0 where that is not known.
    """
    means = np.asarray(seed_means, np.float64)
    return Sample(means, float(means.var(ddof=1)) if len(means) > 1 else None, None, images)


def prior(samples: Sequence[Sample]) -> Prior | None:
    """The common part of the variances over seeds; None where fewer than three configurations have repeated seeds."""
    known = [s for s in samples if s.of_seeds is not None]
    logs, halves = [], []
    for s in known:
        least = max(s.of_seeds or 0.0, (s.of_flips or 0.0) / 10)
        if least > 0:
            logs.append(math.log(least) - float(digamma(s.degrees / 2)) + math.log(s.degrees / 2))
            halves.append(s.degrees / 2)
    if len(logs) < FEWEST:
        return None
    beyond_chance = float(np.var(logs, ddof=1) - np.mean(polygamma(1, halves)))
    if beyond_chance <= ALIKE:
        return Prior(math.exp(np.mean(logs)), math.inf)
    degrees = 2 * _inverse_trigamma(beyond_chance)
    return Prior(math.exp(np.mean(logs) + float(digamma(degrees / 2)) - math.log(degrees / 2)), degrees)


def spreads(samples: Sequence[Sample]) -> list[Spread] | None:
    """Of each configuration; one with a single seed borrows that of the others. None where all have one seed."""
    total = sum(s.degrees for s in samples)
    if total == 0:
        return None
    pooled = sum(s.degrees * _floored(s) for s in samples) / total
    common = prior(samples) or Prior(pooled, 0.0)
    return [_moderated(s, common, pooled, total) for s in samples]


def _floored(s: Sample) -> float:
    return max(s.of_seeds or 0.0, s.of_flips or 0.0)


def _moderated(s: Sample, common: Prior, pooled: float, total: int) -> Spread:
    if s.degrees + common.degrees == 0:
        return Spread(pooled, total)
    if math.isinf(common.degrees):
        moderated = common.variance
    else:
        moderated = common.degrees * common.variance + s.degrees * _floored(s)
        moderated /= common.degrees + s.degrees
    return Spread(max(_floored(s), moderated), min(common.degrees + s.degrees, total))


def _inverse_trigamma(value: float) -> float:
    """The x with ψ′(x) = value, by Newton's method on 1 / ψ′, which is nearly linear. Source: Smyth, 2004, appendix."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-8 * x:
            break
    return x
