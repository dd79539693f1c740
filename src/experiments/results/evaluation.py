"""Probabilities and labels in, numbers out: pure functions that read, draw and log nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its functions are loaded when they are first used: 0.1 s, which planning does not wait for
from numpy.typing import ArrayLike, NDArray

# Probabilities are clipped here before a logarithm: float32 softmax cannot resolve less, and one image that
# is wrong with certainty then costs 15.9 nats instead of infinity.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)

UNJUDGED, TOO_SHORT = "Overfitting cannot be judged", "Too short to judge"  # begin verdicts
UNEVEN = 1.5  # classes that differ more in size: accuracy is then mostly that of the large ones
ROW_SUM_TOLERANCE = 1e-3  # float32 softmax is off by 1e-6, bfloat16 by some 1e-4


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """What a split says about a model.

    Attributes:
        accuracy: share of images whose most probable class is the label.
        accuracy_interval: 95 % Wilson interval of it.
        cross_entropy: mean −ln p(label), nats.
        calibration_error: expected calibration error, 15 bins, in [0, 1].
        accuracy_corrected: accuracy against the raters' majority labels; None where no label is in doubt.
        confusion: (k, k) int64, rows are true classes, columns predictions.
        class_accuracy: (k,) share of each true class that is right; NaN where a class has no image.
        class_intervals: k Wilson intervals, (0, 1) where a class has no image.
    """

    accuracy: float
    accuracy_interval: Interval
    cross_entropy: float
    calibration_error: float
    accuracy_corrected: float | None
    confusion: NDArray[np.int64]
    class_accuracy: NDArray[np.float64]
    class_intervals: tuple[Interval, ...]

    @property
    def balanced_accuracy(self) -> float:
        """The mean of `class_accuracy` over the classes that have an image."""
        return float(np.nanmean(self.class_accuracy))

    @property
    def macro_f1(self) -> float:
        """The mean over the same classes of 2 · right / (images of the class + predictions of it)."""
        images, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        present = images > 0
        return float((2 * np.diagonal(self.confusion) / np.maximum(images + predicted, 1))[present].mean())

    def class_metrics(self, split: str) -> dict[str, float]:
        """What accuracy hides where classes differ much in size; named like `metrics`."""
        return {f"{split}/balanced_accuracy": self.balanced_accuracy, f"{split}/macro_f1": self.macro_f1}

    def metrics(self, split: str) -> dict[str, float]:
        """Flat metrics named `<split>/<metric>`."""
        numbers = {
            "accuracy": self.accuracy,
            "accuracy_low": self.accuracy_interval.low,
            "accuracy_high": self.accuracy_interval.high,
            "cross_entropy": self.cross_entropy,
            "calibration_error": self.calibration_error,
        }
        if self.accuracy_corrected is not None:
            numbers["accuracy_corrected"] = self.accuracy_corrected
        return {f"{split}/{name}": value for name, value in numbers.items()}


@dataclass(frozen=True)
class Overfitting:
    """Whether more training made the model worse.

    Attributes:
        verdict: one plain sentence with the numbers behind it.
        epoch: first epoch (1-based) of the overfitted end of the run; None without overfitting.
        best_epoch: epoch (1-based) of the lowest validation cross-entropy; 1 where none is finite.
        generalisation_gap: training minus validation accuracy, in [-1, 1].
    """

    verdict: str
    epoch: int | None
    best_epoch: int
    generalisation_gap: float

    @property
    def is_judged(self) -> bool:
        """Whether there was enough to judge by: validation images, and epochs."""
        return not self.verdict.startswith((UNJUDGED, TOO_SHORT))


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion; (0, 1) for no trials, which say nothing.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.

    Args:
        successes: in [0, trials].
        trials: 0 or more.
        confidence: probability that the interval holds the true proportion, in (0, 1).

    Raises:
        ValueError: `successes` or `confidence` is outside of its range.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"`successes` must be in [0, trials], received successes={successes}, trials={trials}")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be in (0, 1), received confidence={confidence}")
    if trials == 0:
        return Interval(0.0, 1.0)
    z = float(scipy.special.ndtri((1 + confidence) / 2))
    proportion = successes / trials
    centre = (proportion + z * z / (2 * trials)) / (1 + z * z / trials)
    half_width = (
        z / (1 + z * z / trials) * np.sqrt(proportion * (1 - proportion) / trials + z * z / (4 * trials * trials))
    )
    low = 0.0 if successes == 0 else float(centre - half_width)
    high = 1.0 if successes == trials else float(centre + half_width)
    return Interval(low, high)


def cross_entropy(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Mean −ln p(label) in nats; p is clipped at float32's epsilon (1.2e-7), an image costs at most 15.9."""
    return float(image_cross_entropy(probabilities, labels).mean())


