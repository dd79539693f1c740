"""`python -m experiments.compare [RUN|SWEEP ...]`: which is better, is it real, and where does each fail."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.entrance import exit_with
from experiments.errors import InputError

if TYPE_CHECKING:
    from experiments.results.records import Record

DESCRIPTION = """\
Compares finished runs: a table ranked by validation accuracy, the answer in sentences, and a report
(report.html, report.md, runs.csv). It reads run directories only: no TensorFlow, no MLflow, no network.
"""
NAMES = "a run's directory, name or MLflow run id (a unique prefix), or a sweep; by default the newest sweep"


def main() -> None:
    """The entrance; exit code 2 where there is nothing to compare."""
    exit_with(lambda: show(**vars(_arguments())))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.compare", description=DESCRIPTION)
    parser.add_argument("names", nargs="*", metavar="RUN|SWEEP", help=NAMES)
    parser.add_argument("--output", type=Path, metavar="DIR", help="of the report; by default beside the runs")
    return parser.parse_args()


def show(names: Sequence[str], output: Path | None) -> int:
    """Prints the comparison and writes the report.

    Raises:
        InputError: no run was found, none has finished, or the report cannot be written.
    """
    from rich.console import Console

    from experiments.comparison import report, terminal
    from experiments.comparison.comparison import compare
    from experiments.results import records

    home = records.home()
    runs = _find(names, home)
    comparison = compare(runs)
    terminal.show(comparison, Console())
    try:
        paths = report.write(comparison, output or _place(runs, home))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be written ({error.strerror})") from None
    print(f"\nreport (open it in a browser; report.md and runs.csv lie beside it):\n{paths[0]}")
    return 0


def _find(names: Sequence[str], home: Path) -> list[Record]:
    """Every run that is named, once."""
    from experiments.results import records

    if not names:
        return records.newest_sweep(home)
    found = [record for name in names for record in records.find(name, home)]
    return list({record.directory.resolve(): record for record in found}.values())


def _place(runs: Sequence[Record], home: Path) -> Path:
    """`comparison/` in the sweep or the run; for anything else a folder that is the same for the same runs."""
    from experiments.results import records

    directories = sorted({record.directory.resolve() for record in runs})
    if len(directories) == 1:
        return directories[0] / "comparison"
    parent = directories[0].parent
    if runs[0].sweep and directories == sorted(path.parent for path in parent.glob(f"*/{records.RECORD}")):
        return parent / "comparison"
    digest = hashlib.sha256("\n".join(map(str, directories)).encode()).hexdigest()
    return home / "outputs" / f"comparison-{digest[:8]}"


if __name__ == "__main__":
    main()
