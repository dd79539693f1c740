from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conftest import Trained, train
from experiments.config import RunConfig
from experiments.errors import DivergedError, InputError, StoppedError
from experiments.ingredients.datasets import ImageData
from experiments.ingredients.splits import Split
from experiments.results.files import MEASURED

Small = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def started(tensorflow: Any) -> None:
    """Every test here trains."""


@pytest.fixture(scope="module")
def regularised(small: Small, small_data: ImageData, tensorflow: Any) -> Trained:
    """Three epochs with dropout, L2, label smoothing and augmentation."""
    return train(small("model=mlp", "model.units=[16]", "regularization=full", "training.epochs=3"), small_data)


def digests(trained: Trained) -> list[str]:
    return [row.weights_digest for row in trained.rows]


def test_same_config_gives_the_same_bits_in_every_epoch(
    regularised: Trained, small: Small, small_data: ImageData
) -> None:
    np.random.seed(99)
    again = train(small("model=mlp", "model.units=[16]", "regularization=full", "training.epochs=3"), small_data)
    assert digests(again) == digests(regularised)
    assert [row.validation_loss for row in again.rows] == [row.validation_loss for row in regularised.rows]
    assert [row.train_loss for row in again.rows] == [row.train_loss for row in regularised.rows]


def test_measuring_training_images_changes_no_bit_and_agrees_with_the_finished_model(
    regularised: Trained, small: Small, small_data: ImageData
) -> None:
    from experiments.results.evaluation import evaluate
    from experiments.training import loop

    config = small("model=mlp", "model.units=[16]", "regularization=full", "training.epochs=3")
    measured = loop.measured_images(small_data.train)
    assert len(measured.labels) == len(small_data.train.labels)
    trained = train(config, small_data, measured=measured)
    assert digests(trained) == digests(regularised)
    found = evaluate(trained.trainer.predict(measured.images), measured.labels)
    assert trained.rows[-1].train_measured_accuracy == found.accuracy
    assert trained.rows[-1].train_measured_cross_entropy == pytest.approx(found.cross_entropy)
    assert trained.rows[-1].unknown == ()
    assert regularised.rows[-1].unknown == MEASURED


def test_images_that_are_measured_are_spread_over_all_and_not_copied() -> None:
    from experiments.training import loop

    images = np.zeros((25_000, 2, 2, 1), np.uint8)
    measured = loop.measured_images(Split(images, np.arange(25_000)))
    assert len(measured.labels) == 10_000
    assert measured.labels[:3].tolist() == [0, 2, 4]
    assert np.shares_memory(measured.images, images)


def test_other_seed_gives_other_bits(regularised: Trained, small: Small, small_data: ImageData) -> None:
    other = train(
        small("model=mlp", "model.units=[16]", "regularization=full", "training.epochs=1", "seed=1"), small_data
    )
    assert digests(other)[0] not in digests(regularised)


def test_digest_is_that_of_the_weights(regularised: Trained) -> None:
    import hashlib

    weights = b"".join(w.numpy().tobytes() for w in regularised.trainer.model.weights)
    assert regularised.rows[-1].weights_digest == hashlib.sha256(weights).hexdigest()
    assert len(set(digests(regularised))) == 3


def test_softmax_regression_matches_numpy(small: Small, small_data: ImageData) -> None:
    """Two epochs of SGD with a falling rate, worked out in float64: order, scaling, labels, rate and means."""
    from experiments.training.batches import order

    config = small("model=linear", "optimizer=sgd", "regularization=none", "training.epochs=2", "schedule=exponential")
    trained = train(config, small_data)
    pixels = small_data.train.images.reshape(64, -1) / 255
    labels = np.eye(10)[small_data.train.labels]
    rates = config.optimizer.learning_rate * config.schedule.factors(8).astype(np.float64)

    from experiments.training import loop

    weights, bias = (w.astype(np.float64) for w in loop.build(config, small_data).model.get_weights())
    for epoch, row in enumerate(trained.rows):
        losses, hits = [], []
        for step, chosen in enumerate(order(0, epoch + 1, 64).reshape(4, 16)):
            scores = pixels[chosen] @ weights + bias
            probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            losses.append(-np.log((probabilities * labels[chosen]).sum(axis=1)).mean())
            hits.append((scores.argmax(axis=1) == labels[chosen].argmax(axis=1)).mean())
            error = (probabilities - labels[chosen]) / 16
            weights = weights - rates[4 * epoch + step] * pixels[chosen].T @ error
            bias = bias - rates[4 * epoch + step] * error.sum(axis=0)
        assert row.train_loss == pytest.approx(np.mean(losses), rel=1e-5)
        assert row.train_cross_entropy == pytest.approx(np.mean(losses), rel=1e-5)
        assert row.train_accuracy == pytest.approx(np.mean(hits))
        assert row.learning_rate == pytest.approx(rates[4 * epoch : 4 * epoch + 4].mean(), rel=1e-6)
    for kept, expected in zip(trained.trainer.model.get_weights(), (weights, bias), strict=True):
        np.testing.assert_allclose(kept, expected, atol=2e-6)


