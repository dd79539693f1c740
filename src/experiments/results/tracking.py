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
import secrets
import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from experiments.config import RunConfig
from experiments.errors import BusyError, ExperimentsError
from experiments.ingredients.execution import MLflowTracking
from experiments.results import captions, files, lease, records, tracking_model
from experiments.results.records import Record
from experiments.results.states import RunState
from experiments.results.tracking_mirror import RETRIES, Epoch, Mirror, once, seconds_of
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
MOST_METRICS = 1000  # in one call, MLflow's limit
GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the second: another store's id
FILES = (
    files.CONFIG, files.RECORD, files.HISTORY, files.ENVIRONMENT,
    files.CODE_DIFF, files.OWN_DIFF, files.PREDICTIONS, files.LOG, files.VERDICT,
)  # fmt: skip
FOLDERS = (files.FIGURES, files.HYDRA)


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
    os.environ.setdefault(RETRIES, "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")  # two seconds before the second one
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
    """One MLflow run and the directory that it mirrors.

    Args:
        record: of the run.
        config: of the run.
        home: folder of MLflow's store.
        may_exist: an earlier attempt may have created the MLflow run and not have noted its id.
    """

    def __init__(self, record: Record, config: RunConfig, home: Path, *, may_exist: bool) -> None:
        self.record, self.config, self.home = record, config, home
        self.client: Any = None
        self.run_id = ""
        self._may_exist = may_exist
        self._epochs: set[int] = set()  # that the store has already
        self._uploaded: dict[Path, int] = {}  # files, and when they were written, nanoseconds

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
        self.record.write(mlflow=self.record.mlflow.model_copy(update={"run_id": self.run_id, "synced": False}))
        self.client.update_run(self.run_id, status="RUNNING")
        kept = self.client.get_run(self.run_id).data
        if "error" in kept.tags:  # of an earlier attempt
            self.client.delete_tag(self.run_id, "error")
        wanted = captions.parameters(self.config, self.record.varied)
        # Parameters are written once: a resumed run may have other threads.
        parameters = [Param(key, value) for key, value in wanted.items() if key not in kept.params]
        tags = captions.tags(self.record)
        if self.record.sweep:
            tags[captions.SWEEPS] = captions.with_sweep(kept.tags.get(captions.SWEEPS), self.record.sweep)
        self.client.log_batch(self.run_id, params=parameters, tags=[RunTag(*tag) for tag in tags.items()])

    def _existing(self, experiment: str) -> str | None:
        if self.record.mlflow.run_id is None:
            may_exist, self._may_exist = self._may_exist, True
            return self._unnoted(experiment) if may_exist else None
        return find_by_id(self.client, self.record.mlflow.run_id)

    def _unnoted(self, experiment: str) -> str | None:
        """The run that an earlier attempt created, and could not note its id."""
        found = find_run(self.client, experiment, "run_directory", self.record.directory)
        return found.info.run_id if found and found.info.start_time == self._started else None

    @property
    def _started(self) -> int:
        return int(self.record.started_at.timestamp() * 1000)

    def _create(self, experiment: str) -> str:
        with once():
            run = self.client.create_run(
                experiment,
                start_time=self._started,
                run_name=captions.run_name(self.record),
                tags=captions.first_tags(self.record) | {"run_directory": str(self.record.directory)},
            )
        return str(run.info.run_id)

    def log_epochs(self, epochs: Sequence[Epoch]) -> None:
        """All numbers of each epoch in one call, many epochs in one where many wait.

        Each has a time that follows from the history alone.
        """
        from mlflow.entities import Metric

        waiting: dict[int, list[Any]] = {}
        for row, elapsed_seconds in epochs:
            if row.epoch not in self._epochs:
                at = int((self.record.started_at + timedelta(seconds=elapsed_seconds)).timestamp() * 1000)
                waiting[row.epoch] = [Metric(k, v, at, row.epoch) for k, v in captions.epoch_metrics(row).items()]
        while waiting:
            together = max(1, MOST_METRICS // max(map(len, waiting.values())))
            numbers = list(waiting)[:together]
            self.client.log_batch(self.run_id, metrics=[metric for number in numbers for metric in waiting.pop(number)])
            self._epochs.update(numbers)

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
        self.log_files()
        self.client.set_terminated(self.run_id, status=STATUS[record.state], end_time=at)

    def log_files(self) -> None:
        """The files that are there, but for those that have been uploaded and not changed since."""
        directory = self.record.directory
        for folder in FOLDERS:
            for path in sorted((directory / folder).glob("*")):
                self._upload(path, folder.lstrip("."))
        for name in FILES:
            self._upload(directory / name)

    def _upload(self, path: Path, folder: str | None = None) -> None:
        if not path.is_file() or self._uploaded.get(path) == (written := path.stat().st_mtime_ns):
            return
        self.client.log_artifact(self.run_id, str(path), folder)
        self._uploaded[path] = written

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


def start_mirror(record: Record, config: RunConfig, home: Path) -> Mirror | None:
    """The mirror of a run that is starting; None where tracking is `none`.

    Args:
        record: of the run; its directory is there.
        config: of the run; says which experiment it enters.
        home: folder of MLflow's store; not used where `$MLFLOW_TRACKING_URI` is set.
    """
    if not isinstance(config.tracking, MLflowTracking):
        return None
    return Mirror(_Run(record, config, home, may_exist=record.lease > 1))


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
    run = _Run(record, config, home, may_exist=True)
    try:
        record.write()
    except OSError as error:  # a run that cannot tell where its mirror is would be mirrored again and again
        raise TrackingError(f"{record.name}: not mirrored; its record cannot be written ({error.strerror})") from None
    try:
        run.open()
        rows = record.rows
        run.log_epochs([Epoch(row, at) for row, at in zip(rows, accumulate(map(seconds_of, rows)), strict=True)])
        run.close()
    except Exception as error:
        record.write(mlflow=record.mlflow.model_copy(update={"synced": False, "error": without_login(str(error))}))
        raise TrackingError(f"{record.name}: could not be mirrored ({type(error).__name__}: {error})") from error
    record.write(mlflow=record.mlflow.model_copy(update={"synced": True, "error": None}))
    return run.run_id


def find_by_id(client: Any, run_id: str) -> str | None:
    """The id of a run, where the store has it; None where it is another store, or the run was deleted there.

    Raises:
        Exception: MLflow's own, of any kind: the store does not answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in GONE:
            return None
        raise
    return str(run.info.run_id) if run.info.lifecycle_stage == "active" else None


def find_run(client: Any, experiment: str, tag: str, directory: Path) -> Any | None:
    """The newest run with a directory as its tag; None where there is none, or the directory has both kinds of quotes.

    Args:
        client: see `connect`.
        experiment: its id.
        tag: `run_directory` or `sweep_directory`.
        directory: the tag's value.

    Raises:
        Exception: MLflow's own, of any kind: the store does not answer.
    """
    quotes = [quote for quote in "'\"" if quote not in str(directory)]
    if not quotes:
        return None
    condition = f"tags.{tag} = {quotes[0]}{directory}{quotes[0]}"
    found = client.search_runs([experiment], condition, max_results=1)
    return found[0] if found else None
