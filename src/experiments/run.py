"""`python -m experiments.run`: one run, with `-m` a sweep, with `resume=RUN` the rest of an interrupted one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.entrance import exit_with, say
from experiments.results.states import RunState

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
SAVED = "saved_config"  # the name under which Hydra finds one


def main() -> None:
    """The entrance; exit codes as in the README."""
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
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands its errors on instead of printing them
    import hydra
    from hydra.errors import HydraException

    from experiments.conf import CONF, configure_hydra, refuse_number_traps

    refuse_number_traps(CONF)
    _prepare_saved_config(sys.argv)
    configure_hydra()
    outcome = _Outcome()
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(outcome)()
    except (HydraException, ValueError) as error:  # ValueError: a choice that is no word, as optimizer=null
        from experiments.config import explain_composition

        raise explain_composition(error) from None
    if outcome.error:
        raise outcome.error
    return outcome.code


def _prepare_saved_config(arguments: list[str]) -> None:
    """Makes `--config-path` relative to the current folder; a run's saved config is read by ourselves.

    Hydra gets its validated values, never the folder: it would import and call whatever the file's `hydra.callbacks`
    name, before anything of ours is asked.

    Raises:
        InputError: no such file, or it is no config of a run; also for Hydra's way to read a run back from a pickle.
    """
    from experiments.errors import InputError

    if any(argument.startswith("--experimental-rerun") for argument in arguments):
        raise InputError("--experimental-rerun: would open a pickle; python -m experiments.reproduce RUN repeats a run")
    place = _option(arguments, "--config-path", "-cp")
    if place is None:
        return
    from experiments.config import read_yaml
    from experiments.results import files

    folder = Path(arguments[place]).resolve()
    name = _option(arguments, "--config-name", "-cn")
    file = folder / f"{'config' if name is None else arguments[name].removesuffix('.yaml')}.yaml"
    values = read_yaml(file)
    is_own_tree = isinstance(values, dict) and "defaults" in values and not (folder / files.RECORD).exists()
    if is_own_tree:
        arguments[place] = str(folder)
        return
    _offer(file)
    for index in sorted((i for i in (place, name) if i is not None), reverse=True):
        del arguments[index - 1 : index + 1]
    arguments += ["--config-name", SAVED]


def _offer(file: Path) -> None:
    """Gives Hydra a run's saved config, with what it lacks of a command: how `-m` carries out a sweep."""
    from hydra.core.config_store import ConfigStore

    from experiments.conf import CONF
    from experiments.config import load_config, read_yaml

    node = load_config(file).model_dump(mode="json") | {"sweep": read_yaml(CONF / "sweep" / "local.yaml")}
    ConfigStore.instance().store(name=SAVED, node=node, provider="experiments")


def _option(arguments: list[str], long: str, short: str) -> int | None:
    """The index of an option's value, after `--option=value` was split in two."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name != short and not (name.startswith("--config-") and name != "--config-" and long.startswith(name)):
            continue  # argparse takes a beginning for the whole
        if equals:
            arguments[index : index + 1] = [name, value]
        return index + 1 if index + 1 < len(arguments) else None
    return None


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


def _tell(record: Record) -> int:
    """Prints how a run ended, the next useful command and, last, its directory."""
    if record.state == RunState.FINISHED and record.overfitting:
        low, high = record.metrics["test/accuracy_low"], record.metrics["test/accuracy_high"]
        alone = record.metrics.get("test/accuracy_one_view")
        say(
            f"test accuracy {record.metrics['test/accuracy']:.2%} (95% interval {low:.2%} to {high:.2%})"
            + ("" if alone is None else f", mean of several views; {alone:.2%} with each image seen once"),
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
