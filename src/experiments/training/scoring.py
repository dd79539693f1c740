"""What a trained model scores on validation and on test images. Only `look` reads the test set."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.ingredients.splits import ImageData, Split
from experiments.results import looks, own_metrics
from experiments.results.evaluation import Evaluation, evaluate, image_digests, is_uneven
from experiments.results.records import Predictions, Record

if TYPE_CHECKING:
    from experiments.training.loop import Trainer

log = logging.getLogger(__name__)


class Scored(NamedTuple):
    """A split as a model sees it.

    Attributes:
        probabilities: (n, classes), means over `test_views`.
        evaluation: of them.
        one_view: accuracy with each image seen once, as it is.
        metrics: all numbers of the split, named `<split>/<metric>`.
    """

    probabilities: NDArray[np.float32]
    evaluation: Evaluation
    one_view: float
    metrics: dict[str, float]


def look(trainer: Trainer, data: ImageData, record: Record, home: Path) -> Scored:
    """Scores the test images, and enters that in the ledger of looks; a ledger that is not to be written is told.

    Args:
        trainer: with the finished model.
        data: that it was trained on.
        record: of the run.
        home: which holds the ledger.
    """
    try:
        looks.add(home, record, "run")
    except OSError as error:
        log.warning("%s: cannot be written (%s); this look at the test images is not counted", home, error.strerror)
    return score_test(trainer, data)


def score_test(trainer: Trainer, data: ImageData) -> Scored:
    """Scores the test images."""
    return score(trainer, data, "test", data.test)


def with_test(predictions: Predictions, test: Scored, data: ImageData) -> Predictions:
    """The predictions of validation images with those of the test images beside them.

    Args:
        predictions: of validation images.
        test: what `score_test` gave.
        data: whose test images these are.
    """
    return replace(
        predictions,
        test_probabilities=test.probabilities,
        test_labels=data.test.labels,
        test_image_digests=image_digests(data.test.images),
    )


def score(trainer: Trainer, data: ImageData, name: str, split: Split) -> Scored:
    """Scores the images of a split.

    Args:
        trainer: with the finished model.
        data: that it was trained on.
        name: `test` or `validation`.
        split: its images.
    """
    alone = trainer.predict(split.images)
    probabilities = trainer.mean_over_views(split.images, alone)
    found = evaluate(probabilities, split.labels, doubtful=data.doubtful if name == "test" else None)
    one_view = evaluate(alone, split.labels).accuracy
    metrics = found.metrics(name)
    if trainer.config.regularization.augmentation.test_views > 1:
        metrics[f"{name}/accuracy_one_view"] = one_view
    metrics |= own_metrics.measure(trainer.config.training.metrics, probabilities, split.labels, name)
    if is_uneven(data.train.labels):
        metrics |= found.class_metrics(name)
    return Scored(probabilities, found, one_view, metrics)
