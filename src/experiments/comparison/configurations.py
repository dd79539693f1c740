"""Runs folded into configurations: repetitions over seeds become rows of one table of right and wrong."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.comparison.intervals import images_behind
from experiments.comparison.settings import Settings, asked, label, part_of
from experiments.comparison.spread import Sample, sample, sample_of_means
from experiments.errors import InputError
from experiments.results.evaluation import Interval, image_cross_entropy, predictions_digest
from experiments.results.files import PREDICTIONS, RECORD
from experiments.results.records import Predictions, Record

UNTESTED = "(no predictions)"  # of a configuration, which may have a namesake whose runs have them


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
        validation_errors: (runs,) standard error of the mean cross-entropy over validation images, nats.
    """

    test_set: ImageSet
    right: NDArray[np.bool_]
    losses: NDArray[np.float32]
    predicted: NDArray[np.int16]
    confidence: NDArray[np.float32]
    validation_errors: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Configuration:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: what makes it different from the others, in a few words.
        settings: the same by option, see `settings.asked`.
        records: its runs in the order of seeds; `scores` has a row for each.
        scores: None where the runs have no predictions; the record's metrics are then all that is known.
    """

    label: str
    settings: Settings
    records: tuple[Record, ...]
    scores: Scores | None

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(record.seed for record in self.records)

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Test accuracy of each run."""
        if self.scores is not None:
            return tuple(float(share) for share in self.scores.right.mean(axis=1))
        return tuple(record.metrics.get("test/accuracy", float("nan")) for record in self.records)

    @property
    def validation_errors(self) -> tuple[float, ...]:
        """Of each run, see `Scores`; NaN where it is not known."""
        return tuple(self.scores.validation_errors) if self.scores else (math.nan,) * len(self.records)

    def mean(self, metric: str) -> float:
        """Mean of a metric over the runs; NaN where no run has it."""
        values = [record.metrics[metric] for record in self.records if metric in record.metrics]
        return float(np.mean(values)) if values else float("nan")

    @property
    def sample(self) -> Sample:
        """Test accuracy of its runs, image by image where there are predictions."""
        if self.scores is not None:
            return sample(self.scores.right)
        images = [_images_of(record.metrics) for record in self.records]
        return sample_of_means(self.accuracies, min(images))


class Gathered(NamedTuple):
    """The finished runs as configurations, best validation accuracy first, and what is to be said of them."""

    configurations: tuple[Configuration, ...]
    notes: tuple[str, ...]


class _Row(NamedTuple):
    test_set: ImageSet
    right: NDArray[np.bool_]
    losses: NDArray[np.float32]
    predicted: NDArray[np.int16]
    confidence: NDArray[np.float32]
    validation_error: np.float64


def gather(records: Sequence[Record]) -> Gathered:
    """Reads the predictions of finished runs and folds the runs by configuration.

    A run that repeats another (same run key) is the same experiment and counts once, as its newest. Runs
    without predictions are kept apart from those of their configuration that have them: they enter no test.
    """
    newest = {record.keys[0]: record for record in sorted(records, key=lambda record: record.started_at)}
    kept = sorted(newest.values(), key=lambda record: (record.seed, record.name))
    rows, unreadable = _read_all(kept)
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in kept:
        row = rows.get(record.run_key)
        groups.setdefault((record.keys[1], row.test_set.key if row else ""), []).append(record)
    settings = asked([members[0] for members in groups.values()])
    configurations = [
        _configuration(members, values, [rows[member.run_key] for member in members if member.run_key in rows])
        for members, values in zip(groups.values(), settings, strict=True)
    ]
    return Gathered(tuple(sorted(configurations, key=_rank)), _notes(records, kept, unreadable, rows))


def _images_of(metrics: Mapping[str, float]) -> int:
    """How many test images are behind a run's metrics; 0 where they do not tell."""
    share, low, high = (metrics.get(f"test/accuracy{end}", math.nan) for end in ("", "_low", "_high"))
    return images_behind(share, Interval(low, high))


