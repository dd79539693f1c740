"""Claim: a search spends a fifth of the epochs of the grid of its points, and finds what is nearly as good."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.measurement import Row, run
from experiments.comparison import decisions
from experiments.comparison.decisions import DECISIONS, Search
from experiments.results import records
from experiments.results.records import Record

POINTS, EPOCHS, SEEDS = 40, 16, (0, 1, 2)
MOST_PART, MOST_REGRET = 0.2, 0.1  # of the grid's epochs; points of validation accuracy
# The margin ends the final at once: it is not what is measured.
COMMAND = (
    "-m", "experiments.run", "-m", "dataset=mnist", "dataset.train_limit=6000", f"training.epochs={EPOCHS}",
    "tracking=none", "optimizer=sgd,rmsprop,adam", "optimizer.learning_rate=tag(log,interval(1e-4,1e-1))",
    f"sweep.jobs={POINTS}", "sweep.finalists=3", "sweep.margin=50",
)  # fmt: skip


def measure() -> list[Row]:
    """Searches of other points each: the seed draws them."""
    return rows([_search_and_grid(seed) for seed in SEEDS])


class Found(NamedTuple):
    """Epochs that a search has spent, and the accuracies (%) of what it found and of the best of all its points."""

    spent: int
    found: float
    best: float


def rows(draws: Sequence[Found]) -> list[Row]:
    """Medians; the regret with its range."""
    what, n, grid = f"a search of {POINTS} points × {EPOCHS} epochs ÷ the grid of all", len(draws), POINTS * EPOCHS
    spent = median(draw.spent for draw in draws)
    regrets = [draw.best - draw.found for draw in draws]
    shown = f"{median(regrets):.2f} ({min(regrets):.2f} to {max(regrets):.2f}) points"
    ours, theirs = (f"{median(side):.2f} %" for side in ([d.found for d in draws], [d.best for d in draws]))
    return [
        Row(f"{what}: epochs", f"{spent:g}", str(grid), f"{spent / grid:.3f}", f"≤ {MOST_PART}", n),
        Row(f"{what}: validation accuracy", ours, theirs, shown, f"≤ {MOST_REGRET} points", n),
    ]


def _search_and_grid(seed: int) -> Found:
    """A search, then the same points all to their end: what was paused goes on to the bits of a run without pauses."""
    command = [*COMMAND, f"seed={seed}"]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        run(command, home)
        spent = sum(record.epochs_run for record in _runs(home))
        best = _winner(home)
        run([*command, "sweep.keep=1"], home)
        whole = _runs(home)
    grid = sum(record.epochs_run for record in whole)
    if len(whole) != POINTS or grid != POINTS * EPOCHS:
        raise RuntimeError(f"the grid is not whole: {len(whole)} runs, {grid} epochs")
    scores = {record.directory.name: 100 * record.metrics["validation/accuracy"] for record in whole}
    draw = Found(spent, scores[best], max(scores.values()))
    print(f"  seed {seed}: {draw}", flush=True)
    return draw


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
