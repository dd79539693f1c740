"""Claim: a sweep gains as well where there are two cores only."""

from __future__ import annotations

from benchmarks.measurement import Row, on
from benchmarks.sweep import LIMITS, named, ratios, sides

CORES, EPOCHS = 2, 1  # of one epoch: five rounds of every rival take half an hour


def measure() -> list[Row]:
    """The jobs of the claim `sweep`, shorter, everything kept to two cores."""
    with on(CORES):
        return ratios(f"{named(EPOCHS)}, on two cores,", sides(EPOCHS), LIMITS[CORES])
