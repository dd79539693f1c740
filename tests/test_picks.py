"""Images of a file that are chosen by their indices and read when they are asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import train
from experiments.config import compose
from experiments.ingredients import picks
from experiments.ingredients.picks import Picked, pick
from test_folders import write_tree

CHOSEN = np.array([7, 0, 3, 3, 9])


@pytest.fixture
def mapped(tmp_path: Path) -> NDArray[np.uint8]:
    """Ten random 3×2 images in a file."""
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (10, 3, 2, 1), np.uint8))
    images: NDArray[np.uint8] = np.load(tmp_path / "images.npy", mmap_mode="r")
    return images


def test_picked_images_are_those_of_a_copy(mapped: NDArray[np.uint8]) -> None:
    copy, picked = np.array(mapped)[CHOSEN], pick(mapped, CHOSEN)
    assert isinstance(picked, Picked)
    assert (picked.shape, picked.dtype, picked.nbytes, len(picked)) == (copy.shape, copy.dtype, copy.nbytes, 5)
    np.testing.assert_array_equal(np.asarray(picked), copy)
    np.testing.assert_array_equal(np.stack(list(picked)), copy)
    np.testing.assert_array_equal(picked[np.array([4, 0])], copy[[4, 0]])
    np.testing.assert_array_equal(picked[2], copy[2])
    part = picked[1::2][:2]
    assert isinstance(part, Picked)
    np.testing.assert_array_equal(np.asarray(part), copy[1::2][:2])


def test_slices_are_views_and_what_is_in_memory_is_copied(mapped: NDArray[np.uint8]) -> None:
    assert np.shares_memory(pick(mapped, slice(4)), mapped)
    assert isinstance(pick(np.array(mapped), CHOSEN), np.ndarray)


@pytest.mark.parametrize("split", [["dataset.split_seed=3"], ["dataset.folds=3", "dataset.fold=1"]])
def test_drawn_part_of_a_folder_is_not_copied_and_trains_to_the_same_bits(
    split: list[str], tmp_path: Path, tensorflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.training import batches, loop

    tree = write_tree(tmp_path / "tree")
    options = ("dataset=files", f"dataset.path={tree}", "model=linear", "training.batch_size=16", *split)
    config = compose(*options, "training.epochs=2")
    data = config.dataset.load()
    assert isinstance(data.train.images, Picked)
    assert isinstance(data.validation.images, Picked)
    measured = loop.measured_images(data.train)
    rows = {}
    for kind, most in (("in memory", batches.COPIED_BYTES), ("streamed", 0)):
        monkeypatch.setattr(batches, "COPIED_BYTES", most)
        rows[kind] = train(config, data, measured=measured).rows
    monkeypatch.setattr(picks, "Picked", lambda images, chosen: np.array(images)[chosen])
    copied = config.dataset.load()
    assert isinstance(copied.train.images, np.ndarray)
    rows["copied"] = train(config, copied, measured=loop.measured_images(copied.train)).rows
    told = {kind: [replace(row, seconds=0) for row in found] for kind, found in rows.items()}
    assert told["in memory"] == told["streamed"] == told["copied"]
