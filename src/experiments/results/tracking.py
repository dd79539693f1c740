"""The mirror of a run in MLflow. The only door to mlflow.

The run directory is the truth. Everything here can be done again without doubling anything: metrics carry times that
follow from the history, parameters never change, artifacts are replaced. So what could not be mirrored while a run
was training (`Mirror`) is mirrored from its directory later (`synchronise`) by the same code.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.config import RunConfig, flatten
from experiments.errors import ExperimentsError, InputError
from experiments.ingredients.execution import MLflowTracking
from experiments.results import records
from experiments.results.records import EpochRow, Record
from experiments.results.saved_model import open_model

log = logging.getLogger(__name__)

STORE = "mlflow.db"
STATUS = {"finished": "FINISHED", "failed": "FAILED", "diverged": "FAILED", "interrupted": "KILLED"}
LONGEST_PARAMETER = 6000  # characters, MLflow's limit
LONGEST_DATASET_DIGEST = 36  # characters, MLflow's limit; the whole digest is in the tags
PATIENCE_SECONDS = 120.0  # how long the end of a run waits for a slow store
SERVING_PACKAGES = ("tensorflow", "keras", "numpy")
FILES = (
    records.CONFIG, records.RECORD, records.HISTORY, records.ENVIRONMENT,
    records.CODE_DIFF, records.PREDICTIONS, records.LOG, records.VERDICT,
)  # fmt: skip
NEEDED = (records.RECORD, records.CONFIG, records.HISTORY)  # to repeat a run; the others of `FILES` where they are


class TrackingError(ExperimentsError):
    """The store could not be reached or refused something; the run itself is not touched by it."""


def store_uri(home: Path) -> str:
    """`$MLFLOW_TRACKING_URI`, or the SQLite store in `home`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / STORE}"


def prepare_store(home: Path, experiment: str) -> str:
    """Creates the store and the experiment where they are missing and returns the experiment's id."""
    client = _client(home)
    found = client.get_experiment_by_name(experiment)
    if found is not None:
        return str(found.experiment_id)
    is_local = not os.environ.get("MLFLOW_TRACKING_URI")
    artifacts = (home / "mlartifacts").as_uri() if is_local else None
    try:
        return str(client.create_experiment(experiment, artifact_location=artifacts))
    except Exception:
        found = client.get_experiment_by_name(experiment)  # somebody else was quicker
        if found is None:
            raise
        return str(found.experiment_id)


def _make_store(home: Path) -> None:
    """Makes the SQLite store where there is none, in one step.

    Two processes that fill the same new file, or one that is killed over it, would spoil it for ever.
    """
    import mlflow

    store = home / STORE
    if store.exists():
        return
    making = home / f".{STORE}.{secrets.token_hex(4)}"
    try:
        mlflow.MlflowClient(tracking_uri=f"sqlite:///{making}").search_experiments(max_results=1)
        try:
            os.link(making, store)
        except FileExistsError:
            pass  # somebody else was quicker
        except OSError:  # a file system without links
            if not store.exists():
                making.rename(store)
    finally:
        making.unlink(missing_ok=True)


def _client(home: Path) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = store_uri(home)
    if uri.startswith("sqlite:///") and not os.environ.get("MLFLOW_TRACKING_URI"):
        _make_store(home)
        with contextlib.closing(sqlite3.connect(home / STORE)) as database:
            database.execute("PRAGMA journal_mode=WAL")  # readers and one writer do not wait for each other
    given = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)  # for `Model.log`, which makes a client of its own
    if given is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it, and the next store would be taken for a server
    return mlflow.MlflowClient(tracking_uri=uri)


