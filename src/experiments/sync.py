"""`python -m experiments.sync [RUN ...]`: mirror to MLflow what could not be mirrored at the time."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from experiments.entrance import Parser, exit_with
from experiments.errors import InputError
from experiments.screen import say


def main() -> None:
    """The entrance; exit code 1 where a run could not be mirrored."""
    exit_with(lambda: sync(_arguments().runs))


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m experiments.sync", description=__doc__)
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="a run or a sweep; by default every run not yet mirrored"
    )
    return parser.parse_args()


def sync(names: Sequence[str]) -> int:
    """Mirrors the named runs, or all that have ended and are not mirrored.

    Raises:
        InputError: a run is not found, is still running, or has a config that cannot be read.
    """
    from experiments.config import load_config
    from experiments.results import files, lookup, tracking
    from experiments.results.states import RunState

    home = files.home()
    found = [record for name in names for record in lookup.find(name, home)] if names else lookup.unmirrored(home)
    failed = 0
    for record in found:
        if record.state == RunState.RUNNING:
            raise InputError(f"{record.name}: is still running; it is mirrored while it runs")
        try:
            run_id = tracking.synchronise(record, load_config(record.directory / files.CONFIG), home)
            say(f"{record.name}: mirrored as {run_id}")
        except tracking.TrackingError as error:
            failed += 1
            say(error)
    if not found:
        say("nothing to do: every run that has ended is mirrored")
    return 1 if failed else 0


if __name__ == "__main__":
    main()
