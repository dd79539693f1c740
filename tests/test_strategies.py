"""Which steps a strategy asks for: pure functions of what is known of the jobs."""

from __future__ import annotations

import pytest

from experiments.sweeps.status import JobState
from experiments.sweeps.strategies.grid import Grid
from experiments.sweeps.strategy import Seen, Step


def test_grid_runs_what_is_left_to_its_end_in_order() -> None:
    states = (JobState.DONE, JobState.WAITING, JobState.DIVERGED, JobState.PAUSED, JobState.WAITING)
    assert Grid().look([Seen(state) for state in states]) == [Step(1), Step(3), Step(4)]


@pytest.mark.parametrize("state", sorted({*JobState} - {JobState.WAITING, JobState.PAUSED}))
def test_grid_asks_for_nothing_where_all_have_ended(state: JobState) -> None:
    assert Grid().look([Seen(state)] * 3) == []
