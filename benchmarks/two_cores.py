"""Claim: a sweep gains as well where there are two cores only."""

from __future__ import annotations

from benchmarks.measurement import Row, on
from benchmarks.sweep import LIMITS, SWEEP, ratios, sides

CORES = 2


def measure() -> list[Row]:
    """The jobs of the claim `sweep`, everything kept to two cores."""
    with on(CORES):
        return ratios(f"{SWEEP}, on two cores,", sides(), LIMITS[CORES])