def test_validation_numbers_are_those_of_keras(regularised: Trained, small_data: ImageData) -> None:
    """With label smoothing and L2: the loss contains both, cross-entropy and accuracy neither."""
    labels = np.eye(10, dtype=np.float32)[small_data.validation.labels]
    values = regularised.trainer.model.evaluate(
        small_data.validation.images, labels, batch_size=144, verbose=0, return_dict=True
    )
    row = regularised.rows[-1]
    assert row.validation_loss == pytest.approx(values["loss"], rel=1e-5)
    assert row.validation_cross_entropy == pytest.approx(values["cross_entropy"], rel=1e-5)
    assert row.validation_accuracy == pytest.approx(values["accuracy"], rel=1e-5)
    assert row.validation_loss > row.validation_cross_entropy


def test_training_numbers_are_means_over_all_images(small: Small, small_data: ImageData) -> None:
    """At a vanishing rate they are those of the initial model, also where the last batch is smaller."""
    config = small(
        "model=linear", "optimizer=sgd", "optimizer.learning_rate=1e-30", "regularization=none",
        "training.epochs=1", "training.batch_size=20",
    )  # fmt: skip
    trained = train(config, small_data)
    probabilities = trained.trainer.predict(small_data.train.images)
    of_label = probabilities[np.arange(64), small_data.train.labels]
    assert trained.rows[0].train_cross_entropy == pytest.approx(-np.log(of_label).mean(), rel=1e-5)
    assert trained.rows[0].train_accuracy == pytest.approx(
        (probabilities.argmax(axis=1) == small_data.train.labels).mean()
    )


def test_one_view_is_the_image_as_it_is(regularised: Trained, small_data: ImageData) -> None:
    alone = regularised.trainer.predict(small_data.test.images)
    np.testing.assert_array_equal(regularised.trainer.mean_over_views(small_data.test.images, alone), alone)


