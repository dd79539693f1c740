"""Claim: a sweep of jobs of the default length keeps every core at useful work."""

from __future__ import annotations

from statistics import median

from benchmarks.measurement import Row, timed
from benchmarks.sweep import JOBS, efficiency, peak_operations, useful_operations
from experiments.config import compose

ROUNDS = 2


def measure() -> list[Row]:
    """Eight jobs of the default config on MNIST, with all cores; the peak is measured before each sweep."""
    epochs = compose().training.epochs
    command = ["-m", "experiments.run", "-m", "dataset=mnist", f"seed=range({JOBS})"]
    peaks, seconds = [], []
    for _ in range(ROUNDS):
        peaks.append(peak_operations())
        seconds.append(timed(lambda _: command))
    what = f"a sweep of {JOBS} jobs × {epochs} epochs (the default)"
    return [efficiency(what, seconds, JOBS * useful_operations(epochs), median(peaks))]
