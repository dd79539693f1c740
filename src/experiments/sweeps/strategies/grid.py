"""Every job, each to its end, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from experiments.sweeps.status import JobState
from experiments.sweeps.strategy import Seen, Step

LEFT = (JobState.WAITING, JobState.PAUSED)


class Grid:
    """Runs whatever has not ended."""

    def look(self, seen: Sequence[Seen]) -> Iterator[Step]:
        """One step for each job that is left."""
        return (Step(number) for number, job in enumerate(seen) if job.state in LEFT)

    def dropped(self, seen: Sequence[Seen]) -> Sequence[int]:
        """None: all are wanted."""
        del seen
        return ()
