"""The figures of a run, from what its directory holds and, for galleries, its test images. They decide nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.errors import InputError
from experiments.ingredients.datasets import CLOTHES, DIGIT_NAMES
from experiments.results import files
from experiments.results.evaluation import evaluate, predictions_digest
from experiments.results.names import shorten
from experiments.results.records import Predictions, Record
from experiments.results.test_images import TestImages

if TYPE_CHECKING:
    from experiments.results.plots import Drawings

log = logging.getLogger(__name__)
VALUE_LETTERS = 40  # of a path or another varied value in a title
NAMES = {"mnist": DIGIT_NAMES, "digits": DIGIT_NAMES, "fashion_mnist": CLOTHES}  # of classes, where they are fixed


class Drawn(NamedTuple):
    """File stems of the figures that were drawn, why others were left out, and which failed with what error."""

    stems: tuple[str, ...]
    left_out: tuple[str, ...]
    failed: tuple[str, ...]


def draw(record: Record, images: TestImages) -> Drawn:
    """Draws all figures of a finished run into its directory.

    Whatever fails is told in one warning, with its tracebacks in the debugging log; the other figures are drawn.

    Args:
        record: of the run.
        images: its test images, or why there are none.
    """
    stems: list[str] = []
    failed: list[str] = []
    left_out: tuple[str, ...] = ()
    what = "figures"
    try:
        drawings, left_out = _drawings(record, images)
        (record.directory / files.FIGURES).mkdir(exist_ok=True)
        for what, figure in drawings.items():
            try:
                _save(record, what, figure)
                stems.append(what)
            except Exception as error:
                failed.append(_note_failure(what, error))
    except (Exception, KeyboardInterrupt) as error:
        failed.append(_note_failure(what, error))
    if failed:
        again = f"python -m experiments.figures {record.name}"
        log.warning("not drawn: %s; the run itself is whole, and `%s` tries again", ", ".join(failed), again)
    return Drawn(tuple(stems), left_out, tuple(failed))


def _save(record: Record, stem: str, figure: Any) -> None:
    from experiments.results import plots

    with plots.plain_style():
        plots.save(figure(), record.directory / files.FIGURES / f"{stem}.png")


def _note_failure(what: str, error: BaseException) -> str:
    log.debug("%s", what, exc_info=error)
    told = " ".join(str(error).split())
    return f"{what} ({type(error).__name__}{f': {told}' if told else ''})"


def _drawings(record: Record, images: TestImages) -> tuple[Drawings, tuple[str, ...]]:
    """What can be drawn, and a sentence for each part that cannot."""
    from experiments.results import plots

    if record.overfitting is None:
        raise InputError(f"{record.directory / files.RECORD}: says nothing of overfitting; only a finished run does")
    title = title_of(record)
    drawings = plots.figures_of_epochs(record.history, record.overfitting, title)
    if record.sealed:
        return drawings, ("only the figures over epochs are drawn: the test set is sealed",)
    try:
        predictions = _read_predictions(record)
    except InputError as error:
        return drawings, (f"only the figures over epochs can be drawn: {error}",)
    probabilities, labels = predictions.test_probabilities, predictions.test_labels
    left_out = []
    if names := images.class_names or class_names_of(record.config.get("dataset")):
        if without := plots.without_glyph("".join(names)):
            log.info("%d characters of class names are in no font here; figures number these classes", len(without))
        evaluation = evaluate(probabilities, labels, doubtful=images.doubtful)
        drawings |= plots.figures_of_classes(evaluation, names, title)
    else:
        left_out.append("confusion_matrix and class_accuracy are left out: the names of the classes are not known here")
    if images.pixels is None:
        left_out.append(f"misclassified and sample_predictions are left out: {images.missing}")
    else:
        shown = plots.Predictions(images.pixels, labels, probabilities, images.class_names, images.doubtful)
        drawings |= plots.figures_of_images(shown, title)
    return drawings, tuple(left_out)


def _read_predictions(record: Record) -> Predictions:
    predictions, path = record.predictions, record.directory / files.PREDICTIONS
    if record.predictions_digest not in (None, predictions_digest(predictions.test_probabilities)):
        raise InputError(f"{path}: was changed after the run (its digest is not the one in {files.RECORD})")
    return predictions


def class_names_of(dataset: Any) -> tuple[str, ...]:
    """The names that the part `dataset` of a saved config gives without its images; none where only these know."""
    if not isinstance(dataset, Mapping):
        return ()
    given = dataset.get("class_names")
    named = tuple(map(str, given)) if isinstance(given, list) else ()
    return named or NAMES.get(str(dataset.get("name")), ())


def title_of(record: Record) -> str:
    """What was run, and what varies beside that in its sweep: `mnist · cnn · adam · learning_rate 0.01`."""
    config = record.config
    chosen = {part: _option(config.get(part)) for part in ("dataset", "model", "optimizer")}
    varied = [f"{name} {_value(value)}" for name, value in record.varied.items() if name not in (*chosen, "path")]
    return " · ".join([*filter(None, chosen.values()), *varied])


def _option(values: Any) -> str:
    """`adam`; with the path of the images where they are the user's own."""
    if not isinstance(values, Mapping):
        return ""
    name, path = str(values.get("name", "")), values.get("path")
    return f"{name} {shorten(path, VALUE_LETTERS)}" if name == "files" and isinstance(path, str) else name


def _value(value: Any) -> str:
    return shorten(f"{value:g}" if isinstance(value, float) else str(value), VALUE_LETTERS)
