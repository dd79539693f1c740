"""The points that a search tries: a scrambled Sobol sequence, which fills a space evenly however long it is.

Source: I. Sobol, On the Distribution of Points in a Cube, 1967; scrambled as by A. Owen, 1998.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from hydra.core.override_parser.types import Override

from experiments.errors import InputError
from experiments.sweeps.space import Compose, Point, Space, make_space

log = logging.getLogger(__name__)
FIRST_EXPONENT, LAST_EXPONENT = 6, 14  # of the number of points that are drawn at a time, a power of two
FEWEST = 2  # points: one alone is no search


class Proposed(NamedTuple):
    """The jobs of a search, and what it chooses, by key."""

    jobs: list[Point]
    ranges: Mapping[str, str]


def plan_jobs(overrides: Sequence[Override], compose: Compose) -> Proposed:
    """The jobs of the search that overrides ask for.

    Args:
        overrides: of the whole command, in Hydra's reading.
        compose: the validated config of some overrides.

    Raises:
        InputError: with one line for each mistake.
    """
    space = make_space(overrides, compose)
    config, sweep = compose(space.point([0.0] * space.dimensions))
    jobs = sweep.jobs or 0
    if jobs < sweep.finalists:
        raise InputError(f"sweep.jobs: must be at least sweep.finalists={sweep.finalists}, received {jobs}")
    if jobs > sweep.most_jobs:
        raise InputError(f"sweep.jobs: must be at most sweep.most_jobs={sweep.most_jobs}, received {jobs}")
    points = propose(space, jobs, config.seed)
    if len(points) < jobs:
        log.info("the ranges have %d points: all of them are tried (sweep.jobs=%d)", len(points), jobs)
    return Proposed(points, space.texts)


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
