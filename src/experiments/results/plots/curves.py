"""Figures over the epochs: loss, accuracy, learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from experiments.results.evaluation import Overfitting
from experiments.results.plots.canvas import (
    FAINT,
    INK,
    MARGIN,
    TRAIN,
    VALIDATION,
    WRONG,
    Box,
    canvas,
    place,
    write,
)
from experiments.results.plots.fonts import finish

History = Mapping[str, NDArray[np.float64]]  # the columns of history.csv by name, each (epochs,)

WIDTH: Final = 8.0  # inches
PLOT_HEIGHT: Final = 3.3  # inches
LEGEND_ROW: Final = 0.24  # inches
LOSS: Final = "loss"
LOG_DECADES: Final = 1.5  # values that span more get a logarithmic axis
DOTS_UP_TO_EPOCHS: Final = 25  # more dots would touch each other
COLOURS: Final = {"training": TRAIN, "validation": VALIDATION}
COLUMNS: Final = {"training": "train", "validation": "validation"}
RUNNING: Final = "running mean"
MEASURED: Final = "train/measured_"
BEST: Final = "Best epoch: lowest validation cross-entropy."
RUNNING_NOTE: Final = "mean over the epoch's batches while the weights change, with dropout and augmentation if any."
NOTE: Final = (f"Training: {RUNNING_NOTE}", f"Validation: at the epoch's end. {BEST}")
MEASURED_NOTE: Final = (
    f"Training and validation: both at the epoch's end, images as they are. {BEST}",
    f"Running mean of training: {RUNNING_NOTE}",
)
LOSS_NOTE: Final = "Loss: cross-entropy with label smoothing, plus penalties on the weights."


def loss(history: History, overfitting: Overfitting, title: str) -> Figure:
    """Cross-entropy by epoch; the loss too where penalties or label smoothing make it another number.

    Args:
        history: the columns of history.csv, each (epochs,).
        overfitting: of the same epochs; its verdict stands in the header, its best epoch is marked.
        title: what was run, "mnist · cnn · adam".
    """
    plain = all(
        np.allclose(history[f"{split}/loss"], history[f"{split}/cross_entropy"], rtol=1e-3, equal_nan=True)
        for split in COLUMNS.values()
    )
    comparable = _is_measured(history)
    note = [*(MEASURED_NOTE if comparable else NOTE), *(() if plain else (LOSS_NOTE,))]
    figure, axes = _axes("Loss", title, overfitting.verdict, note=note, legend_rows=1 if plain else 2)
    for split, column in COLUMNS.items():
        _draw(axes, _values(history, column, "cross_entropy"), split, "" if plain else "cross-entropy")
        if comparable and split == "training":
            _draw(axes, history[f"{column}/cross_entropy"], split, RUNNING)
        if not plain:
            _draw(axes, history[f"{column}/loss"], split, LOSS)
    if not _scale(axes):
        axes.set_ylim(bottom=0)
    _mark(axes, history["validation/cross_entropy"], overfitting)
    axes.set_ylabel("cross-entropy (nats per image)" if plain else "loss, cross-entropy (nats per image)")
    return finish(figure)


def accuracy(history: History, overfitting: Overfitting, title: str) -> Figure:
    """Accuracy by epoch, in percent.

    Args:
        history: the columns of history.csv, each (epochs,), accuracies in [0, 1].
        overfitting: of the same epochs; its verdict stands in the header, its best epoch is marked.
        title: what was run, "mnist · cnn · adam".
    """
    comparable = _is_measured(history)
    note = MEASURED_NOTE if comparable else NOTE
    figure, axes = _axes("Accuracy", title, overfitting.verdict, note=note, legend_rows=1)
    for split, column in COLUMNS.items():
        _draw(axes, 100 * _values(history, column, "accuracy"), split)
        if comparable and split == "training":
            _draw(axes, 100 * history[f"{column}/accuracy"], split, RUNNING)
    _mark(axes, 100 * history["validation/accuracy"], overfitting)
    axes.set_ylabel("accuracy (% of images)")
    return finish(figure)


def _is_measured(history: History) -> bool:
    """Whether training images were measured at the end of every epoch, as validation images are."""
    curves = [history.get(f"{MEASURED}{name}") for name in ("accuracy", "cross_entropy")]
    return all(curve is not None and np.isfinite(curve).all() for curve in curves)


def _values(history: History, column: str, name: str) -> NDArray[np.float64]:
    """A curve at the epochs' ends, where there is one; else the running means of training."""
    return history[f"{MEASURED}{name}" if column == "train" and _is_measured(history) else f"{column}/{name}"]


