"""Compile and fit, one epoch at a time: what an epoch does depends on its number alone, not on the epochs before it."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from experiments.config import RunConfig
from experiments.errors import DivergedError, PausedError, StoppedError
from experiments.ingredients.normalisation import as_keras
from experiments.ingredients.splits import ImageData, Split
from experiments.results.evaluation import SMALLEST_PROBABILITY, cross_entropy, image_cross_entropy
from experiments.results.files import MEASURED, EpochRow
from experiments.training import batches
from experiments.training.batches import Batches
from experiments.training.checkpoint import State

MOST_MEASURED = 10_000  # training images: their accuracy is then known to half a percent at worst
PREDICT_BATCH = 500  # images; large enough for full speed, small enough for memory
OnEpoch = Callable[[State], None]
Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Rate(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """The rate of every step: peak × the schedule's factor × a scale that a plateau schedule sets between epochs."""

    def __init__(self, peak: float, factors: NDArray[np.float32]) -> None:
        self.table = tf.constant(np.float32(peak) * factors)
        self.scale = tf.Variable(1.0, trainable=False)
        self.start = tf.Variable(0, trainable=False)  # steps of the run before the optimizer's first

    def __call__(self, step: Any) -> Any:
        """The rate of the optimizer's step `step` (from 0) as a float32 scalar."""
        last = tf.shape(self.table)[0] - 1
        return tf.gather(self.table, tf.minimum(tf.cast(step, tf.int32) + self.start, last)) * self.scale

    def mean(self, epoch: int, steps: int) -> float:
        """The mean rate of an epoch (from 1) of `steps` steps."""
        return float(tf.reduce_mean(self.table[(epoch - 1) * steps : epoch * steps]) * self.scale)

    def get_config(self) -> dict[str, Any]:
        """Not used: models are saved without their optimizer."""
        return {}


