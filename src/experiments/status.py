"""`python -m experiments.status [SWEEP]`: where the jobs of a sweep stand, from any host that sees its folder."""

from __future__ import annotations

import argparse
import json

from experiments.entrance import Parser, exit_with
from experiments.screen import say

DESCRIPTION = """\
Tells which jobs of a sweep wait, run, are done or have failed, and how far they are. It reads plan.json and the run
directories only, so any host that sees the folder can ask, and nothing is changed by asking.
"""
MOST_ROWS = 60  # of a table: what is told of more jobs is their number


def main() -> None:
    """The entrance."""
    exit_with(lambda: show(**vars(_arguments())))


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m experiments.status", description=DESCRIPTION)
    parser.add_argument("name", nargs="?", metavar="SWEEP", help="its directory or name; by default the newest")
    parser.add_argument("--json", action="store_true", dest="as_json", help="all jobs, as JSON")
    return parser.parse_args()


def show(name: str | None, *, as_json: bool) -> int:
    """Prints the table of a sweep.

    Raises:
        InputError: there is no such sweep, or its plan cannot be read.
    """
    from experiments.console import open_screen
    from experiments.results import files
    from experiments.sweeps import overview, tables
    from experiments.sweeps.jobs import count
    from experiments.sweeps.status import count_states

    sweep = overview.find_sweep(name, files.home())
    views = overview.look(sweep)
    if as_json:
        say(*json.dumps([overview.values(view) for view in views], indent=1).splitlines())
        return 0
    say(f"{sweep.name}: {count(len(views), 'job')}: {count_states(view.state for view in views)}")
    shown = overview.telling(views, MOST_ROWS)
    console = open_screen()
    console.print("", tables.draw([overview.row(view) for view in shown], console), "", sep="\n")
    hidden = [view.state for view in views if view not in shown]
    if hidden:
        say(f"and {count_states(hidden)} more; --json has them all")
    for view in shown:
        if view.message:
            say(f"job {view.number}: {view.message}; log: {view.directory / files.LOG}")
    say(sweep)
    return 0


if __name__ == "__main__":
    main()
