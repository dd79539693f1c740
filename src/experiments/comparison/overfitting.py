"""Whether a configuration overfits, judged over its seeds: one seed's verdict is nearly a coin for the next seed's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from experiments.comparison.configurations import Configuration
from experiments.results.records import Record

RISE = 1.02  # as of one run: a cross-entropy 2 % above its minimum
FEWEST, SHARE = 4, 0.75  # seeds of which three quarters must overfit
FEWEST_CURVES = 3  # of which each is judged at the epoch that is best for the others
LAST = 3  # epochs at the end whose mean is compared with the best


@dataclass(frozen=True)
class OverfittingSeeds:
    """How many seeds of a configuration overfit.

    Attributes:
        judged: seeds that could be.
        overfit: how many of them do.
        first: earliest and latest epoch from which they do.
        verdict: of the configuration; None where its seeds are too few for one and do not agree.
    """

    judged: int
    overfit: int
    first: tuple[int, int] | None
    verdict: bool | None

    def __str__(self) -> str:
        """`no`, `epoch 7`, `2 of 3 seeds, epoch 5-7`."""
        if not self.judged:
            return "–"
        if self.first is None:
            return "mean curve" if self.verdict else "no"
        low, high = self.first
        epochs = f"epoch {low}" if low == high else f"epoch {low}-{high}"
        return epochs if self.judged == 1 else f"{self.overfit} of {self.judged} seeds, {epochs}"


def judge(configuration: Configuration) -> OverfittingSeeds:
    """From the runs' own verdicts and their curves.

    A run counts where its validation cross-entropy rose by more than two standard errors over validation images: those
    of the final losses. A run keeps no predictions of its best epoch, so the error of the paired difference is not
    known; it is smaller than this one where the two losses of an image correlate by a half or more, as they mostly do.
    The configuration overfits when three quarters of four or more seeds do, or when its mean curve does.
    """
    both = zip(configuration.records, configuration.validation_errors, strict=True)
    epochs = [_epoch(record, error) for record, error in both]
    known = [record for record in configuration.records if record.overfitting and record.overfitting.is_judged]
    found = sorted(epoch for epoch in epochs if epoch is not None)
    return OverfittingSeeds(
        judged=len(known),
        overfit=len(found),
        first=(found[0], found[-1]) if found else None,
        verdict=_verdict(len(known), len(found), _curves(known)),
    )


def _epoch(record: Record, error: float) -> int | None:
    """From which epoch on a run overfits, if its rise is beyond what validation images explain."""
    epoch = record.overfitting.epoch if record.overfitting else None
    curve = np.asarray(record.history["validation/cross_entropy"], np.float64)
    if epoch is None or not len(curve) or not math.isfinite(error):
        return epoch
    return epoch if curve[-1] - np.nanmin(curve) > 2 * error else None


def _verdict(judged: int, overfit: int, curves: Sequence[NDArray[np.float64]]) -> bool | None:
    if judged >= FEWEST and overfit >= SHARE * judged:
        return True
    if len(curves) >= FEWEST_CURVES:
        return mean_curve_rises(np.stack(curves))
    return (overfit > 0) if judged and overfit in (0, judged) else None


def _curves(records: Sequence[Record]) -> list[NDArray[np.float64]]:
    """Validation curves as far as all of them go; none where one is not finite."""
    curves = [np.asarray(record.history["validation/cross_entropy"], np.float64) for record in records]
    shortest = min(map(len, curves), default=0)
    cut = [curve[:shortest] for curve in curves]
    return cut if shortest > LAST and all(np.isfinite(curve).all() for curve in cut) else []


def mean_curve_rises(curves: NDArray[np.float64]) -> bool:
    """Whether validation cross-entropy ends above its minimum by more than chance and more than 2 %.

    Each seed is judged at the epoch that is best for the others, so that the luck of the chosen epoch is not counted as
    a rise; a one-sided t-test at 5 % over seeds.

    Args:
        curves: (seeds, epochs) cross-entropy, three seeds or more.
    """
    seeds = len(curves)
    best = [int(np.argmin(np.delete(curves, seed, axis=0).mean(axis=0))) for seed in range(seeds)]
    lowest = curves[np.arange(seeds), best]
    has_end = np.asarray(best) < curves.shape[1] - LAST  # a curve that is best at its end has not risen
    rises = np.where(has_end, curves[:, -LAST:].mean(axis=1) - lowest, 0.0)
    error = float(rises.std(ddof=1)) / math.sqrt(seeds)
    beyond_chance = rises.mean() > float(stdtrit(seeds - 1, 0.95)) * error
    return bool(beyond_chance and rises.mean() > (RISE - 1) * lowest.mean())
