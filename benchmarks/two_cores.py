"""Claim: a sweep gains as well where there are two cores only."""

from __future__ import annotations

from benchmarks.measurement import Row, on
from benchmarks.sweep import LIMITS, name_of, ratios, sides

CORES = 2
JOBS = 2 * CORES  # two for each core, as in the claim `sweep` on four


def measure() -> list[Row]:
    """Half the jobs of the claim `sweep`, everything kept to two cores."""
    with on(CORES):
        return ratios(f"{name_of(JOBS)}, on two cores,", sides(JOBS), LIMITS[CORES])
