"""What the user sees while a search runs: a live table, the furthest first, and where each decision stands."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import mean

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.sweeps.progress import BAR_WIDTH, ROWS_BESIDE_JOBS, Progress
from experiments.sweeps.search_table import SearchTable, progress_of
from experiments.sweeps.searches import planned_epochs
from experiments.sweeps.status import JobState, Status, duration
from experiments.sweeps.strategies.halving import Halving
from experiments.sweeps.sweep import Sweep
from experiments.sweeps.tables import Row, draw


class SearchProgress(Progress):
    """The progress of a search.

    Args:
        sweep: which is searched.
        halving: the strategy.
        table: its table.
        on_change: is told of every job that starts or ends.
    """

    def __init__(
        self, sweep: Sweep, halving: Halving, table: SearchTable, *, on_change: Callable[[Status], None] | None
    ) -> None:
        super().__init__(sweep.console, sweep.plan, sweep.place, sweep.statuses, on_change)
        self._halving, self._table = halving, table
        self._least = planned_epochs(halving).least

    def _outcome(self, status: Status) -> str:
        if status.state == JobState.PAUSED and status.row:
            return f"paused after epoch {status.row.epoch}: validation accuracy {status.row.validation_accuracy:.2%}"
        return super()._outcome(status)

    def seconds_left(self) -> float | None:
        """By the epochs that this sweep has seen, of those that the decisions still need; None at the start."""
        seconds = [row.seconds for status in self._statuses if status.changed for row in status.rows]
        running = sum(status.state == JobState.RUNNING for status in self._statuses)
        return self._epochs_left() * mean(seconds) / max(1, running) if seconds else None

    def _epochs_left(self) -> int:
        return max(0, self._least - self._epochs_done())

    def _epochs_done(self) -> int:
        wanted = self._halving.needed_epochs(self._table.rungs())
        return sum(min(len(status.rows), epochs) for status, epochs in zip(self._statuses, wanted, strict=True))

    def _render(self) -> Group:
        rows, room = self._table.rows(), max(self._console.height - ROWS_BESIDE_JOBS, 3)
        shown = _most_telling(rows, room)
        hidden = [Text(f"… {len(rows) - len(shown)} more", style="dim")] if len(rows) > len(shown) else []
        return Group(draw(shown, self._console, self._widths), *hidden, self._bar())

    def _bar(self) -> Table:
        done, left = self._epochs_done(), self.seconds_left()
        passed = duration(time.monotonic() - self._started)
        line = Table.grid(padding=(0, 1))
        line.add_row(
            ProgressBar(total=max(1, self._least), completed=done, width=BAR_WIDTH),
            f"{progress_of(self._table.rungs())}; {done}/{self._least} epochs  {passed}"
            + (f"  about {duration(left)} left" if left else ""),
        )
        return line


def _most_telling(rows: list[Row], room: int) -> list[Row]:
    """What runs, then the furthest and best, in the order of the table."""
    chosen = sorted(range(len(rows)), key=lambda place: (not rows[place]["state"].startswith("to epoch"), place))[:room]
    return [rows[place] for place in sorted(chosen)]
