"""The table of a race: a row for each configuration, the leader first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import mean, stdev

from experiments.comparison.decisions import Round, Setting
from experiments.comparison.races import Gap, Scale, gaps
from experiments.sweeps.status import JobState, Status
from experiments.sweeps.strategies.race import POINTS, Race, Standing
from experiments.sweeps.tables import Row


class RaceTable:
    """Where every configuration of a race stands.

    Args:
        race: the strategy.
        setting: the same with its labels and seeds.
        statuses: of all jobs, which change while the race runs.
    """

    def __init__(self, race: Race, setting: Setting, statuses: Sequence[Status]) -> None:
        self._race, self._setting, self._statuses = race, setting, statuses
        self._scale = Scale(race.metric)

    def rows(self, standing: Standing, rounds: Sequence[Round]) -> list[Row]:
        """The leader, those that are in by their means, those that are out, the last first."""
        known = {c: gap for made in rounds for c, gap in gaps(made).items()}
        fell = {c: made.round for made in rounds for c in made.out}
        last = dict(zip(rounds[-1].entered, rounds[-1].means, strict=True)) if rounds else {}
        order = sorted(
            range(len(self._race.jobs)),
            key=lambda c: (c in standing.broken, -fell.get(c, len(self._statuses)), -last.get(c, 0.0), c),
        )
        return [self._row(c, standing, known, fell) for c in order]

    def _row(self, c: int, standing: Standing, known: dict[int, Gap], fell: dict[int, int]) -> Row:
        group = [self._statuses[number] for number in self._race.jobs[c]]
        values = [self._value(status) for status in group if status.record and status.state == JobState.DONE]
        behind = self._behind(known[c]) if c in known else ""
        return {
            "configuration": self._setting.configurations[c].label,
            "seeds": str(len(values)),
            self._setting.metric.partition("/")[0]: self._spread(values),
            "behind the leader": "leads" if c == standing.leader else behind,
            "state": self._state(c, group, standing, fell),
        }

    def _value(self, status: Status) -> float:
        value = status.record.metrics[self._race.metric] if status.record else 0.0
        return POINTS * value if self._scale.of_accuracy else -POINTS * value

    def _spread(self, values: Sequence[float]) -> str:
        if not values:
            return ""
        return self._scale.mean(mean(values)) + (f" ± {self._scale.gap(stdev(values))}" if len(values) > 1 else "")

    def _behind(self, gap: Gap) -> str:
        value, low, high = (self._scale.gap(points) for points in (gap.value, gap.low, gap.high))
        return f"{value} ({low} to {high})"

    def _state(self, c: int, group: Sequence[Status], standing: Standing, fell: Collection[int]) -> str:
        if c in standing.broken:
            index = standing.broken[c]
            return f"out: seed {self._setting.seeds[index]} {group[index].state}"
        if c in fell:
            return "out: worse"
        running = [
            f"seed {seed}: {_epoch(status)}"
            for seed, status in zip(self._setting.seeds, group, strict=True)
            if status.state == JobState.RUNNING
        ]
        return ", ".join(running)


def _epoch(status: Status) -> str:
    epochs = status.job.config.training.epochs
    if not status.row:
        return "started"
    return f"epoch {status.row.epoch}/{epochs}" if status.row.epoch < epochs else "finishing"
