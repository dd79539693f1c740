"""What choosing by test score instead of validation would have done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from experiments.comparison.pairs import Pair


@dataclass(frozen=True)
class Selection:
    """The luck of the best test score.

    Attributes:
        tried: configurations, those that did not finish included.
        contenders: those that are not shown to differ from the best, itself included.
        overstated: expected by how much, at most, the best test accuracy of the contenders overstates, in [0, 1].
    """

    tried: int
    contenders: int
    overstated: float


def judge_selection(pairs: Sequence[Pair], tried: int) -> Selection:
    """From the pairs of the best with each other."""
    rivals = [pair for pair in pairs if not pair.is_shown]
    # Half the variance of a difference belongs to each side; what both share cannot select one of them. The median,
    # because one configuration that jumps about from seed to seed says nothing about the others.
    errors = [pair.accuracy.error for pair in rivals if math.isfinite(pair.accuracy.error)]
    error = float(np.median(errors)) / math.sqrt(2) if errors else 0.0
    return Selection(tried, len(rivals) + 1, expected_best_of(len(rivals) + 1, error))


def expected_best_of(n: int, standard_error: float) -> float:
    """By how much the best of n equally good scores overstates on average: the expected maximum of n normals.

    It is exact where the n are equally good, and an upper bound where they are not: so count only those that
    are not shown to differ from the best, and give the standard error of what differs between them (the images'
    difficulty that all share moves every score alike and selects nobody).
    Source: L. Tippett, On the Extreme Individuals and the Range of Samples from a Normal Population, 1925.

    Args:
        n: 1 or more.
        standard_error: of each score.

    Raises:
        ValueError: `n` is smaller than 1.
    """
    if n < 1:
        raise ValueError(f"`n` must be at least 1, received n={n}")
    x = np.linspace(-9.0, 9.0, 3601)  # the density beyond is below 1e-18
    density = n * ndtr(x) ** (n - 1) * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return float(standard_error * np.trapezoid(x * density, x))
