"""Where a run stands."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """The states of a record."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    DIVERGED = "diverged"  # the loss of an epoch is not finite: a result, the same config leads to it again
    INTERRUPTED = "interrupted"
    PAUSED = "paused"  # by a sweep, which goes on with it later
