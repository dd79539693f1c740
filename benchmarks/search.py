"""Claim: a search spends a fifth of the epochs of the grid of its points, and finds what is nearly as good."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.measurement import Row, run
from experiments.comparison import decisions
from experiments.comparison.decisions import DECISIONS, Search
from experiments.results import records
from experiments.results.records import Record

POINTS, EPOCHS = 40, 16
MOST_PART, MOST_REGRET = 0.2, 0.1  # of the grid's epochs; points of validation accuracy
# The margin ends the final at once: it is not what is measured.
COMMAND = (
    "-m", "experiments.run", "-m", "dataset=mnist", "dataset.train_limit=6000", f"training.epochs={EPOCHS}",
    "tracking=none", "optimizer=sgd,rmsprop,adam", "optimizer.learning_rate=tag(log,interval(1e-4,1e-1))",
    f"sweep.jobs={POINTS}", "sweep.finalists=3", "sweep.margin=50",
)  # fmt: skip


def measure() -> list[Row]:
    """A search, then the same points all to their end: what was paused goes on to the bits of a run without pauses."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        run(COMMAND, home)
        spent = sum(record.epochs_run for record in _runs(home))
        best = _winner(home)
        run([*COMMAND, "sweep.keep=1"], home)
        whole = _runs(home)
    grid = sum(record.epochs_run for record in whole)
    if len(whole) != POINTS or grid != POINTS * EPOCHS:
        raise RuntimeError(f"the grid is not whole: {len(whole)} runs, {grid} epochs")
    scores = {record.directory.name: 100 * record.metrics["validation/accuracy"] for record in whole}
    what = f"a search of {POINTS} points × {EPOCHS} epochs ÷ the grid of all"
    regret = max(scores.values()) - scores[best]
    found = f"{scores[best]:.2f} %", f"{max(scores.values()):.2f} %"
    return [
        Row(f"{what}: epochs", str(spent), str(grid), f"{spent / grid:.3f}", f"≤ {MOST_PART}", 1),
        Row(f"{what}: validation accuracy", *found, f"{regret:.2f} points", f"≤ {MOST_REGRET} points", 1),
    ]


def _search(home: Path) -> Path:
    (directory,) = (path for path in home.glob("multirun/[0-9]*") if "-final-" not in path.name)
    return directory


def _runs(home: Path) -> list[Record]:
    return [records.load(path.parent) for path in sorted(_search(home).glob("*/record.json"))]


def _winner(home: Path) -> str:
    """The number of the job that leads at the last rung."""
    _, found = decisions.read(_search(home) / DECISIONS)
    if not isinstance(last := found[-1], Search):
        raise TypeError("a search decides by rungs")
    return str(last.rounds[-1].kept[0])
