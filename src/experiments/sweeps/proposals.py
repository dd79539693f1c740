"""The points that a search tries: a scrambled Sobol sequence, which fills a space evenly however long it is.

Source: I. Sobol, On the Distribution of Points in a Cube, 1967; scrambled as by A. Owen, 1998.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from experiments.errors import InputError
from experiments.sweeps.space import Point, Space

FIRST_EXPONENT, LAST_EXPONENT = 6, 14  # of the number of points that are drawn at a time, a power of two
FEWEST = 2  # points: one alone is no search


def propose(space: Space, jobs: int, seed: int) -> list[Point]:
    """Different points of a space; the first ones are the same whatever `jobs` is.

    Args:
        space: what is searched.
        jobs: how many are wanted; fewer are returned where the space has no more.
        seed: of the scrambling.

    Raises:
        InputError: the space has fewer than two points.
    """
    everything = space.points()
    if everything is not None and len(everything) < FEWEST:
        raise InputError("the search has one configuration only; give a range of two values or more")
    wanted = jobs if everything is None else min(jobs, len(everything))
    found: dict[Point, None] = {}
    for places in _sobol(space.dimensions, seed):
        found.setdefault(space.point(places))
        if len(found) == wanted:
            return list(found)
    for point in everything or ():  # what so many draws have missed
        found.setdefault(point)
    return list(found)[:wanted]


def _sobol(dimensions: int, seed: int) -> Iterator[Sequence[float]]:
    """Places in the unit cube."""
    from scipy.stats import qmc  # takes a second, which only a search has to wait

    drawn = 0
    for exponent in range(FIRST_EXPONENT, LAST_EXPONENT + 1):
        places = qmc.Sobol(dimensions, scramble=True, rng=seed).random_base2(exponent).tolist()
        yield from places[drawn:]
        drawn = len(places)