@dataclass(frozen=True)
class Trainer:
    """A compiled model and what trains it."""

    model: Any
    predict: Predict
    rate: Rate
    batches: Batches
    config: RunConfig

    def mean_over_views(self, images: NDArray[np.uint8], first: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mean of the predictions over all `test_views` of each image, (n, classes); see `view_transforms`.

        `first` are the predictions of the images as they are.
        """
        height, width = images.shape[1:3]
        views = batches.view_transforms(self.config.regularization.augmentation, (height, width))
        others = (self._predict_moved(images, view[None]) for view in views[1:])
        mean: NDArray[np.float32] = sum(others, start=first) / np.float32(len(views))
        return mean

    def _predict_moved(self, images: NDArray[np.uint8], view: NDArray[np.float32]) -> NDArray[np.float32]:
        starts = range(0, len(images), PREDICT_BATCH)  # so that never all images are there twice
        fill = self.config.regularization.augmentation.fill
        parts = (batches.move(_part(images, start), view, fill).numpy() for start in starts)
        return np.concatenate([self.predict(part) for part in parts])

    def weights_digest(self) -> str:
        """SHA-256 (hex) over the bytes of all weights, trained or not, in the order of `model.weights`."""
        digest = hashlib.sha256()
        for weights in self.model.get_weights():
            digest.update(np.ascontiguousarray(weights).tobytes())
        return digest.hexdigest()

    def save_model(self, path: Path) -> None:
        """Writes the model for use: raw pixels in, probabilities out, nothing that only training needs."""
        as_keras(self.model).save(path)


def build(config: RunConfig, data: ImageData) -> Trainer:
    """The compiled model with its initial weights, a function of the seed alone.

    Raises:
        InputError: the architecture does not fit the images, or the batch is larger than the data.
    """
    config.training.require_images(len(data.train.labels), data.name)
    keras.utils.set_random_seed(config.seed)
    model = config.model.build(data.image_shape, data.classes, config.regularization)
    feed = Batches(
        data.train,
        data.classes,
        batch_size=config.training.batch_size,
        seed=config.seed,
        augmentation=config.regularization.augmentation,
        class_weights=_class_weights(config, data),
    )
    rate = Rate(config.optimizer.learning_rate, config.schedule.factors(config.training.epochs * feed.steps))
    config.model.initialise(model)
    trainer = Trainer(model, predictor(model), rate, feed, config)
    _begin_phase(trainer, 1)
    return trainer


def enter(trainer: Trainer, epoch: int) -> None:
    """Makes the model as it is while it trains an epoch (from 1): in another phase it trains other weights.

    What it has learnt stays; a new phase begins with an optimizer that has made no step.
    """
    phase = trainer.config.model.phase
    if phase(epoch) != phase(1):
        _begin_phase(trainer, next(first for first in range(2, epoch + 1) if phase(first) == phase(epoch)))


def _begin_phase(trainer: Trainer, epoch: int) -> None:
    """Compiles the model for the weights that are trained from an epoch (from 1) on."""
    model, config = trainer.model, trainer.config
    config.model.set_trainable(model, config.model.phase(epoch))
    model.compile(
        optimizer=config.optimizer.build(trainer.rate),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.regularization.label_smoothing),
        metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.CategoricalCrossentropy(name="cross_entropy"),
        ],
        jit_compile=False,  # XLA makes an epoch several times slower on a CPU
        steps_per_execution=trainer.batches.steps,  # one call an epoch: Python is out of the way while it trains
    )
    model.optimizer.build(model.trainable_variables)
    trainer.rate.start.assign((epoch - 1) * trainer.batches.steps)


def _class_weights(config: RunConfig, data: ImageData) -> NDArray[np.float32] | None:
    if config.training.class_weights == "none":
        return None
    return batches.balance(data.train.labels, data.classes)


def train(
    trainer: Trainer,
    validation: Split,
    state: State,
    *,
    measured: Split | None = None,
    on_epoch: OnEpoch,
    stop_requested: Callable[[], bool],
    until_epoch: int | None = None,
) -> list[EpochRow]:
    """Trains from `state` to the last epoch and returns all epochs' rows.

    The model ends with its last weights, or with those of the best epoch where early stopping restores them.

    Args:
        trainer: the model with its optimizer and batches.
        validation: the images that every epoch ends with.
        state: where the training stands.
        measured: training images that every epoch ends with too, as the validation images; None: none.
        on_epoch: is told the state after every epoch.
        stop_requested: whether to stop at the end of this epoch.
        until_epoch: the epoch to pause after; schedules are those of the whole run. None: to the end.

    Raises:
        DivergedError: an epoch's training or validation loss is not finite; its row has been handed on.
        StoppedError: `stop_requested` said so at the end of an epoch.
        PausedError: `until_epoch` is reached.
    """
    config = trainer.config
    while not _is_over(state.rows, config):
        if until_epoch is not None and len(state.rows) >= until_epoch:
            raise PausedError(f"paused after epoch {len(state.rows)} of {config.training.epochs}")
        row = _run_epoch(trainer, validation, measured, state.rows)
        state = State([*state.rows, row], _best(trainer, state, row))
        on_epoch(state)
        if row.diverged:
            losses = f"{row.train_loss:.4g} in training, {row.validation_loss:.4g} in validation"
            raise DivergedError(f"the loss of epoch {row.epoch} is not finite: {losses}")
        if stop_requested() and not _is_over(state.rows, config):
            raise StoppedError(f"stopped after epoch {row.epoch} of {config.training.epochs}")
    if state.best is not None:
        trainer.model.set_weights(state.best)
    return state.rows


def measured_images(train: Split) -> Split:
    """The training images that are measured as the validation images are: all of them, or 10,000 evenly spread.

    They are views: nothing is copied.
    """
    step = max(1, len(train.labels) // MOST_MEASURED)
    return Split(train.images[::step][:MOST_MEASURED], train.labels[::step][:MOST_MEASURED])


def _is_over(rows: Sequence[EpochRow], config: RunConfig) -> bool:
    losses = [row.validation_cross_entropy for row in rows]
    return len(rows) >= config.training.epochs or config.regularization.early_stopping.should_stop(losses)


def _best(trainer: Trainer, state: State, row: EpochRow) -> list[NDArray[Any]] | None:
    """The weights of the best epoch so far, where they are wanted at the end."""
    stopping = trainer.config.regularization.early_stopping
    if not (stopping.patience_epochs and stopping.restore_best):
        return None
    earlier = [earlier.validation_cross_entropy for earlier in state.rows]
    if earlier and not row.validation_cross_entropy < min(earlier):
        return state.best
    weights: list[NDArray[Any]] = trainer.model.get_weights()
    return weights


def _run_epoch(trainer: Trainer, validation: Split, measured: Split | None, rows: Sequence[EpochRow]) -> EpochRow:
    epoch, model, config = len(rows) + 1, trainer.model, trainer.config
    started = time.perf_counter()
    if epoch > 1 and config.model.phase(epoch) != config.model.phase(epoch - 1):
        _begin_phase(trainer, epoch)
    trainer.rate.scale.assign(config.schedule.scale([row.validation_cross_entropy for row in rows]))
    _seed_dropout(model, config.seed, epoch)
    fitted = model.fit(trainer.batches.epoch(epoch), verbose=0, shuffle=False).history
    values = {name: float(numbers[-1]) for name, numbers in fitted.items()}
    loss, plain, accuracy = _validate(trainer, validation)
    _, train_plain, train_accuracy = _validate(trainer, measured) if measured else (math.nan, math.nan, math.nan)
    return EpochRow(
        epoch=epoch,
        train_loss=values["loss"],
        train_cross_entropy=values["cross_entropy"],
        train_accuracy=values["accuracy"],
        validation_loss=loss,
        validation_cross_entropy=plain,
        validation_accuracy=accuracy,
        learning_rate=trainer.rate.mean(epoch, trainer.batches.steps),
        seconds=round(time.perf_counter() - started, 3),
        weights_digest=trainer.weights_digest(),
        train_measured_cross_entropy=train_plain,
        train_measured_accuracy=train_accuracy,
        unknown=() if measured else MEASURED,
    )


def _seed_dropout(model: Any, seed: int, epoch: int) -> None:
    """Gives every random layer the seed state of this epoch: Keras' own counter would depend on what ran before."""
    random_layers = [layer for layer in model._flatten_layers() if hasattr(layer, "seed_generator")]
    states = batches.generator(seed, epoch, batches.DROPOUT).integers(2**32, size=(len(random_layers), 2))
    for layer, state in zip(random_layers, states, strict=True):
        layer.seed_generator.state.assign(state.astype(np.uint32))


def _validate(trainer: Trainer, split: Split) -> tuple[float, float, float]:
    """Loss (with penalties, smoothing and class weights), cross-entropy (nats) and accuracy."""
    probabilities = trainer.predict(split.images)
    if not np.isfinite(probabilities).all():
        return math.nan, math.nan, math.nan
    plain = cross_entropy(probabilities, split.labels)
    smoothing = trainer.config.regularization.label_smoothing
    uniform = -float(np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)).mean())
    data = (1 - smoothing) * plain + smoothing * uniform
    if (weights := trainer.batches.class_weights) is not None:
        each = -np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)).mean(axis=1)
        losses = (1 - smoothing) * image_cross_entropy(probabilities, split.labels) + smoothing * each
        data = float((weights[split.labels] * losses).mean())
    penalty = float(sum(float(loss) for loss in trainer.model.losses))
    accuracy = float((probabilities.argmax(axis=1) == split.labels).mean())
    return data + penalty, plain, accuracy


def predictor(model: Any) -> Predict:
    """A function from images (n, h, w, c) uint8 to probabilities (n, classes) float32 by the model as it is."""
    forward = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True, autograph=False)

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        starts = range(0, len(images), PREDICT_BATCH)
        return np.concatenate([forward(_part(images, start)).numpy() for start in starts]).astype(np.float32)

    return predict


def _part(images: NDArray[np.uint8], start: int) -> NDArray[np.uint8]:
    """A batch to predict, in memory."""
    return np.asarray(images[start : start + PREDICT_BATCH])
