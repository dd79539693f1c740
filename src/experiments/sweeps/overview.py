"""Where the jobs of a sweep stand, read from its `plan.json` and its run directories alone, on any host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from experiments.bounded import PLAN_BYTES, exists, read_json
from experiments.config import as_text
from experiments.errors import InputError
from experiments.results import files, records
from experiments.results.states import RunState
from experiments.sweeps.directory import PLAN
from experiments.sweeps.reuse import STATES
from experiments.sweeps.status import JobState
from experiments.sweeps.tables import Row
from experiments.upgrades import FormatError, bring_up

TELLING = (
    JobState.RUNNING,
    JobState.INTERRUPTED,
    JobState.PAUSED,
    JobState.FAILED,
    JobState.DIVERGED,
    JobState.DAMAGED,
)


class JobView(NamedTuple):
    """What the files tell of one job.

    Attributes:
        number: of the job, from 0.
        varied: what differs between the jobs, by short names.
        state: `waiting` where it has no record.
        epoch: the last finished one, 0 before that.
        epochs: of a whole run.
        validation_accuracy: after that epoch, or of the finished run; None before the first.
        host: where it runs or ran last.
        message: what went wrong.
        directory: its run directory, which need not be there.
    """

    number: int
    varied: Mapping[str, Any]
    state: JobState
    epoch: int
    epochs: int
    validation_accuracy: float | None
    host: str
    message: str
    directory: Path


def find_sweep(name: str | None, home: Path) -> Path:
    """The directory of a sweep by its path or its name; the one that was begun or went on last where none is given.

    Raises:
        InputError: there is none.
    """
    if name is None:
        plans = {path.parent: _changed(path) for path in home.glob(f"multirun/*/{PLAN}")}
        if plans:
            return max(plans, key=lambda path: plans[path])
        raise InputError(f"{home / 'multirun'}: holds no sweep; `python -m experiments.run -m seed=0,1,2` makes one")
    found = next((path for path in (Path(name), home / "multirun" / name) if name and exists(path / PLAN)), None)
    if found is None:
        raise InputError(f"{name}: no such sweep; looked for its directory, and for a name in {home / 'multirun'}")
    return found


def _changed(plan: Path) -> float:
    note = plan.with_name(files.SWEEP_NOTE)
    return (note if note.exists() else plan).stat().st_mtime


def look(sweep: Path) -> list[JobView]:
    """All jobs, by their numbers.

    Raises:
        InputError: the plan cannot be read.
    """
    try:
        jobs = bring_up("plan", dict(read_json(sweep / PLAN, PLAN_BYTES)))["jobs"]
        planned = [(int(job["number"]), dict(job["varied"]), int(job["config"]["training"]["epochs"])) for job in jobs]
    except FormatError as error:
        raise InputError(f"{sweep / PLAN}: {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{sweep / PLAN}: is damaged ({type(error).__name__}: {error})") from None
    return [_look(sweep / str(number), number, varied, epochs) for number, varied, epochs in planned]


def _look(directory: Path, number: int, varied: Mapping[str, Any], epochs: int) -> JobView:
    view = JobView(number, varied, JobState.WAITING, 0, epochs, None, "", "", directory)
    if not exists(directory / files.RECORD):
        return view
    try:
        record = records.load(directory)
    except InputError as error:
        return view._replace(state=JobState.DAMAGED, message=str(error))
    return view._replace(
        state=STATES[record.state],
        epoch=record.epochs_run,
        validation_accuracy=_accuracy(record),
        host=record.process.host,
        message=f"{record.error.type}: {record.error.message}" if record.error else "",
    )


def _accuracy(record: records.Record) -> float | None:
    if record.state == RunState.FINISHED:
        return record.metrics.get("validation/accuracy")
    with suppress(InputError, OSError, IndexError):
        return record.rows[-1].validation_accuracy
    return None


def telling(views: Sequence[JobView], most: int) -> list[JobView]:
    """At most so many jobs, in order: those that run or have stopped before their end, then the others."""
    chosen = sorted(views, key=lambda view: (view.state not in TELLING, view.number))[:most]
    return sorted(chosen, key=lambda view: view.number)


def row(view: JobView) -> Row:
    """Of a table."""
    accuracy = view.validation_accuracy
    return {
        "job": str(view.number),
        **{name: as_text(value) for name, value in view.varied.items()},
        "epoch": f"{view.epoch}/{view.epochs}" if view.epoch else "",
        "validation": "" if accuracy is None else f"{accuracy:.2%}",
        "host": view.host,
        "state": view.state,
    }


def values(view: JobView) -> dict[str, Any]:
    """As JSON holds them."""
    return view._asdict() | {"state": str(view.state), "directory": str(view.directory), "varied": dict(view.varied)}
