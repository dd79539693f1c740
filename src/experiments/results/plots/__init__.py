"""Numbers in, figures out: the only door to matplotlib. Nothing is read, nothing is computed but layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.figure import Figure

from experiments.results.evaluation import Evaluation, Overfitting
from experiments.results.plots.canvas import plain_style, save
from experiments.results.plots.classes import class_accuracy, confusion_matrix
from experiments.results.plots.curves import History, accuracy, learning_rate, loss
from experiments.results.plots.fonts import without_glyph
from experiments.results.plots.galleries import Predictions, misclassified, sample_predictions

__all__ = [
    "History",
    "Predictions",
    "accuracy",
    "class_accuracy",
    "confusion_matrix",
    "figures_of_classes",
    "figures_of_epochs",
    "figures_of_images",
    "learning_rate",
    "loss",
    "misclassified",
    "plain_style",
    "sample_predictions",
    "save",
    "without_glyph",
]

Drawings = dict[str, Callable[[], Figure]]  # by file stem; each figure is drawn when it is asked for


def figures_of_epochs(history: History, overfitting: Overfitting, title: str) -> Drawings:
    """Those over the epochs of a run.

    Args:
        history: the columns of history.csv, each (epochs,).
        overfitting: of the same epochs.
        title: what was run, "mnist · cnn · adam".
    """
    return {
        "loss": partial(loss, history, overfitting, title),
        "accuracy": partial(accuracy, history, overfitting, title),
        "learning_rate": partial(learning_rate, history, title),
    }


def figures_of_classes(evaluation: Evaluation, class_names: Sequence[str], title: str) -> Drawings:
    """Those over the classes of the test set, of k names.

    Args:
        evaluation: of the test set, with k classes.
        class_names: k names, in the order of the labels.
        title: what was run, "mnist · cnn · adam".
    """
    return {
        "confusion_matrix": partial(confusion_matrix, evaluation, class_names, title),
        "class_accuracy": partial(class_accuracy, evaluation, class_names, title),
    }


def figures_of_images(predictions: Predictions, title: str) -> Drawings:
    """Those that show test images."""
    return {
        "misclassified": partial(misclassified, predictions, title),
        "sample_predictions": partial(sample_predictions, predictions, title),
    }
