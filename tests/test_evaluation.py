from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from experiments.results.evaluation import (
    Interval,
    calibration_error,
    cross_entropy,
    evaluate,
    find_overfitting,
    image_cross_entropy,
    image_digests,
    is_uneven,
    misclassified,
    predictions_digest,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # R. G. Newcombe, Two-Sided Confidence Intervals for the Single Proportion, 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_agrees_with_newcombe(successes, trials, low, high):
    interval = wilson_interval(successes, trials)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_wilson_interval_solves_the_score_equation():
    interval = wilson_interval(9_912, 10_000, confidence=0.9)
    for bound in (interval.low, interval.high):
        score = abs(0.9912 - bound) / math.sqrt(bound * (1 - bound) / 10_000)
        assert score == pytest.approx(1.6448536, abs=1e-6)


def test_wilson_interval_is_exact_at_the_ends():
    assert wilson_interval(0, 0) == Interval(0.0, 1.0)
    assert wilson_interval(0, 7).low == 0.0
    assert wilson_interval(7, 7).high == 1.0
    assert wilson_interval(7, 7).low == pytest.approx(1 - wilson_interval(0, 7).high)


@pytest.mark.parametrize("arguments", [(3, 2), (-1, 2), (1, 2, 1.0)])
def test_wilson_interval_refuses_impossible_arguments(arguments):
    with pytest.raises(ValueError, match="must be in"):
        wilson_interval(*arguments)


def test_cross_entropy_is_mean_nats():
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25]], np.float32)
    assert cross_entropy(probabilities, np.array([0, 1])) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_cross_entropy_is_clipped_at_float32_epsilon():
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    assert image_cross_entropy(probabilities, np.array([0, 1])) == pytest.approx([0.0, 23 * math.log(2)])


def test_calibration_error_by_hand():
    # (0.6, 0.667] holds 0.65 twice, one right: |1 - 1.30|; (0.933, 1] holds 0.95 and 1.0, right: |2 - 1.95|
    probabilities = np.array([[0.65, 0.35], [0.35, 0.65], [0.95, 0.05], [0.0, 1.0]])
    labels = np.array([0, 0, 0, 1])
    assert calibration_error(probabilities, labels) == pytest.approx((0.30 + 0.05) / 4)
    assert calibration_error(probabilities, labels, bins=1) == pytest.approx(abs(3 - 3.25) / 4)


def test_calibration_error_vanishes_for_an_honest_model():
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1.0, 200_000)
    labels = (generator.uniform(size=200_000) > confidence).astype(np.int64)
    assert calibration_error(np.stack([confidence, 1 - confidence], axis=1), labels) < 0.005


PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], np.float32)
LABELS = np.array([0, 1, 1, 1])


def test_evaluate_counts_by_hand():
    result = evaluate(PROBABILITIES, LABELS)
    assert result.accuracy == 0.75
    assert result.accuracy_interval == wilson_interval(3, 4)
    assert result.confusion.dtype == np.int64
    assert result.confusion.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert result.class_accuracy[:2] == pytest.approx([1, 2 / 3])
    assert np.isnan(result.class_accuracy[2])
    assert result.class_intervals == (wilson_interval(1, 1), wilson_interval(2, 3), Interval(0.0, 1.0))
    assert result.cross_entropy == pytest.approx(-np.log([0.7, 0.8, 0.3, 0.5]).mean(), rel=1e-6)


def test_evaluate_metrics_have_flat_names():
    metrics = evaluate(PROBABILITIES, LABELS).metrics("test")
    assert list(metrics) == [
        "test/accuracy",
        "test/accuracy_low",
        "test/accuracy_high",
        "test/cross_entropy",
        "test/calibration_error",
    ]
    assert metrics["test/accuracy_low"] == wilson_interval(3, 4).low
    corrected = evaluate(PROBABILITIES, LABELS, doubtful={2: (0,)}).metrics("validation")
    assert corrected["validation/accuracy_corrected"] == 1.0


@pytest.mark.parametrize(
    ("doubtful", "corrected"),
    [
        ({}, None),
        ({2: (0,)}, 1.0),  # the raters agree with the model, not with the label
        ({0: (2,)}, 0.5),  # the label's accidental agreement is taken back
        ({2: ()}, 1.0),  # left out: 3 of 3
        ({0: ()}, 2 / 3),
        ({2: (0, 2), 0: (0, 1)}, 1.0),
        ({0: (), 1: (), 2: (), 3: ()}, None),
    ],
)
def test_evaluate_corrects_doubtful_labels(doubtful, corrected):
    assert evaluate(PROBABILITIES, LABELS, doubtful=doubtful).accuracy_corrected == corrected


