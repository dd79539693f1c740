"""The predictions of runs: read, checked against their records, and what they say about the same test images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.errors import InputError
from experiments.results.evaluation import image_cross_entropy, predictions_digest
from experiments.results.files import PREDICTIONS, RECORD
from experiments.results.records import Predictions, Record


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images that runs were tested on, without their pixels.

    Attributes:
        labels: (n,).
        image_digests: (n,), see `evaluation.image_digests`; (0,) where they are not known.
    """

    key: str
    labels: NDArray[np.int64]
    image_digests: NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Scores:
    """What the models of some runs say about the same test images.

    Attributes:
        test_set: the images, in their order.
        right: (runs, n) whether the most probable class is the label.
        losses: (runs, n) cross-entropy, nats.
        predicted: (runs, n) the most probable class.
        confidence: (runs, n) its probability.
    """

    test_set: ImageSet
    right: NDArray[np.bool_]
    losses: NDArray[np.float32]
    predicted: NDArray[np.int16]
    confidence: NDArray[np.float32]


class Read(NamedTuple):
    """What was read.

    Attributes:
        rows: scores of single runs, by run key.
        errors: standard error of the final cross-entropy over validation images, nats, by run key.
        unreadable: a line for each run whose predictions cannot be used.
    """

    rows: dict[str, Scores]
    errors: dict[str, float]
    unreadable: list[str]


def read_all(records: Sequence[Record]) -> Read:
    """The predictions of runs, each once; of a sealed run only those of validation images."""
    test_sets: dict[str, ImageSet] = {}
    by_data: dict[str, ImageSet] = {}  # an older run tells only which data set it was tested on
    rows: dict[str, Scores] = {}
    errors: dict[str, float] = {}
    unreadable = []
    for record in records:
        try:
            predictions = read_predictions(record)
        except InputError as error:
            unreadable.append(f"{record.name} enters no test and no gallery: {error}")
            continue
        errors[record.run_key] = _validation_error(predictions)
        if record.sealed:
            continue
        row = rows[record.run_key] = _read(predictions, record.dataset.digest, test_sets)
        if len(row.test_set.image_digests):
            by_data[_key(row.test_set.labels, record.dataset.digest.encode())] = row.test_set
    whole = {key: replace(row, test_set=by_data.get(row.test_set.key, row.test_set)) for key, row in rows.items()}
    return Read(whole, errors, unreadable)


def together(scores: Sequence[Scores]) -> Scores:
    """Those of all runs, of one or more that saw the same test images."""
    parts = zip(*((s.right, s.losses, s.predicted, s.confidence) for s in scores), strict=True)
    return Scores(scores[0].test_set, *map(np.concatenate, parts))


def _validation_error(predictions: Predictions) -> float:
    labels = predictions.validation_labels
    if not len(labels):
        return math.nan
    losses = image_cross_entropy(predictions.validation_probabilities, labels)
    return float(losses.std() / math.sqrt(len(labels)))


def _key(labels: NDArray[np.int64], images: bytes) -> str:
    return hashlib.sha256(labels.tobytes() + images).hexdigest()


def read_predictions(record: Record) -> Predictions:
    """A run's predictions, not kept in memory by the record.

    Raises:
        InputError: they cannot be read, or are not those that the record tells of.
    """
    path = record.directory / PREDICTIONS
    if not path.exists():
        raise InputError(f"{path}: is missing")
    predictions = record.predictions
    record.__dict__.pop("predictions", None)
    found = {}
    for split in ("validation",) if record.sealed else ("test", "validation"):
        probabilities = getattr(predictions, f"{split}_probabilities")
        labels = getattr(predictions, f"{split}_labels")
        if split == "validation" and not (len(probabilities) or len(labels)):
            continue  # an older run
        accuracy = _accuracy(probabilities, labels)
        if accuracy is None or (split == "test" and len(predictions.test_image_digests) not in (0, len(labels))):
            raise InputError(f"{path}: holds no labels and probabilities that belong together")
        found[f"{split}/accuracy"] = accuracy
    for name, value in found.items():
        if not math.isclose(value, told := record.metrics.get(name, value), abs_tol=1e-9):
            raise InputError(f"{path}: was changed after the run ({name} {value:g}, {RECORD} has {told:g})")
    digest = record.predictions_digest
    if digest and digest != predictions_digest(predictions.test_probabilities):
        raise InputError(f"{path}: was changed after the run (its digest is not the one in {RECORD})")
    return predictions


def _accuracy(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float | None:
    """None where they do not belong together."""
    if labels.shape != probabilities.shape[:1] or probabilities.ndim != 2 or 0 in probabilities.shape:
        return None
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        return None
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def _read(predictions: Predictions, dataset_digest: str, test_sets: dict[str, ImageSet]) -> Scores:
    labels, digests = predictions.test_labels, predictions.test_image_digests
    key = _key(labels, digests.tobytes() or dataset_digest.encode())
    test_set = test_sets.setdefault(key, ImageSet(key, labels, digests))
    predicted = predictions.test_probabilities.argmax(axis=1).astype(np.int16)
    losses = image_cross_entropy(predictions.test_probabilities, labels).astype(np.float32)
    confidence = predictions.test_probabilities.max(axis=1).astype(np.float32)
    return Scores(test_set, (predicted == labels)[None], losses[None], predicted[None], confidence[None])
