"""What the user sees while a race runs: a live table by configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.comparison.sequential import FIRST_ROUND
from experiments.sweeps.progress import ROWS_BESIDE_JOBS, Progress
from experiments.sweeps.status import JobState, Status, duration
from experiments.sweeps.strategies.race import Race, Standing
from experiments.sweeps.sweep import Sweep
from experiments.sweeps.tables import Row, draw

BAR_WIDTH = 24
# Of columns, characters: a table that changes its width would flicker.
WIDTHS = {
    "configuration": len("configuration"),
    "validation": len("99.21% ± 0.05"),
    "behind the leader": len("0.02 (-0.08 to 0.12)"),
    "state": len("seed 10: epoch 5/8"),
}


class RaceProgress(Progress):
    """The progress of a race.

    Args:
        sweep: which is raced.
        race: the strategy.
        stand: tells where the race stands now.
        rows: the rows of the table now.
        on_change: is told of every job that starts or ends.
    """

    def __init__(
        self,
        sweep: Sweep,
        race: Race,
        *,
        stand: Callable[[], Standing],
        rows: Callable[[], Sequence[Row]],
        on_change: Callable[[Status], None] | None,
    ) -> None:
        super().__init__(sweep.console, sweep.plan, sweep.place, sweep.statuses, on_change)
        self._race, self._stand, self._rows = race, stand, rows

    def _render(self) -> Group:
        rows, room = self._rows(), max(self._console.height - ROWS_BESIDE_JOBS, 3)
        hidden = [Text(f"… {len(rows) - room} more", style="dim")] if len(rows) > room else []
        return Group(draw(rows[:room], self._console, WIDTHS), *hidden, self._bar())

    def _bar(self) -> Table:
        standing = self._stand()
        jobs = self._of_round(standing)
        ended = sum(status.ended for status in jobs)
        parts = [s.row.epoch / s.job.config.training.epochs for s in jobs if s.state == JobState.RUNNING and s.row]
        left, passed = self.seconds_left(), duration(time.monotonic() - self._started)
        name = f"first {FIRST_ROUND} seeds" if standing.round <= FIRST_ROUND else f"round {standing.round}"
        line = Table.grid(padding=(0, 1))
        line.add_row(
            ProgressBar(total=max(1, len(jobs)), completed=ended + sum(parts), width=BAR_WIDTH),
            f"{name}: {ended}/{len(jobs)} jobs  {passed}"
            + (f"  decision in about {duration(left)}" if left is not None else ""),
        )
        return line

    def _relevant(self) -> Sequence[Status]:
        return self._of_round(self._stand())

    def _of_round(self, standing: Standing) -> list[Status]:
        """The jobs that the next decision rests on and that no decision has rested on before."""
        indices = range(FIRST_ROUND) if standing.round <= FIRST_ROUND else (standing.round - 1,)
        return [self._statuses[self._race.jobs[c][index]] for index in indices for c in standing.left]
