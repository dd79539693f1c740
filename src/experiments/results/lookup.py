"""How a run or a sweep is found by what a user types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from experiments.bounded import exists
from experiments.errors import InputError
from experiments.results.files import RECORD, SWEEP_NOTE
from experiments.results.records import Record, glance, load
from experiments.results.states import RunState

SHORTEST_PREFIX = 4  # characters of a name or an id that mean a run: fewer would soon mean several


def run_directories(home: Path) -> Iterator[Path]:
    """Every directory under `home` that holds a record, links left out: single runs first, then sweeps' jobs."""
    for pattern in (f"outputs/*/{RECORD}", f"multirun/*/*/{RECORD}"):
        directories = (path.parent for path in home.glob(pattern))
        yield from sorted(directory for directory in directories if not directory.is_symlink())


def find(text: str, home: Path) -> list[Record]:
    """The runs that `text` names: a run directory, a run's name, `sweep/number`, a sweep, or an MLflow run id's prefix.

    Raises:
        InputError: none or several different things match, or a record is damaged.
    """
    if not text.strip():
        raise InputError("RUN: must be a directory, a name or the beginning of an id, received nothing")
    for base in (Path(text), home / "outputs" / text, home / "multirun" / text):
        if exists(base / RECORD):
            return [load(base)]
        if members := _members(base):
            return members
    return [_find_by_id(text, home)]


def _members(sweep: Path) -> list[Record]:
    """The runs of a sweep in the order of their numbers: 2 before 10."""
    directories = (path.parent for path in sweep.glob(f"*/{RECORD}"))
    return [load(directory) for directory in sorted(directories, key=lambda path: (len(path.name), path.name))]


def _find_by_id(text: str, home: Path) -> Record:
    """The one record under `home` whose MLflow run id or name starts with `text`."""
    known = list(_readable(home))
    found = [record for record in known if (record.mlflow.run_id or "").startswith(text)]
    found = found or [record for record in known if record.name.startswith(text)]
    if len(found) == 1 and len(text) >= SHORTEST_PREFIX:
        return found[0]
    if len(found) == 1:
        raise InputError(
            f"{text}: begins {found[0].name} today and may begin others tomorrow; "
            f"give {SHORTEST_PREFIX} characters or more"
        )
    if found:
        some = ", ".join(record.name for record in found[:5])
        raise InputError(
            f"{text}: matches {len(found)} runs ({some}{', …' if len(found) > 5 else ''}); give more of it"
        )
    raise InputError(
        f"{text}: no such run or sweep; looked for a run directory, a name in {home / 'outputs'} and "
        f"{home / 'multirun'}, and an MLflow run id; `python -m experiments.run` makes a run"
    )


def _readable(home: Path) -> Iterator[Record]:
    for directory in run_directories(home):
        with suppress(InputError):  # a damaged record has no id to match; naming it directly tells what is wrong
            yield load(directory)


def unmirrored(home: Path) -> list[Record]:
    """The runs that have ended and whose mirror in MLflow is not complete."""
    found = list[Record]()
    for directory in run_directories(home):
        with suppress(InputError):
            if not glance(directory).is_mirrored and (record := load(directory)).state != RunState.RUNNING:
                found.append(record)
    return [record for record in found if not record.mlflow.synced]


def newest_sweep(home: Path) -> list[Record]:
    """The runs of the sweep that ran last.

    Raises:
        InputError: there is no sweep.
    """
    written = {path.parent.parent: path.stat().st_mtime for path in _by_time(home.glob(f"multirun/*/*/{RECORD}"))}
    if not written:
        raise InputError(
            f"{home / 'multirun'}: holds no sweep; `python -m experiments.run -m optimizer=sgd,rmsprop,adam` makes one"
        )
    for sweep in written:  # its runs may be links to older ones, or written again when they are mirrored later
        with suppress(OSError):
            written[sweep] = (sweep / SWEEP_NOTE).stat().st_mtime
    return _members(max(written, key=lambda sweep: written[sweep]))


def _by_time(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime)
