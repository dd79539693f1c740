"""How many seeds, or test images, would show a difference of the size that was seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from scipy.special import nctdtr

from experiments.comparison.comparisons import Difference

POWER = 0.8
MOST_SEEDS, MOST_IMAGES = 1_000, 10**9  # nobody trains, or labels, more


class Needed(NamedTuple):
    """What would show a difference of this size in 80 % of repetitions, compared alike; None: no number would."""

    seeds: int | None
    images: int | None


def needed(found: Difference, seeds: int, images: int, means: int) -> Needed:
    """Seeds for each side on these images, or images with these seeds.

    Args:
        found: the difference as it is believed to be.
        seeds: of each side, 2 or more.
        images: test images.
        means: how many configurations are compared.
    """

    def with_seeds(count: int) -> Difference:
        return Difference(
            found.value, found.of_seeds * seeds / count, found.of_images,
            found.degrees * (count - 1) / (seeds - 1),
        )  # fmt: skip

    def with_images(count: int) -> Difference:
        return Difference(found.value, found.of_seeds, found.of_images * images / count, found.degrees)

    return Needed(
        _fewest(lambda count: power(with_seeds(count), means) >= POWER, 2, MOST_SEEDS),
        _fewest(lambda count: power(with_images(count), means) >= POWER, 2, MOST_IMAGES),
    )


def power(found: Difference, means: int) -> float:
    """Chance to show a difference that is truly of this size."""
    if found.error == 0:
        return float(found.value != 0)
    critical, shift = found.critical(means), abs(found.value) / found.error
    variance = found.of_seeds + found.of_images
    degrees = (variance / found.of_seeds) ** 2 * found.degrees if found.of_seeds else math.inf
    return 1.0 if shift > critical + 10 else 1 - float(nctdtr(min(degrees, 1e6), shift, critical))


def _fewest(is_enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number that is enough, where more than enough is enough too."""
    if not is_enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return high
