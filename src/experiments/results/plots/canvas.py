"""The paper that every figure is drawn on: palette, header, axes placed in inches, PNG files.

Only matplotlib's object-oriented interface is used, under `plain_style`. Axes are placed in inches: a layout engine
would draw each figure twice to measure it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from matplotlib import rc_context, rcdefaults
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.results.files import write_atomically
from experiments.results.names import short_names, wrap
from experiments.results.plots.fonts import drawable, drawable_names

# Distinct under the common colour blindnesses. Source: M. Okabe, K. Ito, Color Universal Design, 2008.
TRAIN: Final = "#0072B2"
VALIDATION: Final = "#E69F00"
RIGHT: Final = "#009E73"
WRONG: Final = "#D55E00"
DOUBTFUL: Final = "#CC79A7"
INK: Final = "#222222"
QUIET: Final = "#666666"  # contrast 5.7:1 on white, WCAG asks 4.5:1 of text
FAINT: Final = "#E4E4E4"

MARGIN: Final = 0.25  # inches
HEADLINE_HEIGHT: Final = 0.3  # inches
LINE_HEIGHT: Final = 0.19  # inches, of text at 9 points
LETTER_WIDTH: Final = 0.066  # inches: the default font at 9 points has 0.062 on average
DOTS_PER_INCH: Final = 130


class Box(NamedTuple):
    """Edges in inches from the figure's lower left corner."""

    left: float
    bottom: float
    right: float
    top: float


@contextmanager
def plain_style() -> Iterator[None]:
    """Has figures of the block look the same whatever a `matplotlibrc` or a notebook has set; both hold again later."""
    with rc_context():
        rcdefaults()
        yield


def canvas(width: float, height: float, headline: str, *lines: str) -> Figure:
    """An empty figure under a bold headline and quiet lines, which are wrapped to its width.

    Args:
        width: inches.
        height: inches below the header, which comes on top of it.
        headline: what is shown.
        lines: what it is of, and what is to be seen in it.
    """
    text = [part for line in lines for part in wrap(drawable(line), int((width - 2 * MARGIN) / LETTER_WIDTH))]
    total = height + 2 * MARGIN + HEADLINE_HEIGHT + LINE_HEIGHT * (len(text) - 1)
    figure = Figure(figsize=(width, total), dpi=DOTS_PER_INCH, facecolor="white")
    headline_bottom = total - MARGIN - 0.1  # its capitals are 0.13 inches high
    figure.text(MARGIN / width, headline_bottom / total, headline, fontsize=13, fontweight="bold", color=INK)
    write(figure, headline_bottom - HEADLINE_HEIGHT + 0.03, text)
    return figure


def write(figure: Figure, baseline: float, lines: Sequence[str], *, fontsize: float = 9) -> None:
    """Quiet lines from the left margin, the baseline of the first at a height in inches.

    Args:
        figure: is drawn on.
        baseline: of the first line, inches from the figure's lower edge.
        lines: from top to bottom; they are not wrapped.
        fontsize: points; the distance of the lines grows with it.
    """
    width, height = figure.get_size_inches()
    for number, line in enumerate(lines):
        y = (baseline - LINE_HEIGHT * fontsize / 9 * number) / height
        figure.text(MARGIN / width, y, line, fontsize=fontsize, color=QUIET)


def place(figure: Figure, box: Box) -> Axes:
    """Axes in a box, with quiet spines on two sides."""
    width, height = figure.get_size_inches()
    size = (box.right - box.left) / width, (box.top - box.bottom) / height
    axes = figure.add_axes((box.left / width, box.bottom / height, *size))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(color=QUIET, labelcolor=INK, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=9)
    return axes


def class_labels(class_names: Sequence[str], letters: int) -> tuple[str, ...]:
    """What stands for each class: its name, as far as a font can draw it, in at most that many letters."""
    return short_names(drawable_names(class_names), letters)


def percent(fraction: float) -> str:
    """A fraction in [0, 1] as "97%", above 99% with a decimal; cut, so that only 1 reads "100%"."""
    value = 100 * fraction
    if 0 < value < 1:
        return "<1%"
    return f"{math.floor(10 * value) / 10:.1f}%" if 99 <= value < 100 else f"{math.floor(value)}%"


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whose bytes depend on the figure alone: it holds no date and no version."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    write_atomically(path, content.getvalue())
