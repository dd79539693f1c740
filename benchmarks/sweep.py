"""Claim: a sweep uses the CPU: against Hydra's own launcher, bare scripts in turn and side by side, and its peak."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.measurement import HERE, Row, alternate, compare
from experiments.config import available_cores

JOBS, EPOCHS, ROUNDS = 8, 3, 5
TOLD = {
    "basic launcher": "Hydra's basic launcher",
    "bare scripts": "bare scripts, one after another",
    "joblib": "bare scripts under joblib, one thread and one core each",
    "xargs": "bare scripts under `xargs -P`, one thread and one core each",
}
# By cores, in the order of the rivals: scripts side by side use the cores as well, and have no scheduler to wait for.
LIMITS = {4: (0.5, 0.45, 1.05, 1.05), 2: (0.75, 0.65, 1.05, 1.05)}
TRAINING, VALIDATION, TEST = 54_000, 6_000, 10_000  # images
# Multiply-adds of the default network for one image: two convolutions and the classifier.
FIRST, REST = 26 * 26 * 32 * 9, 11 * 11 * 64 * 9 * 32 + 1600 * 10
PEAK_SIZE, PEAK_REPEATS = 4096, 5


def measure() -> list[Row]:
    """Eight jobs of three epochs of the default network on MNIST, with all cores."""
    seconds, what = sides(JOBS), name_of(JOBS)
    return [
        *ratios(what, seconds, LIMITS[4 if available_cores() >= 4 else 2]),
        efficiency(what, seconds["ours"], JOBS * useful_operations(EPOCHS), peak_operations()),
    ]


def name_of(jobs: int) -> str:
    """What its rows begin with."""
    return f"a sweep of {jobs} jobs × {EPOCHS} epochs"


def efficiency(what: str, seconds: Sequence[float], useful: float, peak: float) -> Row:
    """Useful floating-point operations a second of a sweep against the machine's peak."""
    speed = useful / median(seconds)
    ours, highest = (f"{operations / 1e9:.0f} GFLOP/s" for operations in (speed, peak))
    return Row(f"{what}: useful work ÷ SGEMM peak", ours, highest, f"{speed / peak:.2f}", "≥ 0.7", len(seconds))


def sides(jobs: int) -> dict[str, list[float]]:
    """Seconds of our sweep of so many jobs, and of the same jobs by other means, see `TOLD`."""
    ours = ["-m", "dataset=mnist", f"training.epochs={EPOCHS}", f"seed=range({jobs})"]
    return alternate(
        {
            "ours": lambda _: ["-m", "experiments.run", *ours],
            "basic launcher": lambda _: [str(HERE / "basic_launcher.py"), *ours],
            "bare scripts": lambda folder: [str(HERE / "one_after_another.py"), str(folder), str(EPOCHS), str(jobs)],
            "joblib": partial(_side_by_side, jobs, "joblib"),
            "xargs": partial(_side_by_side, jobs, "xargs"),
        },
        ROUNDS,
    )


def _side_by_side(jobs: int, rival: str, folder: Path) -> list[str]:
    return [str(HERE / "side_by_side.py"), str(folder), str(EPOCHS), str(jobs), rival]


def ratios(what: str, seconds: dict[str, list[float]], limits: Sequence[float]) -> list[Row]:
    """Our sweep against each rival, with its limit."""
    return [
        compare(f"{what} ÷ {told}", seconds["ours"], seconds[rival], limit)
        for (rival, told), limit in zip(TOLD.items(), limits, strict=True)
    ]


def useful_operations(epochs: int) -> float:
    """Floating-point operations that one job cannot do without.

    A training step goes forward, back to the weights, and back to the inputs but not to pixels; the rest goes forward.
    """
    trained = epochs * TRAINING * (2 * FIRST + 3 * REST)
    predicted = (epochs * VALIDATION + VALIDATION + TEST) * (FIRST + REST)
    return 2.0 * (trained + predicted)


def peak_operations() -> float:
    """Floating-point operations a second of a large matrix product on all cores."""
    a = np.ones((PEAK_SIZE, PEAK_SIZE), np.float32)
    taken = []
    for _ in range(PEAK_REPEATS):
        started = time.perf_counter()
        a @ a
        taken.append(time.perf_counter() - started)
    return 2.0 * PEAK_SIZE**3 / median(taken)
