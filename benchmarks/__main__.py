"""`python -m benchmarks [NAME ...]`: measures, prints, and writes results.md and the table in the README.

Rows that are not measured now are kept, in a table for each machine and its versions.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial

from benchmarks import (
    augmentation,
    checkpoint,
    comparison,
    efficiency,
    memory,
    overhead,
    pause,
    planning,
    race,
    resume,
    search,
    streaming,
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
        streaming,
        resume,
        planning,
        comparison,
        race,
        search,
        pause,
    )
}
RESULTS, README = HERE / "results.md", HERE.parent / "README.md"
MACHINE = re.compile(r"On a CPU: (.*)\.")
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
    tables = earlier_rows()
    rows = tables.setdefault(machine(), {})
    for name in names or CLAIMS:
        print(f"{name}:", flush=True)
        for row in CLAIMS[name]():
            rows[row.claim] = f"{row} {date.today():%Y-%m-%d} | {name} |"
            print(f"  {row}", flush=True)
        write(tables)
    return 0


def earlier_rows() -> dict[str, dict[str, str]]:
    """The rows of results.md by claim, for each machine and its versions."""
    tables: dict[str, dict[str, str]] = {}
    for line in RESULTS.read_text().splitlines() if RESULTS.exists() else ():
        if found := MACHINE.fullmatch(line):
            rows = tables.setdefault(found[1], {})
        elif line.startswith("| ") and not HEADER.startswith(line):
            rows[line[2:].partition(" | ")[0]] = line
    return tables


def write(tables: Mapping[str, Mapping[str, str]]) -> None:
    """Replaces results.md, and the same tables in the README."""
    told = (
        "Medians of n rounds; sides alternated; a ratio is the median of the rounds' ratios, from n = 5 on with their "
        "range.\n"
    )
    parts = (f"On a CPU: {where}.\n\n{HEADER}\n" + "\n".join(rows.values()) + "\n" for where, rows in tables.items())
    text = "\n".join([told, *parts])
    RESULTS.write_text(f"# Results of `make bench`\n\n{text}")
    README.write_text(TABLE.sub(lambda _: text, README.read_text()))


if __name__ == "__main__":
    exit_with(partial(main, sys.argv[1:]))
