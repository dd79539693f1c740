"""Claim: a run with everything (records, figures, MLflow, checkpoints) takes no longer than a bare Keras script."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measurement import Comparison, alternate

EPOCHS, PAIRS, LIMIT = 5, 5, 1.05
BARE = Path(__file__).with_name("bare.py")


def measure() -> list[Comparison]:
    """Whole processes, five epochs of the default network on MNIST, all cores."""
    return [
        alternate(
            f"one run of {EPOCHS} epochs against a bare Keras script",
            lambda _: ["-m", "experiments.run", "dataset=mnist", f"training.epochs={EPOCHS}"],
            lambda folder: [str(BARE), str(folder), str(EPOCHS)],
            pairs=PAIRS,
            limit=LIMIT,
        )
    ]
