"""Which run is better, is it real, and where does each fail: `python -m experiments.compare [RUN|SWEEP ...]`.

Reads run directories only: no TensorFlow, no MLflow, no network.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.results.records import Record

DESCRIPTION = """\
Compares finished runs: a table ranked by validation accuracy, the answer in sentences, and a report
(report.html, report.md, runs.csv). RUN is a run directory, a run's name or an MLflow run id (a unique prefix
will do); SWEEP is a sweep's directory or name. Default: the newest sweep.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: done; 2: bad input, in one line on standard error."""
    given = _parse(arguments)
    from rich.console import Console

    from experiments.comparison import report, terminal
    from experiments.comparison.comparison import compare
    from experiments.errors import InputError
    from experiments.results import records

    home = records.home()
    try:
        runs = _select(given.runs, home)
        comparison = compare(runs)
        paths = report.write(comparison, given.output or _place(runs, home))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename}: cannot be written ({error.strerror})", file=sys.stderr)
        return 2
    console = Console()
    terminal.show(comparison, console)
    print(f"\nOpen the report in a browser; {paths[2].name} beside it has every number:\n{paths[0]}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN|SWEEP", help="what to compare")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to put the report (default: beside the runs)")
    return parser.parse_args(arguments)


def _select(texts: Sequence[str], home: Path) -> list[Record]:
    """Every run that is named, once, in the order of naming."""
    from experiments.results import records

    if not texts:
        return records.newest_sweep(home)
    found = [record for text in texts for record in records.find(text, home)]
    return list({record.directory.resolve(): record for record in found}.values())


def _place(runs: Sequence[Record], home: Path) -> Path:
    """`comparison/` in the sweep or the run; for a mixture a folder in `outputs/` that is always the same for it."""
    directories = sorted({record.directory.resolve() for record in runs})
    if len(directories) == 1:
        return directories[0] / "comparison"
    parents = {directory.parent for directory in directories}
    sweeps = {record.sweep for record in runs}
    if len(parents) == 1 and len(sweeps) == 1 and None not in sweeps:
        return parents.pop() / "comparison"
    digest = hashlib.sha256("\n".join(map(str, directories)).encode()).hexdigest()
    return home / "outputs" / f"comparison-{digest[:8]}"


if __name__ == "__main__":
    sys.exit(main())
