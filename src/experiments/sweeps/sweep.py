"""One sweep with all that is known of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from experiments.errors import InputError
from experiments.ingredients.execution import MLflowTracking
from experiments.results import records
from experiments.results.records import Record
from experiments.sweeps.archive import Archive
from experiments.sweeps.directory import LOCKS, Place
from experiments.sweeps.jobs import Job, Plan
from experiments.sweeps.status import JobState, Status


@dataclass(frozen=True)
class Sweep:
    """A plan, where it lies, and where its jobs stand.

    Attributes:
        archive: the finished runs that may be reused; None where nothing is to be reused.
        parent: its MLflow run, if it has one.
    """

    plan: Plan
    place: Place
    statuses: list[Status]
    archive: Archive | None
    home: Path
    console: Console
    parent: str | None = None

    @property
    def todo(self) -> list[Status]:
        """The jobs that are left."""
        return [status for status in self.statuses if status.state == JobState.WAITING]

    @property
    def tracking(self) -> MLflowTracking | None:
        """How it is mirrored in MLflow, if it is."""
        tracking = self.plan.jobs[0].config.tracking
        return tracking if isinstance(tracking, MLflowTracking) else None

    def lock_of(self, job: Job) -> Path:
        """Held while the key of a job is trained, by whichever sweep."""
        return self.home / "multirun" / LOCKS / job.run_key

    def directories(self, state: JobState) -> list[Path]:
        """The run directories of the jobs in a state."""
        return [self.place.directory_of(status.job) for status in self.statuses if status.state == state]

    def records(self) -> Iterator[Record]:
        """The records of the runs that were made here, links left out."""
        for status in self.statuses:
            directory = self.place.directory_of(status.job)
            if status.record and status.record.sweep == self.place.name:
                yield status.record
            elif not status.record and not directory.is_symlink():
                with suppress(InputError):
                    yield records.load(directory)


def hydra_files(job: Job, hydra: Mapping[str, Any]) -> dict[str, str]:
    """Hydra's own three files, as it would write them for this job alone."""
    overrides = list(job.overrides)
    given = {**hydra, "overrides": {**hydra["overrides"], "task": overrides}}
    dump = partial(yaml.dump, Dumper=yaml.CSafeDumper, sort_keys=False)
    return {
        "config.yaml": dump(job.composed.model_dump(mode="json")),
        "hydra.yaml": dump({"hydra": given}),
        "overrides.yaml": dump(overrides),
    }
