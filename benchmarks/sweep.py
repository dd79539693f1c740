"""Claim: a sweep uses the machine: against Hydra's own launcher, and against bare scripts one after another."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measurement import Comparison, alternate
from experiments.config import available_cores

EPOCHS, PAIRS = 3, 2
SEEDS = 8
LIMITS = (0.5, 0.45) if available_cores() >= 4 else (0.75, 0.65)


def measure() -> list[Comparison]:
    """Eight jobs of three epochs of the default network on MNIST."""
    here = Path(__file__).parent
    jobs = ["-m", "dataset=mnist", f"training.epochs={EPOCHS}", f"seed=range({SEEDS})"]

    def ours(_: Path) -> list[str]:
        return ["-m", "experiments.run", *jobs]

    def basic(_: Path) -> list[str]:
        return [str(here / "basic_launcher.py"), *jobs]

    def scripts(folder: Path) -> list[str]:
        return [str(here / "one_after_another.py"), str(folder), str(EPOCHS), str(SEEDS)]

    return [
        alternate(f"a sweep of {SEEDS} jobs against Hydra's basic launcher", ours, basic, pairs=PAIRS, limit=LIMITS[0]),
        alternate(f"a sweep of {SEEDS} jobs against bare scripts", ours, scripts, pairs=PAIRS, limit=LIMITS[1]),
    ]
