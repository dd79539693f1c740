"""Hydra as this package uses it: its readers, its settings, and what it may be told."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_config_search_path
from hydra.conf import HydraConf, RunDir, SweepDir
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Sweep
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime, setup_globals
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from experiments import project
from experiments.conf import CONF
from experiments.config_sources import Folder, Package
from experiments.errors import InputError

PRIMARY = "config"
VERSION_BASE = "1.3"
# Options of Hydra's own groups: this package makes directories and logs by itself, after validation.
OURS = {"launcher": "local", "sweeper": "local", "hydra_logging": "none", "job_logging": "none", "help": "experiments"}
HELP = """\
One run:   python -m experiments.run [OPTION=VALUE ...]
A sweep:   python -m experiments.run -m optimizer=sgd,rmsprop,adam 'seed=range(0,3)'
A race:    python -m experiments.run -m optimizer=sgd,rmsprop,adam seed=auto
The rest:  python -m experiments.run resume=RUN

Choose from these (group=option); each is a file conf/<group>/<option>.yaml with all its values:

$APP_CONFIG_GROUPS
Change any value (key=value); these are the defaults:

$CONFIG
See also: python -m experiments.{reproduce,compare,figures,ui,sync} --help, and --hydra-help for Hydra's own flags.
"""
LOGS = "everything that is logged stands in the run's run.log"
NAMES = "a run's directory is made in $EXPERIMENTS_HOME/outputs, a sweep's in multirun under its sweep.title"
# Settings of Hydra that would have no effect, or another one than elsewhere, and what to do instead.
UNUSED = {
    "run": NAMES,
    "sweep": NAMES,
    "output_subdir": "Hydra's own files are always kept in the run's .hydra",
    "job": "commands work where they were given, with the variables of their shell",
    "verbose": LOGS,
    "hydra_logging": LOGS,
    "job_logging": LOGS,
    "launcher": "sweeps are carried out by hydra/launcher=local, in fresh processes; sweep.workers=1 is one at a time",
    "sweeper": "hydra/sweeper=local takes every combination of the values that are named, as optimizer=sgd,adam",
}
USED = (
    "defaults",
    "searchpath",
    "callbacks.",
    "mode",
    "help.",
    "hydra_help.",
    "overrides.",
    "runtime.",
    "sweeper.params.",
)
MISSING = "???"  # OmegaConf's mark of a value that is filled in later
_composing = threading.RLock()


def compose(overrides: Sequence[str]) -> DictConfig:
    """What Hydra makes of `conf/` and overrides, from any thread and beside any other application of Hydra.

    Raises:
        HydraException: what is given does not compose.
        InputError: a file cannot be used, or a setting of Hydra would have no effect.
    """
    with _composing, own_hydra():
        composed = make_loader(CONF, project.settings().config_dir).load_configuration(
            PRIMARY, list(overrides), RunMode.RUN, from_shell=False
        )
    with open_dict(composed):
        del composed["hydra"]
    return composed


@contextmanager
def own_hydra() -> Iterator[None]:
    """Hydra with the readers and settings of this package, and without what an application around it has set."""
    plugins, registry, store = Plugins.instance(), SourcesRegistry.instance(), ConfigStore.instance()
    kept = Singleton._instances
    try:
        Singleton._instances = {Plugins: plugins}
        SourcesRegistry.instance().types = registry.types | {"file": Folder, "pkg": Package}
        _store_settings(store)
        version.setbase(VERSION_BASE)
        setup_globals()
        yield
    finally:
        Singleton._instances = kept


def _store_settings(earlier: ConfigStore) -> None:
    """Hydra's own configs with our settings, for any primary config; Hydra leaves no file behind."""
    store = ConfigStore.instance()
    own = ("hydra", "_dummy_empty_config_.yaml")  # the latter for --hydra-help
    store.repo = {name: dict(earlier.repo[name]) if name == "hydra" else earlier.repo[name] for name in own}
    help_node = {"app_name": "experiments", "header": "", "footer": "", "template": HELP}
    store.store(group="hydra/help", name=OURS["help"], node=help_node, provider="experiments")
    store.store(group="hydra", name="config", node=_settings(), provider="experiments")


def _settings() -> HydraConf:
    settings = HydraConf(run=RunDir("."), sweep=SweepDir("multirun", "${hydra.job.num}"), output_subdir=None)
    settings.defaults = [{key: OURS.get(key, value)} for entry in settings.defaults for key, value in entry.items()]
    return settings


