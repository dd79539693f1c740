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
    parser.add_argument("--output", type=Path, metavar="DIR", help="of the report; by default the sweep or the run")
    return parser.parse_args()


def show(names: Sequence[str], output: Path | None) -> int:
    """Prints the comparison and writes the report.

    Raises:
        InputError: no run was found, none has finished, or the report cannot be written.
    """
    from rich.console import Console

    from experiments.comparison import report, terminal
    from experiments.comparison.comparison import compare
    from experiments.results import files

    home = files.home()
    runs = _find(names, home)
    comparison = compare(runs)
    terminal.show(comparison, Console())
    try:
        paths = report.write(comparison, (output or _place(runs, home)).resolve())
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be written ({error.strerror})") from None
    print(f"\nreport (open it in a browser; report.md and runs.csv lie beside it):\n{paths[0]}")
    return 0


def _find(names: Sequence[str], home: Path) -> list[Record]:
    """Every run that is named, once."""
    from experiments.results import lookup

    if not names:
        return lookup.newest_sweep(home)
    found = [record for name in names for record in lookup.find(name, home)]
    return list({record.directory.resolve(): record for record in found}.values())


def _place(runs: Sequence[Record], home: Path) -> Path:
    """The sweep or the run itself; for anything else a folder that is the same for the same runs."""
    from experiments.results import files

    directories = {record.directory for record in runs}
    # A job that another sweep, or a single run, has done before is a link.
    for sweep in {record.directory.parent for record in runs if record.sweep or record.directory.is_symlink()}:
        if directories == {path.parent for path in sweep.glob(f"*/{files.RECORD}")}:
            return sweep
    if len(directories) == 1:
        return directories.pop()
    digest = hashlib.sha256("\n".join(sorted(str(path.resolve()) for path in directories)).encode()).hexdigest()
    return home / "outputs" / f"comparison-{digest[:8]}"


if __name__ == "__main__":
    main()
