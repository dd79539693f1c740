"""The mirror of a run in MLflow. The only door to mlflow.

The run directory is the truth. Everything here can be done again without doubling anything: metrics carry times that
follow from the history, parameters never change, artifacts are replaced. So what could not be mirrored while a run
was training (`Mirror`) is mirrored from its directory later (`synchronise`) by the same code.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import os
import queue
import secrets
import sqlite3
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from experiments.config import RunConfig
from experiments.errors import BusyError, ExperimentsError
from experiments.ingredients.execution import MLflowTracking
from experiments.results import captions, files, lease, records, tracking_model
from experiments.results.files import EpochRow
from experiments.results.records import Record
from experiments.results.states import RunState
from experiments.screen import without_login

log = logging.getLogger(__name__)

STORE = "mlflow.db"
STATUS = {
    RunState.FINISHED: "FINISHED",
    RunState.FAILED: "FAILED",
    RunState.DIVERGED: "FAILED",
    RunState.INTERRUPTED: "KILLED",
    RunState.PAUSED: "SCHEDULED",
}
LONGEST_DATASET_DIGEST = 36  # characters, MLflow's limit; the whole digest is in the tags
EVERY_EPOCH = "learning_rate"  # a metric that each epoch has, and nothing else
PATIENCE_SECONDS = 120.0  # how long the end of a run waits for a slow store
FILES = (
    files.CONFIG, files.RECORD, files.HISTORY, files.ENVIRONMENT,
    files.CODE_DIFF, files.OWN_DIFF, files.PREDICTIONS, files.LOG, files.VERDICT,
)  # fmt: skip


class TrackingError(ExperimentsError):
    """The store could not be reached or refused something; the run itself is not touched by it."""


def store_uri(home: Path) -> str:
    """`$MLFLOW_TRACKING_URI`, or the SQLite store in `home`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _sqlite_uri(home / STORE)


def _sqlite_uri(path: Path) -> str:
    """The address of an SQLite file, whatever its folders are called."""
    quoted = str(path).replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    # MLflow makes the folder of what follows `sqlite:///`, as it stands there.
    return f"sqlite:///{path}" if quoted == str(path) else f"sqlite+pysqlite:///{quoted}"


def prepare_store(home: Path, experiment: str) -> str:
    """Creates the store and the experiment where they are missing and returns the experiment's id.

    Raises:
        Exception: MLflow's own, of any kind: the store cannot be reached, or refuses the experiment.
    """
    client = connect(home)
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
    store = home / STORE
    _remove_drafts(home)
    if store.exists():
        return
    home.mkdir(parents=True, exist_ok=True)
    making = home / f".{STORE}.{secrets.token_hex(4)}"
    with making.open("xb") as draft:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(draft, fcntl.LOCK_EX)  # ends with the process: what nobody holds is a remainder
        _fill(making, store)


def _fill(making: Path, store: Path) -> None:
    import mlflow

    try:
        mlflow.MlflowClient(tracking_uri=_sqlite_uri(making)).search_experiments(max_results=1)
        try:
            os.link(making, store)
        except FileExistsError:
            pass  # somebody else was quicker
        except OSError:  # a file system without links
            if not store.exists():
                making.rename(store)
    finally:
        making.unlink(missing_ok=True)


def _remove_drafts(home: Path) -> None:
    """Removes what processes have left that were killed while they made the store."""
    for draft in home.glob(f".{STORE}.{'[0-9a-f]' * 8}"):
        with contextlib.suppress(OSError):
            if draft.stat().st_nlink == 1:  # or it is the store too, and closing it would end SQLite's locks on that
                with draft.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in (draft, *home.glob(f"{draft.name}-*")):  # SQLite's journal of it
                path.unlink()


def connect(home: Path) -> Any:
    """A client of the store."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # in the middle of what we print
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it raises is told by whoever catches it
    uri = store_uri(home)
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        _make_store(home)
        with contextlib.closing(sqlite3.connect(home / STORE)) as database:
            database.execute("PRAGMA journal_mode=WAL")  # readers and one writer do not wait for each other
    given = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)  # for `Model.log`, which makes a client of its own
    if given is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it, and the next store would be taken for a server
    _close_at_exit()
    return mlflow.MlflowClient(tracking_uri=uri)


@cache
def _close_at_exit() -> None:
    atexit.register(close_stores)


def close_stores() -> None:
    """Closes the SQLite files that MLflow keeps open: who does so last removes their `-wal` and `-shm`."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with contextlib.suppress(Exception):  # a private part of MLflow; without it two small files stay
        for engine in SqlAlchemyStore._engine_map.values():
            engine.dispose()


