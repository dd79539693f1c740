"""A sweep from its plan to its end."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.errors import InputError
from experiments.ingredients.execution import MLflowTracking
from experiments.results import records, tracking
from experiments.runner import check_room
from experiments.sweeps import tables, tasks, workers
from experiments.sweeps.architectures import Builders
from experiments.sweeps.archive import Archive, look_at, tidy
from experiments.sweeps.composition import Compose, Composer
from experiments.sweeps.crew import Crew
from experiments.sweeps.directory import Place, find_place, freeze, locked
from experiments.sweeps.estimate import estimate_seconds
from experiments.sweeps.plan import Plan, count, make_plan, with_threads
from experiments.sweeps.progress import Progress, write_nowhere
from experiments.sweeps.status import Status, count_states, duration
from experiments.training.interruption import SIGNALS, StopRequest, listening

log = logging.getLogger(__name__)
SUMMARY, SWEEP = "summary.csv", "sweep.json"
MOST_SENTENCES = 2  # of the comparison's answer; the report has all
WIDE = 250  # columns where nobody looks at a screen: nothing is cut off


@dataclass(frozen=True)
class _Sweep:
    plan: Plan
    place: Place
    statuses: list[Status]
    archive: Archive | None
    home: Path
    console: Console

    @property
    def todo(self) -> list[Status]:
        return [status for status in self.statuses if status.state == "waiting"]

    @property
    def is_tracked(self) -> bool:
        return isinstance(self.plan.jobs[0].config.tracking, MLflowTracking)


def conduct(overrides: Sequence[Sequence[str]], compose: Compose, hydra: Mapping[str, Any]) -> int:
    """Plans and carries out a sweep; returns the exit code.

    Args:
        overrides: of each job.
        compose: Hydra's composition of a job's overrides.
        hydra: Hydra's own config of this command, kept in the `.hydra/` of each run.

    Raises:
        InputError: a mistake in any job; nothing was started and nothing is left.
    """
    home = records.home()
    plan = make_plan(overrides, Composer(compose))
    with workers.none_left():
        if plan.execution.dry_run:
            return _show(_prepare(plan, home))
        with locked(plan, home):
            return _carry_out(_prepare(plan, home), hydra)


def _prepare(plan: Plan, home: Path) -> _Sweep:
    place = find_place(plan, home)
    if place.threads:
        plan = with_threads(plan, place.threads)
    reuse = plan.execution.reuse
    archive = None if reuse == "never" else Archive(home, any_code=reuse == "loose")
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=WIDE)
    return _Sweep(plan, place, look_at(plan, place, archive), archive, home, console)


def _show(sweep: _Sweep) -> int:
    todo = sweep.todo
    if todo:
        workers.start_server()
        Builders(sweep.plan, todo).check()
    seconds = estimate_seconds(sweep.plan, todo, sweep.home)
    time = f"about {duration(seconds)}" if seconds is not None else "no earlier run tells how long it takes"
    print(f"{sweep.place.name}: {tables.describe(sweep.plan, sweep.statuses)}; {time}")  # noqa: T201 - it was asked for
    sweep.console.print("", tables.draw(tables.planned(sweep.plan, sweep.statuses), sweep.console), sep="\n")
    return 0


def _carry_out(sweep: _Sweep, hydra: Mapping[str, Any]) -> int:
    plan, place, todo = sweep.plan, sweep.place, sweep.todo
    log.info("%s: %s", place.name, tables.describe(plan, sweep.statuses))
    if not todo and _is_closed(place):
        return _tell(sweep, [f"report: {path}" for path in place.path.glob("report.html")], asked=False)
    if todo:
        check_room(sweep.home)
        workers.start_server()
        with _waiting(sweep):
            builders = Builders(plan, todo)
            _prepare_store(sweep)  # while the server imports TensorFlow
            builders.check()
    freeze(plan, place)
    tidy(sweep.statuses, place)
    parent = _open_parent(sweep)
    progress = Progress(sweep.console, plan, place, sweep.statuses)
    crew = Crew(
        plan, place, sweep.statuses, sweep.home, progress=progress, archive=sweep.archive, parent=parent, hydra=hydra
    )
    hangup = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)
    ask = partial(_ask, crew, sweep.console)
    with listening(StopRequest(on_first=ask, on_second=ask), signals=(*SIGNALS, *hangup)), progress.shown():
        crew.work()
    return _finish(sweep, parent, asked=crew.asked > 0)


def _waiting(sweep: _Sweep) -> AbstractContextManager[Any]:
    """Tells somebody at a screen why nothing happens for some seconds."""
    text = "starting TensorFlow and building the networks, before anything is trained"
    return sweep.console.status(text) if sweep.console.is_terminal else nullcontext()


def _ask(crew: Crew, console: Console) -> None:
    if console.is_terminal and not os.isatty(1):  # it was closed, and must not be written to any more
        write_nowhere()
    crew.ask()


def _prepare_store(sweep: _Sweep) -> None:
    config = sweep.plan.jobs[0].config.tracking
    if isinstance(config, MLflowTracking):
        with suppress(Exception):  # told when the sweep's own run is opened
            tracking.prepare_store(sweep.home, config.experiment)


def _open_parent(sweep: _Sweep) -> str | None:
    earlier = None
    with suppress(OSError, ValueError, TypeError, KeyError):
        earlier = json.loads((sweep.place.path / SWEEP).read_bytes())["mlflow_run_id"]
    plan, place = sweep.plan, sweep.place
    parent = tracking.open_sweep(place.path, plan.jobs[0].config, sweep.home, earlier, plan.varied)
    _note(place, parent, closed=False)
    return parent


def _note(place: Place, parent: str | None, *, closed: bool) -> None:
    with suppress(OSError):
        records.write_json(place.path / SWEEP, {"mlflow_run_id": parent, "closed": closed})


def _is_closed(place: Place) -> bool:
    """Whether the end of this sweep was told already, here and in MLflow."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        return not place.damage and bool(json.loads((place.path / SWEEP).read_bytes())["closed"])
    return False