class _Run:
    """One MLflow run and the directory that it mirrors."""

    def __init__(self, record: Record, config: RunConfig, home: Path) -> None:
        self.record, self.config, self.home = record, config, home
        self.client: Any = None
        self.run_id = ""

    def open(self) -> None:
        """Finds the run or creates it, with parameters and tags."""
        from mlflow.entities import Param, RunTag

        tracking = self.config.tracking
        name = tracking.experiment if isinstance(tracking, MLflowTracking) else "experiments"
        experiment = prepare_store(self.home, name)
        self.client = _client(self.home)
        self.run_id = self._existing() or self._create(experiment)
        self.record.write(mlflow=self.record.mlflow.model_copy(update={"run_id": self.run_id, "synced": False}))
        self.client.update_run(self.run_id, status="RUNNING")
        kept = self.client.get_run(self.run_id).data.params  # written once: a resumed run may have other threads
        wanted = _parameters(self.config, self.record)
        parameters = [Param(key, value) for key, value in wanted.items() if key not in kept]
        tags = [RunTag(key, value) for key, value in _tags(self.record).items()]
        self.client.log_batch(self.run_id, params=parameters, tags=tags)

    def _existing(self) -> str | None:
        if self.record.mlflow.run_id is None:
            return None
        with contextlib.suppress(Exception):  # another store, or deleted there: it gets a new run
            run = self.client.get_run(self.record.mlflow.run_id)
            return str(run.info.run_id) if run.info.lifecycle_stage == "active" else None
        return None

    def _create(self, experiment: str) -> str:
        started = int(self.record.started_at.timestamp() * 1000)
        run = self.client.create_run(experiment, start_time=started, run_name=self.record.name)
        return str(run.info.run_id)

    def log_epoch(self, row: EpochRow, elapsed_seconds: float) -> None:
        """All numbers of one epoch in one batch, at a time that follows from the history alone."""
        from mlflow.entities import Metric

        at = int((self.record.started_at + timedelta(seconds=elapsed_seconds)).timestamp() * 1000)
        values = {k: v for k, v in row.columns().items() if isinstance(v, float)}
        self.client.log_batch(self.run_id, metrics=[Metric(k, v, at, row.epoch) for k, v in values.items()])

    def close(self) -> None:
        """Everything that the directory holds, the final metrics, and the end of the run."""
        from mlflow.entities import Metric, RunTag

        record = self.record
        at = int((record.started_at + timedelta(seconds=record.seconds)).timestamp() * 1000)
        # Metrics of the last epoch stand in the history; here only what is known at the end.
        final = {k: v for k, v in record.metrics.items() if k not in records.COLUMNS}
        self.client.log_batch(
            self.run_id,
            metrics=[Metric(key, value, at, record.epochs_run) for key, value in final.items()],
            tags=[RunTag(key, value) for key, value in _tags(record).items()],
        )
        self._log_dataset()
        self.log_model()
        self._log_artifacts()
        self.client.set_terminated(self.run_id, status=STATUS[record.state], end_time=at)

    def _log_artifacts(self) -> None:
        for name in FILES:
            if (self.record.directory / name).exists():
                self.client.log_artifact(self.run_id, str(self.record.directory / name))
        for name in (records.FIGURES, records.HYDRA):
            if (self.record.directory / name).is_dir():
                self.client.log_artifacts(self.run_id, str(self.record.directory / name), name.lstrip("."))

    def _log_dataset(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = self.record.dataset
        source = json.dumps({"source": dataset.source})
        profile = json.dumps({"sha256": dataset.digest})
        entity = Dataset(dataset.name, dataset.digest[:LONGEST_DATASET_DIGEST], "local", source, profile=profile)
        self.client.log_inputs(self.run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])

    def log_model(self) -> None:
        """The trained model, once, where it is saved and wanted."""
        tracking = self.config.tracking
        run = self.client.get_run(self.run_id)
        path = self.record.directory / records.MODEL
        wanted = isinstance(tracking, MLflowTracking) and tracking.log_model and path.exists()
        if not wanted or (run.outputs and run.outputs.model_outputs):
            return
        import numpy as np
        from mlflow.models import Model

        model = open_model(path)
        example = np.zeros((1, *model.input_shape[1:]), np.uint8)
        # Made here, because MLflow would put it into the experiment that is active, which is not the run's.
        logged = self.client.create_logged_model(
            run.info.experiment_id, name="model", source_run_id=self.run_id, params=dict(run.data.params)
        )
        with _silent_keras():
            Model.log(
                artifact_path=None,
                model_id=logged.model_id,
                flavor=_KerasFlavor,
                run_id=self.run_id,
                model=model,
                signature=_signature(model),
                input_example=example,
                pip_requirements=[f"{name}=={metadata.version(name)}" for name in SERVING_PACKAGES],
            )


