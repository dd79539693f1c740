"""The offline report: one HTML file that needs nothing else, Markdown, and one line of CSV for each run."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from experiments.comparison import charts, search_chart
from experiments.comparison.axes import shade
from experiments.comparison.bars import draw_bars
from experiments.comparison.comparison import MATRIX, Comparison, title
from experiments.comparison.configurations import Configuration
from experiments.comparison.formats import p_text, percent, percent_interval, points, signed
from experiments.comparison.images import load_images, png_uri
from experiments.comparison.mistakes import Mistake
from experiments.comparison.pairs import Pair
from experiments.comparison.parallel import levels, parallel_coordinates
from experiments.comparison.race_chart import race_chart
from experiments.comparison.race_sentences import rounds_table
from experiments.comparison.reliability_chart import is_stretched, reliability_chart
from experiments.comparison.searches import SearchResult
from experiments.comparison.sentences import headlines, sentences
from experiments.comparison.settings import part_of, show
from experiments.comparison.suspect_gallery import gallery
from experiments.comparison.suspects import as_csv, of_comparison
from experiments.comparison.table import runs_csv, table
from experiments.results.files import write_atomically
from experiments.results.test_images import TestImages

HTML, MARKDOWN, CSV, SUSPECTS = "report.html", "report.md", "runs.csv", "suspects.csv"
TILES = 24  # pictures in each part of the disagreement, twice as many in the gallery of what most runs miss
ESSENTIAL = ("#", "configuration", "seeds", "runs", "test %", "95% interval", "against best")  # on paper
TOLD_ABOVE = ("seeds", "runs", "95% interval")  # by the first figure, so a phone's table goes without
MOST_LOOKS = 30  # broken seals that are listed, the last ones
FINE_CELLS = 12  # configurations whose pairs are told in numbers; of more, only the verdict is seen at once
PARALLEL_LEVELS = 3  # of an option, beyond which parallel coordinates say more than the ranking


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


def write(comparison: Comparison, directory: Path) -> list[Path]:
    """Writes the files of a comparison, suspects.csv where several runs share images.

    A reader sees the old ones or the new ones, never a part.
    """
    directory.mkdir(parents=True, exist_ok=True)
    context, templates = _context(comparison), _environment()
    contents = {
        HTML: templates.get_template("report.html.jinja").render(context),
        MARKDOWN: templates.get_template("report.md.jinja").render(context),
        CSV: runs_csv(comparison),
    }
    if found := of_comparison(comparison):
        contents[SUSPECTS] = as_csv(found.suspects, context["images"].class_names)
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
    environment.globals |= {
        "points": points,
        "signed": signed,
        "colour": charts.colour,
    }
    return environment


def _cell(text: str) -> str:
    """Text that cannot end a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _context(comparison: Comparison) -> dict[str, Any]:
    configurations, options = comparison.configurations, comparison.options
    images, told, shown = load_images(comparison.best), sentences(comparison), len(headlines(comparison))
    most_levels = max((len({c.settings[option] for c in configurations}) for option in options), default=0)
    return {
        "comparison": comparison,
        "headlines": told[:shown],
        "details": told[shown:],
        "table": table(comparison),
        "essential": {*ESSENTIAL, *options},
        "told_above": TOLD_ABOVE,
        "title": title(comparison) or "Comparison of runs",
        "data": _data(comparison),
        "records": [record for c in configurations for record in c.records],
        "bars": draw_bars(comparison),
        "measured": charts.are_measured(configurations),
        "panels": charts.learning_curves(configurations),
        "most_curves": charts.MOST_CONFIGURATIONS,
        "legend": charts.legend(configurations),
        "heat_map": _heat_map(configurations, options) if len(options) == 2 else None,
        "parallel": parallel_coordinates(configurations, options)
        if len(options) > 2 and most_levels > PARALLEL_LEVELS
        else "",
        "effects": comparison.effects,
        "shares": comparison.importance.shares() if comparison.importance else {},
        "matrix": _matrix(comparison),
        "fine": len(configurations[:MATRIX]) <= FINE_CELLS,
        **_of_race(comparison),
        **_of_search(comparison.search),
        "reliability": reliability_chart(comparison.calibration.bins) if comparison.calibration else "",
        "stretched": comparison.calibration is not None and is_stretched(comparison.calibration.bins),
        "images": images,
        "unsealed": [look for look in comparison.ledger.looks if look.purpose == "unseal"][-MOST_LOOKS:]
        if comparison.ledger
        else [],
        "suspects": gallery(comparison, images),
        "galleries": _galleries(comparison, images),
        "most_missed": [_tile(mistake, images) for mistake in comparison.most_missed[: 2 * TILES]],
    }


def _of_race(comparison: Comparison) -> dict[str, Any]:
    race = comparison.race
    return {
        "race": race,
        "race_chart": race_chart(race, _race_styles(comparison)) if race else "",
        "race_names": _race_names(comparison),
        "race_rounds": rounds_table(race) if race else [],
    }


def _of_search(search: SearchResult | None) -> dict[str, Any]:
    return {
        "search": search,
        "search_course": search_chart.course_chart(search) if search else "",
        "search_slices": search_chart.slices(search) if search else [],
        "search_names": search_chart.legend(search) if search else [],
    }


def _race_styles(comparison: Comparison) -> list[str]:
    """The style class of each configuration of the race, the same as in the other charts."""
    rank = {number: comparison.configurations.index(c) for number, c in comparison.raced.items()}
    entries = comparison.race.setting.configurations if comparison.race else ()
    return [charts.colour(rank.get(number, charts.COLOURS)) for number in range(len(entries))]


def _race_names(comparison: Comparison) -> list[tuple[str, str]]:
    """Style class and name of those that have a colour of their own."""
    race = comparison.race
    styles = _race_styles(comparison)
    return sorted((styles[c], race.label(c)) for c in race.seeds_of if styles[c] != "rest") if race else []


def _data(comparison: Comparison) -> str:
    """Names of the data sets; a folder or file of one's own goes by its own name."""
    found: dict[str, None] = {}
    for record in (record for c in comparison.configurations for record in c.records):
        path = part_of(record.config, "dataset").get("path") if record.dataset.name == "files" else None
        found[Path(str(path)).name if path else record.dataset.name] = None
    return ", ".join(found)


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


def _matrix(comparison: Comparison) -> list[tuple[str, list[Pair]]]:
    """A row for each configuration but the first: its pairs with those that rank before it."""
    first = comparison.configurations[:MATRIX]
    pairs = {(id(pair.a), id(pair.b)): pair for pair in comparison.matrix}
    if not pairs:
        return []
    return [(b.label, [pairs[id(a), id(b)] for a in first[:place]]) for place, b in enumerate(first) if place]


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
