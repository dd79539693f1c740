"""`python -m experiments.unseal RUN|SWEEP ...`: look at the test images of sealed runs, once, and write it down."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.entrance import Parser, exit_with
from experiments.screen import say

if TYPE_CHECKING:
    from pathlib import Path

    from experiments.results.records import Record

DESCRIPTION = """\
Evaluates finished runs that were made with dataset.sealed=true on their test images, from their saved models. The
numbers enter record, predictions, figures and MLflow as if the run had never been sealed. Who did it, when, with which
commit, and how often this data set's test images were looked at before is added to looks.jsonl, for good.
"""


def main() -> None:
    """The entrance; exit code 1 where a run could not be evaluated."""
    exit_with(lambda: unseal(_arguments().names))


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m experiments.unseal", description=DESCRIPTION)
    help_text = "a run's directory, name or MLflow run id (a unique prefix), or a sweep"
    parser.add_argument("names", nargs="+", metavar="RUN|SWEEP", help=help_text)
    return parser.parse_args()


def unseal(names: Sequence[str]) -> int:
    """Looks at the test images of every named run that is sealed, and tells what came of it.

    Raises:
        InputError: no such run, or none of them has finished and is sealed.
    """
    from experiments.errors import InputError
    from experiments.results import files, lookup
    from experiments.results.states import RunState

    home = files.home()
    found = {record.directory.resolve(): record for name in names for record in lookup.find(name, home)}
    sealed = [record for record in found.values() if record.state == RunState.FINISHED and record.sealed]
    others = [_why_not(record) for record in found.values() if record not in sealed]
    if not sealed:
        raise InputError(*others)
    say(*others)
    failed = _unseal_each(sealed, home)
    if failed < len(sealed):
        say(f"next: python -m experiments.compare {' '.join(names)}")
    return 1 if failed else 0


def _why_not(record: Record) -> str:
    from experiments.results.states import RunState

    if record.state == RunState.FINISHED:
        return f"{record.name}: is not sealed"
    return f"{record.name}: is {record.state}; only a finished run can be unsealed"


def _unseal_each(sealed: Sequence[Record], home: Path) -> int:
    """How many of the runs could not be evaluated."""
    from experiments import unsealing
    from experiments.errors import InputError
    from experiments.results import records
    from experiments.sweeps.executors import processes

    failed = 0
    with processes.none_left():
        processes.start_server()
        for record in sealed:
            try:
                done = unsealing.unseal(record, home)
            except InputError as error:
                failed += 1
                say(*error.mistakes)
                continue
            metrics = records.load(record.directory).metrics
            low, high = metrics["test/accuracy_low"], metrics["test/accuracy_high"]
            say(
                f"{record.name}: test accuracy {metrics['test/accuracy']:.2%} (95% interval {low:.2%} to {high:.2%}); "
                f"these test images were looked at {done.before} times before"
            )
            if done.unmirrored:
                say(f"{done.unmirrored}; mirror it later: python -m experiments.sync {record.name}")
    return failed


if __name__ == "__main__":
    main()
