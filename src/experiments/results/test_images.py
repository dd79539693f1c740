"""The pixels behind test image numbers, for figures and galleries; nothing is downloaded, no TensorFlow is started."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from experiments.config import RunConfig, validate_dataset
from experiments.errors import InputError
from experiments.ingredients import downloads, qmnist
from experiments.ingredients.option import fill_in
from experiments.ingredients.splits import ImageData
from experiments.results.evaluation import image_digests


@dataclass(frozen=True, eq=False)
class TestImages:
    """Test images as the runs saw them.

    Attributes:
        pixels: (n, height, width, 1 or 3) uint8; None where they are not to be had.
        class_names: of the labels; none where they are not known.
        doubtful: image index → the labels that a majority of raters gave it, empty where none has one.
        missing: why there are no pixels, one sentence; "" where there are.
    """

    __test__ = False

    pixels: NDArray[np.uint8] | None
    class_names: tuple[str, ...]
    doubtful: Mapping[int, tuple[int, ...]]
    missing: str


def of_data(data: ImageData) -> TestImages:
    """Those of a data set that is in memory."""
    return TestImages(data.test.images, data.class_names, data.doubtful, "")


def load_test_images(dataset: Any, digests: NDArray[np.uint64], dataset_digest: str) -> TestImages:
    """The test images that a saved config leads to, where they are on this machine.

    Args:
        dataset: the part `dataset` of the config, plain values that somebody else may have written.
        digests: (n,) of the images that the run was tested on, see `evaluation.image_digests`; (0,) of an older run.
        dataset_digest: of the whole data set: what an older run tells.
    """
    if isinstance(dataset, Mapping):
        dataset = fill_in(RunConfig, {"dataset": dataset})["dataset"]  # it may be older than some knobs
        if missing := [name for file, name in _files(dataset).items() if not _is_here(file)]:
            return without(f"The file of {missing[0]} is not on this machine, so there are no pictures here.")
    try:
        data = validate_dataset(dataset).load()
    except ValidationError as error:
        first = error.errors()[0]
        return _unloadable(f"dataset.{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")
    except InputError as error:
        return _unloadable(error.mistakes[0])
    same = np.array_equal(image_digests(data.test.images), digests) if len(digests) else data.digest == dataset_digest
    if not same:
        return without("The data set on this machine has other test images than the runs, so none are shown.")
    return of_data(data)


def files_of(dataset: Mapping[str, Any], dataset_digest: str) -> Mapping[str, Sequence[str]]:
    """`validation` and `test` → the path of each image's file below `dataset.path`; empty where they are not known.

    Args:
        dataset: the part `dataset` of a saved config.
        dataset_digest: of the images that are meant: others have other files.
    """
    try:
        data = validate_dataset(fill_in(RunConfig, {"dataset": dataset})["dataset"]).load()
    except (ValidationError, InputError):
        return {}
    return data.files if data.digest == dataset_digest else {}


def _unloadable(reason: str) -> TestImages:
    return without(f"The images cannot be loaded, so there are no pictures here ({reason}).")


def without(reason: str) -> TestImages:
    """No images, and why."""
    return TestImages(None, (), {}, reason)


def _files(dataset: Mapping[str, Any]) -> dict[str, str]:
    """The files that would be downloaded where they are missing → the data set that they are of."""
    name = dataset.get("name")
    if not isinstance(name, str):
        return {}
    archive = "mnist" if name == "auto" else name
    found = {f"{archive}.npz": name} if archive in downloads.KERAS_FILES and dataset.get("path") is None else {}
    return found | ({file: "qmnist" for file, _ in qmnist.FILES} if dataset.get("test") == "qmnist50k" else {})


def _is_here(file: str) -> bool:
    return any(os.path.isfile(place.path) for place in downloads.usual_places(file))
