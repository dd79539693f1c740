"""Simulated sweeps whose truth is known, and what the comparison says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.comparison.comparisons import Scored, agreeing, difference, may_be_best, step_down
from experiments.comparison.spread import Sample, sample, spreads

LEVEL = 0.05
SEED, IMAGE = 0.0005, 0.0005  # standard deviations: of one seed, and of what test images do to a difference
IMAGES = 10_000
MOST_ABLE = 9  # configurations in whose fields it is asked who may be the best: it takes as long as all else


class Shares(NamedTuple):
    """Of many fields: with a false claim, gaps found, intervals that all hold the truth, the best among the able."""

    wrong: float
    found: float
    covered: float
    able: float


def as_scored(samples: Sequence[Sample], test_set: str = "") -> tuple[list[Scored], int]:
    known = spreads(samples)
    scored = [Scored(s, p, tuple(range(s.seeds)), test_set) for s, p in zip(samples, known, strict=True)]
    return scored, sum(s.degrees for s in samples)


def normal_field(generator: np.random.Generator, truth: np.ndarray, seeds: int, deviations: np.ndarray) -> list[Sample]:
    """Means of seeds, normal around the truth; the images' part is what `_of_own_images` is told."""
    images = generator.normal(0, IMAGE / np.sqrt(2), len(truth))
    means = (truth + images)[:, None] + generator.normal(size=(len(truth), seeds)) * deviations[:, None]
    return [Sample(row, float(row.var(ddof=1)), 0.0, IMAGES) for row in means]


def probit_field(generator: np.random.Generator, truth: np.ndarray, seeds: int, images: int) -> list[Sample]:
    """Right or wrong, image by image: difficulty of images, luck of seeds, and images that one configuration minds."""
    parts = 1.0, 0.05, 0.3, 0.6  # of images, seeds, configuration × image, rest
    total = np.sqrt(np.square(parts).sum())
    hard = generator.normal(size=images) * parts[0]
    samples = []
    for accuracy in truth:
        own = hard + generator.normal(size=images) * parts[2]
        luck = generator.normal(size=(seeds, 1)) * parts[1]
        latent = own + luck + generator.normal(size=(seeds, images)) * parts[3]
        samples.append(sample(latent < stats.norm.ppf(accuracy) * total))
    return samples


def judge(samples: Sequence[Sample], truth: np.ndarray, test_set: str = "") -> tuple[bool, float, bool, bool]:
    """The luckiest is compared with the others, as if validation had the very same luck: the worst case."""
    scored, degrees = as_scored(samples, test_set)
    first = int(np.argmax([s.mean for s in samples]))
    others = [index for index in range(len(samples)) if index != first]
    found = [difference([scored[first]], [scored[index]], degrees) for index in others]
    adjusted = step_down(found)
    true = [truth[first] - truth[index] for index in others]
    wrong = any(p <= LEVEL and d.value * t <= 0 for p, d, t in zip(adjusted, found, true, strict=True))
    intervals = [
        agreeing(d.interval(len(samples)), d.value, p) for d, p in zip(found, adjusted, strict=True)
    ]  # fmt: skip
    covered = all(i.low - 1e-12 <= t <= i.high + 1e-12 for i, t in zip(intervals, true, strict=True))
    best = int(np.argmax(truth))
    gaps = [p <= LEVEL for p, t in zip(adjusted, true, strict=True) if t > 0]
    found_share = float(np.mean(gaps)) if gaps and first == best else 0.0
    able = len(samples) > MOST_ABLE or may_be_best(scored, degrees)[best]
    return wrong, found_share, covered, able


def fields(
    count: int, configurations: int, seeds: int, *, gap: float = 0.0, spread: np.ndarray | float = 1.0
) -> Shares:
    """Of the normal model.

    Args:
        count: how many fields.
        configurations: in each.
        seeds: of each configuration.
        gap: by how many points the last is better than all others, which are equal.
        spread: of each configuration's seeds, in units of `SEED`.
    """
    generator = np.random.default_rng(configurations * 100 + seeds)
    truth = np.full(configurations, 0.99)
    truth[-1] += gap / 100
    deviations = np.broadcast_to(spread, configurations) * SEED
    told = [judge(normal_field(generator, truth, seeds, deviations), truth) for _ in range(count)]
    return Shares(*np.mean(told, axis=0))


def image_fields(count: int, configurations: int, seeds: int, *, gap: float = 0.0, images: int = 2_000) -> Shares:
    """Of the model with single images."""
    generator = np.random.default_rng(configurations * 100 + seeds)
    truth = np.full(configurations, 0.97)
    truth[-1] += gap / 100
    told = [judge(probit_field(generator, truth, seeds, images), truth, "same") for _ in range(count)]
    return Shares(*np.mean(told, axis=0))


def uneven(configurations: int, share: float, factor: float) -> np.ndarray:
    """Spreads of which the last share is `factor` times the others."""
    spread = np.ones(configurations)
    spread[-max(1, round(share * configurations)) :] = factor
    return spread


def of_known_images(_: Sample) -> float:
    """Half the variance that test images bring to a difference in `normal_field`."""
    return IMAGE**2 / 2
