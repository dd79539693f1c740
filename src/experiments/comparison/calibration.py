"""Whether confidence can be believed: a reliability diagram, confidence minus accuracy, and a fitted temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from experiments.comparison.comparisons import Difference, mean_of
from experiments.comparison.configurations import Configuration
from experiments.comparison.pairs import scored
from experiments.comparison.scores import read_predictions
from experiments.comparison.spread import sample
from experiments.results.evaluation import (
    SMALLEST_PROBABILITY,
    Interval,
    calibration_error,
    cross_entropy,
    wilson_interval,
)
from experiments.results.records import Predictions

BINS = 15
FEWEST_VALIDATION = 1_000  # images, below which a fitted temperature is mostly noise
MOST_RUNS = 10  # of a configuration whose probabilities are read again
DRAWS = 200  # of labels that perfect calibration would give


@dataclass(frozen=True)
class Bin:
    """Test images of about equal confidence, of all runs of a configuration."""

    confidence: float
    accuracy: float
    interval: Interval
    images: int


@dataclass(frozen=True)
class Calibration:
    """What a configuration's confidence is worth on the test images, means over its runs (the first ten, if more).

    Attributes:
        bins: 15 of equal numbers of images, least confident first.
        overconfidence: mean confidence minus accuracy, in [-1, 1].
        interval: its 95 % interval.
        brier: mean squared distance of probabilities from the label, in [0, 2].
        error: expected calibration error.
        error_if_perfect: what it would be, on average, for a perfectly calibrated model with these confidences.
        temperature: fitted on validation images; None with fewer than 1,000 of them.
        cross_entropy: on test images, nats.
        cross_entropy_after: the same with `temperature`.
    """

    bins: tuple[Bin, ...]
    overconfidence: float
    interval: Interval
    brier: float
    error: float
    error_if_perfect: float
    temperature: float | None
    cross_entropy: float
    cross_entropy_after: float | None


def overconfidence(configurations: Sequence[Configuration]) -> list[Difference | None]:
    """Mean confidence minus accuracy of each configuration; None where there are no predictions."""
    tested = [c for c in configurations if c.scores]
    samples = [sample(c.by_repetition(c.scores.confidence - c.scores.right)) for c in tested if c.scores]
    found = {id(c): mean_of(one.sample, one.spread) for c, one in zip(tested, scored(tested, samples), strict=True)}
    return [found.get(id(c)) for c in configurations]


def calibrate(configuration: Configuration, found: Difference | None) -> Calibration | None:
    """Everything about one configuration, from its predictions; None where there are none.

    Args:
        configuration: one of those that `found` came from.
        found: its overconfidence.
    """
    scores = configuration.scores
    if scores is None or found is None:
        return None
    predictions = [read_predictions(record) for record in configuration.records[:MOST_RUNS]]
    fitted = [fit_temperature(p.validation_probabilities, p.validation_labels) for p in predictions]
    temperatures = [t for t in fitted if t is not None]
    after = [_after(p, t) for p, t in zip(predictions, temperatures, strict=False)]
    return Calibration(
        bins=reliability(scores.confidence.ravel(), scores.right.ravel()),
        overconfidence=found.value,
        interval=found.interval(),
        brier=float(np.mean([brier(p.test_probabilities, p.test_labels) for p in predictions])),
        error=float(np.mean([calibration_error(p.test_probabilities, p.test_labels) for p in predictions])),
        error_if_perfect=error_if_perfect(scores.confidence[0]),
        temperature=float(np.mean(temperatures)) if len(temperatures) == len(predictions) else None,
        cross_entropy=float(np.mean([cross_entropy(p.test_probabilities, p.test_labels) for p in predictions])),
        cross_entropy_after=float(np.mean(after)) if len(temperatures) == len(predictions) else None,
    )


def reliability(confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = BINS) -> tuple[Bin, ...]:
    """Bins of equal numbers of images, the least confident first; fewer where there are fewer images.

    Args:
        confidence: (n,) floats in [0, 1], the largest probability of each image; n is 1 or more.
        right: (n,) bool, whether the most probable class is the label.
        bins: how many there are at most, 1 or more.
    """
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(confidence)))
    return tuple(
        Bin(
            confidence=float(confidence[part].mean(dtype=np.float64)),
            accuracy=float(right[part].mean()),
            interval=wilson_interval(int(right[part].sum()), len(part)),
            images=len(part),
        )
        for part in parts
    )


def brier(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Mean over images of Σ_k (p_k − [k is the label])², in [0, 2]. Source: G. Brier, 1950."""
    p = probabilities.astype(np.float64)
    of_label = np.take_along_axis(p, labels[:, None], axis=1)[:, 0]
    return float((np.square(p).sum(axis=1) - 2 * of_label + 1).mean())


def error_if_perfect(confidence: NDArray[np.floating]) -> float:
    """Mean expected calibration error of models that are right exactly as often as they are confident."""
    generator = np.random.default_rng(0)
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    errors = [
        np.abs(np.bincount(place, weights=(generator.random(len(confidence)) < confidence) - confidence)).sum()
        for _ in range(DRAWS)
    ]
    return float(np.mean(errors) / len(confidence))


def fit_temperature(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float | None:
    """T that makes softmax(ln p / T) best on these images by cross-entropy; None with fewer than 1,000 images.

    Source: C. Guo et al., On Calibration of Modern Neural Networks, 2017.
    """
    if len(labels) < FEWEST_VALIDATION:
        return None
    logits = _logits(probabilities)
    own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    inverse = 1.0
    for _ in range(30):  # Newton's method on a convex function of 1 / T
        weights = np.exp(log_softmax(inverse * logits, axis=1))
        means = (weights * logits).sum(axis=1)
        slope = float((means - own).mean())
        curvature = float(((weights * logits**2).sum(axis=1) - means**2).mean())
        if curvature <= 0:
            break
        step = min(max(slope / curvature, -inverse), inverse / 2)  # stays positive, and at most doubles
        inverse = min(max(inverse - step, 0.05), 20.0)
        if abs(step) < 1e-6:
            break
    return 1 / inverse


def _after(p: Predictions, temperature: float) -> float:
    return cross_entropy(np.exp(log_softmax(_logits(p.test_probabilities) / temperature, axis=1)), p.test_labels)


def _logits(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(np.log(np.maximum(probabilities.astype(np.float64), SMALLEST_PROBABILITY)))
