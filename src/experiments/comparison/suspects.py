"""Label suspects: images whose label every run contradicts with high probability, and every one in the same way.

A run contradicts a label where its answer is another class, and is as sure of it as it is on average of the images
that carry that class's label. All runs must agree on the other class. That is confident learning's rule, with
unanimity of several trainings in place of one. Source: Northcutt, Jiang, Chuang, Confident Learning, 2021.

It rests on what networks have learnt from labels of the same source: a mistake that most labels share is not seen,
and an image that is merely hard may be listed. Only images that the run was not trained on are judged.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.comparison.comparison import Comparison
from experiments.comparison.scores import read_predictions
from experiments.comparison.settings import part_of
from experiments.errors import InputError
from experiments.results.records import Predictions, Record
from experiments.results.test_images import files_of

FEWEST_RUNS = 2  # one network's mistakes are its own
MOST_RUNS = 100  # the best by validation; of more, weak ones would only hide what these agree on
NONE = -1  # no class: the label is not contradicted, or not by all in the same way


@dataclass(frozen=True)
class Suspect:
    """An image whose label all runs on it contradict.

    Attributes:
        split: `test`, or `validation` with the split's settings where they vary.
        index: of the image in its split.
        digest: BLAKE2b-64 of its pixels, 16 hex digits; "" where it is not known.
        label: by the data set.
        answer: the class that all runs say.
        of_label: their mean probability of the label.
        of_answer: that of the answer.
        runs: how many were asked.
        dataset: the settings of its data set, as JSON.
        dataset_digest: SHA-256 (hex) of all images.
    """

    split: str
    index: int
    digest: str
    label: int
    answer: int
    of_label: float
    of_answer: float
    runs: int
    dataset: str
    dataset_digest: str


@dataclass
class _Judged:
    """One set of images, and what the runs on it say together so far."""

    split: str
    dataset: str
    dataset_digest: str
    labels: NDArray[np.int64]
    digests: NDArray[np.uint64]
    answers: NDArray[np.int16]
    of_labels: NDArray[np.float64]
    of_answers: NDArray[np.float64]
    runs: int = 0

    def add(self, probabilities: NDArray[np.float32]) -> None:
        """Takes in what one more run says, (n, classes)."""
        said = contradictions(probabilities, self.labels)
        self.answers = said if self.runs == 0 else np.where(self.answers == said, said, NONE).astype(np.int16)
        self.of_labels += np.take_along_axis(probabilities, self.labels[:, None], axis=1)[:, 0]
        self.of_answers += probabilities.max(axis=1)
        self.runs += 1

    def suspects(self) -> Iterator[Suspect]:
        """The images that all runs contradict in the same way."""
        for index in np.flatnonzero(self.answers != NONE) if self.runs >= FEWEST_RUNS else ():
            digest = f"{int(self.digests[index]):016x}" if len(self.digests) else ""
            of_label, of_answer = (float(sums[index] / self.runs) for sums in (self.of_labels, self.of_answers))
            label, answer = int(self.labels[index]), int(self.answers[index])
            said = label, answer, of_label, of_answer, self.runs
            yield Suspect(self.split, int(index), digest, *said, self.dataset, self.dataset_digest)


class Found(NamedTuple):
    """Suspects, the least probable label first, and the images and runs that were asked about."""

    suspects: tuple[Suspect, ...]
    images: int
    runs: int


def contradictions(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int16]:
    """The class that one run says with confidence in place of each label, (n,); -1 where it does not.

    Args:
        probabilities: (n, classes), rows sum to 1.
        labels: (n,) in [0, classes).
    """
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype(np.float64)
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    usual = np.bincount(labels, weights=own, minlength=classes) / np.maximum(counts, 1)
    usual[counts == 0] = np.inf  # nothing is known of how sure it is of such a class
    answers = probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1) >= usual[answers]
    return np.where((answers != labels) & sure, answers, NONE).astype(np.int16)


@cache
def of_comparison(comparison: Comparison) -> Found | None:
    """The label suspects of a comparison's best runs; None where fewer than two share images with predictions."""
    return find([record for c in comparison.configurations for record in c.records][:MOST_RUNS])


