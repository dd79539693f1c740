"""The offline report: one HTML file that needs nothing else, Markdown, and one line of CSV for each run."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from experiments.comparison import charts
from experiments.comparison.answer import p_text, percent, percent_interval, points, sentences, signed
from experiments.comparison.axes import round_ticks, shade
from experiments.comparison.comparison import MATRIX, Comparison, compare
from experiments.comparison.configurations import Configuration
from experiments.comparison.duels import Duel
from experiments.comparison.images import load_images, png_uri
from experiments.comparison.mistakes import Mistake
from experiments.comparison.parallel import levels, parallel_coordinates
from experiments.comparison.settings import show
from experiments.comparison.table import runs_csv, table
from experiments.results.files import write_atomically
from experiments.results.records import Record
from experiments.results.test_images import TestImages

HTML, MARKDOWN, CSV = "report.html", "report.md", "runs.csv"
TILES = 24  # pictures in each part of the disagreement, twice as many in the gallery of what most runs miss
MOST_INTERVALS = 30  # rows of the chart of accuracies


class Bar(NamedTuple):
    """A row of the chart of accuracies; places are percent of the chart's width."""

    label: str
    rank: int
    text: str
    low: float
    high: float
    dot: float
    seeds: tuple[float, ...]


class Bars(NamedTuple):
    """The rows, and the axis as (place, label)."""

    rows: list[Bar]
    ticks: list[tuple[float, str]]


class Shaded(NamedTuple):
    """A cell of the heat map."""

    text: str
    shade: int


class Tile(NamedTuple):
    """A picture of the galleries with what is written under it."""

    mistake: Mistake
    uri: str
    label: str
    answer: str
    raters: str


def write_report(runs: Sequence[Record], directory: Path) -> list[Path]:
    """Compares `runs` and writes report.html, report.md and runs.csv, each in one step.

    Raises:
        InputError: no run has finished.
    """
    return write(compare(runs), directory)


def write(comparison: Comparison, directory: Path) -> list[Path]:
    """Writes the three files of a comparison; a reader sees the old ones or the new ones, never a part."""
    directory.mkdir(parents=True, exist_ok=True)
    context, templates = _context(comparison), _environment()
    contents = {
        HTML: templates.get_template("report.html.jinja").render(context),
        MARKDOWN: templates.get_template("report.md.jinja").render(context),
        CSV: runs_csv(comparison),
    }
    for name, content in contents.items():
        write_atomically(directory / name, content)
    return [directory / name for name in contents]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent, "interval": percent_interval, "p_text": p_text, "show": show, "cell": _cell
    }  # fmt: skip
    environment.globals |= {"points": points, "signed": signed, "colour": charts.colour}
    return environment


def _cell(text: str) -> str:
    """Text that cannot end a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _context(comparison: Comparison) -> dict[str, Any]:
    configurations, options = comparison.configurations, comparison.options
    images = load_images(comparison.best)
    return {
        "comparison": comparison,
        "sentences": sentences(comparison),
        "table": table(comparison),
        "title": _title(comparison),
        "records": [record for c in configurations for record in c.records],
        "bars": _bars(configurations[:MOST_INTERVALS]),
        "panels": charts.learning_curves(configurations),
        "most_runs": charts.MOST_RUNS,
        "legend": [c.label for c in configurations[: charts.COLOURS]],
        "heat_map": _heat_map(configurations, options) if len(options) == 2 else None,
        "parallel": parallel_coordinates(configurations, options) if len(options) > 2 else "",
        "effects": list(zip(comparison.contrasts, comparison.p_values, strict=True)),
        "matrix": _matrix(comparison),
        "images": images,
        "galleries": _galleries(comparison, images),
        "most_missed": [_tile(mistake, images) for mistake in comparison.most_missed[: 2 * TILES]],
    }


def _title(comparison: Comparison) -> str:
    sweeps = {record.sweep for c in comparison.configurations for record in c.records}
    return sweep if len(sweeps) == 1 and (sweep := sweeps.pop()) else "Comparison of runs"


def _bars(configurations: Sequence[Configuration]) -> Bars:
    """Test accuracy with its interval and each seed, on one axis."""
    known = {rank: c for rank, c in enumerate(configurations) if c.accuracy_interval.low >= 0}
    if not known:
        return Bars([], [])
    ends = [end for c in known.values() for end in (c.accuracy_interval.low, c.accuracy_interval.high, *c.accuracies)]
    ticks = round_ticks(100 * min(ends), min(100.0, 100 * max(ends)))

    def place(share: float) -> float:
        return round((100 * share - ticks[0]) / (ticks[-1] - ticks[0]) * 100, 2)

    rows = []
    for rank, c in known.items():
        interval, mean = c.accuracy_interval, sum(c.accuracies) / len(c.accuracies)
        text = f"{percent(mean)} {percent_interval(interval)}"
        seeds = tuple(map(place, c.accuracies)) if len(c.accuracies) > 1 else ()
        rows.append(Bar(c.label, rank, text, place(interval.low), place(interval.high), place(mean), seeds))
    return Bars(rows, [(place(tick / 100), f"{tick:g}") for tick in ticks])


def _heat_map(configurations: Sequence[Configuration], options: Sequence[str]) -> dict[str, Any]:
    """Validation accuracy by the two options that vary."""
    down, across = (levels(c.settings[option] for c in configurations) for option in options)
    scores = {tuple(c.settings.values()): 100 * c.mean("validation/accuracy") for c in configurations}

    def cell(*setting: Hashable) -> Shaded:
        score = scores.get(setting)
        return Shaded("–", -1) if score is None else Shaded(f"{score:.2f}", shade(score, scores.values()))

    return {
        "options": options,
        "across": [show(level) for level in across],
        "rows": [(show(level), [cell(level, other) for other in across]) for level in down],
    }


def _matrix(comparison: Comparison) -> list[tuple[str, list[Duel | None]]]:
    """Rows of duels; a cell below the diagonal is the one above it."""
    first = comparison.configurations[:MATRIX]
    duels = {(duel.a, duel.b): duel for duel in comparison.matrix}
    return [(a.label, [duels.get((a, b)) or duels.get((b, a)) for b in first]) for a in first]


def _galleries(comparison: Comparison, images: TestImages) -> list[tuple[str, int, list[Tile]]]:
    """Heading, number of images and first tiles of what the best fixes and breaks of the runner-up."""
    parts = comparison.disagreement
    if parts is None:
        return []
    best, second = (c.label for c in comparison.configurations[:2])
    headings = {
        f"Fixed: {best} is right, {second} is wrong": parts.fixed,
        f"Broken: {best} is wrong, {second} is right": parts.broken,
        "Missed by both": parts.both,
    }
    return [
        (heading, len(found), [_tile(mistake, images) for mistake in found[:TILES]])
        for heading, found in headings.items()
    ]


def _tile(mistake: Mistake, images: TestImages) -> Tile:
    raters = ""
    if mistake.index in images.doubtful:
        accepted = images.doubtful[mistake.index]
        raters = ", ".join(_name(label, images) for label in accepted) or "no majority"
    uri = "" if images.pixels is None else png_uri(images.pixels[mistake.index])
    return Tile(mistake, uri, _name(mistake.label, images), _name(mistake.answer, images), raters)


def _name(label: int, images: TestImages) -> str:
    return images.class_names[label] if label < len(images.class_names) else str(label)
