"""What a race's test images say of its winner, once, when it is over: new images and new seeds both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from experiments.comparison.comparisons import Scored, variance_of_images
from experiments.comparison.configurations import Configuration
from experiments.comparison.races import RaceResult
from experiments.comparison.sequential import borrowed, critical_value
from experiments.comparison.spread import Sample, Spread, sample

POINTS = 100.0


class Certificate(NamedTuple):
    """How much better than the winner another configuration can be on new images and seeds.

    Attributes:
        other: number of the configuration.
        bound: points; it is better by at most this, where below 0 it is worse by at least so much.
        resolution: points; what these test images cannot show, however many seeds.
    """

    other: int
    bound: float
    resolution: float


def certify(race: RaceResult, found: Mapping[int, Configuration]) -> list[Certificate]:
    """Of every configuration that was compared with the winner, the closest first.

    For the winner w and another one j over their n common seeds, with m configurations in when j got its last seed and
    a = (1 − confidence) / (k (m − 1)): d is the mean difference of test accuracy, v_s its variance from seeds, v_i from
    images. The bound is (v_s c_s + v_i c_i) / √(v_s + v_i) − d with c_s as in the race and c_i = z(1 − a), after
    W. Cochran, Approximate Significance Levels of the Behrens-Fisher Test, 1964.

    Args:
        race: over, with a leader.
        found: its configurations by number, those without predictions left out.
    """
    if race.last is None or race.last.leader not in found:
        return []
    told = [_certify(race, found, race.last.leader, c) for c in race.seeds_of if c != race.last.leader]
    return sorted((one for one in told if one), key=lambda one: -one.bound)


def _certify(race: RaceResult, found: Mapping[int, Configuration], first: int, other: int) -> Certificate | None:
    n = race.seeds_of[other]
    entered = next(made.entered for made in race.rounds if made.round == n)
    if other not in found or not all(_has_seeds(found, c, race.setting.seeds[:n]) for c in (first, other)):
        return None
    together = [c for c in entered if _has_seeds(found, c, race.setting.seeds[:n])]
    samples = [_sample(found[c], race.setting.seeds[:n]) for c in together]
    a, b = together.index(first), together.index(other)
    means = POINTS * np.array([s.seed_means for s in samples])
    leads = means[:, None, :] - means[None, :, :]
    spread = float(borrowed(leads.var(axis=2, ddof=1), POINTS / samples[a].images)[a, b])
    k, m = len(race.setting.configurations), len(entered)
    c_seeds = critical_value(k, m, n, race.setting.confidence)
    c_images = float(-ndtri((1 - race.setting.confidence) / (k * (m - 1))))
    v_seeds, v_images = spread / n, POINTS**2 * _of_images(found, samples, (a, b), (first, other))
    half = (v_seeds * c_seeds + v_images * c_images) / math.sqrt(v_seeds + v_images)
    return Certificate(other, half - float(leads[a, b].mean()), c_images * math.sqrt(v_images))


def _has_seeds(found: Mapping[int, Configuration], c: int, seeds: Sequence[int]) -> bool:
    return c in found and found[c].scores is not None and set(seeds) <= set(found[c].seeds)


def _sample(configuration: Configuration, seeds: Sequence[int]) -> Sample:
    """Test accuracy of its runs with these seeds."""
    rows = [configuration.seeds.index(seed) for seed in seeds]
    scores = configuration.scores
    if scores is None:
        raise ValueError(f"{configuration.label}: has no predictions")
    return sample(scores.right[rows])


def _of_images(
    found: Mapping[int, Configuration], samples: Sequence[Sample], places: tuple[int, int], numbers: tuple[int, int]
) -> float:
    """The variance that test images bring to the difference of two, as a share squared."""
    both = [
        Scored(samples[place], Spread(samples[place].of_seeds or 0.0, 1.0), (), _test_set(found[number]))
        for place, number in zip(places, numbers, strict=True)
    ]
    return variance_of_images(both[:1], both[1:])


def _test_set(configuration: Configuration) -> str:
    return configuration.scores.test_set.key if configuration.scores else ""
