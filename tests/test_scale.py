"""The scale of floats is decided once for a whole data set, and one odd value cannot turn it."""

import logging
from pathlib import Path

import numpy as np
import pytest

from experiments.config import compose
from experiments.errors import InputError
from experiments.ingredients.images import Content
from experiments.ingredients.npz import read_archive
from experiments.ingredients.scale import decide_scale, to_uint8
from experiments.recording import Origin, open_record, recording
from experiments.results import lookup

BYTES = np.random.default_rng(0).integers(0, 256, (16, 6, 5)).astype(np.float32)
UNITS = (BYTES / 255).astype(np.float32)


def odd(images: np.ndarray, value: float) -> np.ndarray:
    changed = images.copy()
    changed[3, 2, 1] = value
    return changed


def decide(*arrays: np.ndarray) -> str:
    return decide_scale({f"x_{part}": array for part, array in zip(("train", "test", "val"), arrays, strict=False)})


def read(path: Path, scale: str, x_train: np.ndarray, x_test: np.ndarray, **more: np.ndarray) -> Content:
    labels = {"y_train": np.arange(len(x_train)) % 4, "y_test": np.arange(len(x_test)) % 4}
    np.savez(path / "a.npz", x_train=x_train, x_test=x_test, **labels, **more)
    return read_archive(path / "a.npz", scale)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ((UNITS, UNITS), "unit"),
        ((UNITS * 0.02, UNITS * 0.01), "unit"),  # dark, but fractions
        ((UNITS, np.rint(UNITS)), "unit"),  # test has 0 and 1 only
        ((BYTES, BYTES), "byte"),
        ((BYTES, np.rint(UNITS)), "byte"),  # a dark test part
        ((BYTES, np.ones((4, 6, 5))), "byte"),
        ((odd(BYTES, 0.5), BYTES), "byte"),
        ((BYTES.astype(np.uint8), BYTES.astype(np.int64)), "byte"),
        ((np.ones((4, 6, 5), np.uint8),), "byte"),  # whole numbers are never scaled
        ((BYTES, BYTES.astype(np.uint8)), "byte"),
    ],
)
def test_scale_is_found(arrays: tuple[np.ndarray, ...], expected: str):
    assert decide(*arrays) == expected


@pytest.mark.parametrize(
    "arrays",
    [
        (odd(UNITS, 1.0000001), UNITS),
        (UNITS, odd(UNITS, 1.5)),
        (odd(UNITS, 200), UNITS),
        (UNITS * 1.00001, UNITS),
        (UNITS, BYTES),
        (BYTES, UNITS),
        (BYTES, BYTES, UNITS),
        (UNITS, BYTES.astype(np.uint8)),
        (np.rint(UNITS), np.rint(UNITS)),  # 0 and 1: either
        (odd(np.rint(UNITS), 0.5), np.rint(UNITS)),
        (np.rint(UNITS * 15), np.rint(UNITS * 15)),
        (odd(np.rint(UNITS * 15), 255), np.rint(UNITS * 15)),
        (np.rint(UNITS * 16), np.rint(UNITS * 16)),
        (UNITS * 100, UNITS * 100),
        (np.zeros((4, 6, 5)),),
    ],
)
def test_what_may_be_either_is_refused_in_a_line_that_names_the_option(arrays: tuple[np.ndarray, ...]):
    with pytest.raises(InputError) as caught:
        decide(*arrays)
    (line,) = caught.value.mistakes
    assert line.startswith("dataset.scale: auto cannot tell whether pixels are 0-1 or 0-255, received x_train from 0")
    assert "dataset.scale=unit" in line
    assert "dataset.scale=byte" in line


def test_the_odd_value_is_shown(tmp_path: Path):
    with pytest.raises(InputError, match=r"x_train from 0 to 1\.00000012, x_test from 0 to 1;"):
        read(tmp_path, "auto", odd(UNITS, 1.0000001), UNITS)


