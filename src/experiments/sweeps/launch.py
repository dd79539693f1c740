"""A sweep from its plan to its end."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from experiments.console import log_prose, open_screen
from experiments.errors import InputError
from experiments.recording import Origin
from experiments.results import files, own_code, tracking
from experiments.runner import check_room
from experiments.screen import say, write_nowhere
from experiments.sweeps import failures, finalize, locks, preflight, tables
from experiments.sweeps.archive import Archive
from experiments.sweeps.choice import choose, present
from experiments.sweeps.composition import Compose, Composer
from experiments.sweeps.directory import LOCKS, find_place, freeze, locked, seems_begun
from experiments.sweeps.executor import Executor, LastingExecutor, Run
from experiments.sweeps.executors import processes
from experiments.sweeps.executors.choice import make_executor, share_again, waits
from experiments.sweeps.executors.devices import use_gpus
from experiments.sweeps.followups import Followups
from experiments.sweeps.jobs import Job, Plan
from experiments.sweeps.planning import make_plan
from experiments.sweeps.presenter import Presenter
from experiments.sweeps.progress import Progress
from experiments.sweeps.reuse import look_at, read_rows, tidy
from experiments.sweeps.scheduler import Scheduler
from experiments.sweeps.searches import final_overrides, require_finalists
from experiments.sweeps.status import JobState, Status
from experiments.sweeps.strategy import Step, Strategy, seen_of
from experiments.sweeps.sweep import Sweep, hydra_files
from experiments.training.checkpoint import Checkpoints
from experiments.training.interruption import SIGNALS, STOPPED, StopRequest, exit_now, listening

log = logging.getLogger(__name__)
MANY = 1000  # jobs, whose planning takes about as long as TensorFlow's import
LONGEST_SEARCH = 80  # characters of a search's name in that of its final: a title has 100 at most
GRACEFUL_STOPS = 2  # number of graceful Ctrl-C; the next one exits at once


class JobOutcome(NamedTuple):
    """How one job of a sweep ended; `directory` is there only where a run was begun."""

    job: Job
    state: JobState
    directory: Path
    message: str


class SweepOutcome(NamedTuple):
    """How a sweep ended; `jobs` is empty where it was only shown."""

    exit_code: int
    jobs: Sequence[JobOutcome] = ()


def launch(
    overrides: Sequence[Sequence[str]],
    compose: Compose,
    hydra: Mapping[str, Any],
    on_change: Callable[[Status], None] | None = None,
    ranges: Mapping[str, str] | None = None,
) -> SweepOutcome:
    """Plans and carries out a sweep, and after a search the race of its finalists.

    Args:
        overrides: of each job.
        compose: Hydra's composition of a job's overrides.
        hydra: Hydra's own config of this command, kept in the `.hydra/` of each run.
        on_change: is told of every job that starts or ends.
        ranges: of a search: what it chooses, by key.

    Raises:
        InputError: a mistake in any job, or a final of other values than its search's; nothing of it was started.
    """
    with processes.none_left():  # the final's workers are of the server, and so of the code, that the search began with
        return _launch(overrides, compose, hydra, on_change, ranges)


def _launch(
    overrides: Sequence[Sequence[str]],
    compose: Compose,
    hydra: Mapping[str, Any],
    on_change: Callable[[Status], None] | None,
    ranges: Mapping[str, str] | None = None,
    search: Sweep | None = None,
) -> SweepOutcome:
    """The same; of a `search`, its final."""
    home = files.home()
    if len(overrides) >= MANY and not seems_begun(overrides[0], home):
        processes.start_server()  # it imports TensorFlow on another core, meanwhile
    plan = make_plan(overrides, Composer(compose), ranges)
    if search:
        require_finalists(search.plan, plan)
        plan = replace(plan, execution=plan.execution.model_copy(update={"title": _name_final(search, plan)}))
    plan = use_gpus(plan)
    strategy = choose(plan)
    if plan.execution.dry_run:
        return SweepOutcome(_show(_prepare(plan, home), strategy))
    with locked(plan, home):
        sweep = _prepare(plan, home)
        code = _carry_out(sweep, strategy, hydra, on_change)
        locks.clear(home / "multirun" / LOCKS, {s.job.run_key for s in sweep.statuses if s.state == JobState.DONE})
    directory_of = sweep.place.directory_of
    outcome = SweepOutcome(code, [JobOutcome(s.job, s.state, directory_of(s.job), s.message) for s in sweep.statuses])
    final = final_overrides(plan, strategy, sweep.statuses) if code != STOPPED else []
    if not final:
        return outcome
    raced = _launch(final, compose, hydra, on_change, search=sweep)
    return SweepOutcome(max(code, raced.exit_code), [*outcome.jobs, *raced.jobs])


def _name_final(search: Sweep, plan: Plan) -> str:
    """The same for the same finalists, so that their race is found again."""
    return f"{search.place.name[:LONGEST_SEARCH]}-final-{plan.key[:4]}"


def _prepare(plan: Plan, home: Path) -> Sweep:
    place = find_place(plan, home)
    if place.threads:
        plan = share_again(plan, place.threads)
    reuse = plan.execution.reuse
    archive = None if reuse == "never" else Archive(home, any_code=reuse == "loose", own=place.path)
    statuses = look_at(plan, place, archive)
    if plan.ranges:
        read_rows(statuses, place)
    return Sweep(plan, place, statuses, archive, home, open_screen())


def _show(sweep: Sweep, strategy: Strategy) -> int:
    presenter = present(strategy, sweep)
    todo = _todo(sweep, strategy)
    if todo:
        processes.start_server()
        with closing(make_executor(sweep)) as executor:
            executor.open()
        preflight.check(sweep.plan, todo)
    first, *others = presenter.announce()
    say(f"{sweep.place.name}: {first}; {presenter.forecast()}", *others)
    sweep.console.print("", tables.draw(tables.planned(sweep.plan, sweep.statuses), sweep.console), sep="\n")
    return 0


def _todo(sweep: Sweep, strategy: Strategy) -> list[Status]:
    """The jobs that are left; none where the strategy wants none of them."""
    wanted = any(True for _ in strategy.look([seen_of(status) for status in sweep.statuses]))
    return sweep.todo if wanted else []


def _carry_out(
    sweep: Sweep, strategy: Strategy, hydra: Mapping[str, Any], on_change: Callable[[Status], None] | None
) -> int:
    plan, place, presenter = sweep.plan, sweep.place, present(strategy, sweep)
    todo = _todo(sweep, strategy)
    first, *others = presenter.announce()
    for text in (f"{place.name}: {first}", *others):
        log_prose(log, text, sweep.console)
    if not place.is_new:
        presenter.begin()
    if not todo and finalize.is_closed(sweep):
        return finalize.tell(sweep, presenter, finalize.answer_again(sweep), asked=0)
    with closing(make_executor(sweep)) as executor:
        if todo:
            _get_ready(sweep, todo, executor)
        elif isinstance(executor, LastingExecutor):
            with suppress(InputError):  # it has nothing to run, at most something to withdraw
                executor.open()
        freeze(plan, place)
        tidy(sweep.statuses, place)
        failures.gather_leftovers(plan.jobs, place)
        if place.is_new:
            presenter.begin()
        sweep = replace(sweep, parent=finalize.open_parent(sweep))
        run_of = partial(_run_of, sweep, hydra)
        return _work(sweep, strategy, executor, presenter, run_of, presenter.progress(on_change))


def _get_ready(sweep: Sweep, todo: Sequence[Status], executor: Executor) -> None:
    """Whatever can be found to be wrong is found here, before anything of the sweep is written."""
    check_room(sweep.home)
    processes.start_server()
    with _waiting(sweep):
        executor.open()
        preflight.check(sweep.plan, todo)
        _prepare_store(sweep)  # not before: a mistake leaves nothing behind


def _work(
    sweep: Sweep,
    strategy: Strategy,
    executor: Executor,
    presenter: Presenter,
    prepare: Callable[[Status, Step], Run],
    progress: Progress,
) -> int:
    """Runs what is left, and ends the sweep; returns the exit code."""
    scheduler = Scheduler(
        sweep,
        strategy,
        executor,
        prepare=prepare,
        progress=progress,
        followups=Followups(sweep, sweep.parent),
        decide=presenter.update,
        wait=waits(sweep.plan),
    )
    # Where runs go on without the planner, a closed terminal ends it and no more than it.
    ignored = isinstance(executor, LastingExecutor) or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    hangup = () if ignored else (signal.SIGHUP,)
    ask = partial(_ask, scheduler, sweep.console)
    with listening(StopRequest(on_first=ask, on_second=ask), signals=(*SIGNALS, *hangup)):
        try:
            with progress.shown():
                scheduler.work()
        finally:
            executor.close()
        if scheduler.left:
            return finalize.leave(sweep, scheduler.left, asked=scheduler.asked)
        code = finalize.finish(sweep, presenter, asked=scheduler.asked)
        return STOPPED if scheduler.asked and sweep.plan.ranges else code  # no final after a search that was stopped


def _run_of(sweep: Sweep, hydra: Mapping[str, Any], status: Status, step: Step) -> Run:
    """What a worker needs to know of a step; notes the epochs that the job goes on after."""
    job, directory = status.job, sweep.place.directory_of(status.job)
    status.rows = Checkpoints(directory / files.CHECKPOINT).rows() if directory.exists() else []
    origin = Origin(sweep.place.name, job.number, job.varied, None, sweep.parent, hydra_files(job, hydra))
    code = own_code.code_digest(job.config.model_dump())
    return Run(job.config, directory, origin, sweep.lock_of(job), code, step.until_epoch)


def _waiting(sweep: Sweep) -> AbstractContextManager[Any]:
    """Tells somebody at a screen why nothing happens for some seconds."""
    text = "starting TensorFlow and building the networks, before anything is trained"
    return sweep.console.status(text) if sweep.console.is_terminal else nullcontext()


def _ask(scheduler: Scheduler, console: Console) -> None:
    if console.is_terminal and not os.isatty(1):  # it was closed, and must not be written to any more
        write_nowhere(1, 2)
    scheduler.ask()
    if scheduler.asked > GRACEFUL_STOPS:
        exit_now()


def _prepare_store(sweep: Sweep) -> None:
    if sweep.tracking:
        with suppress(Exception):  # told when the sweep's own run is opened
            tracking.prepare_store(sweep.home, sweep.tracking.experiment)
