"""How the benchmarks measure: whole processes, the two sides alternated in one go, medians and ratios of pairs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from experiments.config import available_cores
from experiments.results import environment

Command = Callable[[Path], Sequence[str]]  # an empty folder → what to run in it


@dataclass(frozen=True)
class Comparison:
    """Seconds of two sides, measured in alternation; pair i of both ran one after the other."""

    claim: str
    ours: Sequence[float]
    theirs: Sequence[float]
    limit: float

    @property
    def ratio(self) -> float:
        """The median over the pairs of ours ÷ theirs."""
        return median(our / their for our, their in zip(self.ours, self.theirs, strict=True))

    def row(self) -> str:
        """One row of results.md."""
        return (
            f"| {self.claim} | {median(self.ours):.1f} s | {median(self.theirs):.1f} s | **{self.ratio:.2f}** "
            f"| ≤ {self.limit} | {len(self.ours)} |"
        )


def alternate(claim: str, ours: Command, theirs: Command, *, pairs: int, limit: float) -> Comparison:
    """Measures both sides `pairs` times; which goes first changes from pair to pair."""
    seconds: dict[Command, list[float]] = {ours: [], theirs: []}
    for pair in range(pairs):
        for command in (ours, theirs) if pair % 2 == 0 else (theirs, ours):
            seconds[command].append(run(command))
        print(f"  {claim}: pair {pair + 1}: {seconds[ours][-1]:.1f} s against {seconds[theirs][-1]:.1f} s", flush=True)
    return Comparison(claim, seconds[ours], seconds[theirs], limit)


def run(command: Command, extra: Mapping[str, str] | None = None) -> float:
    """Seconds that a command takes in a home of its own."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [sys.executable, *command(Path(folder))]
        environ = os.environ | {"EXPERIMENTS_HOME": folder} | dict(extra or {})
        started = time.perf_counter()
        done = subprocess.run(arguments, env=environ, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds


def machine() -> str:
    """Hardware and versions in one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "numpy", "mlflow"))
    return f"{environment.cpu()['model']}, {available_cores()} cores; Python {platform.python_version()}, {versions}"
