"""What the user sees of a sweep: the plan, a live table (one line per change of state where there is no terminal), the end."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.results.records import EpochRow, Record
from experiments.sweeps.plan import Job, Plan

log = logging.getLogger(__name__)
State = Literal["waiting", "running", "done", "failed", "diverged", "interrupted"]
COLOURS = {"done": "green", "failed": "red", "diverged": "red", "interrupted": "yellow", "running": "cyan"}
REFRESH_PER_SECOND = 4
ROWS_BESIDE_THE_TABLE = 8  # of the terminal: header, bar, and what was printed before


@dataclass
class Status:
    """Where one job stands."""

    job: Job
    state: State = "waiting"
    before: str = "new"
    row: EpochRow | None = None
    record: Record | None = None
    parameters: int | None = None
    message: str = ""
    started: float | None = None

    def seconds_left(self) -> float | None:
        """Of a running job, by the length of its last epoch."""
        if self.row is None:
            return None
        return (self.job.config.training.epochs - self.row.epoch) * self.row.seconds


def describe_plan(plan: Plan, statuses: Sequence[Status]) -> str:
    """`12 jobs: 7 done, 1 interrupted, 4 new; 4 workers × 1 thread`."""
    counts = Counter(status.before for status in statuses)
    states = ", ".join(f"{counts[state]} {state}" for state in sorted(counts))
    jobs = "1 job" if len(statuses) == 1 else f"{len(statuses)} jobs"
    threads = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    workers = "1 worker" if plan.workers == 1 else f"{plan.workers} workers"
    return f"{jobs}: {states}; {workers} × {threads}"


def plan_table(plan: Plan, statuses: Sequence[Status], estimate: float | None) -> Table:
    """What would be run, repetitions folded, with the time that earlier runs let expect (seconds)."""
    varied = [name for name in plan.varied if name != "seed"]
    time_needed = f"about {_duration(estimate)}" if estimate is not None else "no earlier run tells the time"
    table = Table(title=f"{plan.name}: {describe_plan(plan, statuses)}; {time_needed}", title_justify="left")
    for name in ("jobs", *varied, "seeds", "state", "parameters", "key"):
        table.add_column(name, justify="right" if name == "parameters" else "left")
    for group in folded(statuses):
        first = group[0]
        states = Counter(status.before for status in group)
        table.add_row(
            _numbers([status.job.number for status in group]),
            *(str(first.job.varied[name]) for name in varied),
            _numbers([status.job.config.seed for status in group]),
            ", ".join(f"{count} {state}" if len(group) > 1 else state for state, count in states.items()),
            f"{first.parameters:,}" if first.parameters else "",
            first.job.run_key[:12],
        )
    return table


def final_table(plan: Plan, statuses: Sequence[Status]) -> Table:
    """How it ended, repetitions folded into their means, best validation accuracy first."""
    varied = [name for name in plan.varied if name != "seed"]
    table = Table(title=f"{plan.name}, by validation accuracy", title_justify="left")
    for name in ("jobs", *varied, "n", "validation", "test", "gap", "epochs", "seconds", "state"):
        table.add_column(name, justify="left" if name in ("jobs", *varied, "state") else "right")
    for group in sorted(folded(statuses), key=_mean_validation, reverse=True):
        finished = [status.record for status in group if status.state == "done" and status.record]
        states = Counter(status.state for status in group)
        table.add_row(
            _numbers([status.job.number for status in group]),
            *(str(group[0].job.varied[name]) for name in varied),
            str(len(finished)),
            *(_mean(finished, name) for name in ("validation/accuracy", "test/accuracy", "generalisation_gap")),
            _range([record.epochs_run for record in finished]),
            f"{mean(record.seconds for record in finished):.0f}" if finished else "",
            ", ".join(
                f"[{COLOURS.get(state, 'default')}]{state if len(states) == 1 else f'{n} {state}'}[/]"
                for state, n in states.items()
            ),
        )
    return table


def folded(statuses: Sequence[Status]) -> list[list[Status]]:
    """Jobs that differ only in their seed stand together."""
    groups: dict[str, list[Status]] = {}
    for status in statuses:
        groups.setdefault(status.job.config_key, []).append(status)
    return list(groups.values())


def _mean_validation(group: Sequence[Status]) -> float:
    values = [s.record.metrics["validation/accuracy"] for s in group if s.state == "done" and s.record]
    return mean(values) if values else -1.0


def _mean(finished: Sequence[Record], name: str) -> str:
    return f"{mean(record.metrics[name] for record in finished):.2%}" if finished else ""


def _range(values: Sequence[int]) -> str:
    if not values:
        return ""
    return str(values[0]) if min(values) == max(values) else f"{min(values)}-{max(values)}"


def _numbers(numbers: Sequence[int]) -> str:
    """`[0, 1, 2, 5]` → `0-2, 5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """The live table of a sweep, or lines."""

    def __init__(self, console: Console, plan: Plan, statuses: Sequence[Status]) -> None:
        self._console, self._plan, self._statuses = console, plan, statuses
        self._started = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows it for the length of a block."""
        if not self._console.is_terminal:
            yield
            return
        with Live(
            get_renderable=self._render, console=self._console, refresh_per_second=REFRESH_PER_SECOND, transient=True
        ):
            yield

    def changed(self, status: Status) -> None:
        """Says that a job has changed its state; failures are said in full, with the path of the log."""
        if status.state in ("failed", "diverged"):
            log.error("%s %s: %s\n  log: %s", status.job, status.state, status.message, self._log_of(status))
        elif not self._console.is_terminal:
            log.info("%s %s", status.job, _outcome(status))

    def _log_of(self, status: Status) -> Path:
        return self._plan.directory_of(status.job) / "run.log"

    def seconds_left(self) -> float | None:
        """By the jobs that have ended here, or by the running ones' epochs; None before anything is known."""
        lengths = [s.record.seconds for s in self._statuses if s.state == "done" and s.record and s.before != "done"]
        left = [s.seconds_left() for s in self._statuses if s.state == "running"]
        known = [seconds for seconds in left if seconds is not None]
        running = [s for s in self._statuses if s.state == "running" and s.row]
        lengths += [s.row.seconds * s.job.config.training.epochs for s in running if s.row]
        if not lengths:
            return None
        waiting = sum(status.state == "waiting" for status in self._statuses)
        return max([*known, 0.0]) + waiting * mean(lengths) / self._plan.workers

    def _render(self) -> Group:
        ended = sum(status.state not in ("waiting", "running") for status in self._statuses)
        epochs = sum(
            s.row.epoch / s.job.config.training.epochs for s in self._statuses if s.state == "running" and s.row
        )
        bar = ProgressBar(total=len(self._statuses), completed=ended + epochs, width=40)
        left = self.seconds_left()
        text = f"{ended}/{len(self._statuses)} jobs  {_duration(time.monotonic() - self._started)}"
        return Group(self._table(), bar, Text(text + (f"  about {_duration(left)} left" if left is not None else "")))

    def _table(self) -> Table:
        table = Table()
        for name in ("job", *self._plan.varied, "epoch", "validation", "left", "state"):
            table.add_column(name)
        for status in self._most_telling():
            row, epochs = status.row, status.job.config.training.epochs
            left = status.seconds_left() if status.state == "running" else None
            table.add_row(
                str(status.job.number),
                *(str(value) for value in status.job.varied.values()),
                f"{row.epoch}/{epochs}" if row else "",
                f"{row.validation_accuracy:.2%}" if row else "",
                _duration(left) if left is not None else "",
                f"[{COLOURS.get(status.state, 'default')}]{status.state}[/]",
            )
        return table

    def _most_telling(self) -> list[Status]:
        """As many jobs as the terminal has room for: running ones first, then failed, ended and waiting ones."""
        room = max(self._console.height - ROWS_BESIDE_THE_TABLE, 3)
        order = {"running": 0, "failed": 1, "diverged": 1, "interrupted": 2, "done": 3, "waiting": 4}
        chosen = sorted(self._statuses, key=lambda status: order[status.state])[:room]
        return sorted(chosen, key=lambda status: status.job.number)


def _outcome(status: Status) -> str:
    record = status.record
    if status.state == "done" and record:
        accuracy = record.metrics["validation/accuracy"]
        return f"done: validation accuracy {accuracy:.2%}, {record.epochs_run} epochs, {record.seconds:.0f} s"
    if status.state == "running" and status.before != "new":
        return f"started again ({status.before} before)"
    return {"running": "started"}.get(status.state, status.state)
