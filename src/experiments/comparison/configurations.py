"""Runs folded into configurations: repetitions over seeds become rows of one table of right and wrong."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from experiments.comparison.formats import count
from experiments.comparison.intervals import images_behind
from experiments.comparison.scores import Read, Scores, read_all, together
from experiments.comparison.settings import Settings, asked, label, part_of
from experiments.comparison.spread import Sample, Values, sample, sample_of_means
from experiments.config import config_key, validate_saved
from experiments.errors import InputError
from experiments.results.evaluation import Interval
from experiments.results.records import Record

UNTESTED = "(no predictions)"  # of a configuration, which may have a namesake whose runs have them


class DataSplit(NamedTuple):
    """Which of the training images validate, beyond what all runs of a configuration share."""

    fold: int | None
    split_seed: int | None


@dataclass(frozen=True, eq=False)
class Configuration:
    """Runs that differ in nothing but their seed and their data split.

    Attributes:
        label: what makes it different from the others, in a few words.
        settings: the same by option, see `settings.asked`.
        records: its runs in the order of seeds; `scores` has a row for each.
        scores: None where the runs have no predictions; the record's metrics are then all that is known.
        splits: of the runs.
        validation_errors: of each run, standard error of its final cross-entropy over validation images, nats; NaN
            where that is not known.
    """

    label: str
    settings: Settings
    records: tuple[Record, ...]
    scores: Scores | None
    splits: tuple[DataSplit, ...]
    validation_errors: tuple[float, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(record.seed for record in self.records)

    @property
    def repetitions(self) -> tuple[Hashable, ...]:
        """What its means are taken over: its data splits where there are several, else its seeds."""
        return tuple(dict.fromkeys(self.splits)) if len({*self.splits}) > 1 else self.seeds

    @property
    def repeated(self) -> str:
        """`3 seeds`, `5 folds`, `5 folds × 2 seeds`."""
        splits, seeds = len({*self.splits}), len({*self.seeds})
        if splits == 1:
            return count(len(self.records), "seed")
        noun = "data split" if any(split.fold is None for split in self.splits) else "fold"
        return count(splits, noun) + (f" × {seeds} seeds" if seeds > 1 else "")

    def by_repetition(self, values: Values) -> Values:
        """(repetitions, …) from (runs, …): runs on the same split are no repetitions of it, and are averaged."""
        if len({*self.splits}) == 1:
            return values
        rows = [[row for row, split in enumerate(self.splits) if split == each] for each in self.repetitions]
        return np.stack([values[some].mean(axis=0, dtype=np.float64) for some in rows])

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Test accuracy of each run."""
        if self.scores is not None:
            return tuple(float(share) for share in self.scores.right.mean(axis=1))
        return tuple(record.metrics.get("test/accuracy", float("nan")) for record in self.records)

    def mean(self, metric: str) -> float:
        """Mean of a metric over the runs; NaN where no run has it."""
        values = [record.metrics[metric] for record in self.records if metric in record.metrics]
        return float(np.mean(values)) if values else float("nan")

    @property
    def sample(self) -> Sample:
        """Test accuracy of its runs, image by image where there are predictions."""
        if self.scores is not None:
            return sample(self.by_repetition(self.scores.right))
        images = [_images_of(record.metrics) for record in self.records]
        return sample_of_means(self.by_repetition(np.asarray(self.accuracies)), min(images))


class Gathered(NamedTuple):
    """The finished runs as configurations, best validation accuracy first, and what is to be said of them."""

    configurations: tuple[Configuration, ...]
    notes: tuple[str, ...]


