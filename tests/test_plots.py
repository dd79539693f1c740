"""Figures by their artists, labels and places; what they look like was looked at."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from experiments.results import plots
from experiments.results.evaluation import Overfitting, evaluate
from experiments.results.plots import canvas, curves, fonts

FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CAPITALS = ("CATERPILLAR", "CHIMPANZEE", "MOTORWAY", "A REMARKABLY LONG NAME")
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
LONG_TITLE = "a data set · a model with many layers · an optimizer · a schedule · dropout 0.4 · batch 128 · seed 10"
VERDICT = (
    "Overfits from epoch 16: validation cross-entropy rose from 0.0522 (epoch 13) to 0.0863 while the "
    "training one fell to 0.0052; accuracy 99.84% in training, 97.46% in validation."
)
STEMS = [
    "loss",
    "accuracy",
    "learning_rate",
    "confusion_matrix",
    "class_accuracy",
    "misclassified",
    "sample_predictions",
]


def fixed(values: object, dtype: type = float) -> np.ndarray:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


def history(epochs: int = 8, penalty: float = 0.0, rates: object = None) -> dict[str, np.ndarray]:
    epoch = np.arange(1, epochs + 1)
    train, validation = 0.3 / epoch, 0.1 + 0.05 / epoch
    return {
        "epoch": fixed(epoch),
        "train/loss": fixed(train + penalty),
        "train/cross_entropy": fixed(train),
        "train/accuracy": fixed(1 - train / 3),
        "validation/loss": fixed(validation + penalty),
        "validation/cross_entropy": fixed(validation),
        "validation/accuracy": fixed(1 - validation / 3),
        "learning_rate": fixed(np.full(epochs, 0.001) if rates is None else rates),
    }


def overfitting(best_epoch: int = 1, epoch: int | None = None) -> Overfitting:
    return Overfitting(VERDICT, epoch, best_epoch, 0.01)


def predictions(
    names: tuple[str, ...] = LETTERS[:3],
    said: Mapping[int, tuple[int, float]] | None = None,
    *,
    count: int = 12,
    shape: tuple[int, int, int] = (8, 8, 1),
    doubtful: Mapping[int, tuple[int, ...]] | None = None,
) -> plots.Predictions:
    """Labels 0, 1, … in turn, each predicted with 0.9; `said` gives other (class, probability) by index."""
    classes = len(names)
    labels = np.arange(count) % classes
    probabilities = np.empty((count, classes))
    for index, label in enumerate(labels):
        best, confidence = (said or {}).get(index, (label, 0.9))
        probabilities[index] = (1 - confidence) / (classes - 1)
        probabilities[index, best] = confidence
    images = np.random.default_rng(0).integers(0, 256, (count, *shape))
    return plots.Predictions(
        fixed(images, np.uint8), fixed(labels, np.int64), fixed(probabilities), names, doubtful or {}
    )


def evaluated(given: plots.Predictions):
    return evaluate(given.probabilities, given.labels)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def lines(figure: Figure) -> dict[str, object]:
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def shades(figure: Figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


# curves


def test_loss_without_penalties_has_one_line_for_each_split() -> None:
    figure = plots.loss(history(), overfitting(), "mnist · cnn · adam")

    drawn = lines(figure)
    assert list(drawn) == ["training", "validation", "best epoch: 1"]
    np.testing.assert_allclose(drawn["training"].get_xydata(), [[e, 0.3 / e] for e in range(1, 9)])
    np.testing.assert_allclose(drawn["validation"].get_ydata(), [0.1 + 0.05 / e for e in range(1, 9)])
    assert [drawn[split].get_color() for split in ("training", "validation")] == ["#0072B2", "#E69F00"]
    assert figure.axes[0].get_ylabel() == "cross-entropy (nats per image)"
    assert figure.axes[0].get_xlabel() == "epoch"
    assert {"Loss", "mnist · cnn · adam", VERDICT[:60]} <= {text[:60] for text in texts(figure)}
    assert not any("penalties" in text for text in texts(figure))


def test_curves_that_were_measured_alike_are_drawn_beside_the_running_mean() -> None:
    measured = {
        "train/measured_cross_entropy": fixed(0.2 / np.arange(1, 9)),
        "train/measured_accuracy": fixed(1 - 0.2 / np.arange(1, 9)),
    }
    for draw, name in ((plots.loss, "cross_entropy"), (plots.accuracy, "accuracy")):
        figure = draw(history() | measured, overfitting(), "t")
        drawn, scale = lines(figure), 100 if name == "accuracy" else 1
        assert list(drawn) == ["training", "training running mean", "validation", "best epoch: 1"]
        np.testing.assert_allclose(drawn["training"].get_ydata(), scale * measured[f"train/measured_{name}"])
        np.testing.assert_allclose(drawn["training running mean"].get_ydata(), scale * history()[f"train/{name}"])
        assert drawn["training running mean"].get_linestyle() == ":"
        assert any("both at the epoch's end" in text for text in texts(figure))


def test_loss_with_penalties_shows_the_plain_cross_entropy_beside_it() -> None:
    figure = plots.loss(history(penalty=0.2), overfitting(), "t")

    drawn = lines(figure)
    assert list(drawn)[:4] == [
        "training cross-entropy",
        "training loss",
        "validation cross-entropy",
        "validation loss",
    ]
    np.testing.assert_allclose(drawn["training loss"].get_ydata() - 0.2, history()["train/cross_entropy"])
    assert [drawn[name].get_linestyle() for name in list(drawn)[:4]] == ["-", "--", "-", "--"]
    assert drawn["training loss"].get_color() == drawn["training cross-entropy"].get_color()
    assert any("penalties" in text for text in texts(figure))


def test_notes_say_how_training_values_were_taken() -> None:
    for draw in (plots.loss, plots.accuracy):
        assert any(
            "while the weights change, with dropout" in text for text in texts(draw(history(), overfitting(), "t"))
        )


def test_accuracy_is_in_percent() -> None:
    drawn = lines(plots.accuracy(history(), overfitting(), "t"))

    np.testing.assert_allclose(drawn["training"].get_ydata()[0], 90)
    np.testing.assert_allclose(drawn["validation"].get_ydata()[0], 95)


@pytest.mark.parametrize(("draw", "at_best"), [(plots.loss, 0.1 + 0.05 / 3), (plots.accuracy, 100 - (10 + 5 / 3) / 3)])
def test_best_and_overfitted_epochs_are_marked(draw, at_best: float) -> None:
    figure = draw(history(penalty=0.1), overfitting(best_epoch=3, epoch=5), "t")

    np.testing.assert_allclose(lines(figure)["best epoch: 3"].get_xydata(), [[3, at_best]])
    (shade,) = shades(figure)
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (4.5, 8.5)
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend[-2:] == ["best epoch: 3", "overfitting from epoch 5"]


def test_run_that_does_not_overfit_has_no_shade() -> None:
    assert shades(plots.loss(history(), overfitting(), "t")) == []


def test_loss_is_logarithmic_only_beyond_one_and_a_half_decades() -> None:
    near, far, reaching_zero = history(), history(), history()
    far["train/loss"] = far["train/cross_entropy"] = fixed(np.geomspace(1, 0.003, 8))
    reaching_zero["train/loss"] = reaching_zero["train/cross_entropy"] = fixed([1, 0.1, 0.01, 0, 0, 0, 0, 0])

    scales = [plots.loss(h, overfitting(), "t").axes[0] for h in (near, far, reaching_zero)]

    assert [axes.get_yscale() for axes in scales] == ["linear", "log", "linear"]
    assert [scales[n].get_ylim()[0] for n in (0, 2)] == [0, 0]


def test_values_that_are_not_finite_leave_gaps() -> None:
    broken = history(4)
    for name in ("train/loss", "train/cross_entropy"):
        broken[name] = fixed([0.5, np.nan, np.inf, np.nan])
    figure = plots.loss(broken, overfitting(), "t")
    figure.draw_without_rendering()

    assert "training" in lines(figure)
    assert np.isfinite(figure.axes[0].get_ylim()).all()


@pytest.mark.parametrize(
    ("rates", "scale"),
    [([1e-3] * 4, "linear"), ([1e-3, 8e-4, 5e-4, 1e-4], "linear"), ([1e-3, 1e-4, 1e-5, 1e-6], "log")],
)
def test_learning_rate_is_logarithmic_only_beyond_one_and_a_half_decades(rates: list[float], scale: str) -> None:
    axes = plots.learning_rate(history(4, rates=rates), "t").axes[0]

    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), rates)
    assert axes.get_yscale() == scale
    assert axes.get_ylabel() == "learning rate (mean over the epoch)"
    if scale == "linear":
        np.testing.assert_allclose(axes.get_ylim(), (0, 0.0011))


def test_learning_rate_of_zero_has_an_axis() -> None:
    assert plots.learning_rate(history(2, rates=[0, 0]), "t").axes[0].get_ylim() == (0, 1)


@pytest.mark.parametrize(
    ("value", "label"),
    [(0, "0"), (0.001, "0.001"), (0.05, "0.05"), (5e-5, "5e-5"), (2.5e-6, "2.5e-6"), (1e6, "1e6")],
)
def test_tick_numbers_are_short(value: float, label: str) -> None:
    assert curves._short(value) == label


@pytest.mark.parametrize("epochs", [1, 2, 50])
def test_epoch_axis_has_whole_numbers(epochs: int) -> None:
    axes = plots.accuracy(history(epochs), overfitting(), "t").axes[0]

    inside = [tick for tick in axes.get_xticks() if 0.5 <= tick <= epochs + 0.5]
    assert inside
    assert all(tick == round(tick) for tick in inside)
    assert axes.get_xlim() == (0.5, epochs + 0.5)
    assert axes.get_lines()[0].get_marker() == ("o" if epochs <= 25 else "")


# classes


def test_confusion_matrix_writes_each_count_in_its_cell() -> None:
    # Labels 0 1 2 in turn, 12 images: image 0 (class 0) is taken for 2, images 1 and 4 (class 1) for 0.
    given = predictions(said={0: (2, 0.8), 1: (0, 0.7), 4: (0, 0.6)})
    figure = plots.confusion_matrix(evaluated(given), given.class_names, "t")

    axes = figure.axes[0]
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert numbers == {(0, 0): "3", (2, 0): "1", (0, 1): "2", (1, 1): "2", (2, 2): "4"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["A", "B", "C"]
    assert "3 of 12 test images wrong." in texts(figure)
    assert "Most frequent, true → predicted: B → A (2), A → C (1)." in texts(figure)


def test_confusion_matrix_scales_errors_apart_from_the_diagonal() -> None:
    given = predictions(said={0: (2, 0.8), 1: (0, 0.7), 4: (0, 0.6)}, count=900)
    figure = plots.confusion_matrix(evaluated(given), given.class_names, "t")

    colours = figure.axes[0].images[0].get_array()
    assert {to_hex(colour) for colour in np.diagonal(colours).T} == {"#009e73"}  # its opacity is the tint
    assert to_hex(colours[2, 0]) == "#ffffff"
    brightness = colours[..., :3].sum(axis=2)
    assert brightness[1, 0] < brightness[0, 2] < brightness[2, 0]  # 2 errors, 1 error, none
    assert figure.axes[1].get_ylabel() == "errors (images per cell)"


def test_confusion_matrix_without_errors_has_no_scale() -> None:
    given = predictions()
    figure = plots.confusion_matrix(evaluated(given), given.class_names, "t")

    assert len(figure.axes) == 1
    assert "0 of 12 test images wrong." in texts(figure)


def test_confusion_matrix_of_very_many_classes_leaves_the_numbers_out() -> None:
    names = tuple(f"class {number}" for number in range(60))
    given = predictions(names, count=120)
    figure = plots.confusion_matrix(evaluated(given), names, "t")

    assert len(figure.axes[0].texts) == 0
    assert max(figure.get_size_inches()) < 20


def test_class_accuracy_draws_wilson_intervals_and_singles_out_low_classes() -> None:
    # Class A: 0 of 100 right, B and C: 100. Wilson, 0 of n: up to z² / (n + z²) = 3.84146 / 103.84146.
    given = predictions(said=dict.fromkeys(range(0, 300, 3), (1, 0.9)), count=300)
    figure = plots.class_accuracy(evaluated(given), given.class_names, "t")

    axes = figure.axes[0]
    normal, low = (item for item in axes.containers if isinstance(item, ErrorbarContainer))
    np.testing.assert_allclose(normal[0].get_xydata(), [[100, 1], [100, 2]])
    np.testing.assert_allclose(low[0].get_xydata(), [[0, 0]])
    np.testing.assert_allclose(low[2][0].get_segments()[0], [[0, 0], [3.69935, 0]], atol=1e-5)
    np.testing.assert_allclose(normal[2][0].get_segments()[0], [[96.30065, 1], [100, 1]], atol=1e-5)
    assert (normal[0].get_color(), low[0].get_color()) == (canvas.INK, canvas.WRONG)
    assert axes.get_lines()[0].get_xdata()[0] == pytest.approx(200 / 3)
    assert [text.get_text() for text in axes.texts] == ["0 of 100", "100 of 100", "100 of 100"]
    assert axes.get_xlabel() == "accuracy (% of the class's test images)"


def test_class_accuracy_axis_starts_where_the_data_are() -> None:
    given = predictions(said={0: (1, 0.9)}, count=3000)
    figure = plots.class_accuracy(evaluated(given), given.class_names, "t")

    assert figure.axes[0].get_xlim()[0] > 99


def test_class_without_an_image_says_so() -> None:
    given = predictions(LETTERS[:4], count=3)
    figure = plots.class_accuracy(evaluated(given), given.class_names, "t")

    (drawn, _) = (item for item in figure.axes[0].containers if isinstance(item, ErrorbarContainer))
    assert list(drawn[0].get_ydata()) == [0, 1, 2]
    assert figure.axes[0].texts[3].get_text() == "no image"


# galleries


def tiles(figure: Figure) -> list[list[str]]:
    """The texts of the gallery by image: those nearest below its upper left corner."""
    sheet = figure.axes[0]
    found = []
    for image in sheet.images:
        left, right, bottom, _ = image.get_extent()
        middle = (left + right) / 2
        near = [
            text
            for text in sheet.texts
            if abs(text.get_position()[0] - middle) <= 0.55 and 0 < bottom - text.get_position()[1] < 0.6
        ]
        found.append([text.get_text() for text in sorted(near, key=lambda text: -text.get_position()[1])])
    return found


def frames(figure: Figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def test_misclassified_puts_the_most_confident_error_first() -> None:
    given = predictions(said={1: (0, 0.6), 5: (1, 0.999), 6: (2, 0.995), 7: (2, 0.6)})
    figure = plots.misclassified(given, "mnist · cnn")

    assert tiles(figure) == [
        ["C → B", "99.9%   #5"],
        ["A → C", "99.5%   #6"],
        ["B → A", "60%   #1"],
        ["B → C", "60%   #7"],
    ]
    for image, index in zip(figure.axes[0].images, (5, 6, 1, 7), strict=True):
        np.testing.assert_array_equal(image.get_array(), given.images[index, ..., 0])
    assert {"mnist · cnn", "4 of 12 test images wrong."} <= set(texts(figure))
    assert frames(figure) == []


def test_misclassified_marks_doubtful_labels_with_the_raters_answer() -> None:
    given = predictions(
        said={1: (0, 0.9), 5: (1, 0.8), 6: (2, 0.7), 7: (0, 0.6)},
        doubtful={1: (0,), 6: (), 7: (0, 2), 8: (0,)},
    )
    figure = plots.misclassified(given, "t")

    assert [tile[2:] for tile in tiles(figure)] == [
        ["raters: A"],
        [],
        ["raters: no label"],
        ["raters: A or C"],
    ]
    images = figure.axes[0].images
    for frame, image in zip(frames(figure), (images[0], images[2], images[3]), strict=True):
        left, right, bottom, top = image.get_extent()
        np.testing.assert_allclose(frame.get_bbox().extents, (left, bottom, right, top))
        assert to_hex(frame.get_edgecolor()).upper() == canvas.DOUBTFUL
    assert "4 of 12 test images wrong, 3 of them with a label in doubt." in texts(figure)


def test_misclassified_says_how_many_are_not_shown() -> None:
    given = predictions(said={index: ((index + 1) % 3, 0.9) for index in range(40)}, count=1200)
    figure = plots.misclassified(given, "t")

    assert len(figure.axes[0].images) == 25
    assert "40 of 1,200 test images wrong." in texts(figure)
    assert "The 25 most confident errors are shown, 15 are not." in texts(figure)


@pytest.mark.parametrize(("errors", "rows"), [(0, 0), (1, 1), (5, 1), (6, 2), (25, 5)])
def test_misclassified_is_as_high_as_its_rows(errors: int, rows: int) -> None:
    given = predictions(said={index: ((index + 1) % 3, 0.9) for index in range(errors)}, count=60)
    figure = plots.misclassified(given, "t")

    assert len(figure.axes[0].images) == errors
    assert f"{errors} of 60 test images wrong." in texts(figure)
    corners = {round(image.get_extent()[3], 6) for image in figure.axes[0].images}
    assert len(corners) == rows
    assert figure.get_size_inches()[1] < 1.2 + 1.6 * rows


def test_colour_images_keep_their_colours_and_proportions() -> None:
    given = predictions(said={0: (1, 0.9)}, shape=(12, 24, 3))
    (image,) = plots.misclassified(given, "t").axes[0].images

    np.testing.assert_array_equal(image.get_array(), given.images[0])
    left, right, bottom, top = image.get_extent()
    assert (right - left) / (top - bottom) == pytest.approx(2)


def test_long_class_names_are_cut() -> None:
    given = predictions(("a remarkably long name", "Ankle boot"), said={0: (1, 0.9)})

    assert tiles(plots.misclassified(given, "t"))[0][0] == "a remarkab… → Ankle boot"


def test_class_names_that_begin_alike_stay_apart() -> None:
    names = ("photographs of cats", "photographs of dogs")
    given = predictions(names, said={0: (1, 0.9)})

    assert tiles(plots.misclassified(given, "t"))[0][0] == "photog…cats → photog…dogs"


def indices(figure: Figure) -> list[int]:
    return [int(text.rpartition("#")[2]) for text in texts(figure) if text.startswith("true: ")]


def test_sample_shows_the_first_image_of_each_class_and_the_least_certain() -> None:
    given = predictions(said={7: (1, 0.4), 8: (0, 0.5), 20: (1, 0.45)}, count=30)
    figure = plots.sample_predictions(given, "t")

    assert indices(figure)[:3] == [0, 1, 2]
    assert indices(figure)[3:] == [7, 20, 8, 0, 1, 2, 3, 4, 5, 6]  # 0.40, 0.45, 0.50, then equals by index
    assert {"The first test image of each class", "The least certain predictions"} <= set(texts(figure))
    assert "true: B   #7" in texts(figure)


def test_sample_spreads_over_many_classes() -> None:
    figure = plots.sample_predictions(predictions(LETTERS, count=260), "t")

    assert indices(figure)[:10] == [0, 3, 6, 8, 11, 14, 17, 19, 22, 25]
    assert "The first test image of 10 of the 26 classes" in texts(figure)


def test_sample_bars_are_as_long_as_the_probabilities() -> None:
    names = LETTERS[:6]
    given = plots.Predictions(
        images=fixed(np.zeros((1, 8, 8, 1)), np.uint8),
        labels=fixed([5], np.int64),
        probabilities=fixed([[0.5, 0.25, 0.125, 0.0625, 0.0325, 0.03]]),
        class_names=names,
    )
    figure = plots.sample_predictions(given, "t")

    paper, bars = [item for item in figure.axes[0].collections if isinstance(item, LineCollection)][:2]
    full = np.ptp(np.array(paper.get_segments())[0, :, 0])
    lengths = [np.ptp(segment[:, 0]) / full for segment in bars.get_segments()]
    np.testing.assert_allclose(lengths, [0.5, 0.25, 0.125, 0.03])
    tint = [canvas.WRONG, canvas.QUIET, canvas.QUIET, canvas.RIGHT]
    np.testing.assert_allclose(bars.get_colors(), [to_rgba(colour, 0.5) for colour in tint])
    shown = [text for text in texts(figure) if text in names or text.endswith("%")]
    assert shown[:8] == ["A", "50%", "B", "25%", "C", "12%", "F", "3%"]


def test_sample_colours_a_right_prediction_right() -> None:
    figure = plots.sample_predictions(predictions(count=1), "t")

    bars = figure.axes[0].collections[1]
    np.testing.assert_allclose(bars.get_colors()[0], to_rgba(canvas.RIGHT, 0.5))
    assert to_rgba(canvas.WRONG, 0.5) not in [tuple(colour) for colour in bars.get_colors()]


# all of them


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0, "0%"),
        (0.001, "<1%"),
        (0.019, "1%"),
        (0.9899, "98%"),
        (0.9999, "99.9%"),
        (0.99, "99.0%"),
        (1, "100%"),
    ],
)
def test_percent_reads_as_certain_only_what_is(fraction: float, text: str) -> None:
    assert canvas.percent(fraction) == text


def drawn(epochs: int, given: plots.Predictions, title: str) -> Iterator[tuple[str, Figure]]:
    marks = overfitting(best_epoch=max(1, epochs - 1), epoch=epochs if epochs > 1 else None)
    drawings = (
        plots.figures_of_epochs(history(epochs, penalty=0.1), marks, title)
        | plots.figures_of_classes(evaluated(given), given.class_names, title)
        | plots.figures_of_images(given, title)
    )
    return ((stem, draw()) for stem, draw in drawings.items())


def test_all_figures_come_one_by_one() -> None:
    figures = drawn(3, predictions(), "t")

    assert isinstance(next(figures)[1], Figure)
    assert [stem for stem, _ in figures] == STEMS[1:]


def test_a_figure_is_drawn_when_it_is_asked_for() -> None:
    broken = plots.Predictions(np.zeros((1, 8, 8, 1), np.uint8), fixed([7], np.int64), fixed([[1.0]]), ("a",))

    drawings = plots.figures_of_images(broken, "t")

    with pytest.raises(IndexError):
        drawings["misclassified"]()


def test_figures_can_be_drawn_in_another_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        figures = pool.submit(lambda: dict(drawn(2, predictions(), "t"))).result()

    assert list(figures) == STEMS


def visible_texts(figure: Figure) -> list[Text]:
    figure.draw_without_rendering()
    ticks = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks() + axis.get_minor_ticks()
        for label in (tick.label1, tick.label2)
    }
    inside = {
        tick.label1
        for axes in figure.axes
        if axes.axison
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    right = {axes.yaxis for axes in figure.axes[1:]}  # a colour bar has its labels on the right
    inside |= {tick.label2 for axis in right for tick in axis.get_major_ticks()}
    hidden = ticks - inside
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in hidden]


@pytest.mark.parametrize(
    ("epochs", "names", "shape"),
    [
        (1, LETTERS[:2], (8, 8, 1)),
        (2, FASHION, (32, 32, 3)),
        (50, LETTERS, (28, 28, 1)),
        (12, CAPITALS, (28, 40, 1)),
        (3, tuple(f"一二三四五六七八 {letter} 九十百千万亿" for letter in LETTERS[:6]), (28, 28, 1)),
    ],
)
def test_no_text_runs_into_another_or_off_the_figure(
    epochs: int, names: tuple[str, ...], shape: tuple[int, int, int]
) -> None:
    said = {index: ((index + 1) % len(names), 0.9999) for index in range(60)}
    given = predictions(names, said, count=1200, shape=shape, doubtful={0: (1,), 2: ()})
    for stem, figure in drawn(epochs, given, LONG_TITLE):
        boxes = {text: text.get_window_extent() for text in visible_texts(figure)}
        for text, box in boxes.items():
            assert figure.bbox.padded(1).containsx(box.x0), (stem, text)
            assert figure.bbox.padded(1).containsx(box.x1), (stem, text)
            assert figure.bbox.padded(1).containsy(box.y0), (stem, text)
            assert figure.bbox.padded(1).containsy(box.y1), (stem, text)
        straight = [(text, box) for text, box in boxes.items() if text.get_rotation() % 90 == 0]
        for (one, a), (other, b) in itertools.combinations(straight, 2):
            assert not a.padded(-1.5).overlaps(b.padded(-1.5)), (stem, one, other)


MONEY = ("$5", "$10", "a_b", r"\frac{1}{2}", "$x$")


def test_names_are_no_mathematics(tmp_path) -> None:
    given = predictions(MONEY, said={0: (1, 0.9), 2: (4, 0.8), 3: (0, 0.7)})

    for stem, figure in drawn(3, given, "files /data/$1/$2 · cnn"):
        assert not any(text.get_parse_math() for text in figure.findobj(Text) if text.get_text())
        assert "files /data/$1/$2 · cnn" in texts(figure)
        plots.save(figure, tmp_path / f"{stem}.png")
    shown = texts(plots.class_accuracy(evaluated(given), MONEY, "t"))
    assert set(MONEY) <= set(shown)


ANIMALS = ("猫", "狗", "white 马", "line\nend")


def test_names_that_no_font_has_give_way_to_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(fonts, "choose_families", lambda characters: ())
    given = predictions(ANIMALS, said={0: (1, 0.9)})

    for stem, figure in drawn(3, given, "files /data/猫 · cnn"):  # a missing glyph would be a warning, so an error
        plots.save(figure, tmp_path / f"{stem}.png")
        assert "files /data/? · cnn" in texts(figure)
    shown = texts(plots.class_accuracy(evaluated(given), ANIMALS, "t"))
    assert {"class 0", "class 1", "class 2 white", "line end"} <= set(shown)


@pytest.fixture
def animal_font(tmp_path) -> Iterator[str]:
    """A font with three square animals, found as any font of this machine."""
    characters = "猫狗马"
    pen = TTGlyphPen(None)
    for point, draw in zip(((0, 0), (900, 0), (900, 900), (0, 900)), (pen.moveTo, *[pen.lineTo] * 3), strict=True):
        draw(point)
    pen.closePath()
    glyphs = [".notdef", *(f"uni{ord(character):04X}" for character in characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(glyphs)
    builder.setupCharacterMap({ord(character): name for character, name in zip(characters, glyphs[1:], strict=True)})
    builder.setupGlyf(dict.fromkeys(glyphs, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Animals Sans", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "animals.ttf")
    before = list(fontManager.ttflist)
    fontManager.addfont(tmp_path / "animals.ttf")
    fonts.choose_families.cache_clear()
    yield "Animals Sans"
    fontManager.ttflist[:] = before
    fonts.choose_families.cache_clear()


def test_names_are_drawn_in_a_font_that_has_them(animal_font: str, tmp_path) -> None:
    given = predictions(ANIMALS[:3], said={0: (1, 0.9)})

    for stem, figure in drawn(3, given, "files /data/猫 · cnn"):
        plots.save(figure, tmp_path / f"{stem}.png")
        assert "files /data/猫 · cnn" in texts(figure)
        for text in figure.findobj(Text):
            named = ["DejaVu Sans", animal_font] if set(text.get_text()) & set("猫狗马") else ["DejaVu Sans"]
            assert text.get_fontfamily() == named
    assert set(ANIMALS[:3]) <= set(texts(plots.class_accuracy(evaluated(given), ANIMALS[:3], "t")))
    assert plots.without_glyph("猫狗 cat 鸟") == {"鸟"}


def test_a_font_that_draws_everything_as_nothing_is_not_taken(animal_font: str) -> None:
    named = [replace(e, name="Adobe Blank") if e.name == animal_font else e for e in fontManager.ttflist]
    fontManager.ttflist[:] = named
    fonts.choose_families.cache_clear()

    assert fonts.choose_families(frozenset("猫")) == ()


def test_saved_bytes_depend_on_the_figure_alone(tmp_path) -> None:
    for name in ("one.png", "two.png"):
        plots.save(plots.accuracy(history(), overfitting(), "t"), tmp_path / name)

    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert "Software" not in image.info
        assert image.width == 8 * 130


def test_import_brings_neither_pyplot_nor_tensorflow() -> None:
    code = "import sys, experiments.results.plots; print({'matplotlib.pyplot', 'tensorflow'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
