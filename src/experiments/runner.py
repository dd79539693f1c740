"""The story of one run: config → data → model → training → evaluation → one run directory, mirrored in MLflow."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.bounded import exists
from experiments.config import RunConfig, available_cores
from experiments.console import Screen
from experiments.errors import InputError
from experiments.ingredients.splits import ImageData, Split
from experiments.recording import Origin, open_record, recording, stoppable, timed
from experiments.results import drawing, files
from experiments.results.evaluation import evaluate, find_overfitting, predictions_digest
from experiments.results.files import EpochRow
from experiments.results.lease_file import lease_seconds
from experiments.results.records import Predictions, Record
from experiments.results.states import RunState
from experiments.results.test_images import of_data
from experiments.results.tracking_mirror import Mirror
from experiments.training import callbacks, runtime, scoring
from experiments.training.checkpoint import Checkpoints, State
from experiments.training.progress import describe, live_bar

if TYPE_CHECKING:
    from experiments.training.loop import Trainer

log = logging.getLogger(__name__)
ROOM_BYTES = 50_000_000  # of free disk that a run wants: the default network's directory has 3 MB


def run_experiment(
    config: RunConfig,
    directory: Path | None = None,
    *,
    origin: Origin | None = None,
    on_epoch: Callable[[EpochRow], None] | None = None,
    until_epoch: int | None = None,
    take_over: bool = False,
) -> Record:
    """Trains, evaluates and records one run; goes on after its last epoch where `directory` holds an interrupted one.

    Args:
        config: what to run.
        directory: the run directory, new or interrupted; by default a new one in `outputs/`.
        origin: what the record says about where the run comes from.
        on_epoch: is told of every finished epoch.
        until_epoch: the epoch to pause after, in state `paused`; None: the run goes to its end.
        take_over: goes on also where another process may still be at it; that one then ends and writes nothing more.

    Returns:
        The record; its `state` says how the run ended.

    Raises:
        BusyError: another process runs it.
        InputError: the data, the architecture or the place cannot be used; nothing was started, nothing is left.
    """
    lease_seconds()  # a wrong value is told before anything is done
    config = resolve(config)
    check_room(directory or files.home())
    data = config.dataset.load()
    config.training.require_images(len(data.train.labels), data.name)
    with runtime.alone(), runtime.quiet() as native:
        runtime.prepare(config.training)
        from experiments.training import capacity, loop

        capacity.check(config, data.image_shape, data.classes)
        trainer = loop.build(config, data)
        parameters = trainer.model.count_params()
        record = open_record(config, data, parameters, directory, origin or Origin(), take_over=take_over)
        if record.state == RunState.FINISHED:
            return record
        native.move_to(record.directory / files.LOG)
        draw = partial(drawing.draw, record, of_data(data)) if config.figures else lambda: None
        with recording(record, config, when_finished=draw) as mirror:
            with timed(record, "train"):
                rows = _train(trainer, data, record, mirror, on_epoch, until_epoch)
            _evaluate(trainer, data, rows, record)
            with files.replacing(record.directory / files.MODEL) as path:
                trainer.save_model(path)
            if mirror:
                mirror.log_model()
    return record


def resolve(config: RunConfig) -> RunConfig:
    """The config with the data set that is really used and the number of threads written down."""
    dataset, message = config.dataset.resolve()
    if message:
        log.warning(message)
    portable = config.training.determinism == "portable"
    threads = 1 if portable else config.training.threads or available_cores()
    warn_of_threads(threads)
    return config.model_copy(update={"dataset": dataset, "model": config.model.resolve()}).with_threads(threads)


def warn_of_threads(threads: int) -> None:
    """Says where there are fewer cores than threads. They are kept: a repeat needs as many as its original had."""
    if threads > (cores := available_cores()):
        log.warning("training.threads: %d on %d cores is slower than %d", threads, cores, cores)


def check_room(place: Path) -> None:
    """Refuses a place that is full or not to be written before anything is done for a run there.

    Raises:
        InputError: `place`, or the nearest folder above it that exists, cannot be written, or has less than
            `ROOM_BYTES` free.
    """
    existing = next(path for path in (place, *place.parents) if exists(path))
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise InputError(f"{place}: cannot be written ({existing} is no folder, or a read-only one)")
    free = shutil.disk_usage(existing).free
    if free < ROOM_BYTES:
        raise InputError(f"{existing}: has {free // 10**6} MB free; a run needs {ROOM_BYTES // 10**6} MB")


def _train(
    trainer: Trainer,
    data: ImageData,
    record: Record,
    mirror: Mirror | None,
    tell: Callable[[EpochRow], None] | None,
    until_epoch: int | None,
) -> list[EpochRow]:
    from experiments.training import loop

    epochs, steps = trainer.config.training.epochs, trainer.batches.steps
    checkpoints = Checkpoints(record.directory / files.CHECKPOINT)
    call_back = callbacks.teller(trainer.config, record.directory)
    state = _restore(trainer, checkpoints, record, mirror)

    def on_epoch(state: State) -> None:
        row = state.rows[-1]
        if not row.diverged:
            checkpoints.save(trainer.model, state)
        _write_progress(record, state.rows)
        if mirror:
            mirror.log_epoch(row)
        log.info(describe(row, epochs))
        call_back(row)
        if tell:
            tell(row)

    bar = live_bar(Screen(), trainer.model, steps=epochs * steps, done=len(state.rows) * steps)
    with stoppable(record, mirror) as stop_requested, bar:
        return loop.train(
            trainer,
            data.validation,
            state,
            measured=loop.measured_images(data.train) if trainer.config.training.measure_training else None,
            on_epoch=on_epoch,
            stop_requested=stop_requested,
            until_epoch=until_epoch,
        )


def _restore(trainer: Trainer, checkpoints: Checkpoints, record: Record, mirror: Mirror | None) -> State:
    """The state of the newest checkpoint, in the model, the run's files and the mirror alike."""
    from experiments.training import loop

    loop.enter(trainer, max(1, len(checkpoints.rows())))
    state = checkpoints.restore(trainer.model)
    if state.rows or record.epochs_run:  # the files may be an epoch ahead of the checkpoint, or behind it
        log.info("resumed after epoch %d", len(state.rows))
        _write_progress(record, state.rows)
    if mirror:
        for row in state.rows:  # what was mirrored before is not doubled, what was lost is made up for
            mirror.log_epoch(row)
    return state