def make_loader(folder: Path, beside: Path | None = None) -> Loader:
    """A loader of the primary configs and options in `folder` and of the options `beside` it, within `own_hydra`."""
    search_path = create_config_search_path(str(folder))
    if beside is not None:
        search_path.prepend("command-line", f"file://{beside}", SearchPathQuery(provider="schema"))
    return Loader(search_path)


class Loader(ConfigLoaderImpl):  # type: ignore[misc]
    """Hydra's loader, which refuses what it would take and not use."""

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Composes a config, Hydra's own part included.

        Raises:
            HydraException: what is given does not compose.
            InputError: a file cannot be used, or a setting of Hydra would have no effect.
        """
        only_one = validate_sweep_overrides and run_mode == RunMode.RUN
        self._refuse_choices(overrides, only_one=only_one)
        searched = [] if only_one else [text for text in overrides if _is_search(text)]
        given = [text for text in overrides if text not in searched]
        try:
            composed: DictConfig = super().load_configuration(
                config_name, given, run_mode, from_shell, validate_sweep_overrides
            )
        except ValueError as error:  # Hydra's own checks, as of optimizer=null
            raise ConfigCompositionException(str(error)) from error
        _refuse_unused(composed.hydra)
        with open_dict(composed):  # for the sweeper: Hydra takes no range inside a mapping for a sweep
            composed.hydra.overrides.task.extend(searched)
        return composed

    def _refuse_choices(self, overrides: Sequence[str], *, only_one: bool) -> None:
        """Names choices that Hydra would take: another launcher, or a list of options, which it merges.

        `only_one`: a sweep is refused too.
        """
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            if only_one and (override.is_sweep_override() or _is_search(override.input_line or "")):
                raise InputError(
                    f"{override.input_line}: is a sweep, which needs -m; a list is written in brackets, [a,b]"
                )
            key, value = override.key_or_group, override.value()
            group = key.removeprefix("hydra/")
            if key != group and group in UNUSED and value != OURS[group]:
                raise InputError(f"{override.input_line}: is not used; {UNUSED[group]}")
            if isinstance(value, list) and key != "experiment" and key in self.list_groups(""):
                one = f"{key}={value[0] if value else 'OPTION'}"
                raise InputError(f"{override.input_line}: is a list, and {key} is one option, as in {one}")


def _is_search(text: str) -> bool:
    """Whether an override is a range for each of some options."""
    if "{" not in text:
        return False
    value = OverridesParser.create().parse_override(text).value()
    return isinstance(value, dict) and any(isinstance(given, Sweep) for given in value.values())


def _refuse_unused(hydra: DictConfig) -> None:
    """Names the settings of Hydra that are not as this package has them, in whatever file or argument they stand."""
    choices = hydra.runtime.choices
    lines = [
        f"hydra/{group}={choices[f'hydra/{group}']}: is not used; {UNUSED[group]}"
        for group, ours in OURS.items()
        if group in UNUSED and choices.get(f"hydra/{group}") != ours
    ]
    lines = lines or [
        f"hydra.{key}={value}: is not used; {UNUSED.get(key.partition('.')[0], 'there is no such setting')}"
        for key, value in _changed(hydra)
    ]
    if lines:
        raise InputError(*lines)


def _changed(hydra: DictConfig) -> Iterator[tuple[str, Any]]:
    expected = dict(_expected()) | {"job.name": JobRuntime.instance().get("name")}
    found = dict(_leaves(hydra))
    for key in {**expected, **found}:
        before, now = expected.get(key), found.get(key)
        if not key.startswith(USED) and before not in (now, MISSING) and (before or now not in (None, False)):
            yield key, now


@cache
def _expected() -> tuple[tuple[str, Any], ...]:
    """The leaves of Hydra's part of a config where nobody has asked for anything else."""
    plugins = "hydra_plugins.experiments_local"
    silence = {"version": 1, "root": None, "disable_existing_loggers": False}
    plain: Any = OmegaConf.to_container(OmegaConf.structured(_settings()))
    given = {
        "launcher": {"_target_": f"{plugins}.LocalLauncher"},
        "sweeper": {"_target_": f"{plugins}.LocalSweeper"},
        "hydra_logging": silence,
        "job_logging": silence,
    }
    return tuple(_leaves(OmegaConf.create(plain | given)))


def _leaves(config: DictConfig) -> Iterator[tuple[str, Any]]:
    values: Any = OmegaConf.to_container(config, enum_to_str=True)
    nodes = [("", values)]
    while nodes:
        key, value = nodes.pop()
        if isinstance(value, dict):
            nodes += [(f"{key}.{name}" if key else str(name), item) for name, item in value.items()]
        elif value != []:
            yield key, value
