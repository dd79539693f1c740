"""Config-driven experiments for Keras: ask in YAML, trust every bit, decide with statistics.

config = experiments.compose("optimizer=rmsprop", "training.epochs=3")
record = experiments.run_experiment(config)
experiments.load(record.directory).metrics["test/accuracy"]
experiments.compare("a-sweep").frame()
"""

from __future__ import annotations

import os
import sys

# `python -m` puts the current folder before everything else: inside a run, whose files may be somebody else's, modules
# of theirs would be imported instead of Python's own, and plugins of theirs by Hydra.
if os.path.lexists(os.path.join(sys.path[0], "record.json")):
    del sys.path[0]

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.comparison.exports import Answer
    from experiments.config import RunConfig
    from experiments.results.records import Record

__all__ = ["compare", "compose", "load", "run_experiment"]


def compose(*overrides: str) -> RunConfig:
    """The config that `python -m experiments.run <overrides>` would use; raises `InputError` on any mistake."""
    from experiments import config

    return config.compose(*overrides)


def run_experiment(config: RunConfig, directory: Path | None = None, **options: Any) -> Record:
    """Runs a config in this process; see `experiments.runner.run_experiment`."""
    from experiments import runner

    return runner.run_experiment(config, directory, **options)


def compare(*names: str) -> Answer:
    """The comparison of runs and sweeps, of the newest sweep where none is named; raises `InputError`."""
    from experiments.comparison import exports

    return exports.answer(*names)


def load(run: Path | str) -> Record:
    """The record of a run: a directory, a name, `sweep/number`, or an MLflow run id; raises `InputError` otherwise.

    Raises:
        InputError: no run or several match, `run` is a sweep of several runs, or the record is damaged.
    """
    from experiments.errors import InputError
    from experiments.results import files, lookup

    found = lookup.find(str(run), files.home())
    if len(found) != 1:
        raise InputError(f"{run}: is a sweep of {len(found)} runs; name one of them, as in {run}/0")
    return found[0]
