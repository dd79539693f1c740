"""`python -m experiments.compare [RUN|SWEEP ...]`: which is better, is it real, and where does each fail."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from experiments.entrance import Parser, exit_with
from experiments.errors import InputError
from experiments.screen import say

if TYPE_CHECKING:
    from experiments.comparison.exports import Answer
    from experiments.results.records import Record

DESCRIPTION = """\
Compares finished runs: the answer in a few lines, a table ranked by validation accuracy, and a report
(report.html, report.md, runs.csv). It reads run directories only: no TensorFlow, no MLflow, no network.
"""
NAMES = "a run's directory, name or MLflow run id (a unique prefix), or a sweep; by default the newest sweep"


def main() -> None:
    """The entrance; exit code 2 where there is nothing to compare."""
    exit_with(lambda: show(**vars(_arguments())))


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m experiments.compare", description=DESCRIPTION)
    parser.add_argument("names", nargs="*", metavar="RUN|SWEEP", help=NAMES)
    parser.add_argument("--output", type=Path, metavar="DIR", help="of the report; by default the sweep or the run")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--long", action="store_const", dest="form", const="long", help="all that there is to say")
    form.add_argument("--json", action="store_const", dest="form", const="json", help="all as JSON, and no report")
    form.add_argument(
        "--latex", action="store_const", dest="form", const="latex", help="the ranking as a table, and no report"
    )
    parser.set_defaults(form="short")
    return parser.parse_args()


def show(names: Sequence[str], output: Path | None, form: str = "short") -> int:
    """Prints the comparison and writes the report.

    Args:
        names: of runs and sweeps; the newest sweep where there is none.
        output: folder of the report.
        form: `short`, `long`, or `json` and `latex`, which write no report.

    Raises:
        InputError: no run was found, none has finished, or the report cannot be written.
    """
    from experiments.comparison import exports, report, suspects, terminal
    from experiments.comparison.comparison import compare
    from experiments.console import Screen
    from experiments.results import files

    home = files.home()
    runs = exports.find_runs(names, home)
    comparison = compare(runs)
    if form in ("json", "latex"):
        text = exports.json_text(comparison) if form == "json" else exports.latex(comparison)
        say(*text.splitlines())
        return 0
    try:  # first, and then told: whoever reads may be gone before the end
        paths = report.write(comparison, (output or _place(runs, home)).resolve())
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be written ({error.strerror})") from None
    terminal.show(comparison, Screen(), long=form == "long")
    if (found := suspects.of_comparison(comparison)) and (line := suspects.sentence(found)):
        say(line)
    say(paths[0])
    return 0


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


class _Callable(ModuleType):
    """`experiments.compare("sweep")` in a notebook, also where this module has taken the function's name."""

    def __call__(self, *names: str) -> Answer:
        from experiments.comparison import exports

        return exports.answer(*names)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    main()
