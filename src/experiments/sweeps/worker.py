"""What runs in a job's process, wherever that is.

`python -m experiments.sweeps.worker FILE` carries out one run that `write_run` has written, for executors that start
processes of their own and follow the run directory. A second argument is the id of the process that starts it, with
which it ends.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from experiments.bounded import RECORD_BYTES, read_json
from experiments.config import RunConfig, validate
from experiments.errors import BusyError, ExperimentsError, InputError
from experiments.recording import Origin
from experiments.results import files, own_code
from experiments.results.process import end_with
from experiments.sweeps import locks
from experiments.sweeps.executor import Ended, Ending, EpochDone, Event, Run

log = logging.getLogger("experiments")
EXIT_CODES = {Ending.FINISHED: 0, Ending.PAUSED: 0, Ending.BUSY: 75, Ending.INTERRUPTED: 75}  # 75: start it again
FAILED = 1


def carry_out(run: Run, tell: Callable[[Event], None]) -> None:
    """Trains one job and tells of every epoch and of the end; `busy` where another process trains the same key."""
    with locks.held(run.lock) as mine:
        tell(_train(run, tell) if mine else Ended(Ending.BUSY))


def _train(run: Run, tell: Callable[[Event], None]) -> Ended:
    from experiments.runner import run_experiment

    try:
        check_code(run.code_digest, run.config)
        record = run_experiment(
            run.config,
            run.directory,
            origin=run.origin,
            on_epoch=lambda row: tell(EpochDone(row)),
            until_epoch=run.until_epoch,
        )
    except KeyboardInterrupt:
        return Ended(Ending.INTERRUPTED)
    except BusyError:
        return Ended(Ending.BUSY)
    except ExperimentsError as error:
        return Ended(Ending.FAILED, f"{type(error).__name__}: {'; '.join(str(error).splitlines())}")
    except Exception as error:
        log.exception("before the run could be recorded")
        return Ended(Ending.FAILED, f"{type(error).__name__}: {error}")
    return Ended(Ending(record.state), f"{record.error.type}: {record.error.message}" if record.error else "")


def check_code(planned: str, config: RunConfig) -> None:
    """Refuses to run a job under another code than the one that it was planned with, see `own_code.code_digest`.

    Raises:
        InputError: the sources were edited meanwhile.
    """
    if own_code.code_digest(config.model_dump()) != planned:
        raise InputError("the code was edited after the sweep was planned; give the command again")


def write_run(run: Run, path: Path) -> None:
    """Writes what a worker needs to know as JSON: plain values, no code."""
    values = {
        "config": run.config.model_dump(mode="json"),
        "directory": str(run.directory),
        "origin": asdict(run.origin),
        "lock": str(run.lock),
        "code_digest": run.code_digest,
        "until_epoch": run.until_epoch,
    }
    files.write_json(path, values)


def read_run(path: Path) -> Run:
    """What `write_run` wrote.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        values = read_json(path, RECORD_BYTES)
        return Run(
            validate(values["config"]),
            Path(values["directory"]),
            Origin(**values["origin"]),
            Path(values["lock"]),
            values["code_digest"],
            values["until_epoch"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not the description of a run ({type(error).__name__}: {error})") from None


def main(arguments: list[str]) -> int:
    """Carries out the run that a file describes; returns the exit code: 0 done, 75 start it again, 1 failed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if len(arguments) > 1:
        end_with(int(arguments[1]))
    codes: list[int] = []

    def tell(event: Event) -> None:
        if isinstance(event, Ended):
            codes.append(EXIT_CODES.get(Ending(event.state), FAILED))
            sys.stdout.write(f"{event.state} {event.message}\n")

    try:
        carry_out(read_run(Path(arguments[0])), tell)
    except KeyboardInterrupt:  # before the training listened
        tell(Ended(Ending.INTERRUPTED))
    except (InputError, OSError) as error:
        sys.stderr.write(f"{error}\n")
    return codes[-1] if codes else FAILED


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # at once: TensorFlow takes a second to clean up for nobody
