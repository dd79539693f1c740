"""What MLflow has beyond this machine's directories: runs that can be brought back, and the verdicts on them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from experiments.bounded import size
from experiments.errors import InputError
from experiments.results import files, records, tracking
from experiments.results.records import Record
from experiments.results.tracking_mirror import first_line

log = logging.getLogger(__name__)
DOWNLOAD_BYTES = 1_000_000_000  # twice what the largest predictions take
NEEDED = (files.RECORD, files.CONFIG, files.HISTORY)  # to repeat a run; the other files where they are


def publish_verdict(verdict: str, original: Record, repeat: Record, home: Path) -> None:
    """Tags both MLflow runs, where there are any, and adds `verdict.json` to the repeat's.

    Args:
        verdict: `identical`, `equal within tolerance` or `different`.
        original: the run that was repeated; without an MLflow run it gets no tags.
        repeat: likewise; its directory holds `verdict.json`.
        home: folder of MLflow's store, see `files.home`.
    """
    tags = [
        (original, {"verdict": verdict, "reproduced_by": repeat.name}),
        (repeat, {"verdict": verdict, "reproduces": original.name}),
    ]
    for record, values in tags:
        if record.mlflow.run_id is None:
            continue
        try:
            client = tracking.connect(home)
            for key, value in values.items():
                client.set_tag(record.mlflow.run_id, key, value)
            if record is repeat:
                client.log_artifact(record.mlflow.run_id, str(record.directory / files.VERDICT))
        except Exception as error:
            log.warning("%s: its MLflow run does not tell the verdict (%s)", record.name, first_line(error))


def download(text: str, home: Path, directory: Path) -> Record | None:
    """The run whose MLflow id begins with `text`, its files brought into `directory`; None where there is none.

    Args:
        text: the first hexadecimal digits of an MLflow run id.
        home: folder of MLflow's store; not used where `$MLFLOW_TRACKING_URI` is set.
        directory: an existing, empty folder.

    Raises:
        InputError: several runs match, or the one that does lacks a file of `NEEDED`, or its files are too large or
            cannot be used.
        TrackingError: the store or the run's files cannot be read.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (home / tracking.STORE).exists():
        return None
    try:
        client = tracking.connect(home)
        everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
        found = [run.info.run_id for run in client.search_runs(everywhere, f"attributes.run_id LIKE '{text}%'")]
        if not found:
            return None
        if len(found) > 1:
            raise InputError(f"{text}: begins the id of {len(found)} MLflow runs; give more of it")
        there = {file.path: file.file_size or 0 for file in client.list_artifacts(found[0])}
        if missing := [name for name in NEEDED if name not in there]:
            raise InputError(f"{text}: MLflow run {found[0]} holds no {missing[0]}; it is no run of this framework")
        wanted = sorted(there.keys() & set(tracking.FILES))
        if (total := sum(there[name] for name in wanted)) > DOWNLOAD_BYTES:
            rule = f"must be at most {size(DOWNLOAD_BYTES)}"
            raise InputError(f"{text}: the files of MLflow run {found[0]} {rule}, received {size(total)}")
        for name in wanted:
            client.download_artifacts(found[0], name, str(directory))
    except InputError:
        raise
    except Exception as error:
        raise tracking.TrackingError(f"{text}: cannot be read from MLflow ({first_line(error)})") from error
    record = records.load(directory)
    record.mlflow.run_id = found[0]
    return record
