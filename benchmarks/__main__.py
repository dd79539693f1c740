"""`python -m benchmarks [NAME ...]`: measures, prints, and writes results.md and the table in the README.

Rows that are not measured now are kept where they come from the same machine and versions.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import date
from functools import partial

from benchmarks import (
    augmentation,
    checkpoint,
    comparison,
    efficiency,
    memory,
    overhead,
    resume,
    sweep,
    time_to_99,
    two_cores,
)
from benchmarks.measurement import HERE, Row, machine
from experiments.config import compose
from experiments.entrance import exit_with
from experiments.errors import InputError

CLAIMS: dict[str, Callable[[], list[Row]]] = {
    module.__name__.rpartition(".")[2]: module.measure
    for module in (
        overhead,
        sweep,
        efficiency,
        two_cores,
        time_to_99,
        checkpoint,
        augmentation,
        memory,
        resume,
        comparison,
    )
}
RESULTS, README = HERE / "results.md", HERE.parent / "README.md"
HEADER = "| what | ours | theirs | ratio | goal | n | measured | NAME |\n|---|---|---|---|---|---|---|---|"
TABLE = re.compile(r"(?<=<!-- benchmarks -->\n).*?(?=<!-- end of benchmarks -->)", re.DOTALL)


def main(names: list[str]) -> int:
    """Measures the named claims, or all, and writes; returns the exit code.

    Raises:
        InputError: there is no such benchmark, or no MNIST.
    """
    if unknown := sorted(set(names) - set(CLAIMS)):
        raise InputError(f"{', '.join(unknown)}: no such benchmark; valid: {', '.join(CLAIMS)}")
    compose("dataset=mnist").dataset.load()  # says what is missing, at once
    rows = earlier_rows()
    for name in names or CLAIMS:
        print(f"{name}:", flush=True)
        for row in CLAIMS[name]():
            rows[row.claim] = f"{row} {date.today():%Y-%m-%d} | {name} |"
            print(f"  {row}", flush=True)
        write("\n".join([HEADER, *rows.values()]) + "\n")
    return 0


def earlier_rows() -> dict[str, str]:
    """The rows of results.md by claim, where they were measured on this machine with these versions."""
    text = RESULTS.read_text() if RESULTS.exists() else ""
    if machine() not in text:
        return {}
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]  # the first names the columns
    return {row[2:].partition(" | ")[0]: row for row in rows}


def write(table: str) -> None:
    """Replaces results.md, and the same table in the README."""
    text = (
        f"On a CPU: {machine()}.\nMedians of n rounds; sides alternated; a ratio is the median of the rounds' ratios, "
        f"from n = 5 on with their range.\n\n{table}"
    )
    RESULTS.write_text(f"# Results of `make bench`\n\n{text}")
    README.write_text(TABLE.sub(lambda _: text, README.read_text()))


if __name__ == "__main__":
    exit_with(partial(main, sys.argv[1:]))
