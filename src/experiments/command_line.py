"""The command line of `run`: Hydra's flags and overrides, and where the primary config comes from."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode

from experiments import project
from experiments.conf import CONF
from experiments.config import explain_composition, load_config
from experiments.config_sources import lies_in_results
from experiments.errors import InputError
from experiments.hydra_loader import MISSING, PRIMARY, make_loader, own_hydra
from experiments.plain_yaml import read_yaml

MODE = re.compile("experiment|hydra")  # stands in every override that may set `hydra.mode`
COMPLETION = re.compile("(install|uninstall|query)=(bash|fish|zsh)")
SAVED = "experiments-saved-config"  # under which Hydra finds the values that were read from a run


def answer(arguments: Sequence[str], task: Callable[[Any], Any]) -> None:
    """Does what a command line asks for: tells about the config, or composes it and runs or sweeps.

    Args:
        arguments: without the program's name.
        task: called with the composed config of a single run.

    Raises:
        InputError: a mistake in the arguments or in a config, one line each.
    """
    parser = _parser()
    flags = _parse(parser, arguments)
    try:
        with own_hydra(), _initialized(flags) as start:
            if not _tell(start.hydra, start.name, flags, parser):
                _carry_out(start, flags, task)
    except HydraException as error:
        raise explain_composition(error) from None


def _parser() -> argparse.ArgumentParser:
    """Hydra's own, which raises and takes each flag once."""
    parser: argparse.ArgumentParser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    for action in parser._actions:
        if action.option_strings and action.nargs is None:
            action.type = _once()
    return parser


def _refuse(message: str) -> NoReturn:
    raise InputError(message)


def _once() -> Callable[[str], str]:
    given: list[str] = []

    def check(value: str) -> str:
        """The value of a flag, as it is.

        Raises:
            ArgumentTypeError: `value` is empty, or the flag was given before.
        """
        given.append(value)
        if len(given) > 1 or not value:
            raise argparse.ArgumentTypeError(f"must be given once, and not empty, received {' and '.join(given)!r}")
        return value

    return check


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    flags, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        raise InputError(
            *(
                f"{flag}: no such flag; values have no dashes, as training.epochs=3, and --help tells them"
                for flag in unknown
            )
        )
    if flags.experimental_rerun is not None:
        raise InputError("--experimental-rerun: would open a pickle; python -m experiments.reproduce RUN repeats a run")
    if flags.package and not flags.cfg:
        raise InputError("--package: goes only with --cfg")
    if flags.resolve and not (flags.cfg or flags.help):
        raise InputError("--resolve: goes only with --cfg or --help")
    commands = ("run", "cfg", "multirun", "shell_completion", "info")
    if len(given := [f"--{name.replace('_', '-')}" for name in commands if getattr(flags, name)]) > 1:
        raise InputError(f"{' and '.join(given)}: only one of them can be asked for at a time")
    return flags


class _Start(NamedTuple):
    """Hydra over the folders that are given, and the name of the primary config.

    `only_ours`: no option of somebody else's can be chosen.
    """

    hydra: Hydra
    name: str
    only_ours: bool


@contextmanager
def _initialized(flags: argparse.Namespace) -> Iterator[_Start]:
    folder, name = CONF, (flags.config_name or PRIMARY).removesuffix(".yaml")
    if flags.config_path is not None:
        folder = Path(flags.config_path).absolute()
        if not _is_tree(folder, name):
            _store(folder / f"{name}.yaml", flags.overrides)
            folder, name = CONF, SAVED
    beside = project.settings().config_dir if flags.config_dir is None else Path(flags.config_dir).absolute()
    hydra = Hydra(task_name="run", config_loader=make_loader(folder, beside))
    GlobalHydra.instance().initialize(hydra)
    yield _Start(hydra, name, only_ours=folder == CONF and beside is None and name in (PRIMARY, SAVED))


