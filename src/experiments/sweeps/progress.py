"""What the user sees while a sweep runs: a live table; one line per change of state where there is no terminal."""

from __future__ import annotations

import heapq
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import mean

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.config import as_text
from experiments.results import files
from experiments.screen import PlainFormatter, write, write_nowhere
from experiments.sweeps.directory import Place
from experiments.sweeps.jobs import Plan
from experiments.sweeps.status import JobState, Status, count_states, duration
from experiments.sweeps.tables import Row, draw

log = logging.getLogger(__name__)
REFRESH_PER_SECOND = 4
ROWS_BESIDE_JOBS = 6  # header, rule, what is not shown, the bar, what was printed last, the cursor
BAR_WIDTH = 30
STYLES = {logging.ERROR: "red", logging.WARNING: "yellow"}
RANK = {
    JobState.RUNNING: 0,
    JobState.QUEUED: 4,
    JobState.FAILED: 1,
    JobState.DIVERGED: 1,
    JobState.INTERRUPTED: 2,
    JobState.PAUSED: 2,
    JobState.DONE: 3,
    JobState.WAITING: 4,
}


class Progress:
    """The progress of a sweep on a screen or in a log."""

    def __init__(
        self,
        console: Console,
        plan: Plan,
        place: Place,
        statuses: Sequence[Status],
        on_change: Callable[[Status], None] | None = None,
    ) -> None:
        self._console, self._plan, self._place, self._statuses = console, plan, place, statuses
        self._on_change = on_change
        self._started = time.monotonic()
        self._widths = _widths(plan)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows it for the length of a block; what is logged meanwhile goes above the table."""
        with _logging_to(self._console):
            if not self._console.is_terminal:
                yield
                return
            live = Live(
                get_renderable=self._render,
                console=self._console,
                refresh_per_second=REFRESH_PER_SECOND,
                transient=True,
            )
            live.start()
            try:
                yield
            finally:
                with suppress(OSError):  # the terminal is gone
                    live.stop()

    def changed(self, status: Status) -> None:
        """Says that a job has changed its state; failures are said in full, with the path of the log."""
        status.changed = time.monotonic()
        if self._on_change:
            self._on_change(status)
        if status.state in (JobState.FAILED, JobState.DIVERGED):
            message = status.message.removeprefix("DivergedError: ").removeprefix("InputError: ")
            log.error("%s %s: %s; log: %s", status.job, status.state, message, self._log_of(status))
        elif status.row and status.state == JobState.RUNNING:
            log.info("%s resumed after epoch %d", status.job, status.row.epoch)
        elif not self._console.is_terminal:
            log.info("%s %s", status.job, self._outcome(status))

    def _outcome(self, status: Status) -> str:
        record = status.record
        if status.state == JobState.DONE and record:
            where = "done" if record.sweep == self._place.name else f"done by {record.name}"
            accuracy = record.metrics["validation/accuracy"]
            return f"{where}: validation accuracy {accuracy:.2%}, {record.epochs_run} epochs, {record.seconds:.0f} s"
        if status.state == JobState.RUNNING:
            return "started" if status.before == JobState.NEW else f"started again ({status.before} before)"
        return status.state

    def _log_of(self, status: Status) -> Path:
        written = self._place.directory_of(status.job) / files.LOG
        path = written if written.exists() else self._place.output_of(status.job)
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

    def seconds_left(self) -> float | None:
        """By the epochs of this sweep so far, every waiting job on the first free worker; None at the start."""
        statuses = self._relevant()
        running = [status for status in statuses if status.state == JobState.RUNNING]
        epochs = [status.row.seconds for status in running if status.row]
        done = [s.record for s in self._statuses if s.changed and s.state == JobState.DONE and s.record]
        epochs += [record.seconds / record.epochs_run for record in done if record.epochs_run]
        if not epochs:
            return None
        each = mean(epochs)
        ends = [_left(status, each) for status in running] + [0.0] * (self._plan.workers - len(running))
        heapq.heapify(ends)
        for status in statuses:
            if status.state in (JobState.WAITING, JobState.QUEUED):
                heapq.heapreplace(ends, ends[0] + _left(status, each))
        return max(ends)

    def _relevant(self) -> Sequence[Status]:
        """The jobs whose end is waited for."""
        return self._statuses

    def _render(self) -> Group:
        rows = self._most_telling()
        table = draw([_row(status) for status in rows], self._console, self._widths)
        hidden = [status.state for status in self._statuses if status not in rows]
        more = [Text(f"… {count_states(hidden)} more", style="dim")] if hidden else []
        return Group(table, *more, self._bar())

    def _bar(self) -> Table:
        ended = sum(status.ended for status in self._statuses)
        parts = [
            s.row.epoch / s.job.config.training.epochs for s in self._statuses if s.state == JobState.RUNNING and s.row
        ]
        left, passed = self.seconds_left(), duration(time.monotonic() - self._started)
        line = Table.grid(padding=(0, 1))
        line.add_row(
            ProgressBar(total=len(self._statuses), completed=ended + sum(parts), width=BAR_WIDTH),
            f"{ended}/{len(self._statuses)} jobs  {passed}"
            + (f"  about {duration(left)} left" if left is not None else ""),
        )
        return line

    def _most_telling(self) -> list[Status]:
        """As many jobs as there is room for: running ones, then failed, then those that ended last, then the next."""
        room = max(self._console.height - ROWS_BESIDE_JOBS, 3)
        chosen = sorted(self._statuses, key=lambda s: (RANK[s.state], -s.changed, s.job.number))[:room]
        return sorted(chosen, key=lambda status: status.job.number)


def _row(status: Status) -> Row:
    row, record = status.row, status.record
    epoch, accuracy = (row.epoch, row.validation_accuracy) if row else (0, 0.0)
    if record:
        epoch, accuracy = record.epochs_run, record.metrics.get("validation/accuracy", 0.0)
    left = status.seconds_left() if status.state == JobState.RUNNING else None
    return {
        "job": str(status.job.number),
        **{name: as_text(value) for name, value in status.job.varied.items()},
        "epoch": f"{epoch}/{status.job.config.training.epochs}" if epoch else "",
        "validation": f"{accuracy:.2%}" if epoch else "",
        "left": duration(left) if left else "",
        "state": "finishing" if left == 0 else status.state,
    }


def _widths(plan: Plan) -> dict[str, int]:
    """Of the widest value that a column can get: a table that changes its width would flicker."""
    varied = {name: max(len(as_text(job.varied.get(name))) for job in plan.jobs) for name in plan.varied}
    epoch = max(2 * len(str(job.config.training.epochs)) + 1 for job in plan.jobs)
    return varied | {"epoch": epoch, "left": len("00:00"), "state": len("finishing")}


def _left(status: Status, seconds_each: float) -> float:
    """Seconds until a job ends, by its own epochs or those of the others."""
    own = status.seconds_left()
    return status.job.config.training.epochs * seconds_each if own is None else own


@contextmanager
def _logging_to(console: Console) -> Iterator[None]:
    """Messages go through the console of the live table, which makes room for them."""
    package = logging.getLogger("experiments")
    handlers, package.handlers = package.handlers, [_ConsoleHandler(console)]
    try:
        yield
    finally:
        package.handlers = handlers


class _ConsoleHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self.setFormatter(PlainFormatter("%(message)s"))
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        try:
            if self._console.is_terminal:
                self._console.print(Text(text, style=STYLES.get(record.levelno, "")), soft_wrap=True)
            else:
                write(sys.stdout, f"{text}\n")
        except OSError:
            write_nowhere(1, 2)
