"""A sweep from its plan to its end."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.results import files, tracking
from experiments.runner import check_room
from experiments.sweeps import finalize, preflight, tables
from experiments.sweeps.composition import Compose, Composer
from experiments.sweeps.directory import find_place, freeze, locked
from experiments.sweeps.executors import processes
from experiments.sweeps.executors.cores import with_threads
from experiments.sweeps.jobs import Plan
from experiments.sweeps.planning import make_plan
from experiments.sweeps.progress import Progress, write_nowhere
from experiments.sweeps.reuse import Archive, look_at, tidy
from experiments.sweeps.runtime_estimate import estimate_seconds
from experiments.sweeps.scheduler import Crew
from experiments.sweeps.status import duration
from experiments.sweeps.sweep import Sweep
from experiments.training.interruption import SIGNALS, StopRequest, exit_now, listening

log = logging.getLogger(__name__)
PATIENCE = 2  # Ctrl-C: at the end of the epoch, now, and then without a word
WIDE = 250  # columns where nobody looks at a screen: nothing is cut off


def conduct(overrides: Sequence[Sequence[str]], compose: Compose, hydra: Mapping[str, Any]) -> int:
    """Plans and carries out a sweep; returns the exit code.

    Args:
        overrides: of each job.
        compose: Hydra's composition of a job's overrides.
        hydra: Hydra's own config of this command, kept in the `.hydra/` of each run.

    Raises:
        InputError: a mistake in any job; nothing was started and nothing is left.
    """
    home = files.home()
    plan = make_plan(overrides, Composer(compose))
    with processes.none_left():
        if plan.execution.dry_run:
            return _show(_prepare(plan, home))
        with locked(plan, home):
            return _carry_out(_prepare(plan, home), hydra)


def _prepare(plan: Plan, home: Path) -> Sweep:
    place = find_place(plan, home)
    if place.threads:
        plan = with_threads(plan, place.threads)
    reuse = plan.execution.reuse
    archive = None if reuse == "never" else Archive(home, any_code=reuse == "loose")
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=WIDE)
    return Sweep(plan, place, look_at(plan, place, archive), archive, home, console)


def _show(sweep: Sweep) -> int:
    todo = sweep.todo
    if todo:
        processes.start_server()
        preflight.check(sweep.plan, todo)
    seconds = estimate_seconds(sweep.plan, todo, sweep.home)
    time = f"about {duration(seconds)}" if seconds is not None else "no earlier run tells how long it takes"
    print(f"{sweep.place.name}: {tables.describe(sweep.plan, sweep.statuses)}; {time}")  # noqa: T201 - it was asked for
    sweep.console.print("", tables.draw(tables.planned(sweep.plan, sweep.statuses), sweep.console), sep="\n")
    return 0


def _carry_out(sweep: Sweep, hydra: Mapping[str, Any]) -> int:
    plan, place, todo = sweep.plan, sweep.place, sweep.todo
    log.info("%s: %s", place.name, tables.describe(plan, sweep.statuses))
    if not todo and finalize.is_closed(sweep):
        return finalize.tell(sweep, [f"report: {path}" for path in place.path.glob("report.html")], asked=0)
    if todo:
        check_room(sweep.home)
        processes.start_server()
        with _waiting(sweep):
            _prepare_store(sweep)  # while the server imports TensorFlow: before that it starts no worker
            preflight.check(plan, todo)
    freeze(plan, place)
    tidy(sweep.statuses, place)
    parent = finalize.open_parent(sweep)
    progress = Progress(sweep.console, plan, place, sweep.statuses)
    crew = Crew(sweep, progress, parent=parent, hydra=hydra)
    hangup = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)
    ask = partial(_ask, crew, sweep.console)
    with listening(StopRequest(on_first=ask, on_second=ask), signals=(*SIGNALS, *hangup)):
        with progress.shown():
            crew.work()
        return finalize.finish(sweep, parent, asked=crew.asked)


def _waiting(sweep: Sweep) -> AbstractContextManager[Any]:
    """Tells somebody at a screen why nothing happens for some seconds."""
    text = "starting TensorFlow and building the networks, before anything is trained"
    return sweep.console.status(text) if sweep.console.is_terminal else nullcontext()


def _ask(crew: Crew, console: Console) -> None:
    if console.is_terminal and not os.isatty(1):  # it was closed, and must not be written to any more
        write_nowhere()
    crew.ask()
    if crew.asked > PATIENCE:
        exit_now()


def _prepare_store(sweep: Sweep) -> None:
    if sweep.tracking:
        with suppress(Exception):  # told when the sweep's own run is opened
            tracking.prepare_store(sweep.home, sweep.tracking.experiment)
