"""Tails and quantiles of the studentized range and of Dunnett's one-sided statistic, by quadrature.

    range     P(max z − min z > q s),  z of k means
    one_sided P(max of k − 1 z's − another z > q s)

with standard normal z and s² a mean square with some degrees of freedom, independent of them. `scipy.stats` has both,
and costs 0.7 s to import.
Source: J. Tukey, The Problem of Multiple Comparisons, 1953; C. Dunnett, A Multiple Comparison Procedure, 1955.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

Kind = Literal["range", "one_sided"]
Floats = NDArray[np.float64]

X = np.linspace(0.0, 16.0, 641)  # quantiles at infinite degrees of freedom; P(range of 1000 means > 16) < 1e-20
Q = np.geomspace(0.05, 3_000.0, 400)  # quantiles at finite ones: one degree of freedom has long tails
STEP, MOST_DEGREES = math.log(1.05), 1e5  # of the tables at finite degrees
_Z = np.linspace(-8.0, 16.0, 241)  # the trapezoid rule converges exponentially on such densities
_DENSITY = np.exp(-_Z * _Z / 2) / math.sqrt(2 * math.pi) * (_Z[1] - _Z[0])


def tail(q: float, means: int, degrees: float, kind: Kind = "range") -> float:
    """P(statistic > q).

    Args:
        q: 0 or more.
        means: how many are compared, 2 or more.
        degrees: of freedom of s²; may be infinite.
        kind: which statistic.
    """
    return float(np.exp(_log_tail_at(np.array([q]), means, degrees, kind))[0])


def quantiles(means: int, degrees: float, kind: Kind = "range") -> Floats:
    """The q whose `tail` is that of each x in `X` at infinite degrees of freedom.

    Args:
        means: how many are compared, 2 or more.
        degrees: of freedom of s², above 0; above `MOST_DEGREES` they count as infinite.
        kind: which statistic.
    """
    if degrees > MOST_DEGREES:
        return X
    # Between tables at degrees of freedom in steps of 5 %, where quantiles are all but linear in 1 / degrees.
    step = math.floor(math.log(degrees) / STEP)
    below, above = math.exp(step * STEP), math.exp((step + 1) * STEP)
    share = (1 / below - 1 / degrees) / (1 / below - 1 / above)
    return (1 - share) * _quantiles(means, below, kind) + share * _quantiles(means, above, kind)


@lru_cache(maxsize=5_000)
def _quantiles(means: int, degrees: float, kind: Kind) -> Floats:
    falling = _log_tail_at(Q, means, degrees, kind)
    return np.exp(np.interp(-log_tail(means, kind), -falling, np.log(Q)))


@lru_cache(maxsize=2_000)
def log_tail(means: int, kind: Kind = "range") -> Floats:
    """Natural logarithm of P(statistic > x) for each x in `X`, at infinite degrees of freedom."""
    others = means - 1
    if kind == "range":  # k ∫ φ(z) {Φ(z)^(k−1) − [Φ(z) − Φ(z−x)]^(k−1)} dz, without cancellation
        inner = -np.expm1(others * _log_share_between()) * np.exp(others * log_ndtr(_Z))[:, None]
        return np.asarray(np.log(np.minimum(1.0, means * _DENSITY @ inner)), np.float64)
    return np.asarray(np.log(_DENSITY @ -np.expm1(others * _log_below())), np.float64)


@lru_cache(maxsize=1)
def _log_share_between() -> Floats:
    """Logarithm of the share of what lies below z that is not below z − x, (z, x)."""
    below = np.exp(log_ndtr(_Z[:, None] - X) - log_ndtr(_Z)[:, None])
    return np.asarray(np.log1p(-np.minimum(below, 1 - 1e-16)), np.float64)


@lru_cache(maxsize=1)
def _log_below() -> Floats:
    return np.asarray(np.log(ndtr(_Z[:, None] + X)), np.float64)


def _log_tail_at(q: Floats, means: int, degrees: float, kind: Kind) -> Floats:
    normal = log_tail(means, kind)
    if math.isinf(degrees):
        return np.interp(q, X, normal)
    log_s, weights = _log_scale(degrees)
    place = np.minimum(q[:, None] * np.exp(log_s) / X[1], len(X) - 1.001)
    below = place.astype(np.int64)
    share = place - below
    known = np.exp(normal[below] * (1 - share) + normal[below + 1] * share)
    return np.asarray(np.log(np.maximum(known @ weights, 1e-300)))


def _log_scale(degrees: float) -> tuple[Floats, Floats]:
    """Nodes of ln s and their weights, for s² a mean square with some degrees of freedom and expectation 1."""
    low, high = -14 / degrees - 5 / math.sqrt(degrees), math.log1p(60 / degrees) / 2 + 1 / math.sqrt(degrees)
    log_s = np.linspace(low, high, 128)
    log_density = degrees * (log_s - np.exp(2 * log_s) / 2)
    weights = np.exp(log_density - log_density.max())
    return log_s, weights / weights.sum()