def gather(records: Sequence[Record]) -> Gathered:
    """Reads the predictions of finished runs and folds the runs by configuration.

    A run that repeats another (same run key) is the same experiment and counts once, as its newest that is not sealed.
    Runs without predictions are kept apart from those of their configuration that have them: they enter no test.
    """
    in_order = sorted(records, key=lambda record: (not record.sealed, record.started_at))
    newest = {record.keys[0]: record for record in in_order}
    kept = sorted(newest.values(), key=lambda record: (record.seed, record.name))
    found = read_all(kept)
    rows = found.rows
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in kept:
        row = rows.get(record.run_key)
        groups.setdefault((key_of(record), row.test_set.key if row else ""), []).append(record)
    settings = asked([members[0] for members in groups.values()])
    configurations = [
        _configuration(members, values, found) for members, values in zip(groups.values(), settings, strict=True)
    ]
    notes = _notes(records, configurations, found)
    return Gathered(tuple(sorted(configurations, key=_rank)), notes)


def key_of(record: Record) -> str:
    """What runs share that differ only in seed and data split."""
    if not any(split_of(record)):
        return record.keys[1]
    dataset = record.config["dataset"]
    folds = {} if dataset.get("fold") is None else {"fold": 0}
    with suppress(InputError):
        config = validate_saved({**record.config, "dataset": {**dataset, "split_seed": None, **folds}})
        return config_key(config, record.dataset.digest)
    return record.keys[1]


def split_of(record: Record) -> DataSplit:
    """From the config; a run that has a split of its own says so in the notes on its data set."""
    dataset = record.config.get("dataset") if record.dataset.notes else None
    return DataSplit(*map(dataset.get, DataSplit._fields)) if isinstance(dataset, dict) else DataSplit(None, None)


def _images_of(metrics: Mapping[str, float]) -> int:
    """How many test images are behind a run's metrics; 0 where they do not tell."""
    share, low, high = (metrics.get(f"test/accuracy{end}", math.nan) for end in ("", "_low", "_high"))
    return images_behind(share, Interval(low, high))


def _rank(configuration: Configuration) -> tuple[float, float, str]:
    """Best validation accuracy first, then validation cross-entropy, then the name; the unknown last."""
    accuracy = configuration.mean("validation/accuracy")
    cross_entropy = configuration.mean("validation/cross_entropy")
    return (
        -accuracy if np.isfinite(accuracy) else np.inf,
        cross_entropy if np.isfinite(cross_entropy) else np.inf,
        configuration.label,
    )


def _configuration(members: list[Record], settings: Settings, found: Read) -> Configuration:
    rows = [found.rows[member.run_key] for member in members if member.run_key in found.rows]
    chosen = [part_of(members[0].config, part).get("name", "–") for part in ("model", "optimizer")]
    name = label(settings) or " · ".join(map(str, chosen))
    scores = together(rows) if rows else None
    is_told = scores or any(record.sealed for record in members)
    return Configuration(
        label=name if is_told else f"{name} {UNTESTED}",
        settings=settings,
        records=tuple(members),
        scores=scores,
        splits=tuple(map(split_of, members)),
        validation_errors=tuple(found.errors.get(member.run_key, math.nan) for member in members),
    )


def _notes(records: Sequence[Record], configurations: Sequence[Configuration], found: Read) -> tuple[str, ...]:
    kept, notes = [record for c in configurations for record in c.records], list(found.unreadable)
    if repeats := len(records) - len(kept):
        notes.append(f"{repeats} of the runs repeat others with the same run key, which count once.")
    if len({row.test_set.key for row in found.rows.values()}) > 1:
        notes.append(
            "The runs were tested on different images. Only runs with the same test images are paired; the "
            "others are compared with unpaired intervals, and their accuracies answer different questions."
        )
    if len({frozenset(c.splits) for c in configurations}) > 1:
        notes.append("Not all configurations were trained on the same data splits, which is part of their differences.")
    if len({record.sources_digest or record.code_digest for record in kept}) > 1:
        notes.append("The runs were made by different versions of the code.")
    if len({(record.config_key, record.own_code_digest) for record in kept}) > len({r.config_key for r in kept}):
        notes.append("Runs of the same configuration were made by different versions of your own code.")
    if len({tuple(sorted(record.versions.items())) for record in kept}) > 1:
        notes.append("The runs were made with different versions of TensorFlow, Keras or NumPy.")
    return tuple(notes)
