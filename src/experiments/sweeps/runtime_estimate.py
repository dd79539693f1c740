"""How long jobs will take, by earlier runs of the same network on the same data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from experiments.errors import InputError
from experiments.results import lookup, records
from experiments.results.states import RunState
from experiments.sweeps.jobs import Plan
from experiments.sweeps.status import Status

LOOKED_AT = 200  # newest runs: more would tell little more, and take seconds to read


def estimate_seconds(plan: Plan, todo: Sequence[Status], home: Path) -> float | None:
    """Wall time of the jobs that are left; None where a job has no earlier run like it.

    Args:
        plan: says how many workers share the time.
        todo: the jobs that are left.
        home: folder whose newest 200 runs are looked at.
    """
    known = _seconds_per_epoch(home) if todo else {}
    total = 0.0
    for status in todo:
        alike = known.get(_network(status.job.config.model_dump(mode="json")))
        if not alike:
            return None
        total += median(alike) * status.job.config.training.epochs
    return total / plan.workers


def _seconds_per_epoch(home: Path) -> dict[str, list[float]]:
    """Of the newest finished runs, by what decides the length of an epoch."""
    known: dict[str, list[float]] = {}
    directories = sorted(lookup.run_directories(home), key=lambda path: path.stat().st_mtime, reverse=True)
    for directory in islice(directories, LOOKED_AT):
        with suppress(InputError, OSError, KeyError, TypeError, AttributeError, yaml.YAMLError):
            record = records.load(directory)
            if record.state == RunState.FINISHED and record.epochs_run:
                known.setdefault(_network(record.config), []).append(record.seconds / record.epochs_run)
    return known


def _network(config: Mapping[str, Any]) -> str:
    dataset = {key: value for key, value in config["dataset"].items() if key != "path"}
    return json.dumps([dataset, config["model"], config["regularization"], config["training"]["threads"]])