@pytest.mark.parametrize(
    ("probabilities", "labels", "doubtful", "message"),
    [
        (np.ones(3), LABELS, {}, "`probabilities` must be"),
        (np.ones((0, 3)), np.zeros(0, int), {}, "`probabilities` must be"),
        (PROBABILITIES * 1.01, LABELS, {}, "sum to 1, received a row sum=1.01"),
        (np.where(PROBABILITIES > 0.7, np.nan, PROBABILITIES), LABELS, {}, "finite"),
        (np.array([[1.5, -0.5]]), np.array([0]), {}, "not negative"),
        (PROBABILITIES, LABELS[:3], {}, "`labels` must be 4 integers"),
        (PROBABILITIES, LABELS.astype(float), {}, "dtype=float64"),
        (PROBABILITIES, LABELS + 2, {}, r"`labels` must be in \[0, 3\), received labels=2…3"),
        (PROBABILITIES, LABELS - 1, {}, "`labels` must be in"),
        (PROBABILITIES, LABELS, {4: (0,)}, "`doubtful` must name images"),
    ],
)
def test_evaluate_refuses_bad_input(probabilities, labels, doubtful, message):
    with pytest.raises(ValueError, match=message):
        evaluate(probabilities, labels, doubtful=doubtful)


def overfitting(train, validation, train_accuracy=0.99, validation_accuracy=0.97, images=1000):
    accuracies = {"train_accuracy": train_accuracy, "validation_accuracy": validation_accuracy}
    return find_overfitting(train, validation, images=images, **accuracies)


def test_find_overfitting_says_where_images_are_too_few():
    """A rise by a third in 24 images is one image."""
    train, validation = [0.5, 0.3, 0.2, 0.1], [0.4, 0.3, 0.35, 0.4]
    found = overfitting(train, validation, images=24)
    assert found.epoch is None
    told = "Overfitting cannot be judged by 24 validation images; accuracy 99.00% in training, 97.00% in validation."
    assert found.verdict == told
    assert overfitting(train, validation, images=100).epoch == 3


def test_find_overfitting_names_the_epoch():
    result = overfitting([0.5, 0.3, 0.2, 0.1, 0.05, 0.01], [0.4, 0.3, 0.25, 0.26, 0.35, 0.5])
    assert (result.epoch, result.best_epoch) == (4, 3)
    assert result.generalisation_gap == pytest.approx(0.02)
    assert result.verdict.startswith("Overfits from epoch 4: validation cross-entropy rose from 0.2500 (epoch 3)")


def test_find_overfitting_survives_a_spike_and_a_wobble():
    result = overfitting([0.5, 0.3, 0.2, 0.1, 0.05, 0.04, 0.03, 0.02], [0.4, 0.25, 0.30, 1.5, 0.36, 0.35, 0.37, 0.36])
    assert (result.epoch, result.best_epoch) == (3, 2)


def test_find_overfitting_needs_two_epochs_and_two_percent():
    assert overfitting([0.3, 0.2, 0.1], [0.30, 0.25, 0.35]).epoch is None
    assert overfitting([0.3, 0.2, 0.1, 0.05], [0.30, 0.250, 0.252, 0.254]).epoch is None
    assert overfitting([0.3, 0.2, 0.1, 0.05], [0.30, 0.250, 0.256, 0.262]).epoch == 3


def test_find_overfitting_needs_a_falling_training_curve():
    assert overfitting([0.5, 0.3, 0.4, 0.6], [0.4, 0.3, 0.4, 0.6]).epoch is None


def test_find_overfitting_rarely_mistakes_noise_for_it():
    generator = np.random.default_rng(0)
    train = np.linspace(0.1, 0.05, 12)
    plateaus = 0.03 * (1 + 0.03 * generator.standard_normal((1_000, 12)))
    assert np.mean([overfitting(train, plateau).epoch is not None for plateau in plateaus]) < 0.12


