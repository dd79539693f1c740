"""The run directory: its files, its states, how a run is found. It needs neither TensorFlow nor MLflow to be read."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import secrets
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
import psutil
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from experiments.config import read_yaml
from experiments.errors import InputError
from experiments.ingredients.images import UNREADABLE
from experiments.results.evaluation import Overfitting

State = Literal["running", "finished", "failed", "diverged", "interrupted"]
RECORD, HISTORY, CONFIG, LOG = "record.json", "history.csv", "config.yaml", "run.log"
ENVIRONMENT, CODE_DIFF, PREDICTIONS, MODEL = "environment.json", "code.diff", "predictions.npz", "model.keras"
FIGURES, CHECKPOINT, HYDRA, VERDICT = "figures", "checkpoint", ".hydra", "verdict.json"
SWEEP_NOTE = "sweep.json"  # of a sweep's own directory, written when it begins, goes on and ends
# What of a record becomes a part of a path, a command or a query. A record may come from somebody else.
Word = Annotated[str, Field(pattern=r"^[^/\\.\x00-\x1f][^/\\\x00-\x1f]*$", max_length=200)]
RunName = Annotated[str, Field(pattern=r"^[^/\\.\x00-\x1f][^/\\\x00-\x1f]*(/[0-9]+)?$", max_length=200)]


@dataclass(frozen=True)
class EpochRow:
    """One finished epoch, one row of `history.csv`.

    Training values are running means over the epoch, dropout and augmentation on; validation values are the model's
    at the epoch's end. `*_loss` contains penalties and label smoothing, `*_cross_entropy` (nats) does not.
    `learning_rate` is the mean over the epoch's steps.
    """

    epoch: int
    train_loss: float
    train_cross_entropy: float
    train_accuracy: float
    validation_loss: float
    validation_cross_entropy: float
    validation_accuracy: float
    learning_rate: float
    seconds: float
    weights_digest: str

    @property
    def diverged(self) -> bool:
        """Whether a loss is NaN or infinite; the training's, a mean, may be finite when the weights are not."""
        return not (math.isfinite(self.train_loss) and math.isfinite(self.validation_loss))

    def columns(self) -> dict[str, Any]:
        """Values under the names of `history.csv` and of MLflow, as `train/loss`."""
        return {column(field.name): getattr(self, field.name) for field in fields(self)}


def column(name: str) -> str:
    """`train_cross_entropy` → `train/cross_entropy`; names without a split stay."""
    split, _, metric = name.partition("_")
    return f"{split}/{metric}" if split in ("train", "validation") else name


