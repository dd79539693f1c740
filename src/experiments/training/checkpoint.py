"""The exact training state at an epoch's end: weights, optimizer, best weights and history. No pickle.

Order, augmentation, dropout, plateau and early stopping are functions of the seed, the epoch and the history, so
nothing else has to be kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.archives import UNREADABLE as DAMAGED
from experiments.archives import unpack_arrays
from experiments.bounded import HISTORY_BYTES as ROWS_BYTES
from experiments.bounded import open_file, parse_json, read_json, require_memory
from experiments.errors import InputError
from experiments.results.files import FIELDS, EpochRow, column, make_row, pack_arrays, settle, write_atomically
from experiments.upgrades import FORMAT, FormatError, bring_up, newest

log = logging.getLogger(__name__)
CHECKPOINT_BYTES = 16_000_000_000  # a billion parameters, Adam's moments and the best weights
NOTE_BYTES = 10_000
NUMBER_BYTES = 8  # the most that one takes
ROWS = "rows"  # the history, as JSON, in the file whose digest is checked
UNREADABLE = (*DAMAGED, KeyError, TypeError, AttributeError)
NEEDED = "validation/cross_entropy"  # what schedules and early stopping look at
KEPT = 2  # the newest may be half-written when the power goes; the one before it is whole


@dataclass(frozen=True)
class State:
    """Where a training stands, beside the model itself."""

    rows: list[EpochRow]
    best: list[NDArray[Any]] | None


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run: `epoch-<n>.npz`, valid only with the digest in `epoch-<n>.json`."""

    directory: Path

    def save(self, model: Any, state: State) -> None:
        """Adds the checkpoint of the newest row's epoch and drops all but the last two."""
        self.directory.mkdir(exist_ok=True)
        stem = f"epoch-{len(state.rows):05d}"
        data = _pack(model, state)
        write_atomically(self.directory / f"{stem}.npz", data)
        note = {FORMAT: newest("checkpoint"), "digest": hashlib.sha256(data).hexdigest()}
        write_atomically(self.directory / f"{stem}.json", json.dumps(note))
        settle(self.directory)  # before an older one goes: the power may fail in between
        for path in sorted(self.directory.glob("epoch-*.json"))[:-KEPT]:
            path.unlink()
            path.with_suffix(".npz").unlink(missing_ok=True)

    def restore(self, model: Any) -> State:
        """Sets the model and its optimizer to the newest whole checkpoint; an empty state where there is none.

        Raises:
            FormatError: the newest was written by a newer version; it would be lost if the training began anew.
        """
        most_bytes = 2 * NUMBER_BYTES * sum(math.prod(variable.shape) for _, variable in _variables(model)) + ROWS_BYTES
        for path in self._newest_first():
            try:
                arrays = _read(path, most_bytes=most_bytes)
                state = _unpack(model, arrays)
            except FormatError:
                raise
            except (*UNREADABLE, InputError) as error:  # the one before it is whole
                log.warning("%s: cannot be used (%s); going back to the one before", path, error)
            else:
                return state
        return State(rows=[], best=None)

    def rows(self) -> list[EpochRow]:
        """The finished epochs that a run here would go on after."""
        for path in self._newest_first():
            with suppress(*UNREADABLE, InputError):
                return _rows(_read(path, (ROWS,), ROWS_BYTES))
        return []

    def remove(self) -> None:
        """Deletes them all: the run has finished."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.directory.glob("epoch-*.json"), reverse=True)


def _read(note: Path, wanted: Sequence[str] | None = None, most_bytes: int | None = None) -> dict[str, NDArray[Any]]:
    """The arrays that a note belongs to.

    Args:
        note: `epoch-<n>.json`.
        wanted: names of arrays; None: all.
        most_bytes: the most that these take; None: what is free.

    Raises:
        InputError: they do not have the note's digest, or are no plain arrays, or too large; others of `UNREADABLE`.
        FormatError: they are of a newer format.
    """
    said = bring_up("checkpoint", dict(read_json(note, NOTE_BYTES)))
    path = note.with_suffix(".npz")
    with open_file(path, CHECKPOINT_BYTES) as file:
        require_memory(os.fstat(file.fileno()).st_size, str(path))  # before it is read from beginning to end
        if said["digest"] != hashlib.file_digest(file, "sha256").hexdigest():
            raise InputError(f"{path}: its digest is another one")
        file.seek(0)
        return unpack_arrays(file, str(path), wanted, most_bytes)


def _pack(model: Any, state: State) -> bytes:
    arrays = {name: np.asarray(variable) for name, variable in _variables(model)}
    arrays |= {f"best/{i:05d}": weights for i, weights in enumerate(state.best or [])}
    arrays[ROWS] = np.frombuffer(json.dumps([_fields(row) for row in state.rows]).encode(), np.uint8)
    return pack_arrays(arrays)


def _unpack(model: Any, arrays: dict[str, NDArray[Any]]) -> State:
    variables = dict(_variables(model))
    for name, variable in variables.items():
        if arrays[name].shape != tuple(variable.shape):
            raise ValueError(f"{name} has shape {arrays[name].shape}, the model {tuple(variable.shape)}")
    rows = _rows(arrays)
    for name, variable in variables.items():
        variable.assign(arrays[name])
    best = [arrays[name] for name in sorted(arrays) if name.startswith("best/")]
    return State(rows, best or None)


def _fields(row: EpochRow) -> dict[str, Any]:
    """The known values, by field."""
    return {FIELDS[name]: value for name, value in row.columns().items()}


def _rows(arrays: dict[str, NDArray[Any]]) -> list[EpochRow]:
    told = parse_json(arrays[ROWS].tobytes(), ROWS)
    rows = [make_row({column(name): value for name, value in row.items()}) for row in told]
    if any(NEEDED in row.unknown for row in rows):
        raise ValueError(f"it lacks {NEEDED}, which decides how the training goes on")
    return rows


def _variables(model: Any) -> Iterator[tuple[str, Any]]:
    """What training changes: weights and the optimizer's variables, its step counter among them."""
    yield from ((f"weights/{i:05d}", variable) for i, variable in enumerate(model.weights))
    yield from ((f"optimizer/{i:05d}", variable) for i, variable in enumerate(model.optimizer.variables))
