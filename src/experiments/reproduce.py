"""`python -m experiments.reproduce RUN`: repeat a run from its saved config, and check it bit by bit.

With `--check` RUN may be a sweep that is a race or a search: its decisions are made again from its runs.
"""

from __future__ import annotations

import argparse
import math
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.entrance import Parser, exit_with
from experiments.results.states import RunState
from experiments.screen import say

if TYPE_CHECKING:
    from experiments.config import RunConfig
    from experiments.results.records import Record

ENDED_EARLY = {RunState.INTERRUPTED: 130, RunState.FAILED: 1}


def main() -> None:
    """The entrance; exit codes: 0 the same, 1 different, 2 bad input, 130 stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    exit_with(lambda: reproduce(_arguments()))


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m experiments.reproduce", description=__doc__)
    add = parser.add_argument
    add("run", metavar="RUN", help="a run directory, a name, sweep/number, or the beginning of an MLflow run id")
    add("--threads", type=_threads, metavar="N", help="another number of threads than the run had")
    either = parser.add_mutually_exclusive_group().add_argument
    either(
        "--check",
        action="store_true",
        help="only compare then and now, without training; of a race or search, its decisions",
    )
    either("--stop-at-difference", action="store_true", help="end the repeat with the first epoch that differs")
    either("--tolerance", type=_tolerance, metavar="X", help="the largest difference of a metric that still passes")
    return parser.parse_args()


def _tolerance(text: str) -> float:
    with suppress(ValueError):
        value = float(text)
        if math.isfinite(value) and value >= 0:
            return value
    raise argparse.ArgumentTypeError(f"must be a number from 0 on, received {text}")


def _threads(text: str) -> int:
    with suppress(ValueError):
        value = int(text)
        if value >= 1:
            return value
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, received {text}")


def reproduce(arguments: argparse.Namespace) -> int:
    """Repeats a run, or only compares then and now, and tells; returns the exit code."""
    from experiments import reproduction
    from experiments.results import files
    from experiments.results.verdict import tell, tell_causes

    home = files.home()
    if arguments.check and (sweep := _decided(arguments.run, home)):
        return _check_decisions(sweep)
    with reproduction.original(arguments.run, home) as run:
        config = reproduction.config_of(run, threads=arguments.threads)
        if arguments.check:
            return _check(run, config)
        try:
            again = reproduction.repeat(run, config, stop_at_difference=arguments.stop_at_difference)
        except reproduction.OtherDataError as error:
            say("different before the first epoch: nothing was trained", *tell_causes([error.cause]))
            return 1
        stopped_here = arguments.stop_at_difference and reproduction.differs(run, again)
        if again.state in ENDED_EARLY and not stopped_here:
            say(
                f"no verdict: {again.state} after epoch {again.epochs_run}; {_what_next(again, arguments.tolerance)}",
                again.directory,
            )
            return ENDED_EARLY[again.state]
        verdict = reproduction.conclude(run, again, home, tolerance=arguments.tolerance)
    say(*tell(verdict), again.directory)
    return verdict.exit_code


def _what_next(again: Record, tolerance: float | None) -> str:
    if again.state == RunState.INTERRUPTED:
        without = "" if tolerance is None else ", without the tolerance"
        return f"python -m experiments.run resume={again.name} goes on and gives it{without}"
    return f"see {again.directory / 'run.log'}"


def _check(run: Record, config: RunConfig) -> int:
    from experiments import reproduction
    from experiments.results.verdict import tell_causes

    causes = reproduction.expect(run, config)
    likely = any(cause.likely for cause in causes)
    say(f"{run.name}: a repeat {'may differ' if likely else 'should be identical'}", *tell_causes(causes))
    return 1 if likely else 0


def _decided(name: str, home: Path) -> Path | None:
    """The directory of a sweep that has decided something, if `name` means one."""
    from experiments.comparison.decisions import DECISIONS

    places = (Path(name), home / "multirun" / name) if name else ()
    return next((place for place in places if (place / DECISIONS).exists()), None)


def _check_decisions(sweep: Path) -> int:
    """Makes the decisions of a race or a search again from its runs, and tells."""
    from experiments.errors import InputError
    from experiments.sweeps import decision_log

    try:
        say(*decision_log.check(sweep))
    except InputError as error:
        say(*error.mistakes)
        return 1
    return 0


if __name__ == "__main__":
    main()
