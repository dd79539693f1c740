from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import train
from experiments.config import RunConfig
from experiments.ingredients.datasets import ImageData
from experiments.results import files
from experiments.upgrades import FormatError

Small = Callable[..., RunConfig]
STOPPED = ("model=linear", "training.epochs=4")
# Every optimizer, schedule and regularization is in test_resume.py.
CASES = {
    "early stopping that goes back": (
        "model=linear", "optimizer=sgd", "optimizer.learning_rate=1", "schedule=constant", "training.epochs=12",
        "training.batch_size=64", "regularization=early_stopping", "regularization.early_stopping.patience_epochs=2",
    ),
    "nadam, batch normalisation": (
        "model=cnn", "model.filters=[2]", "model.normalisation=batch", "optimizer=nadam",
    ),
    "noise layers of a free list": (
        "model=layers",
        "model.layers=[{layer: Flatten},{layer: GaussianNoise, stddev: 0.1},{layer: Dropout, rate: 0.2},"
        "{layer: Dense, units: 8}]",
        "optimizer=lion",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def started(tensorflow: Any) -> None:
    """Every test here trains."""


@pytest.fixture(scope="module")
def stopped(small: Small, small_data: ImageData, tmp_path_factory: pytest.TempPathFactory, tensorflow: Any) -> Path:
    """The checkpoints of a training of four epochs that was stopped after the third."""
    directory = tmp_path_factory.mktemp("stopped") / "checkpoint"
    train(small(*STOPPED), small_data, checkpoints=directory, stop_after=3)
    return directory


@pytest.fixture
def interrupted(small: Small, stopped: Path, tmp_path: Path) -> tuple[RunConfig, Path]:
    """The config of that training and a copy of its checkpoints."""
    return small(*STOPPED), Path(shutil.copytree(stopped, tmp_path / "checkpoint"))


@pytest.mark.parametrize("case", CASES)
def test_resumed_training_ends_in_the_bits_of_an_uninterrupted_one(
    case: str, small: Small, small_data: ImageData, tmp_path: Path
) -> None:
    overrides = CASES[case] if any("epochs" in given for given in CASES[case]) else (*CASES[case], "training.epochs=4")
    config = small(*overrides)
    whole = train(config, small_data)
    first = train(config, small_data, checkpoints=tmp_path, stop_after=2)
    resumed = train(config, small_data, checkpoints=tmp_path)
    assert len(first.rows) == 2
    assert [row.weights_digest for row in resumed.rows] == [row.weights_digest for row in whole.rows]
    assert resumed.trainer.weights_digest() == whole.trainer.weights_digest()
    for kept, expected in zip(resumed.rows, whole.rows, strict=True):
        assert kept.columns() | {"seconds": 0} == expected.columns() | {"seconds": 0}


@pytest.mark.parametrize(
    "precision", ["mixed_float16", pytest.param("mixed_bfloat16", marks=[pytest.mark.slow, pytest.mark.exhaustive])]
)
def test_resumed_training_is_exact_in_every_precision(
    precision: str, small: Small, small_data: ImageData, tmp_path: Path
) -> None:
    import keras

    config = small("model=mlp", "model.units=[8]", f"training.precision={precision}", "training.epochs=3")
    keras.config.set_dtype_policy(precision)
    try:
        whole = train(config, small_data)
        train(config, small_data, checkpoints=tmp_path, stop_after=1)
        resumed = train(config, small_data, checkpoints=tmp_path)
    finally:
        keras.config.set_dtype_policy("float32")
    assert [row.weights_digest for row in resumed.rows] == [row.weights_digest for row in whole.rows]
    assert whole.rows[0].train_loss > whole.rows[-1].train_loss


def test_resuming_when_all_epochs_are_done_keeps_the_best_weights(
    small: Small, small_data: ImageData, tmp_path: Path
) -> None:
    """A run that was killed while it was being evaluated."""
    config = small(*CASES["early stopping that goes back"])
    whole = train(config, small_data, checkpoints=tmp_path)
    assert whole.trainer.weights_digest() != whole.rows[-1].weights_digest
    resumed = train(config, small_data, checkpoints=tmp_path)
    assert resumed.rows == whole.rows
    assert resumed.trainer.weights_digest() == whole.trainer.weights_digest()


def test_the_last_two_checkpoints_are_kept(interrupted: tuple[RunConfig, Path]) -> None:
    names = sorted(path.name for path in interrupted[1].iterdir())
    assert names == ["epoch-00002.json", "epoch-00002.npz", "epoch-00003.json", "epoch-00003.npz"]


def truncate(directory: Path) -> None:
    path = directory / "epoch-00003.npz"
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(directory: Path) -> None:
    path = directory / "epoch-00003.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lose_the_arrays(directory: Path) -> None:
    (directory / "epoch-00003.npz").unlink()


def cut_the_note(directory: Path) -> None:
    (directory / "epoch-00003.json").write_text('{"digest": "')


def empty_the_note(directory: Path) -> None:
    (directory / "epoch-00003.json").write_text("[]")


def never_write_the_note(directory: Path) -> None:
    (directory / "epoch-00003.json").unlink()


def spoil_the_number(directory: Path) -> None:
    note = json.loads((directory / "epoch-00003.json").read_text())
    (directory / "epoch-00003.json").write_text(json.dumps(note | {"format": "x"}))


def deepen_the_rows(directory: Path) -> None:
    sign(directory, rows=np.frombuffer(b"[" * 100_000, np.uint8))


def outgrow_the_model(directory: Path) -> None:
    sign(directory, **{f"best/{i:05d}": np.zeros(5_000_000) for i in range(3)})


def open_a_pipe(directory: Path) -> None:
    path = directory / "epoch-00003.npz"
    path.unlink()
    os.mkfifo(path)


def grow_beyond_the_memory(directory: Path) -> None:
    os.truncate(directory / "epoch-00003.npz", 10**12)


def lose_what_decides(directory: Path) -> None:
    without(directory, "validation_cross_entropy")


def without(directory: Path, name: str) -> None:
    """Rewrites the newest checkpoint as one whose rows lack a value."""
    path = directory / "epoch-00003.npz"
    with np.load(path) as loaded:
        arrays = dict(loaded)
    rows = [{k: v for k, v in row.items() if k != name} for row in json.loads(arrays["rows"].tobytes())]
    sign(directory, rows=np.frombuffer(json.dumps(rows).encode(), np.uint8))


def sign(directory: Path, **changes: Any) -> None:
    """Changes arrays of the newest checkpoint, and the digest with them."""
    path = directory / "epoch-00003.npz"
    with np.load(path) as loaded:
        arrays = dict(loaded)
    np.savez(path, **(arrays | changes))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (directory / "epoch-00003.json").write_text(json.dumps({"digest": digest}))


@pytest.mark.parametrize(
    "damage",
    [
        truncate, flip_a_bit, lose_the_arrays, cut_the_note, empty_the_note, never_write_the_note, spoil_the_number,
        lose_what_decides, deepen_the_rows, outgrow_the_model, open_a_pipe, grow_beyond_the_memory,
    ],
)  # fmt: skip
def test_damaged_checkpoint_falls_back_to_the_one_before(
    damage: Callable[[Path], None], interrupted: tuple[RunConfig, Path], small_data: ImageData
) -> None:
    from experiments.training import loop
    from experiments.training.checkpoint import Checkpoints

    config, directory = interrupted
    damage(directory)
    assert len(Checkpoints(directory).rows()) in (2, 3)
    trainer = loop.build(config, small_data)
    state = Checkpoints(directory).restore(trainer.model)
    assert len(state.rows) == 2
    assert trainer.weights_digest() == state.rows[-1].weights_digest
    assert int(trainer.model.optimizer.iterations.numpy()) == 8


def test_checkpoint_of_format_1_whose_rows_lack_what_came_later_is_used(
    interrupted: tuple[RunConfig, Path], small_data: ImageData
) -> None:
    from experiments.training import loop
    from experiments.training.checkpoint import Checkpoints

    config, directory = interrupted
    for name in ("train_cross_entropy", *(files.FIELDS[name] for name in files.MEASURED)):
        without(directory, name)
    state = Checkpoints(directory).restore(loop.build(config, small_data).model)
    assert [row.unknown for row in state.rows] == [("train/cross_entropy", *files.MEASURED)] * 3


def test_checkpoint_of_a_newer_format_is_neither_used_nor_passed_over(
    interrupted: tuple[RunConfig, Path], small_data: ImageData
) -> None:
    from experiments.training import loop
    from experiments.training.checkpoint import Checkpoints

    config, directory = interrupted
    path = directory / "epoch-00003.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(FormatError, match="format: 99 needs a newer version of experiments"):
        Checkpoints(directory).restore(loop.build(config, small_data).model)
    assert len(Checkpoints(directory).rows()) == 2


def test_nothing_whole_begins_anew(interrupted: tuple[RunConfig, Path], small_data: ImageData) -> None:
    from experiments.training import loop
    from experiments.training.checkpoint import Checkpoints

    config, directory = interrupted
    for path in directory.glob("*.npz"):
        path.write_bytes(b"")
    trainer = loop.build(config, small_data)
    assert Checkpoints(directory).restore(trainer.model) == loop.State(rows=[], best=None)
    assert trainer.weights_digest() == loop.build(config, small_data).weights_digest()


def test_checkpoint_holds_no_pickle(interrupted: tuple[RunConfig, Path]) -> None:
    with np.load(interrupted[1] / "epoch-00003.npz", allow_pickle=False) as arrays:
        kinds = {name: arrays[name].dtype.kind for name in arrays.files}
    assert {"weights/00000", "weights/00001", "optimizer/00000"} <= kinds.keys()
    assert "O" not in kinds.values()


def test_pickle_in_a_checkpoint_is_not_opened(interrupted: tuple[RunConfig, Path], small_data: ImageData) -> None:
    from experiments.training import loop
    from experiments.training.checkpoint import Checkpoints

    config, directory = interrupted

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("unpickled",))

    buffer = io.BytesIO()
    np.savez(buffer, **{"weights/00000": np.array([Trap()], dtype=object)})  # type: ignore[arg-type]
    assert pickle.PROTO in buffer.getvalue()
    (directory / "epoch-00003.npz").write_bytes(buffer.getvalue())
    note = json.loads((directory / "epoch-00003.json").read_text())
    note["digest"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    (directory / "epoch-00003.json").write_text(json.dumps(note))
    assert len(Checkpoints(directory).restore(loop.build(config, small_data).model).rows) == 2


def test_remove_leaves_nothing(interrupted: tuple[RunConfig, Path]) -> None:
    from experiments.training.checkpoint import Checkpoints

    Checkpoints(interrupted[1]).remove()
    assert not interrupted[1].exists()
    Checkpoints(interrupted[1]).remove()