def _write_progress(record: Record, rows: list[EpochRow]) -> None:
    files.write_history(record.directory / files.HISTORY, rows)
    record.write(epochs_run=len(rows), weights_digest=rows[-1].weights_digest if rows else None)


def _evaluate(trainer: Trainer, data: ImageData, rows: list[EpochRow], record: Record) -> None:
    """The numbers of the final model, in the record and in `predictions.npz`. Only here the test set is read."""
    sealed = trainer.config.dataset.sealed
    with timed(record, "evaluate"):
        validation = scoring.score(trainer, data, "validation", data.validation)
        test = None if sealed else scoring.look(trainer, data, record, files.home())
        predictions = Predictions(
            validation_probabilities=validation.probabilities, validation_labels=data.validation.labels
        )
        if test:
            predictions = scoring.with_test(predictions, test, data)
        files.write_arrays(record.directory / files.PREDICTIONS, predictions.to_arrays())
        seen = _training_images(trainer, data)
        train = evaluate(trainer.predict(seen.images), seen.labels)
        overfitting = find_overfitting(
            _training_curve(rows),
            [row.validation_cross_entropy for row in rows],
            images=len(data.validation.labels),
            train_accuracy=train.accuracy,
            validation_accuracy=validation.one_view,  # like the epochs', which see an image as it is
        )
        gap = {"generalisation_gap": overfitting.generalisation_gap}
    record.write(
        metrics=train.metrics("train") | validation.metrics | (test.metrics if test else {}) | gap,
        overfitting=overfitting,
        weights_digest=trainer.weights_digest(),
        predictions_digest=predictions_digest(predictions.test_probabilities) if test else None,
        sealed=sealed,
    )


def _training_images(trainer: Trainer, data: ImageData) -> Split:
    """The training images that the finished model is judged by; without measuring as many as validation has."""
    from experiments.training import loop

    if trainer.config.training.measure_training:
        return loop.measured_images(data.train)
    seen = slice(len(data.validation.labels))
    return Split(data.train.images[seen], data.train.labels[seen])


def _training_curve(rows: list[EpochRow]) -> list[float]:
    """Cross-entropy of training by epoch: as validation is measured, or else its running mean over each epoch."""
    if any(name in row.unknown for row in rows for name in files.MEASURED):
        return [row.train_cross_entropy for row in rows]
    return [row.train_measured_cross_entropy for row in rows]
