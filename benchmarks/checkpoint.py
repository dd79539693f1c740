"""Claim: after every epoch the exact state is saved, and training images are measured, at little cost."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.measurement import HERE, Row, compare, run
from experiments.config import available_cores

ROUNDS, LIMIT, LIMIT_OF_MEASURING = 5, 0.03, 0.04


def measure() -> list[Row]:
    """Epochs of the default network with all cores, and what follows each."""
    printed = run([str(HERE / "epochs.py"), str(available_cores()), str(ROUNDS), "plain", ""], Path.cwd())
    seconds = json.loads(printed.splitlines()[-1])
    return [
        compare("a checkpoint ÷ its epoch", seconds["checkpoint"], seconds["plain"], LIMIT, digits=3),
        compare(
            "measuring 10,000 training images ÷ the epoch", seconds["measured"], seconds["plain"], LIMIT_OF_MEASURING
        ),
    ]
