"""The ranked table, once for the terminal, HTML, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from experiments.comparison.comparison import Comparison
from experiments.comparison.configurations import UNTESTED, Configuration
from experiments.comparison.formats import percent_interval, signed
from experiments.comparison.pairs import Pair
from experiments.comparison.settings import Settings, of_sweep, show
from experiments.results.records import Record


class Column(NamedTuple):
    """A heading, what it means, and whether its cells are numbers."""

    title: str
    hint: str
    numeric: bool = True


class Cell(NamedTuple):
    """What is read, and what it is sorted by."""

    text: str
    key: Hashable


class Table(NamedTuple):
    """One row for each configuration, the best first."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


METRICS = (
    Column("seeds", "runs that differ only in their seed; the numbers are their means"),
    Column("validation %", "validation accuracy in percent; the ranking is by this"),
    Column("test %", "test accuracy in percent"),
    Column("95% interval", "of the test accuracy, over seeds and test images; of one run: of this network only"),
    Column(
        "against best", "test accuracy minus that of the first, in points, and whether that is beyond chance", False
    ),
    Column("cross-entropy", "on the test images, in nats; lower is better"),
    Column("overconfident", "mean confidence minus accuracy on the test images, in points; below 0: too modest"),
    Column("gap", "training minus validation accuracy, in points"),
    Column("overfits", "how many seeds, and from which epoch on", False),
    Column("parameters", "of the model"),
    Column("seconds", "from start to end of a run"),
)


def table(comparison: Comparison) -> Table:
    """Rank, what varies, and what came of it."""
    options = [Column(name, "varied option", _is_numeric(comparison, name)) for name in comparison.options]
    described = options or [Column("configuration", "model and optimizer", False)]
    rows = [
        (Cell(str(place + 1), place + 1), *_settings(configuration), *_metrics(comparison, place))
        for place, configuration in enumerate(comparison.configurations)
    ]
    return Table((Column("#", "rank by validation accuracy"), *described, *METRICS), tuple(rows))


def _is_numeric(comparison: Comparison, option: str) -> bool:
    return all(isinstance(c.settings[option], int | float | None) for c in comparison.configurations)


def _settings(configuration: Configuration) -> Iterator[Cell]:
    if not configuration.settings:
        yield Cell(configuration.label, configuration.label)
    for place, value in enumerate(configuration.settings.values()):
        untested = f" {UNTESTED}" if place == 0 and not configuration.scores else ""
        yield Cell(f"{show(value)}{untested}", value)


def _metrics(comparison: Comparison, place: int) -> Iterator[Cell]:
    configuration, interval = comparison.configurations[place], comparison.intervals[place]
    mean, confident = configuration.mean, comparison.overconfidence[place]
    yield Cell(str(len(configuration.records)), len(configuration.records))
    for metric in ("validation/accuracy", "test/accuracy"):
        yield _number(100 * mean(metric), ".2f")
    yield Cell(percent_interval(interval), interval.low)
    yield _against_best(comparison.pairs[place - 1] if place else None)
    yield _number(mean("test/cross_entropy"), ".4f")
    yield _points(100 * confident.value if confident else math.nan)
    yield _points(100 * mean("generalisation_gap"))
    overfits = str(comparison.overfitting[place])
    yield Cell(overfits, overfits)
    records = configuration.records
    yield _number(sum(record.parameters for record in records) / len(records), ",.0f")
    yield _number(sum(record.seconds for record in records) / len(records), ",.1f")


def _points(value: float) -> Cell:
    return Cell(signed(value) if math.isfinite(value) else "–", value)


def _number(value: float, form: str) -> Cell:
    return Cell(format(value, form) if math.isfinite(value) else "–", value)


def _against_best(pair: Pair | None) -> Cell:
    if pair is None:
        return Cell("first", 0.0)
    difference = -pair.accuracy.value
    verdict = ("better" if difference > 0 else "worse") if pair.is_shown else "not shown"
    return Cell(f"{verdict} {signed(100 * difference)}", difference)


def runs_csv(comparison: Comparison) -> str:
    """One line for each run, those that did not finish at the end, with every metric at full precision."""
    runs = [(rank, c, record) for rank, c in enumerate(comparison.configurations, 1) for record in c.records]
    metrics = list(dict.fromkeys(metric for _, _, record in runs for metric in record.metrics))
    search = comparison.search
    options = list(dict.fromkeys([*comparison.options, *(search.ranges if search else ())]))
    paused = [t.record for t in search.trials if t.record and t.record.state == "paused"] if search else []
    plans: dict[Path, Mapping[str, Settings]] = {}
    head = ["rank", "run", "state", "sweep", "job", *options, "seed", *metrics]
    tail = ["overfits_from_epoch", "epochs_run", "parameters", "seconds", "run_key", "directory", "error"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head + tail)
    for rank, c, record in runs:
        overfits = record.overfitting.epoch if record.overfitting else None
        writer.writerow(
            [rank, record.name, record.state, record.sweep, record.job]
            + [c.settings.get(option, of_sweep(record, plans).get(option)) for option in options]
            + [record.seed]
            + [record.metrics.get(metric) for metric in metrics]
            + [overfits, record.epochs_run, record.parameters, record.seconds]
            + [record.run_key, record.directory.resolve(), None]
        )
    for record in (*paused, *comparison.apart):
        error = f"{record.error.type}: {record.error.message}" if record.error else None
        settings = [of_sweep(record, plans).get(option) for option in options]
        known = _of_last_epoch(record) if record in paused else record.metrics
        writer.writerow(
            [None, record.name, record.state, record.sweep, record.job, *settings, record.seed]
            + [known.get(metric) for metric in metrics]
            + [None, record.epochs_run, record.parameters, record.seconds]
            + [record.run_key, record.directory.resolve(), error]
        )
    return text.getvalue()


def _of_last_epoch(record: Record) -> dict[str, float]:
    """What is known of a run that was paused."""
    last = record.rows[-1]
    return {"validation/accuracy": last.validation_accuracy, "validation/cross_entropy": last.validation_cross_entropy}
