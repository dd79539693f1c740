"""`python -m experiments.run`: one run, with `-m` a sweep, with `resume=RUN` the rest of an interrupted one."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.entrance import exit_with
from experiments.results.states import RunState
from experiments.screen import say

if TYPE_CHECKING:
    from experiments.results.records import Record

EXIT_CODES = {
    RunState.FINISHED: 0,
    RunState.FAILED: 1,
    RunState.DIVERGED: 1,
    RunState.INTERRUPTED: 130,
    RunState.PAUSED: 0,
}
RESUME, TAKE_OVER = "resume=", "take_over="


def main() -> None:
    """The entrance; exit codes as in the README. `init` as the first word is a command of its own."""
    if sys.argv[1:2] == ["init"]:
        from experiments import init

        init.main(sys.argv[2:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends a run in order, as Ctrl-C does
    resumes = any(argument.startswith(RESUME) for argument in sys.argv[1:])
    exit_with(lambda: _resume(sys.argv[1:]) if resumes else _run())


def _resume(arguments: list[str]) -> int:
    from experiments.config import load_config
    from experiments.errors import InputError
    from experiments.results import files, lookup, records

    name, take_over = _parse_resume(arguments)
    found = lookup.find(name, files.home())
    if len(found) != 1:
        raise InputError(f"{name}: is a sweep; the command that started it does what is missing")
    if found[0].state == RunState.FINISHED:
        raise InputError(f"{name}: has finished already, in {found[0].directory}")
    if found[0].state == RunState.DIVERGED:
        raise InputError(f"{name}: has diverged, and would again; choose other values, as a lower learning rate")
    from experiments.reproduction import REPEATABLE
    from experiments.runner import run_experiment

    if not take_over:
        records.refuse_running(found[0])
    directory = found[0].directory
    record = run_experiment(load_config(directory / files.CONFIG), directory, take_over=take_over)
    return _conclude(record) if record.reproduces and record.state in REPEATABLE else _tell(record)


def _parse_resume(arguments: list[str]) -> tuple[str, bool]:
    """RUN, and whether it is taken from a process that may still work on it.

    Raises:
        InputError: there is something else on the command line.
    """
    from experiments.errors import InputError

    names = [argument.removeprefix(RESUME) for argument in arguments if argument.startswith(RESUME)]
    others = [argument for argument in arguments if not argument.startswith(RESUME)]
    if len(names) != 1 or others not in ([], [f"{TAKE_OVER}true"], [f"{TAKE_OVER}false"]):
        raise InputError(
            "resume=RUN: stands alone, or with take_over=true; "
            "an interrupted run goes on with the config that it was started with"
        )
    return names[0], others == [f"{TAKE_OVER}true"]


def _conclude(record: Record) -> int:
    """Tells the verdict on a repeat that was interrupted and has now finished."""
    from experiments import reproduction
    from experiments.errors import InputError
    from experiments.results import files
    from experiments.results.verdict import tell

    try:
        with reproduction.original(record.reproduces or "", files.home()) as run:
            verdict = reproduction.conclude(run, record, files.home())
    except InputError as error:  # the original is gone
        say(f"no verdict: {error}")
        return _tell(record)
    say(*tell(verdict), record.directory)
    return verdict.exit_code


def _run() -> int:
    """Hands the command line to Hydra; returns the exit code."""
    from experiments import command_line

    outcome = _Outcome()
    command_line.answer(sys.argv[1:], outcome)
    if outcome.error:
        raise outcome.error
    return outcome.code


class _Outcome:
    """What Hydra calls with the composed config. It keeps errors: Hydra prints a line about those that leave it."""

    def __init__(self) -> None:
        self.code = 0
        self.error: Exception | None = None

    def __call__(self, composed: Any) -> None:
        try:
            self.code = _train(composed)
        except Exception as error:
            self.error = error


def _train(composed: Any) -> int:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from experiments.config import from_hydra

    config = from_hydra(composed).config
    from experiments.recording import Origin
    from experiments.runner import run_experiment

    hydra = HydraConfig.get()
    files = {
        "config.yaml": OmegaConf.to_yaml(composed),
        "hydra.yaml": OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})),
        "overrides.yaml": OmegaConf.to_yaml(hydra.overrides.task),
    }
    return _tell(run_experiment(config, origin=Origin(hydra=files)))


def _tell_uneven(metrics: Mapping[str, float]) -> str:
    """Where classes differ much in size, what accuracy alone hides."""
    if "test/balanced_accuracy" not in metrics:
        return ""
    return f"; balanced accuracy {metrics['test/balanced_accuracy']:.2%}, macro F1 {metrics['test/macro_f1']:.4f}"


def _tell_own(metrics: Mapping[str, float]) -> list[str]:
    """A line with the metrics of the user's own, if there are any."""
    from experiments.results.own_metrics import own_of

    told = ", ".join(f"{name} {metrics[name]:.4g}" for name in own_of(metrics))
    return [told] if told else []


def _tell(record: Record) -> int:
    """Prints how a run ended, the next useful command and, last, its directory."""
    if record.state == RunState.FINISHED and record.sealed and record.overfitting:
        say(
            f"validation accuracy {record.metrics['validation/accuracy']:.2%}; the test set is sealed",
            record.overfitting.verdict,
            f"next: python -m experiments.unseal {record.name}, once nothing is left to choose",
        )
    elif record.state == RunState.FINISHED and record.overfitting:
        low, high = record.metrics["test/accuracy_low"], record.metrics["test/accuracy_high"]
        alone = record.metrics.get("test/accuracy_one_view")
        say(
            f"test accuracy {record.metrics['test/accuracy']:.2%} (95% interval {low:.2%} to {high:.2%})"
            + ("" if alone is None else f", mean of several views; {alone:.2%} with each image seen once")
            + _tell_uneven(record.metrics),
            *_tell_own(record.metrics),
            record.overfitting.verdict,
            "next: python -m experiments.ui, or a sweep: python -m experiments.run -m optimizer=sgd,rmsprop,adam",
        )
    elif record.state in (RunState.INTERRUPTED, RunState.PAUSED):
        say(f"go on after epoch {record.epochs_run}: python -m experiments.run {RESUME}{_short(record.directory)}")
    else:
        say(f"{record.state}; everything so far and the log: {record.directory / 'run.log'}")
    say(record.directory)
    return EXIT_CODES[record.state]


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    main()
