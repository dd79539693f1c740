"""How a sweep ends: written down, compared, mirrored and told."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.bounded import RECORD_BYTES, read_json
from experiments.console import log_prose
from experiments.errors import InputError
from experiments.results import files, tracking_sweep
from experiments.screen import say
from experiments.sweeps import tables
from experiments.sweeps.executor import Ended
from experiments.sweeps.executors import processes
from experiments.sweeps.executors.choice import unmet
from experiments.sweeps.followups import Compared, catch_up, compare, compare_runs
from experiments.sweeps.jobs import count
from experiments.sweeps.presenter import Presenter
from experiments.sweeps.status import JobState, count_states
from experiments.sweeps.sweep import Sweep
from experiments.upgrades import FORMAT, bring_up, newest

log = logging.getLogger(__name__)
SUMMARY = "summary.csv"
COUNTED = (JobState.DONE, JobState.FAILED, JobState.DIVERGED, JobState.INTERRUPTED)  # as metrics in MLflow


def open_parent(sweep: Sweep) -> str | None:
    """The sweep's own MLflow run, the one that it had before if that is still there; None where there is none."""
    earlier = None
    with suppress(ValueError, TypeError, KeyError, InputError):
        earlier = _read_note(sweep)["mlflow_run_id"]
    plan = sweep.plan
    place = sweep.place
    parent = tracking_sweep.open_sweep(
        place.path, plan.jobs[0].config, sweep.home, earlier, plan.varied, is_new=place.is_new
    )
    _note(sweep, parent or earlier, closed=False)
    return parent


def is_closed(sweep: Sweep) -> bool:
    """Whether nothing is left to do and to tell of this sweep, here and in MLflow."""
    with suppress(ValueError, TypeError, KeyError, InputError):
        return not sweep.place.damage and bool(_read_note(sweep)["closed"])
    return False


def _read_note(sweep: Sweep) -> dict[str, Any]:
    return bring_up("sweep", dict(read_json(sweep.place.path / files.SWEEP_NOTE, RECORD_BYTES)))


def _note(sweep: Sweep, parent: str | None, *, closed: bool) -> None:
    with suppress(OSError):
        note = {FORMAT: newest("sweep"), "mlflow_run_id": parent, "closed": closed}
        files.write_json(sweep.place.path / files.SWEEP_NOTE, note)


def finish(sweep: Sweep, presenter: Presenter, *, asked: int) -> int:
    """Writes down, compares, mirrors and tells how the sweep ended; returns the exit code.

    Args:
        sweep: all its jobs have ended, or wait for another time.
        presenter: tells of it.
        asked: how often the user asked to stop.
    """
    place, statuses, parent = sweep.place, sweep.statuses, sweep.parent
    for status in statuses:
        if status.state == JobState.WAITING and status.before in (JobState.INTERRUPTED, JobState.PAUSED):
            status.state = status.before  # it waited to go on, and did not get there
    try:
        files.write_atomically(place.path / SUMMARY, tables.summary(sweep.plan, statuses))
    except OSError as error:
        log.warning("%s: cannot be written (%s)", place.path / SUMMARY, error.strerror)
    answer = _compare(sweep) if asked <= 1 else []
    counts = Counter(status.state for status in statuses)
    missing = presenter.missing()
    is_mirrored = not sweep.tracking
    if parent:
        if asked <= 1:
            catch_up(sweep, parent)
        failed = counts[JobState.FAILED] or counts[JobState.DIVERGED]
        ending = "FAILED" if failed else "KILLED" if missing else "FINISHED"
        jobs = {str(state): counts[state] for state in COUNTED}
        reused = [(s.record, s.job.varied) for s in statuses if s.record and s.record.sweep != place.name]
        is_mirrored = tracking_sweep.close_sweep(parent, place.path, sweep.home, jobs, status=ending, reused=reused)
    if is_mirrored and not (counts[JobState.FAILED] or missing or asked > 1):
        _note(sweep, parent, closed=True)
    return tell(sweep, presenter, answer, asked=asked)


def leave(sweep: Sweep, left: Sequence[str], *, asked: int) -> int:
    """Tells what goes on without the planner, the next useful commands and, last, the directory; returns the exit code.

    Args:
        sweep: some of its jobs have not ended.
        left: lines of the executor.
        asked: how often the user asked to stop.
    """
    log.info("%s: %s", sweep.place.name, count_states(status.state for status in sweep.statuses))
    for line in left:
        log.info(line)
    log.info("next: the same command follows them to the end; python -m experiments.status %s", sweep.place.name)
    say(sweep.place.path)  # scripts read the last line
    waiting = any(status.state == JobState.WAITING for status in sweep.statuses)
    return 130 if asked else 1 if waiting else 0


def answer_again(sweep: Sweep) -> list[str]:
    """The answer of a sweep that has been closed, computed anew from its runs in this process."""
    try:
        return _told(compare_runs(_compared(sweep), sweep.place.path))
    except (InputError, OSError) as error:
        log.warning("the report cannot be written: %s", error)
        return []


def _compared(sweep: Sweep) -> list[Path]:
    """The directories of the runs that a comparison is about: what is done, then what is told apart."""
    apart = [record.directory for record in sweep.records() if record.state != "finished"]
    return [*sweep.directories(JobState.DONE), *apart]


def _compare(sweep: Sweep) -> list[str]:
    """Writes the report on what is done so far, as `compare` does, and returns its first sentences."""
    if not sweep.directories(JobState.DONE):
        return []
    try:
        compared = processes.ask(compare, _compared(sweep), sweep.place.path)
        if isinstance(compared, Ended):
            raise InputError(compared.message)
    except InputError as error:
        log.warning("the report cannot be written: %s", error)
        return []
    return _told(compared)


def _told(compared: Compared) -> list[str]:
    return [*compared.sentences, f"report: {compared.files[0]}"]


def tell(sweep: Sweep, presenter: Presenter, answer: Sequence[str], *, asked: int) -> int:
    """Prints the table, `answer`, the next useful command and, last, the directory; returns the exit code.

    Args:
        sweep: as it ended.
        presenter: tells of it.
        answer: lines about what was compared.
        asked: how often the user asked to stop.
    """
    place, statuses = sweep.place, sweep.statuses
    counts = Counter(status.state for status in statuses)
    failed = counts[JobState.FAILED] + counts[JobState.DIVERGED]
    missing = presenter.missing()
    sweep.console.print("", tables.draw(presenter.table(), sweep.console), "", sep="\n")
    for text in answer:
        log_prose(log, text, sweep.console)
    for text in presenter.closing():
        log_prose(log, text, sweep.console)
    if line := unmet(sweep):
        log.warning("%s", line)
    unmirrored = sum(not record.mlflow.synced for record in sweep.records())
    if unmirrored and sweep.tracking:
        log.warning("%s not in MLflow yet: python -m experiments.sync %s", count(unmirrored, "run"), place.name)
    if failed or missing:
        states = count_states(status.state for status in statuses if status.state != JobState.DONE)
        again = "; the same command again does what is missing" * bool(counts[JobState.FAILED] or missing)
        log.warning("%s%s", states, again)
    if counts[JobState.DONE]:
        log.info("next: python -m experiments.compare %s", place.name)
    say(place.path)  # scripts read the last line
    return 130 if asked and missing else 1 if failed or missing else 0