def _is_tree(folder: Path, name: str) -> bool:
    """Whether a folder is a tree of options like conf/; a directory of results never is."""
    values = read_yaml(folder / f"{name}.yaml")
    return isinstance(values, dict) and "defaults" in values and lies_in_results(folder) is None


def _store(file: Path, overrides: Sequence[str]) -> None:
    """Makes a saved config the primary one, by its validated values; a chosen option replaces its own.

    Raises:
        InputError: it is no config of a run, or a value would mean something to Hydra.
    """
    values = load_config(file).model_dump(mode="json")
    for text in _texts(values):
        if "${" in text or text == MISSING:
            raise InputError(f"{file}: a saved config refers to nothing, received {text}")
    groups = [key for key, value in values.items() if isinstance(value, dict)]
    chosen = {override.key_or_group for override in _parsed(overrides)}
    defaults = [{group: None} for group in groups if group != "sweep"] + [{"sweep": "local"}, "_self_"]
    kept = {key: value for key, value in values.items() if key not in chosen.intersection(groups)}
    ConfigStore.instance().store(name=SAVED, node={"defaults": defaults} | kept, provider="experiments")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def _tell(hydra: Hydra, name: str, flags: argparse.Namespace, parser: argparse.ArgumentParser) -> bool:
    """Answers a question about the config; False where none was asked."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands its errors on instead of printing them
    if flags.help:
        hydra.app_help(name, parser, flags)
    elif flags.hydra_help:
        hydra.hydra_help(name, parser, flags)
    elif flags.cfg:
        _show(hydra, name, flags)
    elif flags.shell_completion:
        _complete(hydra, name, flags.overrides)
    elif flags.info:
        hydra.show_info(flags.info, name, flags.overrides)
    else:
        return False
    return True


def _complete(hydra: Hydra, name: str, given: Sequence[str]) -> None:
    asked = list(filter(COMPLETION.fullmatch, given))
    if len(asked) != 1:
        rule = "must be followed by install=SHELL, uninstall=SHELL or query=SHELL, where SHELL is bash, fish or zsh"
        raise InputError(f"--shell-completion: {rule}, received {' '.join(given) or 'nothing'}")
    hydra.shell_completion(name, asked)


def _show(hydra: Hydra, name: str, flags: argparse.Namespace) -> None:
    try:
        hydra.show_cfg(name, flags.overrides, flags.cfg, flags.package, flags.resolve)
    except SystemExit:  # it has printed which package there is not
        sys.exit(2)


def _carry_out(start: _Start, flags: argparse.Namespace, task: Callable[[Any], Any]) -> None:
    mode = RunMode.MULTIRUN if flags.multirun or _chooses_a_sweep(start, flags.overrides) else RunMode.RUN
    if mode == RunMode.RUN:
        _refuse_race(flags.overrides)
    go = start.hydra.run if mode == RunMode.RUN else start.hydra.multirun
    go(config_name=start.name, task_function=task, overrides=[*flags.overrides, f"hydra.mode={mode.name}"])


def _chooses_a_sweep(start: _Start, overrides: Sequence[str]) -> bool:
    """Whether an option sets `hydra.mode`, as questions of conf/experiment do; none of our other options does."""
    if start.only_ours and not any(MODE.search(text) for text in overrides):
        return False  # and nothing is composed for this answer alone
    return bool(start.hydra.get_mode(start.name, list(overrides)) == RunMode.MULTIRUN)


def _refuse_race(overrides: Sequence[str]) -> None:
    """A single run has one seed.

    Raises:
        InputError: `seed=auto`.
    """
    if any(override.key_or_group == "seed" and override.value() == "auto" for override in _parsed(overrides)):
        raise InputError("seed=auto: is a race of configurations over seeds, as in -m optimizer=sgd,adam seed=auto")


def _parsed(overrides: Sequence[str]) -> list[Override]:
    return list(OverridesParser.create().parse_overrides(list(overrides)))
