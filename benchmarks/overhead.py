"""Claim: a run with everything (records, figures, MLflow, checkpoints) takes no longer than a bare Keras script."""

from __future__ import annotations

from benchmarks.measurement import HERE, Row, alternate, compare

EPOCHS, ROUNDS, LIMIT = 5, 5, 1.05


def measure() -> list[Row]:
    """Whole processes, five epochs of the default network on MNIST, all cores."""
    seconds = alternate(
        {
            "ours": lambda _: ["-m", "experiments.run", "dataset=mnist", f"training.epochs={EPOCHS}"],
            "bare": lambda folder: [str(HERE / "bare.py"), str(folder), str(EPOCHS)],
        },
        ROUNDS,
    )
    return [compare(f"a run of {EPOCHS} epochs ÷ a bare Keras script", seconds["ours"], seconds["bare"], LIMIT)]