COLUMNS = {column(name): kind for name, kind in get_type_hints(EpochRow).items()}


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Process(_Part):
    """Which process writes the record: enough to know whether it is still there."""

    host: str
    pid: int
    started: float

    @classmethod
    def current(cls) -> Process:
        """This process."""
        me = psutil.Process()
        return cls(host=socket.gethostname(), pid=me.pid, started=me.create_time())

    def is_gone(self) -> bool:
        """True only where that can be known: on its own host."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            dead = process.status() == psutil.STATUS_ZOMBIE  # killed, and its parent has not asked how it ended
            # Two readings of a start time may differ by clock rounding; a reused pid differs by far more than 1 s.
            return bool(dead or abs(process.create_time() - self.started) > 1)
        except psutil.Error:
            return True


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
    """Which images it was trained on."""

    name: str
    digest: str
    source: str


@dataclass(frozen=True)
class Predictions:
    """Probabilities (n, classes) float32 and labels (n,) int64 of the test and the validation images."""

    test_probabilities: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    test_image_digests: NDArray[np.uint64]
    validation_probabilities: NDArray[np.float32]
    validation_labels: NDArray[np.int64]


class Record(BaseModel):
    """`record.json` and the door to the other files of its run directory."""

    model_config = ConfigDict(extra="ignore", validate_assignment=True)
    _directory: Path = PrivateAttr()
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    format: Literal[1] = 1
    name: RunName
    state: State = "running"
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
    epochs_run: int = 0
    parameters: int
    metrics: dict[str, float] = Field(default_factory=dict)
    overfitting: Overfitting | None = None
    weights_digest: str | None = None
    predictions_digest: str | None = None
    dataset: DatasetSummary
    code_digest: str
    versions: dict[str, str]
    mlflow: MLflowState = Field(default_factory=MLflowState)
    reproduces: RunName | None = None
    error: Failure | None = None

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self._directory

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.yaml` as plain mappings."""
        path = self.directory / CONFIG
        values = read_yaml(path)
        if not isinstance(values, dict):
            raise InputError(f"{path}: must be a mapping, received {type(values).__name__}")
        return values

    @property
    def rows(self) -> list[EpochRow]:
        """The finished epochs."""
        return read_history(self.directory / HISTORY)

    @cached_property
    def history(self) -> dict[str, NDArray[Any]]:
        """`history.csv` by column; every array has one value per finished epoch."""
        rows = [row.columns() for row in self.rows]
        return {name: np.array([row[name] for row in rows]) for name in COLUMNS}

    @cached_property
    def predictions(self) -> Predictions:
        """The content of `predictions.npz`.

        Raises:
            InputError: the file is missing, damaged or holds something else.
        """
        path = self.directory / PREDICTIONS
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                return Predictions(**{field.name: arrays[field.name] for field in fields(Predictions)})
        except (*UNREADABLE, KeyError, TypeError) as error:
            raise InputError(f"{path}: cannot be read as predictions ({type(error).__name__}: {error})") from None

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What it ran on, as `environment.json` tells; nothing where the file is not there or damaged."""
        with suppress(OSError, ValueError):
            values = json.loads((self.directory / ENVIRONMENT).read_bytes())
            return values if isinstance(values, dict) else {}
        return {}

    @property
    def verdict(self) -> str | None:
        """What a repeat says of its original, in a word; None where this is no repeat, or not yet a whole one."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            return str(json.loads((self.directory / VERDICT).read_bytes())["verdict"])
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
            if any(not path.name.startswith(f".{RECORD}.") for path in directory.iterdir()):
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


def load(directory: Path | str) -> Record:
    """The record of a run directory. A `running` record whose process is gone is read as `interrupted`.

    Raises:
        InputError: there is no record, or it is damaged.
    """
    path = Path(directory) / RECORD
    try:
        record = Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); a run directory holds a {RECORD}") from None
    except ValidationError as error:
        where = ", ".join(".".join(map(str, e["loc"])) or e["type"] for e in error.errors())
        raise InputError(f"{path}: is damaged or not a record of a run (see {where})") from None
    _refuse_ways_out(path.parent)
    record._directory = path.parent
    if record.state == "running" and record.process.is_gone():
        record.state = "interrupted"
    return record


def _refuse_ways_out(directory: Path) -> None:
    """Refuses links to the outside: what is read, mirrored or written here would be somebody else's."""
    inside = os.path.realpath(directory) + os.sep
    for folder, folders, files in os.walk(directory):
        for path in (os.path.join(folder, name) for name in (*folders, *files)):
            if os.path.islink(path) and not os.path.realpath(path).startswith(inside):
                raise InputError(f"{path}: leads out of the run directory; a run holds its own files")


def run_directories(home: Path) -> Iterator[Path]:
    """Every directory under `home` that holds a record, links left out: single runs first, then sweeps' jobs."""
    for pattern in (f"outputs/*/{RECORD}", f"multirun/*/*/{RECORD}"):
        directories = (path.parent for path in home.glob(pattern))
        yield from sorted(directory for directory in directories if not directory.is_symlink())


def find(text: str, home: Path) -> list[Record]:
    """The runs that `text` names: a run directory, a run's name, `sweep/number`, a sweep, or an MLflow run id's prefix.

    Raises:
        InputError: none or several different things match, or a record is damaged.
    """
    for base in (Path(text), home / "outputs" / text, home / "multirun" / text) if text else ():
        if (base / RECORD).is_file():
            return [load(base)]
        if members := _members(base):
            return members
    return [_find_by_id(text, home)]


