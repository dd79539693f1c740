"""The user's own project: the current folder, where its `pyproject.toml` says so, and the modules that it lists.

[tool.experiments]
modules = ["mylab.models", "mylab.metrics"]   # they register what they define, see `options`
config_dir = "conf"                           # its options stand beside ours; --config-dir wins
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import tomllib
import traceback
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from experiments.bounded import CONFIG_BYTES, read_bytes
from experiments.errors import InputError, nearest
from experiments.ingredients import kernels

FILE, TABLE = "pyproject.toml", "tool.experiments"
VARIABLE = "EXPERIMENTS_MODULES"
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
HERE = Path(__file__).resolve().parent


class Settings(NamedTuple):
    """What a project says; `source` is where its modules are listed."""

    modules: tuple[str, ...]
    config_dir: Path | None
    source: str


def settings() -> Settings:
    """What the current folder's `pyproject.toml` and `$EXPERIMENTS_MODULES` say.

    Raises:
        InputError: one of them cannot be understood.
    """
    return _settings(_here(), os.environ.get(VARIABLE))


def load() -> None:
    """Imports the modules of the current project, once; they register what they define.

    Raises:
        InputError: one does not exist, or cannot be imported.
    """
    found = settings()
    _load(_here(), found.modules, found.source)


def _here() -> Path:
    """The current folder; one that was removed holds no project."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/nowhere")


@cache
def _settings(folder: Path, listed: str | None) -> Settings:
    table = _table(folder)
    modules, source = table.get("modules", []), f"{FILE}: {TABLE}.modules"
    if listed is not None:
        modules, source = [name.strip() for name in listed.split(",") if name.strip()], VARIABLE
    if not isinstance(modules, list) or not all(isinstance(m, str) and DOTTED.fullmatch(m) for m in modules):
        raise InputError(f'{source}: must be names of modules, as "mylab.models", received {modules!r}')
    config_dir = table.get("config_dir")
    if not isinstance(config_dir, str | None):
        raise InputError(f'{FILE}: {TABLE}.config_dir: must be a folder, as "conf", received {config_dir!r}')
    return Settings(tuple(modules), folder / config_dir if config_dir else None, source)


def _table(folder: Path) -> dict[str, Any]:
    """`[tool.experiments]`; empty where there is none, and where the folder is somebody's results."""
    path = folder / FILE
    if not path.is_file():
        return {}
    data = read_bytes(path, CONFIG_BYTES)
    if b"experiments" not in data:
        return {}
    try:
        table = tomllib.loads(data.decode()).get("tool", {}).get("experiments", {})
    except (ValueError, AttributeError) as error:
        raise InputError(f"{FILE}: cannot be read ({error})") from None
    if not isinstance(table, dict):
        raise InputError(f"{FILE}: {TABLE}: must be a table, received {table!r}")
    if table and _is_of_results(folder):
        return {}
    if unknown := sorted(set(table) - {"modules", "config_dir"}):
        raise InputError(f"{FILE}: {TABLE}.{unknown[0]}: no such key; {nearest(unknown[0], ('modules', 'config_dir'))}")
    return table


def _is_of_results(folder: Path) -> bool:
    """A directory of results may be somebody else's: nothing that stands in it is run."""
    from experiments.config_sources import lies_in_results

    return lies_in_results(folder) is not None


@cache
def _load(folder: Path, modules: tuple[str, ...], source: str) -> None:
    if modules and str(folder) not in sys.path and "" not in sys.path:
        sys.path.append(str(folder))  # at the end: nothing of Python's own or installed is replaced
    if modules:
        os.environ.update(kernels.variables_of_import())  # before one of them imports Keras
    for module in modules:
        _import(module, folder, source)


def _import(module: str, folder: Path, source: str) -> None:
    try:
        importlib.import_module(module)
    except InputError as error:  # what it registers cannot be
        raise InputError(*(m if m.startswith(module) else f"{module}: {m}" for m in error.mistakes)) from None
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise InputError(f"{source}: no module {module} in {folder} or among the installed packages") from None
        raise _not_imported(module, error) from None
    except Exception as error:  # whatever the user's module does
        raise _not_imported(module, error) from None


def _not_imported(module: str, error: Exception) -> InputError:
    return InputError(f"{module}: cannot be imported ({describe(error)})")


def missing(environment: Any) -> str:
    """Which modules a run used, by its `environment.json`, that are not imported here; "" where all are."""
    node = environment
    for key in ("code", "own", "modules"):
        node = node.get(key) if isinstance(node, dict) else None
    lacking = [str(name) for name in node if name not in sys.modules] if isinstance(node, list) else []
    where = f"list it in {FILE}, [{TABLE}] modules, or in {VARIABLE}, or give the command in its project's folder"
    return f"needs {', '.join(lacking)}, which is not imported here; {where}" if lacking else ""


def describe(error: BaseException) -> str:
    """An error in the user's code in one line, with the last place there: `NameError: … (models.py, line 3)`."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    place = place_of(error)
    return f"{text}; {place}" if place else text


def place_of(error: BaseException) -> str:
    """The last place outside of this package and of what is installed that an error went through; "" where none is."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename)]
    if isinstance(error, SyntaxError) and error.filename and _is_own(error.filename):
        return f"{_short(error.filename)}, line {error.lineno}"
    return f"{_short(frames[-1].filename)}, line {frames[-1].lineno}" if frames else ""


def _is_own(filename: str) -> bool:
    path = Path(filename)
    installed = {"site-packages", "dist-packages"}.intersection(path.parts)
    ours = path.is_relative_to(HERE) or filename.startswith("<") or path.is_relative_to(Path(os.__file__).parent)
    return not (installed or ours or path.name.startswith("<"))


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(_here())) if path.is_relative_to(_here()) else filename