def _finish(sweep: _Sweep, parent: str | None, *, asked: bool) -> int:
    """Writes down, compares, mirrors and tells how the sweep ended."""
    place, statuses = sweep.place, sweep.statuses
    try:
        records.write_atomically(place.path / SUMMARY, tables.summary(sweep.plan, statuses))
    except OSError as error:
        log.warning("%s: cannot be written (%s)", place.path / SUMMARY, error.strerror)
    answer = _compare(sweep)
    counts = Counter(status.state for status in statuses)
    if parent:
        _catch_up(sweep, parent)
        ending = "FAILED" if counts["failed"] or counts["diverged"] else "KILLED" if counts["waiting"] else "FINISHED"
        jobs = {state: counts[state] for state in ("done", "failed", "diverged", "interrupted")}
        reused = [(s.record, s.job.varied) for s in statuses if s.record and s.record.sweep != place.name]
        tracking.close_sweep(parent, place.path, sweep.home, jobs, status=ending, reused=reused)
    _note(place, parent, closed=parent is not None or not sweep.is_tracked)
    return _tell(sweep, answer, asked=asked)


def _catch_up(sweep: _Sweep, parent: str) -> None:
    """Mirrors runs of this sweep that could not be mirrored in their time; they say so where it fails again."""
    for status in sweep.statuses:
        if status.record and status.record.sweep == sweep.place.name and not status.record.mlflow.synced:
            directory = sweep.place.directory_of(status.job)
            with suppress(InputError):
                workers.ask(tasks.mirror, directory, sweep.home, parent)
                status.record = records.load(directory)
            if not status.record.mlflow.synced:
                return


def _compare(sweep: _Sweep) -> Sequence[str]:
    """Writes the report on what is done so far, and returns its first sentences."""
    runs = [sweep.place.directory_of(status.job) for status in sweep.statuses if status.state == "done"]
    if not runs:
        return []
    try:
        compared = workers.ask(tasks.compare, runs, sweep.place.path)
    except InputError as error:
        log.warning("the report cannot be written: %s", error)
        return []
    return [*compared.sentences[:MOST_SENTENCES], f"report: {compared.files[0]}"]


def _tell(sweep: _Sweep, answer: Sequence[str], *, asked: bool) -> int:
    """Prints how the sweep ended, the next useful command and, last, its directory; returns the exit code."""
    place, statuses = sweep.place, sweep.statuses
    counts = Counter(status.state for status in statuses)
    failed, missing = counts["failed"] + counts["diverged"], counts["interrupted"] + counts["waiting"]
    sweep.console.print("", tables.draw(tables.ended(sweep.plan, statuses), sweep.console), "", sep="\n")
    for sentence in answer:
        log.info(sentence)
    unmirrored = sum(not status.record.mlflow.synced for status in statuses if status.record)
    if unmirrored and sweep.is_tracked:
        log.warning("%s not in MLflow yet: python -m experiments.sync %s", count(unmirrored, "run"), place.name)
    if failed or missing:
        states = count_states(status.state for status in statuses if status.state != "done")
        log.warning("%s; the same command again does what is missing", states)
    if counts["done"]:
        log.info("next: python -m experiments.compare %s", place.name)
    print(place.path)  # noqa: T201 - scripts read the last line
    return 130 if asked and missing else 1 if failed or missing else 0
