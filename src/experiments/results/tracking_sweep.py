"""The MLflow run of a sweep, which its runs have as their parent: created, found again, ended."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config import RunConfig
from experiments.ingredients.execution import MLflowTracking
from experiments.results import captions, files
from experiments.results.records import Record
from experiments.results.tracking import connect, find_by_id, find_run, prepare_store
from experiments.results.tracking_mirror import first_line, once

log = logging.getLogger(__name__)


def open_sweep(
    directory: Path, config: RunConfig, home: Path, run_id: str | None, varied: Sequence[str], *, is_new: bool = False
) -> str | None:
    """Creates the parent run of a sweep, or opens it again, and a view of its runs; None where there is no store.

    To be called once, before the workers write. `varied` are the short names of what differs between the runs.

    Args:
        directory: of the sweep; its name becomes the name of the run.
        config: of any job, as all have the same tracking; where that is not MLflow, nothing is done.
        home: folder of MLflow's store; not used where `$MLFLOW_TRACKING_URI` is set.
        run_id: of the parent run that an earlier start made; a new one is made for None, or where the store lacks it.
        varied: become columns of the view; may be empty.
        is_new: the sweep was not begun before; otherwise the parent run is looked for where `run_id` is None.
    """
    if not isinstance(config.tracking, MLflowTracking):
        return None
    try:
        experiment = prepare_store(home, config.tracking.experiment)
        client = connect(home)
        if run_id is None and not is_new and (unnoted := find_run(client, experiment, "sweep_directory", directory)):
            run_id = unnoted.info.run_id
        if not (run_id and find_by_id(client, run_id)):  # another store, or deleted there: it gets a new run
            tags = {"kind": "sweep", "sweep_directory": str(directory)}
            with once():
                run_id = client.create_run(experiment, run_name=directory.name, tags=tags).info.run_id
        client.update_run(run_id, status="RUNNING")
        client.set_tag(run_id, "sweep_directory", str(directory))
        _offer_view(client, experiment, directory.name, varied)
        return str(run_id)
    except Exception as error:
        log.warning("MLflow cannot be reached (%s); the sweep runs without it", first_line(error))
        return None


def _offer_view(client: Any, experiment: str, sweep: str, varied: Sequence[str]) -> None:
    client.set_experiment_tag(experiment, *captions.sweep_view(sweep, varied))
    for key in captions.sweep_views(client.get_experiment(experiment).tags)[captions.MOST_VIEWS :]:
        client.delete_experiment_tag(experiment, key)


def close_sweep(
    run_id: str,
    directory: Path,
    home: Path,
    counts: Mapping[str, int],
    *,
    status: str,
    reused: Sequence[tuple[Record, Mapping[str, Any]]] = (),
) -> bool:
    """Mirrors a sweep's own files and ends its parent run; returns whether all of it arrived.

    Args:
        run_id: of the parent run.
        directory: of the sweep.
        home: see `files.home`.
        counts: of jobs by state.
        status: MLflow's.
        reused: runs that other sweeps have made, with what varies in this one: its table shows them too.
    """
    from mlflow.entities import Metric, RunTag

    at = int(files.now().timestamp() * 1000)
    try:
        client = connect(home)
        known = client.get_run(run_id).data.metrics  # of a planner that was killed at its end
        told = {f"jobs/{state}": float(count) for state, count in counts.items()}
        metrics = [Metric(key, value, at, 0) for key, value in told.items() if known.get(key) != value]
        client.log_batch(run_id, metrics=metrics, tags=[RunTag(captions.NOTE, captions.sweep_note(directory))])
        for record, varied in reused:
            _adopt(client, record, directory.name, varied)
        for path in sorted(path for path in directory.iterdir() if path.is_file() and path.name[0] != "."):
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id, status=status)
    except Exception as error:
        log.warning(
            "the sweep's own MLflow run is incomplete (%s); its runs are not touched by that", first_line(error)
        )
        return False
    return True


def _adopt(client: Any, record: Record, sweep: str, varied: Mapping[str, Any]) -> None:
    from mlflow.entities import Param, RunTag

    with contextlib.suppress(Exception):  # it was mirrored in another store, or deleted there, or never mirrored
        kept = client.get_run(record.mlflow.run_id).data
        missing = [Param(key, value) for key, value in captions.texts(varied).items() if key not in kept.params]
        sweeps = captions.with_sweep(kept.tags.get(captions.SWEEPS), sweep)
        client.log_batch(record.mlflow.run_id, params=missing, tags=[RunTag(captions.SWEEPS, sweeps)])