def test_predictions_are_means_over_the_views(regularised: Trained, small_data: ImageData) -> None:
    """The image and two changes of it; its mean is its own, whatever images stand beside it."""
    import tensorflow as tf

    from experiments.training import batches

    trainer, images = regularised.trainer, small_data.test.images
    changed = trainer.config.regularization.augmentation.model_copy(update={"test_views": 3})
    regularization = trainer.config.regularization.model_copy(update={"augmentation": changed})
    several = dataclasses.replace(trainer, config=trainer.config.model_copy(update={"regularization": regularization}))
    rows = batches.view_transforms(changed, (28, 28))
    views = [
        tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=np.repeat(row[None], len(images), axis=0),
            output_shape=(28, 28),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
        ).numpy()
        for row in rows
    ]
    np.testing.assert_array_equal(views[0], images)
    assert (views[1] != views[2]).any()
    expected = np.mean([trainer.predict(view) for view in views], axis=0)
    alone = trainer.predict(images)
    received = several.mean_over_views(images, alone)
    np.testing.assert_allclose(received, expected, atol=1e-6)
    np.testing.assert_allclose(received.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(several.mean_over_views(images[3:5], alone[3:5]), received[3:5], atol=1e-6)
    np.testing.assert_array_equal(alone, trainer.predict(images))


def test_predictions_do_not_depend_on_the_batch(regularised: Trained, small_data: ImageData) -> None:
    images = np.concatenate([small_data.test.images, small_data.validation.images])  # 504: two batches
    whole = regularised.trainer.predict(images)
    assert whole.shape == (504, 10)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(whole[360:], regularised.trainer.predict(small_data.validation.images), atol=1e-6)


def test_saved_model_takes_raw_pixels(regularised: Trained, small_data: ImageData, tmp_path: Any) -> None:
    import keras

    regularised.trainer.save_model(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    expected = regularised.trainer.predict(small_data.test.images)
    np.testing.assert_allclose(model.predict(small_data.test.images, verbose=0), expected, atol=1e-6)
    assert not hasattr(model, "optimizer") or model.optimizer is None


@pytest.mark.parametrize("schedule", ["one_cycle", "reduce_on_plateau"])
def test_learning_rate_is_the_mean_over_the_steps_of_the_epoch(
    schedule: str, small: Small, small_data: ImageData
) -> None:
    changes = ["schedule.patience_epochs=1", "schedule.min_delta=10"] if schedule == "reduce_on_plateau" else []
    config = small(
        "model=linear", f"schedule={schedule}", "schedule.warmup_fraction=0.2", "training.epochs=4", *changes
    )
    rows = train(config, small_data).rows
    losses = [row.validation_cross_entropy for row in rows]
    factors = config.schedule.factors(16)
    expected = [
        config.optimizer.learning_rate
        * factors[4 * epoch : 4 * epoch + 4].mean()
        * config.schedule.scale(losses[:epoch])
        for epoch in range(4)
    ]
    assert [row.learning_rate for row in rows] == pytest.approx(expected, rel=1e-6)
    if schedule == "reduce_on_plateau":
        assert rows[-1].learning_rate == pytest.approx(config.optimizer.learning_rate * 0.25, rel=1e-6)


def test_early_stopping_ends_with_the_best_weights(small: Small, small_data: ImageData) -> None:
    """At a rate this wild the loss rises at once, whatever the last bits: 3.2, 5.9, 6.0."""
    config = small(
        "model=linear", "optimizer=sgd", "optimizer.learning_rate=1", "schedule=constant", "training.epochs=12",
        "training.batch_size=64", "regularization=early_stopping", "regularization.early_stopping.patience_epochs=2",
    )  # fmt: skip
    trained = train(config, small_data)
    losses = [row.validation_cross_entropy for row in trained.rows]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 12
    assert trained.trainer.weights_digest() == trained.rows[best].weights_digest != trained.rows[-1].weights_digest


def test_without_restoring_the_last_weights_stay(small: Small, small_data: ImageData) -> None:
    config = small(
        "model=linear", "optimizer=sgd", "optimizer.learning_rate=1", "schedule=constant", "training.epochs=12",
        "training.batch_size=64", "regularization=early_stopping", "regularization.early_stopping.patience_epochs=1",
        "regularization.early_stopping.restore_best=false",
    )  # fmt: skip
    trained = train(config, small_data)
    assert trained.trainer.weights_digest() == trained.rows[-1].weights_digest


@pytest.mark.parametrize(
    ("model", "batch_size"),
    [
        ("mlp", 16),  # the mean of the epoch's losses is NaN
        ("linear", 64),  # the only loss of the epoch is finite, the weights after it are not
    ],
)
def test_diverged_training_hands_on_its_epoch_and_says_so(
    model: str, batch_size: int, small: Small, small_data: ImageData
) -> None:
    from experiments.training import loop

    config = small(
        f"model={model}", "optimizer=sgd", "optimizer.learning_rate=1e38", f"training.batch_size={batch_size}",
        "training.epochs=3",
    )  # fmt: skip
    states: list[Any] = []
    with pytest.raises(DivergedError, match="the loss of epoch 1 is not finite"):
        loop.train(
            loop.build(config, small_data), small_data.validation, loop.State([], None),
            on_epoch=states.append, stop_requested=lambda: False,
        )  # fmt: skip
    assert len(states) == 1
    assert states[0].rows[0].diverged
    assert np.isnan(states[0].rows[0].validation_loss)


def test_stop_is_heard_at_the_end_of_an_epoch_but_not_after_the_last(small: Small, small_data: ImageData) -> None:
    from experiments.training import loop

    trainer = loop.build(small("model=linear", "training.epochs=2"), small_data)
    states: list[Any] = [loop.State([], None)]

    def go_on() -> None:
        loop.train(trainer, small_data.validation, states[-1], on_epoch=states.append, stop_requested=lambda: True)

    with pytest.raises(StoppedError, match="stopped after epoch 1 of 2"):
        go_on()
    go_on()
    assert len(states[-1].rows) == 2


def test_batch_larger_than_the_data_is_refused(small: Small, small_data: ImageData) -> None:
    from experiments.training import loop

    with pytest.raises(InputError) as caught:
        loop.build(small("training.batch_size=65"), small_data)
    assert str(caught.value) == ("training.batch_size: must be ≤ 64, the training images of digits, received 65")


def test_initial_weights_depend_on_the_seed_alone(small: Small, small_data: ImageData) -> None:
    from experiments.training import loop

    first, again, other = (
        loop.build(small("model=linear", *more), small_data).weights_digest()
        for more in ([], ["optimizer=lion", "training.epochs=99"], ["seed=1"])
    )
    assert first == again != other


def test_bar_reads_steps_and_running_numbers_from_the_model(small: Small, small_data: ImageData) -> None:
    from experiments.training import progress

    trained = train(small("model=linear", "training.epochs=1"), small_data)
    model, row = trained.trainer.model, trained.rows[-1]
    assert progress._steps_done(model) == 4
    assert progress._running_metrics(model) == f"loss {row.train_loss:.4f}  accuracy {row.train_accuracy:.2%}"


def test_an_epoch_is_told_in_one_line(regularised: Trained) -> None:
    from experiments.training.progress import describe

    line = describe(regularised.rows[0], 120)
    assert line.startswith("epoch   1/120  train loss ")
    assert "\n" not in line


def test_bar_is_for_terminals_only(regularised: Trained) -> None:
    import io

    from rich.console import Console

    from experiments.training.progress import live_bar

    for terminal in (False, True):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=terminal, width=120)
        with live_bar(console, regularised.trainer.model, steps=12, done=4):
            pass
        assert ("━" in screen.getvalue()) is terminal


def uneven(data: ImageData) -> ImageData:
    """Two classes, 0 and not 0."""
    parts = {name: getattr(data, name) for name in ("train", "validation", "test")}
    parts = {
        name: dataclasses.replace(part, labels=(part.labels != 0).astype(np.int64)) for name, part in parts.items()
    }
    return dataclasses.replace(data, **parts, class_names=("0", "other"))


def test_balanced_loss_is_the_weighted_mean(small: Small, small_data: ImageData) -> None:
    """With a rate of almost nothing the epoch's loss is that of the first weights, worked out here."""
    from experiments.results.evaluation import image_cross_entropy

    data = uneven(small_data)
    still = (
        "model=linear",
        "optimizer=sgd",
        "optimizer.learning_rate=1e-30",
        "training.epochs=1",
        "regularization=none",
    )
    trained = train(small(*still, "training.class_weights=balanced"), data)
    labels = data.train.labels
    weights = np.array([len(labels) / (2 * np.sum(labels == label)) for label in (0, 1)])
    assert weights.max() > 4
    losses = image_cross_entropy(trained.trainer.predict(data.train.images), labels)
    assert trained.rows[0].train_loss == pytest.approx((weights[labels] * losses).mean(), rel=1e-4)
    assert trained.rows[0].train_cross_entropy == pytest.approx(losses.mean(), rel=1e-4)
    losses = image_cross_entropy(trained.trainer.predict(data.validation.images), data.validation.labels)
    assert trained.rows[0].validation_loss == pytest.approx((weights[data.validation.labels] * losses).mean(), rel=1e-6)
    assert trained.rows[0].validation_cross_entropy == pytest.approx(losses.mean(), rel=1e-6)


def test_balanced_weights_help_the_small_class(small: Small, small_data: ImageData) -> None:
    data = uneven(small_data)
    found = {}
    for kind in ("none", "balanced"):
        options = ("model=linear", "training.epochs=3", "regularization=none", f"training.class_weights={kind}")
        predicted = train(small(*options), data).trainer.predict(data.test.images).argmax(axis=1)
        found[kind] = float(np.mean(predicted[data.test.labels == 0] == 0))
    assert found["balanced"] > found["none"]


def test_smoothing_is_weighted_too(small: Small, small_data: ImageData) -> None:
    data = uneven(small_data)
    options = ("model=linear", "training.epochs=1", "regularization=none", "training.class_weights=balanced")
    trained = train(small(*options, "regularization.label_smoothing=0.1"), data)
    probabilities, labels = trained.trainer.predict(data.validation.images).astype(float), data.validation.labels
    weights = len(data.train.labels) / (2 * np.bincount(data.train.labels))
    targets = np.eye(2)[labels] * 0.9 + 0.05
    expected = (weights[labels] * -(targets * np.log(probabilities)).sum(axis=1)).mean()
    assert trained.rows[0].validation_loss == pytest.approx(expected, rel=1e-5)
