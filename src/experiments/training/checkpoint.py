"""The exact training state at an epoch's end: weights, optimizer, best weights and history. No pickle.

Order, augmentation, dropout, plateau and early stopping are functions of the seed, the epoch and the history, so
nothing else has to be kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.results.records import EpochRow, write_atomically

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
        note = {"digest": hashlib.sha256(data).hexdigest(), "rows": [asdict(row) for row in state.rows]}
        write_atomically(self.directory / f"{stem}.json", json.dumps(note))
        for path in sorted(self.directory.glob("epoch-*.json"))[:-KEPT]:
            path.unlink()
            path.with_suffix(".npz").unlink(missing_ok=True)

    def restore(self, model: Any) -> State:
        """Sets the model and its optimizer to the newest whole checkpoint; an empty state where there is none."""
        for note, arrays in self._whole():
            _unpack(model, arrays)
            best = [arrays[name] for name in sorted(arrays) if name.startswith("best/")]
            return State([EpochRow(**row) for row in note["rows"]], best or None)
        return State(rows=[], best=None)

    def rows(self) -> list[EpochRow]:
        """The finished epochs that a run here would go on after."""
        newest = next(self._whole(), None)
        return [EpochRow(**row) for row in newest[0]["rows"]] if newest else []

    def remove(self) -> None:
        """Deletes them all: the run has finished."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _whole(self) -> Iterator[tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
        """Notes and arrays of the checkpoints that agree with their digests, newest first."""
        for path in sorted(self.directory.glob("epoch-*.json"), reverse=True):
            try:
                note = json.loads(path.read_bytes())
                data = path.with_suffix(".npz").read_bytes()
                if hashlib.sha256(data).hexdigest() != note["digest"]:
                    continue
                with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                    yield note, dict(arrays)
            except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
                continue  # half-written when the process was killed: the one before it is whole


def _pack(model: Any, state: State) -> bytes:
    arrays = {name: np.asarray(variable) for name, variable in _variables(model)}
    arrays |= {f"best/{i:05d}": weights for i, weights in enumerate(state.best or [])}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _unpack(model: Any, arrays: dict[str, NDArray[Any]]) -> None:
    for name, variable in _variables(model):
        variable.assign(arrays[name])


def _variables(model: Any) -> Iterator[tuple[str, Any]]:
    """What training changes: weights and the optimizer's variables, its step counter among them."""
    yield from ((f"weights/{i:05d}", variable) for i, variable in enumerate(model.weights))
    yield from ((f"optimizer/{i:05d}", variable) for i, variable in enumerate(model.optimizer.variables))
