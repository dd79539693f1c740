"""Two records of what should be the same run: from where on they differ, by how much, and why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.errors import InputError
from experiments.results.causes import Cause, find_causes
from experiments.results.files import COLUMNS, EpochRow
from experiments.results.records import Predictions, Record
from experiments.results.states import RunState

Word = Literal["identical", "equal within tolerance", "different"]
WEIGHTS = "weights_digest"
COMPARED = [name for name in COLUMNS if name not in ("epoch", "seconds", WEIGHTS)] + [WEIGHTS]


class Difference(NamedTuple):
    """One number that is not the same; `epoch` is None for what is known only at the end."""

    epoch: int | None
    metric: str
    then: float | str | None
    now: float | str | None

    @property
    def size(self) -> float:
        """|now - then|; infinite where one of them is no number."""
        if not (isinstance(self.then, int | float) and isinstance(self.now, int | float)):
            return math.inf
        distance = abs(self.now - self.then)
        return math.inf if math.isnan(distance) else distance

    def __str__(self) -> str:
        """`train/loss 0.41234 then, 0.41301 now`."""
        then, now = _show(self.then), _show(self.now)
        if then == now:
            then, now = repr(self.then), repr(self.now)
        return f"{self.metric} {then} then, {now} now"


@dataclass(frozen=True)
class Verdict:
    """What a repeat says about its original.

    Attributes:
        epochs: how many were compared.
        complete: whether the final weights, metrics and predictions were compared too.
        first: the first difference, in the order in which they come about.
        largest: the largest difference of a loss, accuracy or other metric.
        changed_predictions: test images with another most probable class; None where that cannot be counted.
        unreadable: why the original's predictions could not be read: then only their digest was compared.
        causes: what is known to differ, the likeliest first.
    """

    verdict: Word
    original: str
    repeat: str
    tolerance: float | None
    epochs: int
    complete: bool
    first: Difference | None
    largest: Difference | None
    changed_predictions: int | None
    test_images: int
    unreadable: str | None
    causes: tuple[Cause, ...]

    @property
    def exit_code(self) -> int:
        """1 where the runs differ."""
        return 1 if self.verdict == "different" else 0


def judge(original: Record, repeat: Record, *, tolerance: float | None = None) -> Verdict:
    """Compares a run with its repeat, epoch by epoch and then in all that is known at the end.

    Args:
        original: the run as it was.
        repeat: the same config, run again; may have been stopped early.
        tolerance: the largest difference of any loss, accuracy or other metric that still counts as equal.
    """
    complete = repeat.state == original.state
    rows = original.rows, repeat.rows
    found = list(_in_epochs(*rows, whole=complete))
    if complete:
        found += _at_the_end(original, repeat)
    elif repeat.state in (RunState.FINISHED, RunState.DIVERGED):
        found.append(Difference(None, "state", original.state, repeat.state))
    numbers = [difference for difference in found if isinstance(difference.then, int | float)]
    largest = max(numbers, key=lambda difference: difference.size, default=None)
    within = tolerance is not None and complete and (largest.size if largest else 0.0) <= tolerance
    (then, unreadable), (now, _) = (_predictions(record, wanted=complete) for record in (original, repeat))
    return Verdict(
        verdict="identical" if not found else "equal within tolerance" if within else "different",
        original=original.name,
        repeat=repeat.name,
        tolerance=tolerance,
        epochs=min(map(len, rows)),
        complete=complete,
        first=found[0] if found else None,
        largest=largest,
        changed_predictions=_count_changed(then, now),
        test_images=len(now.test_labels) if now else 0,
        unreadable=unreadable,
        causes=tuple(find_causes(original.environment, repeat.environment)),
    )


def compare_rows(then: EpochRow, now: EpochRow) -> Iterator[Difference]:
    """What differs in one epoch, weights last; how long it took is not compared, nor what an older file lacks."""
    before, after = then.columns(), now.columns()
    for name in COMPARED:
        if name in before and name in after and not _same(before[name], after[name]):
            yield Difference(now.epoch, name, before[name], after[name])


def _in_epochs(then: Sequence[EpochRow], now: Sequence[EpochRow], *, whole: bool) -> Iterator[Difference]:
    for before, after in zip_longest(then, now):
        if before and after:
            yield from compare_rows(before, after)
        elif whole:
            yield Difference(min(len(then), len(now)) + 1, "epochs", len(then), len(now))
            return


def _at_the_end(then: Record, now: Record) -> Iterator[Difference]:
    sealed = then.sealed or now.sealed
    for name in sorted({*then.metrics, *now.metrics}):
        if sealed and name.startswith("test/"):
            continue
        before, after = then.metrics.get(name), now.metrics.get(name)
        if not _same(before, after):
            yield Difference(None, name, before, after)
    for name in (WEIGHTS, *(() if sealed else ("predictions_digest",))):
        if getattr(then, name) != getattr(now, name):
            yield Difference(None, name, getattr(then, name), getattr(now, name))


def _same(then: Any, now: Any) -> bool:
    both_nan = isinstance(then, float) and isinstance(now, float) and math.isnan(then) and math.isnan(now)
    return both_nan or then == now


def _predictions(record: Record, *, wanted: bool) -> tuple[Predictions | None, str | None]:
    """The predictions, or why there are none to read; neither for a run that diverged or is sealed."""
    if not (wanted and record.state == RunState.FINISHED) or record.sealed:
        return None, None
    try:
        return record.predictions, None
    except InputError as error:
        return None, str(error)


def _count_changed(then: Predictions | None, now: Predictions | None) -> int | None:
    if then is None or now is None or not np.array_equal(then.test_image_digests, now.test_image_digests):
        return None
    before, after = then.test_probabilities.argmax(axis=1), now.test_probabilities.argmax(axis=1)
    return int((before != after).sum())


def _show(value: float | str | None) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value[:12] if isinstance(value, str) else str(value)


def tell(verdict: Verdict) -> list[str]:
    """The verdict in lines for the screen; the first begins with its word."""
    return [_headline(verdict), *_extent(verdict), *tell_causes(verdict.causes, without_effect=not verdict.first)]


def _headline(verdict: Verdict) -> str:
    epochs = f"{verdict.epochs} epoch{'' if verdict.epochs == 1 else 's'}"
    if verdict.first is None:
        predictions = f"all metrics and {verdict.test_images:,} predictions" if verdict.test_images else "all metrics"
        rest = f", {predictions}" if verdict.complete else " so far"
        return f"identical: {epochs}{rest}, bit for bit"
    if verdict.verdict == "equal within tolerance":
        return f"equal within tolerance {verdict.tolerance:g}: {epochs} and all metrics"
    epoch = verdict.first.epoch
    where = "only in what is known at the end" if epoch is None else f"from epoch {epoch} on"
    return f"different {where}: {verdict.first}"


def _extent(verdict: Verdict) -> Iterator[str]:
    if verdict.unreadable:
        yield f"the predictions were compared by their digest only: {verdict.unreadable}"
    if verdict.first is None:
        return
    if verdict.largest:
        epoch = verdict.largest.epoch
        where = "at the end" if epoch is None else f"in epoch {epoch}"
        yield f"largest difference: {verdict.largest.size:.3g}, {verdict.largest} {where}"
    if verdict.changed_predictions is not None:
        yield f"predictions changed: {verdict.changed_predictions:,} of {verdict.test_images:,} test images"


def tell_causes(causes: Sequence[Cause], *, without_effect: bool = False) -> Iterator[str]:
    """What differs, in lines; that nothing known does is said too."""
    likely = [cause for cause in causes if cause.likely]
    others = [cause for cause in causes if not cause.likely]
    if not causes and not without_effect:
        yield "nothing known differs: config, data, code, packages, CPU, threads and variables are the same"
    if likely:
        yield "differs, without effect:" if without_effect else "likely causes, the likeliest first:"
        yield from (f"  {number}. {cause.text}" for number, cause in enumerate(likely, 1))
    if others:
        yield "differs too, and should not matter: " + "; ".join(cause.text for cause in others)


def as_json(verdict: Verdict) -> Mapping[str, Any]:
    """What `verdict.json` holds."""
    values = {"format": 1, **vars(verdict), "lines": tell(verdict)}
    for name in ("first", "largest"):
        difference = values[name]
        values[name] = difference and {k: _plain(v) for k, v in difference._asdict().items()}
    values["causes"] = [vars(cause) for cause in verdict.causes]
    return values


def _plain(value: float | str | None) -> float | str | None:
    """JSON knows no NaN and no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
