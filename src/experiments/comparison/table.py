"""The ranked table, once for the terminal, HTML, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Hashable, Iterator
from typing import NamedTuple

from experiments.comparison.answer import overfitting_text, percent_interval, signed
from experiments.comparison.comparison import Comparison
from experiments.comparison.configurations import UNTESTED, Configuration
from experiments.comparison.duels import Duel
from experiments.comparison.settings import show
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
    Column("95% interval", "of the test accuracy, for the choice of seeds and of test images"),
    Column("against best", "test accuracy minus that of the best, in points; ? it may be chance", False),
    Column("cross-entropy", "on the test images, in nats; lower is better"),
    Column("calibration", "expected calibration error on the test images; 0 is honest"),
    Column("gap", "training minus validation accuracy, in points"),
    Column("overfits", "from which epoch on, or how many of the runs", False),
    Column("parameters", "of the model"),
    Column("seconds", "from start to end of a run"),
)


def table(comparison: Comparison) -> Table:
    """Rank, what varies, and what came of it."""
    options = [Column(name, "varied option", _is_numeric(comparison, name)) for name in comparison.options]
    described = options or [Column("configuration", "model and optimizer", False)]
    duels = [None, *comparison.duels]
    rows = [
        (Cell(str(rank), rank), *_settings(configuration), *_metrics(configuration, duel))
        for rank, (configuration, duel) in enumerate(zip(comparison.configurations, duels, strict=True), 1)
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


def _metrics(configuration: Configuration, duel: Duel | None) -> Iterator[Cell]:
    mean, interval = configuration.mean, configuration.accuracy_interval
    yield Cell(str(len(configuration.records)), len(configuration.records))
    for metric in ("validation/accuracy", "test/accuracy"):
        yield _number(100 * mean(metric), ".2f")
    yield Cell(percent_interval(interval) if math.isfinite(interval.low) else "–", interval.low)
    yield _against_best(duel)
    yield _number(mean("test/cross_entropy"), ".4f")
    yield _number(mean("test/calibration_error"), ".4f")
    gap = 100 * mean("generalisation_gap")
    yield Cell(signed(gap) if math.isfinite(gap) else "–", gap)
    overfits = overfitting_text(configuration)
    yield Cell(overfits, overfits)
    records = configuration.records
    yield _number(sum(record.parameters for record in records) / len(records), ",.0f")
    yield _number(sum(record.seconds for record in records) / len(records), ",.1f")


def _number(value: float, form: str) -> Cell:
    return Cell(format(value, form) if math.isfinite(value) else "–", value)


def _against_best(duel: Duel | None) -> Cell:
    if duel is None:
        return Cell("best", 0.0)
    difference = -duel.accuracy.value
    verdict = ("better" if difference > 0 else "worse") if duel.is_real else "?"
    return Cell(f"{verdict} {signed(100 * difference)}", difference)


def runs_csv(comparison: Comparison) -> str:
    """One line for each run, those that did not finish at the end, with every metric at full precision."""
    runs = [(rank, c, record) for rank, c in enumerate(comparison.configurations, 1) for record in c.records]
    metrics = list(dict.fromkeys(metric for _, _, record in runs for metric in record.metrics))
    head = ["rank", "run", "state", "sweep", "job", *comparison.options, "seed", *metrics]
    tail = ["overfits_from_epoch", "epochs_run", "parameters", "seconds", "run_key", "directory", "error"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head + tail)
    for rank, c, record in runs:
        overfits = record.overfitting.epoch if record.overfitting else None
        writer.writerow(
            [rank, record.name, record.state, record.sweep, record.job, *c.settings.values(), record.seed]
            + [record.metrics.get(metric) for metric in metrics]
            + [overfits, record.epochs_run, record.parameters, record.seconds]
            + [record.run_key, record.directory.resolve(), None]
        )
    for record in comparison.apart:
        error = f"{record.error.type}: {record.error.message}" if record.error else None
        settings = [_varied(record, option) for option in comparison.options]
        writer.writerow(
            [None, record.name, record.state, record.sweep, record.job, *settings, record.seed]
            + [record.metrics.get(metric) for metric in metrics]
            + [None, record.epochs_run, record.parameters, record.seconds]
            + [record.run_key, record.directory.resolve(), error]
        )
    return text.getvalue()


def _varied(record: Record, option: str) -> object:
    """The value of an option in a run that has no place in the table, by its overrides."""
    return next((v for key, v in record.varied.items() if key == option or key.endswith(f".{option}")), None)