def _members(sweep: Path) -> list[Record]:
    """The runs of a sweep in the order of their numbers: 2 before 10."""
    directories = (path.parent for path in sweep.glob(f"*/{RECORD}"))
    return [load(directory) for directory in sorted(directories, key=lambda path: (len(path.name), path.name))]


def _find_by_id(text: str, home: Path) -> Record:
    """The one record under `home` whose MLflow run id or name starts with `text`."""
    found = [record for record in _readable(home) if (record.mlflow.run_id or "").startswith(text)]
    found = found or [record for record in _readable(home) if record.name.startswith(text)]
    if len(found) == 1 and text:
        return found[0]
    if found:
        some = ", ".join(record.name for record in found[:5])
        raise InputError(
            f"{text}: matches {len(found)} runs ({some}{', …' if len(found) > 5 else ''}); give more of it"
        )
    raise InputError(
        f"{text}: no such run or sweep; looked for a run directory, a name in {home / 'outputs'} and "
        f"{home / 'multirun'}, and an MLflow run id; `python -m experiments.run` makes a run"
    )


def _readable(home: Path) -> Iterator[Record]:
    for directory in run_directories(home):
        with suppress(InputError):  # a damaged record has no id to match; naming it directly tells what is wrong
            yield load(directory)


def unmirrored(home: Path) -> list[Record]:
    """The runs that have ended and whose mirror in MLflow is not complete."""
    return [record for record in _readable(home) if record.state != "running" and not record.mlflow.synced]


def newest_sweep(home: Path) -> list[Record]:
    """The runs of the sweep that ran last.

    Raises:
        InputError: there is no sweep.
    """
    written = {path.parent.parent: path.stat().st_mtime for path in _by_time(home.glob(f"multirun/*/*/{RECORD}"))}
    if not written:
        raise InputError(
            f"{home / 'multirun'}: holds no sweep; `python -m experiments.run -m optimizer=sgd,rmsprop,adam` makes one"
        )
    for sweep in written:  # its runs may be links to older ones, or written again when they are mirrored later
        with suppress(OSError):
            written[sweep] = (sweep / SWEEP_NOTE).stat().st_mtime
    return _members(max(written, key=lambda sweep: written[sweep]))


def _by_time(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces `path` in one step: readers and a power loss see the old content or the new one, never a part."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(2)}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def settle(path: Path) -> None:
    """Makes a file, or the names in a directory, survive a power loss from now on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Replaces an `.npz`, which holds no pickle."""
    write_atomically(path, pack_arrays(arrays))


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of an `.npz`."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def write_history(path: Path, rows: Sequence[EpochRow]) -> None:
    """Replaces `history.csv`."""
    lines = [",".join(COLUMNS)]
    lines += [",".join(str(value) for value in row.columns().values()) for row in rows]
    write_atomically(path, "\n".join(lines) + "\n")


def read_history(path: Path) -> list[EpochRow]:
    """The rows of a `history.csv`; none where the file is not there yet.

    Raises:
        InputError: a column is missing or a value is not a number.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        try:
            return [_row(line) for line in csv.DictReader(file)]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: is damaged ({type(error).__name__}: {error})") from None


def _row(line: Mapping[str, str]) -> EpochRow:
    return EpochRow(*(kind(line[name]) for name, kind in COLUMNS.items()))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replaces a JSON file."""
    write_atomically(path, json_text(values))


def json_text(values: Mapping[str, Any]) -> str:
    """The text of a JSON file, for people too."""
    return json.dumps(values, indent=1) + "\n"


def now() -> datetime:
    """The time in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def home() -> Path:
    """`$EXPERIMENTS_HOME`, or the current directory: what holds outputs/, multirun/, mlflow.db and mlartifacts/."""
    return Path(os.environ.get("EXPERIMENTS_HOME") or ".").resolve()
