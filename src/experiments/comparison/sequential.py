"""A comparison that may be looked at after every round of seeds: who is out, and whether the best is known.

Every configuration that is still in has the same seeds. All pairs are bounded at once and at every look, so stopping
when the answer is there costs no validity. The family-wise error is at most 1 - confidence.

Source of the bound at one look given that the look before was passed: Hunter, An Upper Bound for the Probability of a
Union, 1976; Worsley, An Improved Bonferroni Inequality, 1982.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import scipy  # its functions are loaded when they are first used: 0.1 s, which planning does not wait for
from numpy.typing import NDArray

FIRST_ROUND = 3  # seeds: fewer say nothing about a spread
MOST_PARTNERS = 8  # configurations that lend their degrees of freedom to a spread
LOWEST_Z = -9.0  # below it the normal density is 0 in float64's terms
NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)
BISECTIONS = 60  # of an interval of length 20: to 2e-17


@dataclass(frozen=True)
class Rules:
    """What a race is decided by.

    Attributes:
        confidence: of all statements together, in (0.5, 1).
        margin: points; the race ends when no other is better than the leader by more than this. ≥ 0.
        floor: points; the least difference that the metric can show: 100 / images for an accuracy, else 0.
    """

    confidence: float
    margin: float
    floor: float


@dataclass(frozen=True)
class Decision:
    """What one round has decided.

    Attributes:
        round: seeds that every configuration in the race has.
        entered: the configurations that were in when the round began, ascending.
        means: points, of each of them.
        out: those that are worse than another one, with that one and the upper bound of their lead over it.
        leader: of those that are left, the one with the best mean.
        bound: points; no other that is left is better than the leader by more than this.
        verdict: `best` if the leader is alone, `within` if `bound` ≤ the margin, else `open`.
        level: of one bound, one-sided.
        critical: Student quantile of the last bounds.
        bounds: points, the upper bound of each one's lead over the leader, of those that are left.
    """

    round: int
    entered: tuple[int, ...]
    means: tuple[float, ...]
    out: Mapping[int, tuple[int, float]]
    leader: int
    bound: float
    verdict: Literal["best", "within", "open"]
    level: float
    critical: float
    bounds: Mapping[int, float]


def critical_value(k: int, m: int, n: int, confidence: float) -> float:
    """The factor of the standard error in the upper bound of one difference.

    Args:
        k: configurations that began.
        m: those that are still in, ≥ 2.
        n: seeds of each, ≥ 3.
        confidence: of all bounds at all looks together.
    """
    level = (1 - confidence) / (k * (m - 1))
    freedom = min(m - 1, MOST_PARTNERS) * (n - 1)
    return float(-scipy.special.stdtrit(freedom, tail_probability(level, n)))


def tail_probability(level: float, n: int) -> float:
    """`1 - Φ(b_n)`: what a normal quantity may exceed its bound with at look `n`, so that all looks cost `level`."""
    return float(scipy.special.ndtr(-_normal_bounds(level, n)[-1]))


@lru_cache(maxsize=4096)
def _normal_bounds(level: float, n: int) -> tuple[float, ...]:
    """`b_3 … b_n`: at each look the chance to exceed the bound, and not to have exceeded the one before, is spent."""
    spent = level * 3 / (n * (n + 1))
    if n == FIRST_ROUND:
        return (float(-scipy.special.ndtri(spent)),)
    earlier = _normal_bounds(level, n - 1)
    return (*earlier, _solve(earlier[-1], math.sqrt((n - 1) / n), spent))


def _solve(before: float, correlation: float, spent: float) -> float:
    """`b` with P(Z' ≤ before, Z > b) = spent for standard normal Z', Z of that correlation."""
    half = (before - LOWEST_Z) / 2
    z = LOWEST_Z + half * (NODES + 1)
    density = half * WEIGHTS * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    spread = math.sqrt(1 - correlation * correlation)
    low, high = -10.0, 10.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        exceeded = float(density @ scipy.special.ndtr(-(middle - correlation * z) / spread))
        low, high = (middle, high) if exceeded > spent else (low, middle)
    return (low + high) / 2


def decide(points: Mapping[int, Sequence[float]], k: int, rules: Rules) -> Decision:
    """Drops who is worse than another one until nobody falls, and says whether the best is known.

    Args:
        points: of each configuration that is in, its values of the same n ≥ 3 seeds, higher is better.
        k: configurations that began, those that failed included.
        rules: the race's.
    """
    entered = tuple(sorted(points))
    values = np.array([points[number] for number in entered], dtype=np.float64)
    n = values.shape[1]
    means = values.mean(axis=1)
    left, out = list(range(len(entered))), {}
    bounds, level, critical = _upper_bounds(values[left], k, rules)
    while len(left) > 1:
        lowest = bounds.min(axis=1)
        fallen = [i for i in range(len(left)) if lowest[i] < 0]
        if not fallen:
            break
        for i in fallen:
            by = int(bounds[i].argmin())
            out[entered[left[i]]] = entered[left[by]], float(bounds[i, by])
        left = [number for i, number in enumerate(left) if i not in fallen]
        bounds, level, critical = _upper_bounds(values[left], k, rules)
    leader = max(range(len(left)), key=lambda i: (means[left[i]], -left[i]))
    leads = {entered[left[i]]: float(bounds[i, leader]) for i in range(len(left)) if i != leader}
    bound = max(leads.values(), default=0.0)
    verdict: Literal["best", "within", "open"] = "best" if not leads else "within" if bound <= rules.margin else "open"
    winner = entered[left[leader]]
    return Decision(n, entered, tuple(means.tolist()), out, winner, bound, verdict, level, critical, leads)


def _upper_bounds(values: NDArray[np.float64], k: int, rules: Rules) -> tuple[NDArray[np.float64], float, float]:
    """Of every i's lead over every j, (m, m) points with infinity on the diagonal; the level and critical value."""
    m, n = values.shape
    if m < 2:
        return np.full((m, m), np.inf), 0.0, 0.0
    leads = values[:, None, :] - values[None, :, :]
    spreads = borrowed(leads.var(axis=2, ddof=1), rules.floor)
    critical = critical_value(k, m, n, rules.confidence)
    bounds = leads.mean(axis=2) + critical * np.sqrt(spreads / n)
    np.fill_diagonal(bounds, np.inf)
    return bounds, (1 - rules.confidence) / (k * (m - 1)), critical


def borrowed(spreads: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """Variances (m, m) of differences, none less than what the others show, nor than one image."""
    m = len(spreads)
    others = spreads.sum(axis=1) / (m - 1)
    overall = float(spreads.sum() / (m * (m - 1)))
    least = max(overall, floor * floor)
    lent = np.maximum(others[:, None], others[None, :])
    found: NDArray[np.float64] = np.maximum(spreads, np.maximum(lent, least))
    return found