def learning_rate(history: History, title: str) -> Figure:
    """Learning rate by epoch, on a logarithmic axis where it spans more than 1.5 decades, else from zero."""
    figure, axes = _axes("Learning rate", title)
    rates = history["learning_rate"]
    _draw(axes, rates)
    if not _scale(axes):
        axes.set_ylim(0, 1.1 * max(rates[np.isfinite(rates)], default=1.0) or 1.0)
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    axes.set_ylabel("learning rate (mean over the epoch)")
    return finish(figure)


def _axes(headline: str, *lines: str, note: Sequence[str] = (), legend_rows: int = 0) -> tuple[Figure, Axes]:
    bottom = 0.6 + 0.18 * len(note)  # inches
    figure = canvas(WIDTH, bottom + PLOT_HEIGHT + LEGEND_ROW * legend_rows, headline, *lines)
    write(figure, bottom - 0.62, note, fontsize=8)
    axes = place(figure, Box(0.85, bottom, WIDTH - MARGIN, bottom + PLOT_HEIGHT))
    axes.grid(axis="y", color=FAINT)
    axes.set_axisbelow(True)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure, axes


def _draw(axes: Axes, values: NDArray[np.float64], split: str = "", quantity: str = "") -> None:
    beside = quantity in (LOSS, RUNNING)
    dotted = len(values) <= DOTS_UP_TO_EPOCHS and not beside
    axes.plot(
        np.arange(1, len(values) + 1),
        values,
        linestyle={LOSS: "--", RUNNING: ":"}.get(quantity, "-"),
        linewidth=1.2 if beside else 1.8,
        marker="o" if dotted else "",
        markersize=4,
        color=COLOURS.get(split, INK),
        label=f"{split} {quantity}".strip(),
    )
    axes.set_xlim(0.5, len(values) + 0.5)


def _mark(axes: Axes, validation: NDArray[np.float64], overfitting: Overfitting) -> None:
    """A ring at the best epoch, a shade over the overfitted ones, and the legend that names them."""
    best, first, last = overfitting.best_epoch, overfitting.epoch, len(validation)
    ring, label = validation[best - 1 : best], f"best epoch: {best}"
    axes.plot([best], ring, "o", markersize=10, fillstyle="none", color=INK, label=label)
    if first is not None:
        label = f"overfitting from epoch {first}"
        axes.axvspan(first - 0.5, last + 0.5, color=WRONG, alpha=0.12, linewidth=0, zorder=0, label=label)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=3 if len(axes.get_legend_handles_labels()[1]) > 4 else 4,
        frameon=False,
        fontsize=9,
        borderaxespad=0,
        labelcolor=INK,
    )


def _scale(axes: Axes) -> bool:
    """A logarithmic y axis where all values are positive and span more than 1.5 decades; returns whether."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.get_lines()])
    values = drawn[np.isfinite(drawn)]
    if len(values) == 0 or values.min() <= 0 or np.ptp(np.log10(values)) <= LOG_DECADES:
        return False
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if np.ptp(np.log10(values)) < 3 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    axes.yaxis.set_minor_formatter(NullFormatter())
    return True


def _short(value: float, _position: int | None = None) -> str:
    """A tick's number: 0.001, 5e-5, 1e6."""
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return f"{value:g}"
    return np.format_float_scientific(value, precision=3, trim="-", exp_digits=1).replace("+", "")
