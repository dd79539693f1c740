"""The run directory: its files, its states, how a run is found. It needs neither TensorFlow nor MLflow to be read."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from experiments.archives import read_arrays
from experiments.bounded import ENVIRONMENT_BYTES, PREDICTIONS_BYTES, RECORD_BYTES, read_json
from experiments.config import bring_up_config, config_key, run_key, validate_saved
from experiments.errors import BusyError, InputError
from experiments.plain_yaml import read_yaml
from experiments.results.evaluation import Overfitting
from experiments.results.files import (
    CONFIG,
    ENVIRONMENT,
    FIELDS,
    HISTORY,
    LOG,
    PREDICTIONS,
    RECORD,
    VERDICT,
    EpochRow,
    read_history,
    reason_of,
    write_atomically,
)
from experiments.results.lease_file import is_trace, look, server_time
from experiments.results.process import Process
from experiments.results.states import RunState
from experiments.upgrades import FORMAT, bring_up, newest, require_known

# For how long a `running` run of another host that has no lease, as older ones have none, is believed to go on.
UNTOUCHED_SECONDS = 24 * 3600.0
OF_TEST = ("test_probabilities", "test_labels")  # what all predictions hold but those of a sealed run
# What of a record becomes a part of a path, a command or a query. A record may come from somebody else.
Word = Annotated[str, Field(pattern=r"^[^/\\.\x00-\x1f][^/\\\x00-\x1f]*$", max_length=200)]
RunName = Annotated[str, Field(pattern=r"^[^/\\.\x00-\x1f][^/\\\x00-\x1f]*(/[0-9]+)?$", max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class MLflowState(_Part):
    """Where the mirror is, and whether it is complete."""

    run_id: Word | None = None
    parent_run_id: Word | None = None
    synced: bool = False
    error: str | None = None


class Failure(_Part):
    """What ended a run that did not finish."""

    type: str
    message: str


class DatasetSummary(_Part):
    """Which images it was trained on, and how they were read; see `datasets.ImageData`."""

    name: str
    digest: str
    source: str
    scale: str | None = None
    notes: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Predictions:
    """Probabilities (n, classes) float32 and labels (n,) int64 of the test and the validation images.

    What a file does not hold has length 0: an older one, or the test part of a sealed run.
    """

    test_probabilities: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    test_labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    test_image_digests: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    validation_probabilities: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    validation_labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What `predictions.npz` holds."""
        known = {name: array for name, array in vars(self).items() if len(array)}
        return known | {FORMAT: np.array(newest("predictions"))}