class _Run:
    """One MLflow run and the directory that it mirrors."""

    def __init__(self, record: Record, config: RunConfig, home: Path) -> None:
        self.record, self.config, self.home = record, config, home
        self.client: Any = None
        self.run_id = ""
        self._epochs: set[int] = set()  # that the store has already

    def open(self) -> None:
        """Finds the run or creates it, with parameters and tags."""
        from mlflow.entities import Param, RunTag

        tracking = self.config.tracking
        name = tracking.experiment if isinstance(tracking, MLflowTracking) else "experiments"
        experiment = prepare_store(self.home, name)
        self.client = connect(self.home)
        found = self._existing(experiment)
        self.run_id = found or self._create(experiment)
        if found:  # an epoch that was trained again has another time, and would be doubled
            self._epochs = {metric.step for metric in self.client.get_metric_history(found, EVERY_EPOCH)}
        with contextlib.suppress(Exception):  # of an earlier attempt, if there is one
            self.client.delete_tag(self.run_id, "error")
        self.record.write(mlflow=self.record.mlflow.model_copy(update={"run_id": self.run_id, "synced": False}))
        self.client.update_run(self.run_id, status="RUNNING")
        kept = self.client.get_run(self.run_id).data
        wanted = captions.parameters(self.config, self.record.varied)
        # Parameters are written once: a resumed run may have other threads.
        parameters = [Param(key, value) for key, value in wanted.items() if key not in kept.params]
        tags = captions.tags(self.record)
        if self.record.sweep:
            tags[captions.SWEEPS] = captions.with_sweep(kept.tags.get(captions.SWEEPS), self.record.sweep)
        self.client.log_batch(self.run_id, params=parameters, tags=[RunTag(*tag) for tag in tags.items()])

    def _existing(self, experiment: str) -> str | None:
        if self.record.mlflow.run_id is None:
            return self._unnoted(experiment) if self.record.lease > 1 else None
        with contextlib.suppress(Exception):  # another store, or deleted there: it gets a new run
            run = self.client.get_run(self.record.mlflow.run_id)
            return str(run.info.run_id) if run.info.lifecycle_stage == "active" else None
        return None

    def _unnoted(self, experiment: str) -> str | None:
        """The run that an earlier process created, and was killed before it could note its id."""
        found = find_run(self.client, experiment, "run_directory", self.record.directory)
        return found.info.run_id if found and found.info.start_time == self._started else None

    @property
    def _started(self) -> int:
        return int(self.record.started_at.timestamp() * 1000)

    def _create(self, experiment: str) -> str:
        run = self.client.create_run(
            experiment,
            start_time=self._started,
            run_name=captions.run_name(self.record),
            tags=captions.first_tags(self.record) | {"run_directory": str(self.record.directory)},
        )
        return str(run.info.run_id)

    def log_epoch(self, row: EpochRow, elapsed_seconds: float) -> None:
        """All numbers of one epoch in one batch, at a time that follows from the history alone."""
        from mlflow.entities import Metric

        if row.epoch in self._epochs:
            return
        at = int((self.record.started_at + timedelta(seconds=elapsed_seconds)).timestamp() * 1000)
        values = captions.epoch_metrics(row)
        self.client.log_batch(self.run_id, metrics=[Metric(k, v, at, row.epoch) for k, v in values.items()])

    def close(self) -> None:
        """Everything that the directory holds, the final metrics, and the end of the run."""
        from mlflow.entities import Metric, RunTag

        record = self.record
        at = int((record.started_at + timedelta(seconds=record.seconds)).timestamp() * 1000)
        # MLflow draws bars for what has only step 0. What has a curve ends with the value of the finished model, which
        # is not the last epoch's where the best weights were restored.
        last = captions.epoch_metrics(record.rows[-1]) if record.rows else {}
        known = self.client.get_run(self.run_id).data.metrics  # of a process that was killed before it could say so
        final = {k: v for k, v in captions.final_metrics(record).items() if v not in (last.get(k), known.get(k))}
        tags = captions.tags(record) | {captions.NOTE: captions.run_note(record)}
        self.client.log_batch(
            self.run_id,
            metrics=[Metric(key, v, at, record.epochs_run if key in last else 0) for key, v in final.items()],
            tags=[RunTag(*tag) for tag in tags.items()],
        )
        self._log_dataset()
        self.log_model()
        self._log_artifacts()
        self.client.set_terminated(self.run_id, status=STATUS[record.state], end_time=at)

    def _log_artifacts(self) -> None:
        for name in FILES:
            if (self.record.directory / name).exists():
                self.client.log_artifact(self.run_id, str(self.record.directory / name))
        for name in (files.FIGURES, files.HYDRA):
            if (self.record.directory / name).is_dir():
                self.client.log_artifacts(self.run_id, str(self.record.directory / name), name.lstrip("."))

    def _log_dataset(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = self.record.dataset
        source = json.dumps({"source": dataset.source})
        profile = json.dumps({"sha256": dataset.digest})
        entity = Dataset(dataset.name, dataset.digest[:LONGEST_DATASET_DIGEST], "local", source, profile=profile)
        inputs = [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
        try:
            self.client.log_inputs(self.run_id, inputs)
        except Exception:  # another run has entered the same data set between MLflow's look and its own entry
            self.client.log_inputs(self.run_id, inputs)

    def log_model(self) -> None:
        """The trained model, once, where it is saved and wanted."""
        tracking = self.config.tracking
        run = self.client.get_run(self.run_id)
        path = self.record.directory / files.MODEL
        wanted = isinstance(tracking, MLflowTracking) and tracking.log_model and path.exists()
        if not wanted or (run.outputs and run.outputs.model_outputs):
            return
        tracking_model.log_model(self.client, run, path)


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
        self._elapsed += _seconds(row)
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
            lease.check()  # whoever took over mirrors the run now
            try:
                task()
            except Exception as error:
                log.debug("mirroring failed", exc_info=True)
                self._error = first_line(error)


def start_mirror(record: Record, config: RunConfig, home: Path) -> Mirror | None:
    """The mirror of a run that is starting; None where tracking is `none`.

    Args:
        record: of the run; its directory is there.
        config: of the run; says which experiment it enters.
        home: folder of MLflow's store; not used where `$MLFLOW_TRACKING_URI` is set.
    """
    return Mirror(record, config, home) if isinstance(config.tracking, MLflowTracking) else None


def synchronise(record: Record, config: RunConfig, home: Path) -> str:
    """Mirrors a run that has ended from its directory alone and returns the MLflow run id.

    Args:
        record: of the run, in any state but `running`; is told the MLflow run id and whether mirroring succeeded.
        config: of the run; says which experiment it enters.
        home: folder of MLflow's store; not used where `$MLFLOW_TRACKING_URI` is set.

    Raises:
        TrackingError: the store could not be reached or refused something, or the run goes on meanwhile.
    """
    try:
        with lease.held(record.directory, after=record.lease):
            if records.load(record.directory).lease > record.lease:
                raise BusyError("another process has gone on with it")
            return _synchronise(record, config, home)
    except (BusyError, OSError) as error:
        raise TrackingError(f"{record.name}: could not be mirrored ({error})") from error


def _synchronise(record: Record, config: RunConfig, home: Path) -> str:
    run = _Run(record, config, home)
    try:
        record.write()
    except OSError as error:  # a run that cannot tell where its mirror is would be mirrored again and again
        raise TrackingError(f"{record.name}: not mirrored; its record cannot be written ({error.strerror})") from None
    try:
        run.open()
        elapsed = 0.0
        for row in record.rows:
            elapsed += _seconds(row)
            run.log_epoch(row, elapsed)
        run.close()
    except Exception as error:
        record.write(mlflow=record.mlflow.model_copy(update={"synced": False, "error": without_login(str(error))}))
        raise TrackingError(f"{record.name}: could not be mirrored ({type(error).__name__}: {error})") from error
    record.write(mlflow=record.mlflow.model_copy(update={"synced": True, "error": None}))
    return run.run_id


def find_run(client: Any, experiment: str, tag: str, directory: Path) -> Any | None:
    """The newest run with a directory as its tag; None where there is none, or the store does not answer.

    Args:
        client: see `connect`.
        experiment: its id.
        tag: `run_directory` or `sweep_directory`.
        directory: the tag's value.
    """
    quote = '"' if "'" in str(directory) else "'"
    with contextlib.suppress(Exception):  # it has both kinds of quotes in its name
        found = client.search_runs([experiment], f"tags.{tag} = {quote}{directory}{quote}", max_results=1)
        return found[0] if found else None
    return None


def _seconds(row: EpochRow) -> float:
    """0 where an older history does not tell."""
    return 0.0 if "seconds" in row.unknown else row.seconds


def first_line(error: Exception) -> str:
    """An error in one line, without a login that it names."""
    lines = without_login(str(error)).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
