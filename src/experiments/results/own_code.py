"""The code of the user's own project that a run uses: which files, what they hold, and the repository they are in.

A run uses the modules whose classes and functions its config names, and what those import of the same project, in
functions too. What is imported by a computed name, and files that are read, are not seen.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from experiments.ingredients.registry import CALLBACKS, METRICS, OPTIONS, chosen
from experiments.results import environment, files

INSTALLED = ("site-packages", "dist-packages")


def files_of(config: Mapping[str, Any]) -> dict[str, Path]:
    """The files of the user's project that a config, as plain mappings, uses; by their names in the project."""
    found: dict[str, Path] = {}
    for module in sorted({thing.__module__ for thing in chosen(config)}):
        if (root := _root_of(module)) is not None:
            found |= _reach(root, module)
    return dict(sorted(found.items()))


def digest_of(config: Mapping[str, Any]) -> str | None:
    """SHA-256 (hex) over those files, names and bytes, as they were first looked at; None where there are none."""
    lines = [f"{name} {_digest(path)}\n" for name, path in files_of(config).items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else None


def code_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of all code that a job runs by: this package and the user's part."""
    own = digest_of(config)
    return f"{environment.code_digest()}+{own}" if own else environment.code_digest()


def remember() -> None:
    """Looks at the files of all that is registered now: what is edited later is not what this process has imported."""
    for thing in (*OPTIONS.values(), *METRICS.values(), *CALLBACKS.values()):
        if (root := _root_of(thing.__module__)) is not None:
            for path in _reach(root, thing.__module__).values():
                _digest(path)


def facts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `environment.json` tells of it: modules, files and the repository's commit; nothing where none is used."""
    found = files_of(config)
    if not found:
        return {}
    return {
        "modules": sorted({thing.__module__ for thing in chosen(config)}),
        "files": {name: _digest(path)[:16] for name, path in found.items()},
        "commit": environment.git(_folder(found), "rev-parse", "HEAD")
        if _tracked(found)
        else environment.NOT_AVAILABLE,
        "dirty": bool(diff_of(config)),
    }


def diff_of(config: Mapping[str, Any]) -> str:
    """What those files differ in from the commit, new ones whole; empty where the project is not under git."""
    found = files_of(config)
    tracked = _tracked(found)
    if not tracked:
        return ""
    parts = [environment.git(_folder(found), "diff", "HEAD", "--", *tracked)]
    parts += [environment.addition(name, path) for name, path in found.items() if str(path) not in tracked]
    return "\n".join(part for part in parts if part and part != environment.NOT_AVAILABLE)


def diffs_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The texts of `code.diff` and, where there is something to tell, `own_code.diff` by the files' names."""
    own = diff_of(config)
    return {files.CODE_DIFF: environment.code_diff()} | ({files.OWN_DIFF: own} if own else {})


def _tracked(found: Mapping[str, Path]) -> list[str]:
    """The files that git knows."""
    paths = [str(path) for path in found.values()]
    if not paths:
        return []
    listed = environment.git(_folder(found), "ls-files", "-z", "--full-name", "--", *paths)
    top = environment.git(_folder(found), "rev-parse", "--show-toplevel")
    known = set() if environment.NOT_AVAILABLE in (listed, top) else {f"{top}/{n}" for n in listed.split("\0") if n}
    return [path for path in paths if str(Path(path).resolve()) in known]


def _folder(found: Mapping[str, Path]) -> Path:
    return next(iter(found.values())).parent


def _root_of(module: str) -> Path | None:
    """The folder that a module's first package lies in; None where it comes from no file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or not file.endswith(".py"):
        return None
    path = Path(file)
    return path.parents[module.count(".") + (path.name == "__init__.py")]


def _reach(root: Path, module: str) -> dict[str, Path]:
    """The files of a module and of all that it imports from the same root; of installed ones only its own package."""
    found: dict[str, Path] = {}
    waiting = [module]
    top = module.partition(".")[0]
    while waiting:
        dotted = waiting.pop()
        if dotted.partition(".")[0] == "experiments" or (root.name in INSTALLED and dotted.partition(".")[0] != top):
            continue
        for package, path in _files_on_the_way(root, dotted):
            if (name := path.relative_to(root).as_posix()) not in found:
                found[name] = path
                waiting += _imported(path, package)
    return found


def _files_on_the_way(root: Path, dotted: str) -> Iterator[tuple[str, Path]]:
    """The packages that lead to a module, and the module: each file with the package that it is in."""
    place, walked = root, ""
    for part in dotted.split("."):
        before, place = walked, place / part
        walked = f"{walked}.{part}" if walked else part
        if (init := place / "__init__.py").is_file():
            yield walked, init
        elif (file := place.with_suffix(".py")).is_file():
            yield before, file
            return


@cache
def _imported(path: Path, package: str) -> tuple[str, ...]:
    """Dotted names that a file imports anywhere; a name that is imported from a module may be one too."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # edited since it was imported; its digest tells that
        return ()
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if node.level else []
            around = parts[: len(parts) - node.level + 1] + ([node.module] if node.module else [])
            names += [".".join([*around, alias.name]) for alias in node.names]
    return tuple(names)


@cache
def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return environment.NOT_AVAILABLE