def find(records: Iterable[Record]) -> Found | None:
    """The label suspects of finished runs; None where fewer than two share images with predictions."""
    sets: dict[str, _Judged] = {}
    asked = 0
    for record in records:
        with suppress(InputError):  # what cannot be read is told by the comparison itself
            for key, judged, probabilities in _sets_of(record, read_predictions(record)):
                sets.setdefault(key, judged).add(probabilities)
            asked += 1
    shared = [judged for judged in sets.values() if judged.runs >= FEWEST_RUNS]
    if not shared:
        return None
    suspects = sorted((s for judged in shared for s in judged.suspects()), key=lambda s: (s.of_label, s.split, s.index))
    return Found(tuple(suspects), sum(len(judged.labels) for judged in shared), asked)


def _sets_of(record: Record, predictions: Predictions) -> Iterator[tuple[str, _Judged, NDArray[np.float32]]]:
    tests, digests = predictions.test_labels, predictions.test_image_digests
    dataset = part_of(record.config, "dataset")
    source = json.dumps(dataset, sort_keys=True, default=str), record.dataset.digest
    if len(tests):  # none where they are sealed
        key = _key("test", tests, digests.tobytes() or record.dataset.digest.encode())
        yield key, _judged("test", *source, tests, digests), predictions.test_probabilities
    labels = predictions.validation_labels
    if len(labels):
        fold = "" if dataset.get("fold") is None else f" fold {dataset['fold']} of {dataset.get('folds')}"
        key = _key("validation", labels, f"{record.dataset.digest} {source[0]}".encode())
        judged = _judged(f"validation{fold}", *source, labels, np.empty(0, np.uint64))
        yield key, judged, predictions.validation_probabilities


def _key(split: str, labels: NDArray[np.int64], images: bytes) -> str:
    return split + hashlib.sha256(labels.tobytes() + images).hexdigest()


def _judged(
    split: str, dataset: str, dataset_digest: str, labels: NDArray[np.int64], digests: NDArray[np.uint64]
) -> _Judged:
    nothing = np.full(len(labels), NONE, np.int16), np.zeros(len(labels)), np.zeros(len(labels))
    return _Judged(split, dataset, dataset_digest, labels, digests, *nothing)


def sentence(found: Found) -> str:
    """What was found, and what it rests on; "" where there is nothing to say."""
    if not found.suspects:
        return ""
    count = len(found.suspects)
    images = f"{count} images carry labels that all runs on them"
    if count == 1:
        images = "1 image carries a label that all runs on it"
    return (
        f"{images} contradict, sure of one other class (of {found.images:,} images that no run "
        f"trained on, {found.runs} runs): look at them in the report or suspects.csv; runs share the labels that they "
        "learnt from, so it is no proof."
    )


def file_of(suspect: Suspect) -> str:
    """The path of a suspect's file in the folder of pictures; "" where it has none, or the folder has changed."""
    files = _files(suspect.dataset, suspect.dataset_digest).get(suspect.split.partition(" ")[0], ())
    return files[suspect.index] if suspect.index < len(files) else ""


@cache
def _files(dataset: str, digest: str) -> Mapping[str, Sequence[str]]:
    values = json.loads(dataset)
    return files_of(values, digest) if values.get("name") == "files" else {}


def as_csv(suspects: Sequence[Suspect], class_names: Sequence[str]) -> str:
    """A line for each suspect, the least probable label first; `class_names` may be empty."""

    def name(label: int) -> str:
        return class_names[label] if label < len(class_names) else str(label)

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["split", "index", "image", "label", "runs_say", "p_label", "p_runs_say", "runs", "file"])
    for s in suspects:
        numbers = [f"{s.of_label:.6f}", f"{s.of_answer:.6f}", s.runs]
        writer.writerow([s.split, s.index, s.digest, name(s.label), name(s.answer), *numbers, file_of(s)])
    return text.getvalue()
