"""How the benchmarks measure: whole processes, the sides alternated in one go, medians, and ratios within a round."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from experiments.config import available_cores
from experiments.ingredients.downloads import locate
from experiments.results import environment

HERE = Path(__file__).parent
ROUNDS_OF_AN_INTERVAL = 5  # the median lies outside of their range in 2 of 2⁵ cases, 6 %
Command = Callable[[Path], Sequence[str]]  # an empty folder → what to run in it


@dataclass(frozen=True)
class Row:
    """One claim in results.md."""

    claim: str
    ours: str
    theirs: str
    ratio: str
    goal: str
    n: int

    def __str__(self) -> str:
        """As a row of a Markdown table."""
        return f"| {self.claim} | {self.ours} | {self.theirs} | {self.ratio} | {self.goal} | {self.n} |"


def compare(claim: str, ours: Sequence[float], theirs: Sequence[float], limit: float, *, digits: int = 1) -> Row:
    """Seconds of two sides; value i of both was measured in the same round. The ratio is the median of the rounds'.

    From five rounds on their range stands behind it: it holds the true median with 94 % or more.
    """
    found = [our / their for our, their in zip(ours, theirs, strict=True)]
    ratio = median(found)
    first, second = (f"{median(side):.{digits}f} s" for side in (ours, theirs))
    shown = f"{ratio:.2f}" if ratio >= 0.01 else f"{ratio:.1g}"
    if len(found) >= ROUNDS_OF_AN_INTERVAL:
        shown += f" ({min(found):.2g} to {max(found):.2g})"
    return Row(claim, first, second, shown, f"≤ {limit}", len(ours))


def state(claim: str, values: Sequence[float], unit: str, goal: str, *, digits: int = 1) -> Row:
    """One number, the median of several."""
    return Row(claim, f"{median(values):.{digits}f}{unit}", "", "", goal, len(values))


def alternate(commands: Mapping[str, Command], rounds: int) -> dict[str, list[float]]:
    """Seconds of every command, by its name; which goes first changes from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds):
        for name in list(commands)[:: 1 if number % 2 == 0 else -1]:
            seconds[name].append(timed(commands[name]))
            print(f"  round {number + 1}: {name}: {seconds[name][-1]:.1f} s", flush=True)
    return seconds


def timed(command: Command) -> float:
    """Seconds that a command takes in a home of its own."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = command(Path(folder))
        started = time.perf_counter()
        run(arguments, Path(folder))
        return time.perf_counter() - started


def run(arguments: Sequence[str], home: Path) -> str:
    """What `python ARGUMENTS` prints; it must end well."""
    data = locate("mnist", None)[0].parent  # also where it is in Keras' cache: the bare scripts read one variable
    here = os.pathsep.join([str(HERE.parent / "src"), str(HERE.parent)])
    environ = os.environ | {"EXPERIMENTS_HOME": str(home), "EXPERIMENTS_DATA": str(data), "PYTHONPATH": here}
    done = subprocess.run([sys.executable, *arguments], env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


@contextmanager
def on(cores: int) -> Iterator[None]:
    """Keeps what is started in the block to so many cores, or to all there are, if fewer."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def machine() -> str:
    """Hardware and versions in one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "numpy", "mlflow"))
    return f"{environment.cpu()['model']}, {available_cores()} cores; Python {platform.python_version()}, {versions}"
