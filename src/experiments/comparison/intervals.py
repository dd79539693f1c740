"""95 % intervals of accuracies, and of the difference of two networks."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from experiments.comparison.comparisons import LEVEL, mean_of
from experiments.comparison.spread import Sample, Spread
from experiments.results.evaluation import Interval, wilson_interval

Z = float(ndtri(0.975))


def accuracy_interval(s: Sample, spread: Spread | None) -> Interval:
    """Of an accuracy over seeds and images; it stays in [0, 1].

    Wilson's interval for the number of images that would give this variance on their own. That of one seed is about
    this one network: Wilson's, which does not know what another seed would bring.
    """
    if not s.images:
        return Interval(-math.inf, math.inf)
    found = mean_of(s, spread)
    if s.seeds == 1 or spread is None or found.error == 0:
        return wilson_interval(round(s.mean * s.images), s.images)
    least = 0.5 / s.images
    share = min(max(s.mean, least), 1 - least)
    t, images = found.critical(2), share * (1 - share) / found.error**2
    shrink = 1 / (1 + t * t / images)
    centre = (s.mean + t * t / (2 * images)) * shrink
    half = t * shrink * math.sqrt(s.mean * (1 - s.mean) / images + (t / (2 * images)) ** 2)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def network_difference(only_a: int, only_b: int, images: int, level: float = LEVEL) -> Interval:
    """Accuracy A − accuracy B of two networks on the same images: Wald with one image added to both `only` cells.

    Args:
        only_a: number of images that only network A has right.
        only_b: number of images that only network B has right.
        images: number of all images.
        level: 1 − confidence.

    Source: D. Bonett, R. Price, Adjusted Wald Confidence Interval for a Difference of Binomial Proportions
    Based on Paired Data, 2012. Recommended by M. Fagerland, S. Lydersen, P. Laake, Recommended Tests and
    Confidence Intervals for Paired Binomial Proportions, 2014.
    """
    a, b = (only_a + 1) / (images + 2), (only_b + 1) / (images + 2)
    half = float(ndtri(1 - level / 2)) * math.sqrt((a + b - (a - b) ** 2) / (images + 2))
    return Interval(max(-1.0, a - b - half), min(1.0, a - b + half))


def images_behind(share: float, interval: Interval) -> int:
    """How many images gave this Wilson interval of a share; 0 where it is no such interval."""
    half = (interval.high - interval.low) / 2
    if not (math.isfinite(half) and half > 0 and 0 <= share <= 1):
        return 0
    # half (1 + x) = √(p (1 − p) x + x²/4) with x = z²/n
    roots = np.roots([half**2 - 0.25, 2 * half**2 - share * (1 - share), half**2])
    positive = [float(root.real) for root in roots if abs(root.imag) < 1e-9 and root.real > 0]
    return round(Z * Z / min(positive)) if positive else 0
