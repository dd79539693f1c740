"""Claim: a race answers what ten seeds each answer, with a part of the jobs, and wastes no time on two cores."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np

from benchmarks.measurement import Row, on, run, state
from experiments.comparison.decisions import DECISIONS, Race, read
from experiments.comparison.sequential import Rules, decide
from experiments.results import lookup, records
from experiments.results.records import Record

CORES, SEEDS, MARGIN = 2, 10, 0.1
COMMON = ("-m", "dataset=mnist", "dataset.train_limit=6000", "training.epochs=2", "tracking=none")
FIELDS = {  # configurations → the optimizers, and the largest share of the jobs of ten seeds each
    3: ("sgd,rmsprop,adam", 0.6),
    9: ("sgd,sgd_momentum,rmsprop,adam,adamw,nadam,adagrad,lion,muon", 0.45),
}
MOST_OVERHEAD = 1.10  # seconds ratio ÷ jobs ratio
LARGEST, ROUNDS = 30, 20  # configurations and seeds of a decision; how often it is timed


class Seen(NamedTuple):
    """A sweep that has ended: seconds, and its records."""

    seconds: float
    records: list[Record]
    winner: str


def measure() -> list[Row]:
    """A decision, and races against grids on two cores."""
    rows = [state(f"a decision at {LARGEST} configurations × {LARGEST} seeds", decisions(), " s", "≤ 0.1 s", digits=4)]
    with on(CORES):
        for count in FIELDS:
            rows += against_grid(count)
    return rows


def decisions() -> list[float]:
    """Seconds of one decision, values new each time; the first one also solves the bounds of all looks before."""
    random, taken = np.random.default_rng(0), []
    for _ in range(ROUNDS):
        values = 99 + 0.05 * random.standard_normal((LARGEST, LARGEST))
        started = time.perf_counter()
        decide(dict(enumerate(values)), LARGEST, Rules(0.95, MARGIN, 100 / 6000))
        taken.append(time.perf_counter() - started)
    return taken


def against_grid(count: int, seeds: int = SEEDS) -> list[Row]:
    """A race and the grid of `seeds` seeds each, of so many optimizers."""
    optimizers, share = FIELDS[count]
    race = sweep(f"optimizer={optimizers}", "seed=auto", f"sweep.margin={MARGIN}")
    grid = sweep(f"optimizer={optimizers}", f"seed=range({seeds})")
    jobs, seconds = len(race.records) / len(grid.records), race.seconds / grid.seconds
    what = f"a race of {count} optimizers ÷ {seeds} seeds each, on two cores"
    behind = max(0.0, validation(grid.records, grid.winner) - validation(grid.records, race.winner))
    return [
        Row(f"{what}: jobs", str(len(race.records)), str(len(grid.records)), f"{jobs:.2f}", f"≤ {share}", 1),
        Row(f"{what}: seconds", f"{race.seconds:.0f} s", f"{grid.seconds:.0f} s", f"{seconds:.2f}", "", 1),
        Row(f"{what}: seconds ratio ÷ jobs ratio", "", "", f"{seconds / jobs:.2f}", f"≤ {MOST_OVERHEAD}", 1),
        Row(f"{what}: the answer", race.winner, grid.winner, f"{behind:.2f} points", f"≤ {MARGIN} points", 1),
    ]


def sweep(*choices: str) -> Seen:
    """Runs a sweep in a home of its own."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        started = time.perf_counter()
        run(["-m", "experiments.run", *COMMON, *choices], home)
        seconds = time.perf_counter() - started
        found = [records.load(path) for path in lookup.run_directories(home)]
        (directory,) = home.glob("multirun/[0-9]*")
        print(f"  {' '.join(choices)}: {len(found)} jobs, {seconds:.0f} s", flush=True)
        return Seen(seconds, found, winner(directory, found))


def winner(directory: Path, found: Sequence[Record]) -> str:
    """The optimizer that a race has found, or the one with the best mean validation accuracy."""
    _, races = read(directory / DECISIONS)
    if races:
        race = races[-1]
        assert isinstance(race, Race)
        return race.setting.configurations[race.rounds[-1].leader].label
    return max({str(record.varied["optimizer"]) for record in found}, key=lambda name: validation(found, name))


def validation(found: Sequence[Record], optimizer: str) -> float:
    """Mean validation accuracy of an optimizer's runs, percent."""
    own = [record for record in found if record.varied["optimizer"] == optimizer]
    return 100 * mean(record.metrics["validation/accuracy"] for record in own)
