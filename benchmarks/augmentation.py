"""Claim: images are moved while the step computes, so augmentation hardly costs time, even where no core is free."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.measurement import HERE, Row, compare, on, run
from experiments.config import available_cores

ROUNDS, LIMIT = 5, 1.15
# The default network and its dropout in both; only the images are moved or not.
VARIANTS = ("plain", "", "augmented", "regularization=augmentation,regularization.dropout=0.5")


def measure() -> list[Row]:
    """Epochs of one process, alternated: with all cores, and with one thread that has one core for everything."""
    everywhere = _epochs(available_cores())
    with on(1):
        alone = _epochs(1)
    return [
        compare(f"an epoch with augmentation ÷ without, {where}", seconds["augmented"], seconds["plain"], LIMIT)
        for where, seconds in ((f"{available_cores()} threads", everywhere), ("one thread on one core", alone))
    ]


def _epochs(threads: int) -> dict[str, list[float]]:
    printed = run([str(HERE / "epochs.py"), str(threads), str(ROUNDS), *VARIANTS], Path.cwd())
    return dict(json.loads(printed.splitlines()[-1]))