def image_cross_entropy(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """−ln p(label) of each image, (n,) nats in [0, 15.9], clipped like `cross_entropy`."""
    of_label = np.take_along_axis(np.asarray(probabilities), np.asarray(labels)[:, None], axis=1)[:, 0]
    clipped: NDArray[np.float64] = -np.log(np.clip(of_label.astype(np.float64), SMALLEST_PROBABILITY, 1.0))
    return clipped


def calibration_error(probabilities: NDArray[np.floating], labels: NDArray[np.integer], bins: int = 15) -> float:
    """Expected calibration error in [0, 1]: Σ_b |accuracy_b − confidence_b| · n_b / n, bins of equal width.

    Source: C. Guo et al., On Calibration of Modern Neural Networks, 2017 (also for 15 bins).

    Args:
        probabilities: (n, k) in [0, 1], rows sum to 1; n is 1 or more.
        labels: (n,) integers in [0, k).
        bins: of confidence between 0 and 1, 1 or more.
    """
    confidence = np.max(probabilities, axis=1).astype(np.float64)
    right = np.argmax(probabilities, axis=1) == labels
    bin_of_image = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    surplus = np.bincount(bin_of_image, weights=right - confidence, minlength=bins)
    return float(np.abs(surplus).sum() / len(confidence))


def evaluate(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    doubtful: Mapping[int, tuple[int, ...]] | None = None,
) -> Evaluation:
    """Everything a split says about a model.

    Args:
        probabilities: (n, k), rows sum to 1.
        labels: (n,) in [0, k).
        doubtful: image index → the labels that a majority of raters gave it. A prediction is then right if it
            is one of them; an image with an empty tuple (no label fits) counts neither as right nor as wrong.

    Raises:
        ValueError: a shape, value, label or index is not as above.
    """
    probabilities, labels = _checked(probabilities, labels)
    classes = probabilities.shape[1]
    predicted = np.argmax(probabilities, axis=1)
    confusion = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
    right, images = np.diagonal(confusion), confusion.sum(axis=1)
    return Evaluation(
        accuracy=float(right.sum() / len(labels)),
        accuracy_interval=wilson_interval(int(right.sum()), len(labels)),
        cross_entropy=cross_entropy(probabilities, labels),
        calibration_error=calibration_error(probabilities, labels),
        accuracy_corrected=_accuracy_corrected(predicted, labels, doubtful or {}),
        confusion=confusion.astype(np.int64),
        class_accuracy=np.divide(right, images, out=np.full(classes, np.nan), where=images > 0),
        class_intervals=tuple(wilson_interval(int(r), int(n)) for r, n in zip(right, images, strict=True)),
    )


def is_uneven(labels: NDArray[np.integer]) -> bool:
    """Whether the largest class has more than `UNEVEN` times the images of the smallest."""
    counts = np.bincount(labels)
    return bool(counts.max() > UNEVEN * counts[counts > 0].min())


def find_overfitting(
    train_cross_entropy: Sequence[float],
    validation_cross_entropy: Sequence[float],
    *,
    images: int,
    train_accuracy: float,
    validation_accuracy: float,
) -> Overfitting:
    """Says in one sentence whether a run trained too long, too short, or not at all.

    A run overfits when its last two or more epochs have a validation cross-entropy at least 2 % above the
    minimum, while the training one ends lower than it was at that minimum. Against noise, the mean of those
    epochs (at most the last three) must be above the minimum by four times the median step in the wrong
    direction. The epoch that is named is the first from which validation stays 2 % above the minimum. Values
    that are not finite count as infinitely bad. Below 100 validation images nothing is judged: one image more or less
    moves their cross-entropy by about as much as what is looked for.

    Args:
        train_cross_entropy: nats, by epoch.
        validation_cross_entropy: nats, by epoch.
        images: of validation.
        train_accuracy: of the finished model.
        validation_accuracy: of the finished model.

    Raises:
        ValueError: the two curves are empty or differ in length.
    """
    train = _finite_or_infinite(train_cross_entropy)
    validation = _finite_or_infinite(validation_cross_entropy)
    if len(train) != len(validation) or len(train) == 0:
        raise ValueError(
            "`train_cross_entropy` and `validation_cross_entropy` must have one value for each epoch, "
            f"received {len(train)} and {len(validation)} values"
        )
    epoch = _overfits_from(train, validation) if images >= FEWEST_IMAGES else None
    verdict = _verdict(train, validation, epoch, train_accuracy, validation_accuracy)
    if images < FEWEST_IMAGES and np.isfinite(validation[-1]):
        accuracies = _accuracies(train_accuracy, validation_accuracy)
        verdict = f"{UNJUDGED} by {images} validation images; {accuracies}."
    return Overfitting(
        verdict=verdict,
        epoch=epoch,
        best_epoch=int(np.argmin(validation)) + 1,
        generalisation_gap=float(train_accuracy - validation_accuracy),
    )


def misclassified(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Indices of the wrong images, the most confident error first, equal confidence by index."""
    wrong = np.flatnonzero(np.argmax(probabilities, axis=1) != labels)
    order = np.argsort(-np.max(probabilities, axis=1)[wrong], kind="stable")
    return wrong[order].astype(np.int64)


def predictions_digest(probabilities: NDArray[np.floating]) -> str:
    """SHA-256 of the values as contiguous little-endian float32; the shape is not part of it."""
    return hashlib.sha256(np.ascontiguousarray(probabilities, dtype="<f4").tobytes()).hexdigest()


def image_digests(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A stable id of each image, (n,): BLAKE2b-64 of its pixels in C order, read little-endian.

    Args:
        images: (n, height, width, channels) uint8. The shape is not part of the digest.

    Raises:
        ValueError: `images` are not uint8.
    """
    if images.dtype != np.uint8:
        raise ValueError(f"`images` must be uint8, received dtype={images.dtype}")
    digests = b"".join(hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if probabilities.ndim != 2 or 0 in probabilities.shape:
        raise ValueError(
            f"`probabilities` must be (images, classes), received probabilities.shape={probabilities.shape}"
        )
    if labels.shape != probabilities.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"`labels` must be {len(probabilities)} integers, received labels.shape={labels.shape}, "
            f"dtype={labels.dtype}"
        )
    if not np.all(np.isfinite(probabilities)) or np.min(probabilities) < -ROW_SUM_TOLERANCE:
        raise ValueError(f"`probabilities` must be finite and not negative, received probabilities={probabilities!r}")
    sums = probabilities.sum(axis=1, dtype=np.float64)
    worst = float(sums[np.argmax(np.abs(sums - 1))])
    if abs(worst - 1) > ROW_SUM_TOLERANCE:
        raise ValueError(f"`probabilities` must have rows that sum to 1, received a row sum={worst:.6g}")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        classes = probabilities.shape[1]
        raise ValueError(f"`labels` must be in [0, {classes}), received labels={labels.min()}…{labels.max()}")
    return probabilities, labels.astype(np.int64)


def _accuracy_corrected(
    predicted: NDArray[np.integer], labels: NDArray[np.int64], doubtful: Mapping[int, tuple[int, ...]]
) -> float | None:
    if outside := [index for index in doubtful if not 0 <= index < len(labels)]:
        raise ValueError(f"`doubtful` must name images in [0, {len(labels)}), received doubtful={outside}")
    right = predicted == labels
    counted = np.ones(len(labels), dtype=bool)
    for index, accepted in doubtful.items():
        right[index] = predicted[index] in accepted
        counted[index] = bool(accepted)
    return float(right[counted].mean()) if doubtful and counted.any() else None


def _finite_or_infinite(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), array, np.inf)


FEWEST_IMAGES = 100  # of validation; fewer say nothing about a rise of some percent
RISE = 1.02  # a validation cross-entropy 2 % above its minimum is worse, not wobbling
WOBBLES = 4  # on flat curves with 1-6 % noise, 4-40 epochs, at most one in ten is then called overfitted


def _overfits_from(train: NDArray[np.float64], validation: NDArray[np.float64]) -> int | None:
    best = int(np.argmin(validation))
    low = np.flatnonzero(validation <= validation[best] * RISE)
    first = int(low[-1]) + 1 if len(low) else len(validation)
    if len(validation) - first < 2 or not train[-1] < train[best] or not np.isfinite(validation[-1]):
        return None
    end = float(np.mean(validation[max(first, len(validation) - 3) :]))
    return first + 1 if end - validation[best] > WOBBLES * _wobble(validation, best) else None


def _wobble(curve: NDArray[np.float64], best: int) -> float:
    """Median step in the wrong direction: up before the minimum, down after it; 0 without one."""
    finite = np.minimum(curve, np.finfo(np.float64).max)
    wrong = np.concatenate([np.diff(finite[: best + 1]), -np.diff(finite[best:])])
    return float(np.median(wrong[wrong > 0])) if np.any(wrong > 0) else 0.0


def _accuracies(train: float, validation: float) -> str:
    return f"accuracy {100 * train:.2f}% in training, {100 * validation:.2f}% in validation"


def _verdict(
    train: NDArray[np.float64],
    validation: NDArray[np.float64],
    epoch: int | None,
    train_accuracy: float,
    validation_accuracy: float,
) -> str:
    best, last = int(np.argmin(validation)), len(validation) - 1
    lowest, end, fitted = validation[best], validation[last], train[last]
    accuracies = _accuracies(train_accuracy, validation_accuracy)
    if not (np.isfinite(end) and np.isfinite(fitted)):
        broken = int(np.argmax(~(np.isfinite(validation) & np.isfinite(train)))) + 1
        return f"Diverged: the cross-entropy is not a finite number from epoch {broken}."
    if last == 0:
        return f"{TOO_SHORT}: one epoch, validation cross-entropy {end:.4f}; {accuracies}."
    if fitted > 0.95 * train[0] and train_accuracy < 0.9:  # it neither fell nor began at a solved task
        return f"Underfits: training cross-entropy hardly fell, {train[0]:.4f} → {fitted:.4f}; {accuracies}."
    if epoch is not None:
        return (
            f"Overfits from epoch {epoch}: validation cross-entropy rose from {lowest:.4f} "
            f"(epoch {best + 1}) to {end:.4f} while the training one fell to {fitted:.4f}; {accuracies}."
        )
    before = validation[:last].min()
    if end * RISE < before:
        return (
            f"Still improving when it stopped: the last epoch brought validation cross-entropy "
            f"from {before:.4f} to {end:.4f}, more epochs may help; {accuracies}."
        )
    return (
        f"No overfitting: validation cross-entropy ends at {end:.4f}, its lowest was {lowest:.4f} "
        f"(epoch {best + 1}); {accuracies}."
    )
