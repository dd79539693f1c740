"""The files of a run directory: their names, how they are written in one step, and `history.csv`."""

from __future__ import annotations

import io
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from experiments.bounded import exists, read_rows
from experiments.errors import InputError
from experiments.results import lease
from experiments.upgrades import FORMAT, newest, require_known

RECORD, HISTORY, CONFIG, LOG = "record.json", "history.csv", "config.yaml", "run.log"
ENVIRONMENT, CODE_DIFF, PREDICTIONS, MODEL = "environment.json", "code.diff", "predictions.npz", "model.keras"
OWN_DIFF = "own_code.diff"  # of the user's own project, where it is under git and changed
FIGURES, CHECKPOINT, HYDRA, VERDICT = "figures", "checkpoint", ".hydra", "verdict.json"
FILES = (CONFIG, HISTORY, ENVIRONMENT, CODE_DIFF, OWN_DIFF, PREDICTIONS, MODEL, LOG)  # beside the record
FOLDERS = (FIGURES, CHECKPOINT, HYDRA)
LARGEST = float(np.finfo(np.float32).max)  # 3.4e38, finite, of what is computed in float32
DRAFT = re.compile(r"\..+\.\d+\.[0-9a-f]{4}(\.\w+)?")  # what `replacing` gives, of the files of a sweep
SWEEP_NOTE = "sweep.json"  # of a sweep's own directory, written when it begins, goes on and ends


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces `path` in one step: readers and a power loss see the old content or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the block a path to write to, and what stands there then replaces `path` in one step.

    A process that has lost the lease on the folder ends here, and replaces nothing.

    Raises:
        FileNotFoundError: the folder is gone, or the block has not written to its path.
        OSError: the file cannot be written.
    """
    lease.check()
    folder = lease.staging(path) or path.parent
    temporary = folder / f".{path.name}.{os.getpid()}.{secrets.token_hex(2)}{path.suffix}"
    try:
        yield temporary
        settle(temporary)
        lease.check()
        temporary.replace(path)
    except FileNotFoundError:
        lease.check()  # its folder was removed by whoever took over
        raise
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


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replaces a JSON file."""
    write_atomically(path, json_text(values))


def json_text(values: Mapping[str, Any]) -> str:
    """The text of a JSON file, for people too."""
    return json.dumps(values, indent=1) + "\n"


def require_kinds(directory: Path) -> None:
    """Refuses a folder where a file of the run has to be, and the other way round.

    Raises:
        InputError: with the first such path.
    """
    for name in FILES:
        if os.path.lexists(path := directory / name) and not path.is_file():
            raise InputError(f"{path}: must be a regular file; move it away to go on with the run")
    for name in FOLDERS:
        if os.path.lexists(path := directory / name) and not path.is_dir():
            raise InputError(f"{path}: must be a folder; move it away to go on with the run")


def now() -> datetime:
    """The time in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def home() -> Path:
    """`$EXPERIMENTS_HOME`, or the current directory: what holds outputs/, multirun/, mlflow.db and mlartifacts/.

    Raises:
        InputError: it leads nowhere, or is closed.
    """
    given = os.path.expanduser(os.environ.get("EXPERIMENTS_HOME") or ".")
    if given.startswith("~"):
        raise InputError(f"EXPERIMENTS_HOME: ~ must lead to the home of a user who is there, received {given}")
    try:
        path = Path(given).resolve()
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # the current folder is gone; a loop of links; a null character
        raise InputError(f"EXPERIMENTS_HOME: {given}: leads nowhere ({error})") from None
    if exists(path) and not os.access(path, os.R_OK | os.X_OK):
        raise InputError(f"EXPERIMENTS_HOME: {path}: is closed to this user")
    return path


@dataclass(frozen=True)
class EpochRow:
    """One finished epoch, one row of `history.csv`.

    Training values are running means over the epoch, dropout and augmentation on; validation values are the model's
    at the epoch's end, and `train_measured_*` are the same of training images (`training.measure_training`).
    `*_loss` contains penalties and label smoothing, `*_cross_entropy` (nats) does not. `learning_rate` is the mean
    over the epoch's steps. `unknown` are the columns that were not measured or that an older file lacks; their values
    are then NaN, or "" for a digest.
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
    train_measured_cross_entropy: float = math.nan
    train_measured_accuracy: float = math.nan
    unknown: tuple[str, ...] = ()

    @property
    def diverged(self) -> bool:
        """Whether a loss is NaN or infinite; the training's, a mean, may be finite when the weights are not."""
        return not (math.isfinite(self.train_loss) and math.isfinite(self.validation_loss))

    def columns(self) -> dict[str, Any]:
        """The known values under the names of `history.csv` and of MLflow, as `train/loss`."""
        return {name: getattr(self, field) for name, field in FIELDS.items() if name not in self.unknown}


def column(name: str) -> str:
    """`train_cross_entropy` → `train/cross_entropy`; names without a split stay."""
    split, _, metric = name.partition("_")
    return f"{split}/{metric}" if split in ("train", "validation") else name


MEASURED = ("train/measured_cross_entropy", "train/measured_accuracy")
FIELDS = {column(field.name): field.name for field in fields(EpochRow) if field.name != "unknown"}
COLUMNS = {name: get_type_hints(EpochRow)[field] for name, field in FIELDS.items()}
UNKNOWN: Mapping[type, Any] = {float: math.nan, str: ""}


def write_history(path: Path, rows: Sequence[EpochRow]) -> None:
    """Replaces `history.csv`."""
    number = str(newest("history"))
    lines = [[*COLUMNS, FORMAT]]
    lines += [[*(str(values.get(name, "")) for name in COLUMNS), number] for values in (r.columns() for r in rows)]
    write_atomically(path, "\n".join(map(",".join, lines)) + "\n")


def read_history(path: Path) -> list[EpochRow]:
    """The rows of a `history.csv`; none where the file is not there yet.

    Raises:
        InputError: it is no regular file or too long, a row is cut off, a value is not a number or beyond all that
            training gives, or the format is newer than what is known here.
    """
    if not exists(path) and not os.path.lexists(path):
        return []
    try:
        lines = read_rows(path)
    except InputError as error:
        raise InputError(f"{path}: is damaged ({reason_of(error, path)})") from None
    try:
        return [_parse(line) for line in lines]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is damaged ({type(error).__name__}: {error})") from None
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None


def reason_of(error: InputError, path: Path) -> str:
    """What is wrong with a file, without its name."""
    return str(error).removeprefix(f"{path}: ")


def _parse(line: Mapping[str, str]) -> EpochRow:
    require_known("history", int(line.get(FORMAT, 1)))
    values = {name: kind(line[name]) for name, kind in COLUMNS.items() if line.get(name, "") != ""}
    if beyond := [name for name, value in values.items() if _is_beyond(value)]:
        raise InputError(f"{beyond[0]}: must be a number that float32 holds, received {values[beyond[0]]}")
    return make_row(values)


def _is_beyond(value: Any) -> bool:
    """Whether no training can have given it: NaN and infinity are those of one that has diverged."""
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) > LARGEST


def make_row(values: Mapping[str, Any]) -> EpochRow:
    """One epoch from its values by column; those that are not there are not known.

    Raises:
        KeyError: not even the epoch is known.
    """
    unknown = tuple(name for name in COLUMNS if name not in values)
    if "epoch" in unknown:
        raise KeyError("epoch")
    found = {name: UNKNOWN[kind] if name in unknown else values[name] for name, kind in COLUMNS.items()}
    return EpochRow(**{FIELDS[name]: value for name, value in found.items()}, unknown=unknown)