def test_find_overfitting_finds_a_noisy_rise():
    generator = np.random.default_rng(0)
    train, rise = (
        np.linspace(0.1, 0.01, 20),
        np.concatenate([np.linspace(0.06, 0.03, 6), np.linspace(0.03, 0.06, 14)]),
    )
    noisy = rise * (1 + 0.02 * generator.standard_normal((1_000, 20)))
    assert np.mean([overfitting(train, curve).epoch is not None for curve in noisy]) > 0.99


NOT_FINITE = "Diverged: the cross-entropy is not a finite number from epoch "


@pytest.mark.parametrize(
    ("train", "validation", "accuracy", "start", "best_epoch"),
    [
        ([0.3], [0.2], 0.9, "Too short to judge: one epoch", 1),
        ([0.3, 0.2], [0.20, 0.15], 0.9, "Still improving when it stopped", 2),
        ([0.3, 0.2], [0.20, 0.25], 0.9, "No overfitting: validation cross-entropy ends at 0.2500", 1),
        ([0.3, 0.2, 0.15], [0.2, 0.1490, 0.1488], 0.9, "No overfitting", 3),
        ([2.30, 2.31, 2.30], [2.30, 2.30, 2.31], 0.1, "Underfits: training cross-entropy hardly fell", 1),
        ([0.010, 0.010, 0.010], [0.02, 0.02, 0.02], 0.997, "No overfitting", 1),
        (
            [0.3, math.nan],
            [0.2, math.nan],
            0.1,
            "Diverged: the cross-entropy is not a finite number from epoch 2",
            1,
        ),
        ([math.nan], [math.inf], 0.1, NOT_FINITE + "1", 1),
        ([0.3, 0.2, 0.1], [math.nan, 0.2, 0.1], 0.9, "Still improving", 3),
    ],
)
def test_find_overfitting_verdicts(train, validation, accuracy, start, best_epoch):
    result = overfitting(train, validation, train_accuracy=accuracy)
    assert result.verdict.startswith(start)
    assert (result.epoch, result.best_epoch) == (None, best_epoch)


@pytest.mark.parametrize(("train", "validation"), [([], []), ([0.1], [0.1, 0.2])])
def test_find_overfitting_refuses_unequal_histories(train, validation):
    with pytest.raises(ValueError, match="one value for each epoch"):
        overfitting(train, validation)


def test_misclassified_orders_by_confidence_then_index():
    probabilities = np.array([[0.4, 0.6], [0.1, 0.9], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7]])
    assert misclassified(probabilities, np.array([0, 0, 0, 0, 1])).tolist() == [1, 0, 2]


def test_predictions_digest_is_of_little_endian_float32():
    values = np.array([[0.25, 0.75], [1.0, 0.0]])
    expected = hashlib.sha256(bytes.fromhex("0000803e0000403f0000803f00000000")).hexdigest()
    assert predictions_digest(values) == expected
    assert predictions_digest(np.asfortranarray(values.astype(">f4"))) == expected


def test_image_digests_are_blake2b_of_the_pixels():
    images = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3, 1)
    digests = image_digests(images)
    assert digests.dtype == np.uint64
    assert int(digests[1]) == int.from_bytes(hashlib.blake2b(bytes(range(6, 12)), digest_size=8).digest(), "little")
    assert image_digests(images.reshape(2, 3, 2, 1)).tolist() == digests.tolist()
    assert image_digests(images[:0]).shape == (0,)
    with pytest.raises(ValueError, match="uint8"):
        image_digests(images.astype(np.float32))


def test_balanced_accuracy_and_macro_f1_are_means_over_the_classes_that_are_there():
    from sklearn.metrics import f1_score

    labels = np.repeat([0, 1, 2], [16, 10, 12])
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), len(labels))  # of a fourth class there is no image
    predicted = probabilities.argmax(axis=1)
    numbers = evaluate(probabilities, labels).class_metrics("test")
    recalls = [np.mean(predicted[labels == label] == label) for label in range(3)]
    assert numbers["test/balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert numbers["test/macro_f1"] == pytest.approx(f1_score(labels, predicted, labels=[0, 1, 2], average="macro"))


@pytest.mark.parametrize(("sizes", "expected"), [([15, 10], False), ([16, 10], True), ([12, 0, 10], False)])
def test_classes_are_uneven_beyond_one_and_a_half(sizes: list[int], expected: bool):
    assert is_uneven(np.repeat(np.arange(len(sizes)), sizes)) is expected