def _rank(configuration: Configuration) -> tuple[float, float, str]:
    """Best validation accuracy first, then validation cross-entropy, then the name; the unknown last."""
    accuracy = configuration.mean("validation/accuracy")
    cross_entropy = configuration.mean("validation/cross_entropy")
    return (
        -accuracy if np.isfinite(accuracy) else np.inf,
        cross_entropy if np.isfinite(cross_entropy) else np.inf,
        configuration.label,
    )


def _configuration(members: list[Record], settings: Settings, rows: list[_Row]) -> Configuration:
    chosen = [part_of(members[0].config, part).get("name", "–") for part in ("model", "optimizer")]
    name = label(settings) or " · ".join(map(str, chosen))
    scores = Scores(rows[0].test_set, *map(np.stack, list(zip(*rows, strict=True))[1:])) if rows else None
    return Configuration(name if scores else f"{name} {UNTESTED}", settings, tuple(members), scores)


def _read_all(records: Sequence[Record]) -> tuple[dict[str, _Row], list[str]]:
    """Rows by run key, and one line for each run whose predictions cannot be used."""
    test_sets: dict[str, ImageSet] = {}
    by_data: dict[str, ImageSet] = {}  # an older run tells only which data set it was tested on
    rows: dict[str, _Row] = {}
    unreadable = []
    for record in records:
        try:
            row = rows[record.run_key] = _read(read_predictions(record), record.dataset.digest, test_sets)
        except InputError as error:
            unreadable.append(f"{record.name} enters no test and no gallery: {error}")
        else:
            if len(row.test_set.image_digests):
                by_data[_key(row.test_set.labels, record.dataset.digest.encode())] = row.test_set
    whole = {key: row._replace(test_set=by_data.get(row.test_set.key, row.test_set)) for key, row in rows.items()}
    return whole, unreadable


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
    tests = _accuracy(predictions.test_probabilities, predictions.test_labels)
    digests = predictions.test_image_digests
    if tests is None or (len(digests) and digests.shape != predictions.test_labels.shape):
        raise InputError(f"{path}: holds no labels and probabilities that belong together")
    found = {"test/accuracy": tests}
    if len(predictions.validation_probabilities) or len(predictions.validation_labels):
        validations = _accuracy(predictions.validation_probabilities, predictions.validation_labels)
        if validations is None:
            raise InputError(f"{path}: holds no labels and probabilities that belong together")
        found["validation/accuracy"] = validations
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


def _read(predictions: Predictions, dataset_digest: str, test_sets: dict[str, ImageSet]) -> _Row:
    labels, digests = predictions.test_labels, predictions.test_image_digests
    key = _key(labels, digests.tobytes() or dataset_digest.encode())
    test_set = test_sets.setdefault(key, ImageSet(key, labels, digests))
    predicted = predictions.test_probabilities.argmax(axis=1).astype(np.int16)
    losses = image_cross_entropy(predictions.test_probabilities, labels).astype(np.float32)
    confidence = predictions.test_probabilities.max(axis=1).astype(np.float32)
    error = np.float64(math.nan)
    if images := len(predictions.validation_labels):
        of_validation = image_cross_entropy(predictions.validation_probabilities, predictions.validation_labels)
        error = np.float64(of_validation.std() / math.sqrt(images))
    return _Row(test_set, predicted == labels, losses, predicted, confidence, error)


def _notes(
    records: Sequence[Record], kept: Sequence[Record], unreadable: list[str], rows: Mapping[str, _Row]
) -> tuple[str, ...]:
    notes = list(unreadable)
    if repeats := len(records) - len(kept):
        notes.append(f"{repeats} of the runs repeat others with the same run key, which count once.")
    if len({row.test_set.key for row in rows.values()}) > 1:
        notes.append(
            "The runs were tested on different images. Only runs with the same test images are paired; the "
            "others are compared with unpaired intervals, and their accuracies answer different questions."
        )
    if len({record.sources_digest or record.code_digest for record in kept}) > 1:
        notes.append("The runs were made by different versions of the code.")
    if len({tuple(sorted(record.versions.items())) for record in kept}) > 1:
        notes.append("The runs were made with different versions of TensorFlow, Keras or NumPy.")
    return tuple(notes)