class Record(BaseModel):
    """`record.json` and the door to the other files of its run directory.

    `sources_digest` is over the sources that take part in making numbers, None where that is not known; `code_digest`
    is over the whole package, `own_code_digest` over what the run uses of the user's own project, None: nothing.
    `sealed` says that its test images have not been looked at.
    """

    model_config = ConfigDict(extra="ignore", validate_assignment=True)
    _directory: Path = PrivateAttr()
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    format: int = newest("record")
    name: RunName
    state: RunState = RunState.RUNNING
    run_key: Word
    config_key: Word
    seed: int
    sweep: Word | None = None
    job: int | None = None
    varied: dict[str, Any] = Field(default_factory=dict)
    started_at: datetime
    finished_at: datetime | None = None
    seconds: float = 0.0
    timings: dict[str, float] = Field(default_factory=dict)
    process: Process
    lease: int = Field(default=0, ge=0)  # number of the lease under which it was written; 0: before there were leases
    epochs_run: int = 0
    parameters: int
    metrics: dict[str, float] = Field(default_factory=dict)
    overfitting: Overfitting | None = None
    weights_digest: str | None = None
    predictions_digest: str | None = None
    dataset: DatasetSummary
    code_digest: str
    sources_digest: str | None = None
    own_code_digest: str | None = None
    versions: dict[str, str]
    mlflow: MLflowState = Field(default_factory=MLflowState)
    reproduces: RunName | None = None
    error: Failure | None = None
    sealed: bool = False

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self._directory

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.yaml` as plain mappings, as it would be saved today.

        Raises:
            InputError: it cannot be read, or is of a newer format.
        """
        path = self.directory / CONFIG
        values = read_yaml(path)
        if not isinstance(values, dict):
            raise InputError(f"{path}: must be a mapping, received {type(values).__name__}")
        with _naming(path):
            return bring_up_config(values)

    @cached_property
    def keys(self) -> tuple[str, str]:
        """Run key and config key by today's rules: those of an older record may follow former ones."""
        if self.sources_digest is None:
            with suppress(InputError):
                config = validate_saved(self.config)
                return run_key(config, self.dataset.digest), config_key(config, self.dataset.digest)
        return self.run_key, self.config_key

    @property
    def rows(self) -> list[EpochRow]:
        """The finished epochs."""
        return read_history(self.directory / HISTORY)

    @cached_property
    def history(self) -> dict[str, NDArray[Any]]:
        """`history.csv` by column; every array has one value per finished epoch."""
        rows = self.rows
        return {name: np.array([getattr(row, field) for row in rows]) for name, field in FIELDS.items()}

    @cached_property
    def predictions(self) -> Predictions:
        """The content of `predictions.npz`.

        Raises:
            InputError: the file is missing, damaged, of a newer format, or holds something else.
        """
        path = self.directory / PREDICTIONS
        try:
            arrays = read_arrays(path, most_bytes=PREDICTIONS_BYTES)
        except InputError as error:
            raise InputError(f"{path}: cannot be read as predictions ({reason_of(error, path)})") from None
        try:
            with _naming(path):
                require_known("predictions", int(arrays.pop(FORMAT, np.array(1))))
            if missing := sorted({*OF_TEST} - arrays.keys()) if not self.sealed else []:
                raise ValueError(f"without {missing[0]}")
            return Predictions(**{f.name: arrays[f.name] for f in fields(Predictions) if f.name in arrays})
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: cannot be read as predictions ({type(error).__name__}: {error})") from None

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What it ran on, as `environment.json` tells; nothing where the file is not there or damaged."""
        with suppress(InputError):
            values = read_json(self.directory / ENVIRONMENT, ENVIRONMENT_BYTES)
            return bring_up("environment", values) if isinstance(values, dict) else {}
        return {}

    @property
    def verdict(self) -> str | None:
        """What a repeat says of its original, in a word; None where this is no repeat, or not yet a whole one."""
        with suppress(InputError, TypeError, KeyError):
            return str(read_json(self.directory / VERDICT, RECORD_BYTES)["verdict"])
        return None

    def create(self, directory: Path, files: Mapping[str, str] | None = None) -> None:
        """Makes `directory`, which nobody else may have, and writes `files` (name → text) and then the record into it.

        The record comes last: a directory with a record has all that is needed to go on with the run.

        Raises:
            InputError: it holds something already, or cannot be made or written; nothing is left.
        """
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if not is_unused(directory):
                raise InputError(f"{directory}: is not empty; a run needs a directory of its own")
            for name, text in (files or {}).items():
                (directory / name).parent.mkdir(exist_ok=True)
                write_atomically(directory / name, text)
            self.write()
        except OSError as error:
            with suppress(OSError):
                directory.rmdir()
            raise InputError(f"{directory}: cannot be written ({error.strerror})") from None

    def write(self, **changes: Any) -> None:
        """Changes fields and replaces `record.json` in one step; safe from several threads."""
        with self._lock:
            for name, value in changes.items():
                setattr(self, name, value)
            write_atomically(self.directory / RECORD, self.model_dump_json(indent=1) + "\n")


def is_unused(directory: Path) -> bool:
    """Whether a directory holds nothing, or only what a process left that was killed before it had written a record."""
    return all(path.name.startswith(f".{RECORD}.") or is_trace(path.name) for path in directory.iterdir())


def load(directory: Path | str) -> Record:
    """The record of a run directory. A `running` record whose process no longer works on it is read as `interrupted`.

    Raises:
        FormatError: it is of a newer format.
        InputError: there is no record, or it is damaged.
    """
    record = _read(Path(directory))
    _refuse_ways_out(record.directory)
    while record.state == RunState.RUNNING and not _is_alive(record):
        earlier, record = record, _read(Path(directory))
        if record.model_dump_json() == earlier.model_dump_json():  # otherwise it ended between the two looks
            record.state = RunState.INTERRUPTED
    return record


class Glance(NamedTuple):
    """What is read of a record without validation."""

    run_key: str
    state: str
    sources_digest: str | None
    is_mirrored: bool


def glance(directory: Path) -> Glance:
    """What a record tells of its run, without a look at what else is there: for thousands of runs.

    Raises:
        InputError: there is no record, or it does not tell them.
    """
    path = directory / RECORD
    values = read_json(path, RECORD_BYTES)
    if not isinstance(values, dict) or not isinstance(key := values.get("run_key"), str):
        raise InputError(f"{path}: is damaged or not a record of a run")
    mlflow = values.get("mlflow")
    mirrored = isinstance(mlflow, dict) and mlflow.get("synced") is True
    return Glance(key, str(values.get("state")), values.get("sources_digest"), mirrored)


def refuse_running(record: Record) -> None:
    """Leaves a run to the process that works on it.

    Raises:
        BusyError: there is such a process.
    """
    if record.state == RunState.RUNNING:
        worker = look(record.directory) or record.process
        again = f"python -m experiments.run resume={record.directory} take_over=true"
        raise BusyError(f"{record.directory}: is being run by {worker}; if you know that it has stopped: {again}")


def _read(directory: Path) -> Record:
    path = directory / RECORD
    try:
        values = read_json(path, RECORD_BYTES)
    except InputError as error:
        if not os.path.lexists(path):
            raise InputError(f"{error}; a run directory holds a {RECORD}") from None
        raise InputError(f"{path}: is damaged or not a record of a run ({reason_of(error, path)})") from None
    try:
        with _naming(path):
            record = Record.model_validate(bring_up("record", dict(values)))
    except ValidationError as error:
        where = ", ".join(".".join(map(str, e["loc"])) or e["type"] for e in error.errors())
        raise InputError(f"{path}: is damaged or not a record of a run (see {where})") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: is damaged or not a record of a run ({error})") from None
    record._directory = directory
    return record


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Begins each mistake with the file that it is in."""
    try:
        yield
    except InputError as error:
        raise type(error)(*(f"{path}: {mistake}" for mistake in error.mistakes)) from None


def _is_alive(record: Record) -> bool:
    """Whether a process works on a `running` run, as far as that can be known."""
    found = look(record.directory)
    if found:
        return not found.is_over()
    if record.lease:
        return False  # it was given up
    return not record.process.is_gone() if record.process.is_comparable() else _was_touched(record)


def _was_touched(record: Record) -> bool:
    """Whether something was written in the last day, or nobody can tell, of a run that was made without a lease."""
    now, names = server_time(record.directory), (RECORD, HISTORY, LOG)
    touched = [path.stat().st_mtime for path in map(record.directory.joinpath, names) if path.exists()]
    return now is None or now - max(touched, default=now) < UNTOUCHED_SECONDS


def _refuse_ways_out(directory: Path) -> None:
    """Refuses links to the outside: what is read, mirrored or written here would be somebody else's."""
    for path in _links(directory):
        if not os.path.realpath(path).startswith(os.path.realpath(directory) + os.sep):
            raise InputError(f"{path}: leads out of the run directory; a run holds its own files")


def _links(directory: Path) -> Iterator[str]:
    """All links below a directory, however deep: folder after folder, each closed before the next is opened."""
    folders = [str(directory)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    yield entry.path
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