def test_given_scale_is_taken(tmp_path: Path):
    binary = np.rint(UNITS)
    assert read(tmp_path, "unit", binary, binary).arrays.x_train.max() == 255
    assert read(tmp_path, "byte", binary, binary).arrays.x_train.max() == 1
    assert read(tmp_path, "unit", binary.astype(np.int8), binary.astype(np.uint8)).arrays.x_test.max() == 255
    content = read(tmp_path, "unit", odd(UNITS, 1.0000001), UNITS)
    np.testing.assert_array_equal(content.arrays.x_test[..., 0], BYTES)
    assert content.arrays.x_train[3, 2, 1, 0] == 255
    for images in (odd(UNITS, 1.01), BYTES.astype(np.uint8)):
        with pytest.raises(InputError, match=r"a.npz: x_test: pixels must be in 0-1 for dataset.scale=unit, received"):
            read(tmp_path, "unit", UNITS, images)


def test_scale_is_told_where_there_was_one_to_choose(tmp_path: Path):
    content = read(tmp_path, "auto", UNITS, UNITS)
    assert content.notes == ("pixels are floats of 0-1, multiplied by 255 (dataset.scale=unit)",)
    assert content.scale == "unit"
    assert read(tmp_path, "auto", BYTES, BYTES).notes == ("pixels are floats of 0-255 (dataset.scale=byte)",)
    assert read(tmp_path, "auto", BYTES.astype(int), BYTES.astype(int)).notes == ()


def test_parts_are_converted_on_one_scale_in_pieces():
    many = np.random.default_rng(1).random((600, 3, 2, 1)).astype(np.float32)
    np.testing.assert_array_equal(to_uint8(many, "unit"), np.rint(many * 255))
    np.testing.assert_array_equal(to_uint8(many * 255, "byte"), np.rint(many * 255))
    whole = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)
    assert to_uint8(whole, "byte") is whole


def test_validation_of_its_own_is_read_and_others_are_told(tmp_path: Path):
    x_val, y_val = BYTES[:4].astype(np.uint8), np.array([3, 2, 1, 0])
    images = BYTES.astype(np.uint8)
    for x, y in (("x_val", "y_val"), ("x_valid", "y_valid"), ("x_validation", "y_validation")):
        arrays = read(tmp_path, "auto", images, images, **{x: x_val, y: y_val}).arrays
        np.testing.assert_array_equal(arrays.x_val[..., 0], x_val)
        np.testing.assert_array_equal(arrays.y_val, y_val)
    content = read(tmp_path, "auto", images, images, x_extra=x_val, names=np.array(["a"]))
    assert content.arrays.x_val is None
    assert content.notes == ("a.npz: left out 2 other arrays (x_extra, names)",)
    with pytest.raises(InputError, match=r"a.npz: must hold y_val, received x_train, "):
        read(tmp_path, "auto", images, images, x_val=x_val)
    with pytest.raises(InputError, match=r"a.npz: y_val: labels must be 0-3 as in y_train, received 9"):
        read(tmp_path, "auto", images, images, x_val=x_val, y_val=y_val + 6)
    with pytest.raises(InputError, match=r"a.npz: images of x_train and x_val must have one shape"):
        read(tmp_path, "auto", images, images, x_val=x_val[:, 1:], y_val=y_val)


def test_what_was_taken_is_said_and_stands_in_the_record(home: Path, caplog: pytest.LogCaptureFixture):
    read(home, "auto", UNITS, UNITS)
    config = compose(
        "dataset=files", f"dataset.path={home / 'a.npz'}", "dataset.validation_fraction=0.2", "tracking=none"
    )
    data = config.dataset.load()
    record = open_record(config, data, 10, home / "run", Origin())
    with caplog.at_level(logging.INFO), recording(record, config):
        pass
    saved = lookup.load(home / "run").dataset
    assert (saved.name, saved.scale) == ("a.npz", "unit")
    assert saved.notes == ["pixels are floats of 0-1, multiplied by 255 (dataset.scale=unit)"]
    assert saved.notes[0] in caplog.messages
