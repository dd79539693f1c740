"""Numbers in, figures out: the only door to matplotlib. Nothing is read, nothing is computed but layout."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure

from experiments.results.evaluation import Evaluation, Overfitting
from experiments.results.plots.canvas import save
from experiments.results.plots.classes import class_accuracy, confusion_matrix
from experiments.results.plots.curves import History, accuracy, learning_rate, loss
from experiments.results.plots.galleries import Predictions, misclassified, sample_predictions

__all__ = [
    "History",
    "Predictions",
    "accuracy",
    "all_figures",
    "class_accuracy",
    "confusion_matrix",
    "learning_rate",
    "loss",
    "misclassified",
    "sample_predictions",
    "save",
]


def all_figures(
    history: History,
    overfitting: Overfitting,
    evaluation: Evaluation,
    predictions: Predictions,
    *,
    title: str,
) -> Iterator[tuple[str, Figure]]:
    """The figures of one run as (file stem, figure), each drawn when it is asked for.

    Args:
        history: the columns of history.csv, each (epochs,).
        overfitting: of the same epochs.
        evaluation: of the test set.
        predictions: the test set, its images, and the probabilities that `evaluation` is of.
        title: what was run, "mnist · cnn · adam".
    """
    yield "loss", loss(history, overfitting, title)
    yield "accuracy", accuracy(history, overfitting, title)
    yield "learning_rate", learning_rate(history, title)
    yield "confusion_matrix", confusion_matrix(evaluation, predictions.class_names, title)
    yield "misclassified", misclassified(predictions, title)
    yield "class_accuracy", class_accuracy(evaluation, predictions.class_names, title)
    yield "sample_predictions", sample_predictions(predictions, title)
