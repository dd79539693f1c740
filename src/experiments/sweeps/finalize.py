"""How a sweep ends: written down, compared, mirrored and told."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from experiments.errors import InputError
from experiments.results import files, records, tracking
from experiments.sweeps import tables, worker
from experiments.sweeps.executors import processes
from experiments.sweeps.jobs import count
from experiments.sweeps.status import count_states
from experiments.sweeps.sweep import Sweep
from experiments.sweeps.worker import Ended

log = logging.getLogger(__name__)
SUMMARY = "summary.csv"
MOST_SENTENCES = 2  # of the comparison's answer; the report has all


def open_parent(sweep: Sweep) -> str | None:
    """The sweep's own MLflow run, the one that it had before if that is still there; None where there is none."""
    earlier = None
    with suppress(OSError, ValueError, TypeError, KeyError):
        earlier = json.loads((sweep.place.path / files.SWEEP_NOTE).read_bytes())["mlflow_run_id"]
    plan = sweep.plan
    parent = tracking.open_sweep(sweep.place.path, plan.jobs[0].config, sweep.home, earlier, plan.varied)
    _note(sweep, parent or earlier, closed=False)
    return parent


def is_closed(sweep: Sweep) -> bool:
    """Whether nothing is left to do and to tell of this sweep, here and in MLflow."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        note = json.loads((sweep.place.path / files.SWEEP_NOTE).read_bytes())
        return not sweep.place.damage and bool(note["closed"])
    return False


def _note(sweep: Sweep, parent: str | None, *, closed: bool) -> None:
    with suppress(OSError):
        files.write_json(sweep.place.path / files.SWEEP_NOTE, {"mlflow_run_id": parent, "closed": closed})


def finish(sweep: Sweep, parent: str | None, *, asked: int) -> int:
    """Writes down, compares, mirrors and tells how the sweep ended; returns the exit code.

    Args:
        sweep: all its jobs have ended, or wait for another time.
        parent: its MLflow run.
        asked: how often the user asked to stop.
    """
    place, statuses = sweep.place, sweep.statuses
    try:
        files.write_atomically(place.path / SUMMARY, tables.summary(sweep.plan, statuses))
    except OSError as error:
        log.warning("%s: cannot be written (%s)", place.path / SUMMARY, error.strerror)
    answer = _compare(sweep) if asked <= 1 else []
    counts = Counter(status.state for status in statuses)
    missing = counts["interrupted"] + counts["waiting"]
    is_mirrored = not sweep.tracking
    if parent:
        if asked <= 1:
            _catch_up(sweep, parent)
        ending = "FAILED" if counts["failed"] or counts["diverged"] else "KILLED" if missing else "FINISHED"
        jobs = {state: counts[state] for state in ("done", "failed", "diverged", "interrupted")}
        reused = [(s.record, s.job.varied) for s in statuses if s.record and s.record.sweep != place.name]
        is_mirrored = tracking.close_sweep(parent, place.path, sweep.home, jobs, status=ending, reused=reused)
    if is_mirrored and not (counts["failed"] or missing or asked > 1):
        _note(sweep, parent, closed=True)
    return tell(sweep, answer, asked=asked)


def _catch_up(sweep: Sweep, parent: str) -> None:
    """Mirrors runs that could not be mirrored in their time, until one fails again."""
    for record in sweep.records():
        if record.mlflow.synced:
            continue
        with suppress(InputError):
            processes.ask(worker.mirror, record.directory, sweep.home, parent)
            record.mlflow = records.load(record.directory).mlflow
        if not record.mlflow.synced:
            return


def _compare(sweep: Sweep) -> Sequence[str]:
    """Writes the report on what is done so far, as `compare` does, and returns its first sentences."""
    done = [sweep.place.directory_of(status.job) for status in sweep.statuses if status.state == "done"]
    if not done:
        return []
    apart = [record.directory for record in sweep.records() if record.state != "finished"]
    try:
        compared = processes.ask(worker.compare, [*done, *apart], sweep.place.path)
        if isinstance(compared, Ended):
            raise InputError(compared.message)
    except InputError as error:
        log.warning("the report cannot be written: %s", error)
        return []
    return [*compared.sentences[:MOST_SENTENCES], f"report: {compared.files[0]}"]


def tell(sweep: Sweep, answer: Sequence[str], *, asked: int) -> int:
    """Prints the table, `answer`, the next useful command and, last, the directory; returns the exit code."""
    place, statuses = sweep.place, sweep.statuses
    counts = Counter(status.state for status in statuses)
    failed, missing = counts["failed"] + counts["diverged"], counts["interrupted"] + counts["waiting"]
    sweep.console.print("", tables.draw(tables.ended(sweep.plan, statuses), sweep.console), "", sep="\n")
    for sentence in answer:
        log.info(sentence)
    unmirrored = sum(not record.mlflow.synced for record in sweep.records())
    if unmirrored and sweep.tracking:
        log.warning("%s not in MLflow yet: python -m experiments.sync %s", count(unmirrored, "run"), place.name)
    if failed or missing:
        states = count_states(status.state for status in statuses if status.state != "done")
        again = "; the same command again does what is missing" * bool(counts["failed"] or missing)
        log.warning("%s%s", states, again)
    if counts["done"]:
        log.info("next: python -m experiments.compare %s", place.name)
    print(place.path)  # noqa: T201 - scripts read the last line
    return 130 if asked and missing else 1 if failed or missing else 0
