"""`python -m benchmarks [NAME ...]`: measures, prints, and writes results.md where all were measured."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

from benchmarks import overhead, sweep
from benchmarks.measurement import machine
from experiments.ingredients.datasets import Mnist

CLAIMS = {"overhead": overhead.measure, "sweep": sweep.measure}
HEADER = "| what | ours | theirs | ratio | goal | pairs |\n|---|---|---|---|---|---|"


def main(names: list[str]) -> None:
    unknown = sorted(set(names) - set(CLAIMS))
    if unknown:
        sys.exit(f"{', '.join(unknown)}: no such benchmark; valid: {', '.join(CLAIMS)}")
    Mnist(name="mnist", path=None, validation_fraction=0.1, train_limit=None).load()  # says what is missing, at once
    rows = [comparison.row() for name in names or CLAIMS for comparison in CLAIMS[name]()]
    text = f"Measured on {date.today():%Y-%m-%d}: {machine()}.\nMedians of whole processes, sides alternated.\n\n"
    text += "\n".join([HEADER, *rows]) + "\n"
    print(text)
    if not names:
        Path(__file__).with_name("results.md").write_text("# Results\n\n" + text)


if __name__ == "__main__":
    main(sys.argv[1:])
