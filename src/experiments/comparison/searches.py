"""What a search has tried, from its plan and its runs: how far each went and how good it was there."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from experiments.bounded import PLAN_BYTES, read_json
from experiments.comparison.settings import PLAN, Settings, of_sweep
from experiments.errors import InputError
from experiments.results.files import RECORD
from experiments.results.records import Record, load
from experiments.results.states import RunState

SEARCH = "search"  # in a sweep's plan: the ranges of what it chooses, by short name
LOGARITHMIC = "tag(log,"  # how a logarithmic range is written


class Trial(NamedTuple):
    """One configuration of a search.

    Attributes:
        job: its number.
        settings: what the search has chosen for it; a key that does not apply is missing.
        accuracies: validation accuracy after each epoch that it has run.
        stands: whether it was paused, or ended, where it is.
        record: its run.
    """

    job: int
    settings: Settings
    accuracies: tuple[float, ...]
    stands: bool = True
    record: Record | None = None

    @property
    def score(self) -> float:
        """Validation accuracy after its last epoch."""
        return self.accuracies[-1]


class Best(NamedTuple):
    """The best accuracy that was known after so many epochs of all configurations together."""

    epochs: int
    accuracy: float


@dataclass(frozen=True)
class SearchResult:
    """A search as far as it has come.

    Attributes:
        ranges: what it chooses, by short name, in Hydra's grammar.
        trials: those that have run an epoch or more, by number.
    """

    ranges: Mapping[str, str]
    trials: tuple[Trial, ...]

    @cached_property
    def stages(self) -> tuple[int, ...]:
        """The numbers of epochs after which configurations stand, ascending: where they were paused, or ended."""
        return tuple(sorted({len(t.accuracies) for t in self.trials if t.stands} or {self._longest}))

    @property
    def _longest(self) -> int:
        return max(len(trial.accuracies) for trial in self.trials)

    def stage_of(self, trial: Trial) -> int:
        """How many times a configuration was found good enough to go on, from 0."""
        return max(0, bisect_right(self.stages, len(trial.accuracies)) - 1)

    @property
    def epochs(self) -> int:
        """All that were trained."""
        return sum(len(trial.accuracies) for trial in self.trials)

    def is_logarithmic(self, name: str) -> bool:
        """Whether equal steps of a key are equal factors."""
        return LOGARITHMIC in self.ranges.get(name, "")

    def course(self) -> list[Best]:
        """The best so far, where it changes: stage by stage, in each by the number of the job.

        Which job ran when depends on the workers; this order depends on nothing but the results.
        """
        found, spent, best = list[Best](), 0, -math.inf
        for accuracies in self._segments():
            spent += len(accuracies)
            known = [value for value in accuracies if math.isfinite(value)]
            if known and known[-1] > best:
                best = known[-1]
                found.append(Best(spent, best))
        return found

    def ends(self) -> list[int]:
        """The epochs of all together at which each stage ends."""
        before = (0, *self.stages)
        spent, found = 0, list[int]()
        for start, stop in zip(before, self.stages, strict=False):
            spent += sum(
                min(len(trial.accuracies), stop) - start for trial in self.trials if len(trial.accuracies) > start
            )
            found.append(spent)
        return found

    def _segments(self) -> Iterator[tuple[float, ...]]:
        for start, stop in zip((0, *self.stages), self.stages, strict=False):
            for trial in self.trials:
                if len(trial.accuracies) > start:
                    yield trial.accuracies[start:stop]


def find(records: Sequence[Record]) -> SearchResult | None:
    """The search that runs belong to; None where they belong to none, or are a part of those that are finished."""
    folders = {record.directory.parent for record in records}
    if len(folders) != 1 or not (ranges := _ranges((folder := folders.pop()) / PLAN)):
        return None
    given = {record.directory.name for record in records}
    if any(_has_finished(path.parent) for path in folder.glob(f"*/{RECORD}") if path.parent.name not in given):
        return None
    plans: dict[Path, Mapping[str, Settings]] = {}
    trials = [_trial(record, of_sweep(record, plans)) for record in records if record.directory.name.isdecimal()]
    known = [trial for trial in trials if trial.accuracies]
    return SearchResult(ranges, tuple(sorted(known, key=lambda trial: trial.job))) if known else None


def _has_finished(directory: Path) -> bool:
    try:
        return load(directory).state == RunState.FINISHED
    except InputError:
        return False


def _ranges(path: Path) -> dict[str, str]:
    try:
        plan = read_json(path, PLAN_BYTES)
        return {str(name): str(text) for name, text in dict(plan.get(SEARCH) or {}).items()}
    except (OSError, InputError, ValueError, AttributeError, TypeError):
        return {}


def _trial(record: Record, settings: Settings) -> Trial:
    try:
        accuracies = tuple(row.validation_accuracy for row in record.rows)
    except InputError:  # damaged: it is told elsewhere
        accuracies = ()
    applying = {name: value for name, value in settings.items() if value is not None}
    stands = record.state in (RunState.FINISHED, RunState.PAUSED)
    return Trial(int(record.directory.name), applying, accuracies, stands, record)