@contextlib.contextmanager
def _silent_keras() -> Iterator[None]:
    """MLflow tries the input example, and Keras would draw a bar for it."""
    import keras

    shown = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        yield
    finally:
        if shown:
            keras.config.enable_interactive_logging()


class _KerasFlavor:
    """`mlflow.keras`, which cannot save an input example: it writes it into a folder that it has not made yet."""

    @staticmethod
    def save_model(*, path: str, **values: Any) -> None:
        import mlflow.keras

        Path(path).mkdir(parents=True, exist_ok=True)
        mlflow.keras.save_model(path=path, **values)


def _signature(model: Any) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    # Without a name, which MLflow would hand on to Keras as the name of an input.
    images = TensorSpec(np.dtype(np.uint8), (-1, *model.input_shape[1:]))
    probabilities = TensorSpec(np.dtype(np.float32), (-1, model.output_shape[-1]))
    return ModelSignature(Schema([images]), Schema([probabilities]))


class Mirror:
    """Mirrors a run while it trains, from a thread of its own: a slow, locked or dead store never stops a training."""

    def __init__(self, record: Record, config: RunConfig, home: Path) -> None:
        self._run = _Run(record, config, home)
        self._elapsed = 0.0
        self._error: str | None = None
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow-mirror")
        self._thread.start()
        self._tasks.put(self._run.open)

    def log_epoch(self, row: EpochRow) -> None:
        """Hands one epoch to the thread."""
        self._elapsed += row.seconds
        elapsed = self._elapsed
        self._tasks.put(lambda: self._run.log_epoch(row, elapsed))

    def log_model(self) -> None:
        """Hands the saved model to the thread."""
        self._tasks.put(self._run.log_model)

    def close(self, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Mirrors the rest, waits for the thread, and writes into the record whether the mirror is complete."""
        self._tasks.put(self._run.close)
        self._tasks.put(None)
        self._thread.join(patience_seconds)
        if self._thread.is_alive():
            self._error = f"the store did not answer within {patience_seconds:.0f} s"
        record = self._run.record
        record.write(mlflow=record.mlflow.model_copy(update={"synced": not self._error, "error": self._error}))
        if self._error:
            log.warning("MLflow mirror incomplete (%s); the run itself is whole.", self._error)
            log.warning("Mirror it later: python -m experiments.sync %s", record.name)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if self._error:
                continue
            try:
                task()
            except Exception as error:
                log.debug("mirroring failed", exc_info=True)
                self._error = _first_line(error)


def start_mirror(record: Record, config: RunConfig, home: Path) -> Mirror | None:
    """The mirror of a run that is starting; None where tracking is `none`."""
    return Mirror(record, config, home) if isinstance(config.tracking, MLflowTracking) else None


def synchronise(record: Record, config: RunConfig, home: Path) -> str:
    """Mirrors a run that has ended from its directory alone and returns the MLflow run id.

    Raises:
        TrackingError: the store could not be reached or refused something.
    """
    run = _Run(record, config, home)
    try:
        run.open()
        elapsed = 0.0
        for row in record.rows:
            elapsed += row.seconds
            run.log_epoch(row, elapsed)
        run.close()
    except Exception as error:
        record.write(mlflow=record.mlflow.model_copy(update={"synced": False, "error": str(error)}))
        raise TrackingError(f"{record.name}: could not be mirrored ({type(error).__name__}: {error})") from error
    record.write(mlflow=record.mlflow.model_copy(update={"synced": True, "error": None}))
    return run.run_id


def _parameters(config: RunConfig, record: Record) -> dict[str, str]:
    """Every value of the config under its dotted key, and what varies in a sweep under its short name too."""
    flat = flatten(config.model_dump(mode="json", exclude={"tracking", "sweep"}))
    flat |= {key: value for key, value in record.varied.items() if key not in flat}
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in flat.items()}
    return {key: value[:LONGEST_PARAMETER] for key, value in text.items()}


def _tags(record: Record) -> dict[str, str]:
    tags = {
        "state": record.state,
        "run_key": record.run_key,
        "config_key": record.config_key,
        "code_digest": record.code_digest,
        "dataset_digest": record.dataset.digest,
        "run_directory": str(record.directory),
        "sweep": record.sweep,
        "mlflow.parentRunId": record.mlflow.parent_run_id,
        "job": None if record.job is None else str(record.job),
        "overfitting": record.overfitting.verdict if record.overfitting else None,
        "reproduces": record.reproduces,
        "verdict": record.verdict,
        "error": f"{record.error.type}: {record.error.message}"[:LONGEST_PARAMETER] if record.error else None,
    }
    return {key: value for key, value in tags.items() if value is not None}


def publish_verdict(verdict: str, original: Record, repeat: Record, home: Path) -> None:
    """Tags both MLflow runs, where there are any, and adds `verdict.json` to the repeat's."""
    tags = [
        (original, {"verdict": verdict, "reproduced_by": repeat.name}),
        (repeat, {"verdict": verdict, "reproduces": original.name}),
    ]
    for record, values in tags:
        if record.mlflow.run_id is None:
            continue
        try:
            client = _client(home)
            for key, value in values.items():
                client.set_tag(record.mlflow.run_id, key, value)
            if record is repeat:
                client.log_artifact(record.mlflow.run_id, str(record.directory / records.VERDICT))
        except Exception as error:
            log.warning("%s: its MLflow run does not tell the verdict (%s)", record.name, _first_line(error))


def download(text: str, home: Path, directory: Path) -> Record | None:
    """The run whose MLflow id begins with `text`, its files brought into `directory`; None where there is none.

    Raises:
        InputError: several runs match.
        TrackingError: the store or the run's files cannot be read.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (home / "mlflow.db").exists():
        return None
    try:
        client = _client(home)
        everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
        found = [run.info.run_id for run in client.search_runs(everywhere, f"attributes.run_id LIKE '{text}%'")]
        if not found:
            return None
        if len(found) > 1:
            raise InputError(f"{text}: begins the id of {len(found)} MLflow runs; give more of it")
        there = {file.path for file in client.list_artifacts(found[0])}
        if missing := [name for name in NEEDED if name not in there]:
            raise InputError(f"{text}: MLflow run {found[0]} holds no {missing[0]}; it is no run of this framework")
        for name in sorted(there.intersection(FILES)):
            client.download_artifacts(found[0], name, str(directory))
    except InputError:
        raise
    except Exception as error:
        raise TrackingError(f"{text}: cannot be read from MLflow ({_first_line(error)})") from error
    record = records.load(directory)
    record.mlflow.run_id = found[0]
    return record


def open_sweep(directory: Path, config: RunConfig, home: Path, run_id: str | None) -> str | None:
    """Creates the store where it is missing and the parent run of a sweep, or opens it again; None where there is none.

    To be called once, before the workers write.
    """
    if not isinstance(config.tracking, MLflowTracking):
        return None
    try:
        experiment = prepare_store(home, config.tracking.experiment)
        client = _client(home)
        with contextlib.suppress(Exception):  # another store, or deleted there: it gets a new run
            run_id = run_id and client.get_run(run_id).info.run_id
        if not run_id:
            run_id = client.create_run(experiment, run_name=directory.name, tags={"kind": "sweep"}).info.run_id
        client.update_run(run_id, status="RUNNING")
        client.set_tag(run_id, "sweep_directory", str(directory))
        return str(run_id)
    except Exception as error:
        log.warning("MLflow cannot be reached (%s); the sweep runs without it", _first_line(error))
        return None


def close_sweep(run_id: str, directory: Path, home: Path, metrics: Mapping[str, float], *, status: str) -> None:
    """Mirrors a sweep's own files and ends its parent run."""
    from mlflow.entities import Metric

    at = int(records.now().timestamp() * 1000)
    try:
        client = _client(home)
        client.log_batch(run_id, metrics=[Metric(key, value, at, 0) for key, value in metrics.items()])
        for path in sorted(path for path in directory.iterdir() if path.is_file() and path.name[0] != "."):
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id, status=status)
    except Exception as error:
        log.warning(
            "the sweep's own MLflow run is incomplete (%s); its runs are not touched by that", _first_line(error)
        )


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
