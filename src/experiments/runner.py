"""The story of one run: config → data → model → training → evaluation → one run directory, mirrored in MLflow."""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console

from experiments.config import RunConfig, available_cores, config_key, run_key
from experiments.errors import DivergedError, InputError, StoppedError
from experiments.ingredients.datasets import ImageData
from experiments.results import environment, records, tracking
from experiments.results.evaluation import (
    Evaluation,
    Overfitting,
    evaluate,
    find_overfitting,
    image_digests,
    predictions_digest,
)
from experiments.results.records import (
    DatasetSummary,
    EpochRow,
    Failure,
    MLflowState,
    Predictions,
    Process,
    Record,
    State,
)
from experiments.results.tracking import Mirror
from experiments.training import runtime
from experiments.training.checkpoint import Checkpoints
from experiments.training.interruption import StopRequest, exit_now, listening
from experiments.training.progress import describe, live_bar

if TYPE_CHECKING:
    from experiments.training.loop import Trainer

log = logging.getLogger(__name__)
ROOM_BYTES = 50_000_000  # of free disk that a run wants: the default network's directory has 3 MB
ABORT_PATIENCE_SECONDS = 5.0  # for the mirror, when the user has pressed Ctrl-C twice


@dataclass(frozen=True)
class Origin:
    """Where a run comes from, beside its config; `hydra` is name → text of Hydra's own files, kept in `.hydra/`."""

    sweep: str | None = None
    job: int | None = None
    varied: Mapping[str, Any] = field(default_factory=dict)
    reproduces: str | None = None
    parent_run_id: str | None = None
    hydra: Mapping[str, str] = field(default_factory=dict)


class Results(NamedTuple):
    """What the final model says of the images that it was not trained on."""

    predictions: Predictions
    evaluation: Evaluation
    overfitting: Overfitting


def run_experiment(
    config: RunConfig,
    directory: Path | None = None,
    *,
    origin: Origin | None = None,
    on_epoch: Callable[[EpochRow], None] | None = None,
) -> Record:
    """Trains, evaluates and records one run; goes on after its last epoch where `directory` holds an interrupted one.

    Args:
        config: what to run.
        directory: the run directory, new or interrupted; by default a new one in `outputs/`.
        origin: what the record says about where the run comes from.
        on_epoch: is told of every finished epoch.

    Returns:
        The record; its `state` says how the run ended.

    Raises:
        InputError: the data, the architecture or the place cannot be used; nothing was started, nothing is left.
    """
    config = resolve(config)
    _check_room(directory or records.home())
    data = config.dataset.load()
    with runtime.quiet() as native:
        runtime.prepare(config.training)
        from experiments.training import loop

        trainer = loop.build(config, data)
        record = _open(config, data, trainer, directory, origin or Origin())
        native.move_to(record.directory / records.LOG)
        with _recording(record, config) as mirror:
            with _timed(record, "train"):
                rows = _train(trainer, data, record, mirror, on_epoch)
            results = _evaluate(trainer, data, rows, record)
            trainer.save_model(record.directory / records.MODEL)
            if mirror:
                mirror.log_model()
            _draw(config, data, record, results)
    return record


def resolve(config: RunConfig) -> RunConfig:
    """The config with the data set that is really used and the number of threads written down."""
    dataset, message = config.dataset.resolve()
    if message:
        log.warning(message)
    portable = config.training.determinism == "portable"
    threads = 1 if portable else config.training.threads or available_cores()
    return config.model_copy(update={"dataset": dataset}).with_threads(threads)


def _check_room(place: Path) -> None:
    """Refuses a full disk before anything is done for a run that could not be written."""
    existing = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < ROOM_BYTES:
        raise InputError(f"{existing}: has {free // 10**6} MB free; a run needs {ROOM_BYTES // 10**6} MB")


def _open(config: RunConfig, data: ImageData, trainer: Trainer, directory: Path | None, origin: Origin) -> Record:
    """The record of a new run, or of the interrupted one that `directory` holds, with the files known at the start."""
    key = run_key(config, data.digest)
    if directory and (directory / records.RECORD).exists():
        record = _reopen(directory, key)
    else:
        name = f"{records.now():%Y%m%d-%H%M%S}-{config.model.name}-{config.optimizer.name}-{secrets.token_hex(2)}"
        record = Record(
            name=f"{origin.sweep}/{origin.job}" if origin.sweep else name,
            run_key=key,
            config_key=config_key(config, data.digest),
            seed=config.seed,
            sweep=origin.sweep,
            job=origin.job,
            varied=dict(origin.varied),
            started_at=records.now(),
            process=Process.current(),
            parameters=trainer.model.count_params(),
            dataset=DatasetSummary(name=data.name, digest=data.digest, source=data.source),
            code_digest=environment.code_digest(),
            versions=environment.versions(),
            reproduces=origin.reproduces,
            mlflow=MLflowState(parent_run_id=origin.parent_run_id),
        )
        record.create(directory or records.home() / "outputs" / name)
    _write_origin(record, config, origin)
    return record


def _reopen(directory: Path, key: str) -> Record:
    record = records.load(directory)
    if record.run_key != key:
        raise InputError(f"{directory}: holds another run (its run_key is {record.run_key[:12]}…, not {key[:12]}…)")
    if record.state == "running":
        raise InputError(f"{directory}: is being run by process {record.process.pid} on {record.process.host}")
    record.write(state="running", process=Process.current(), error=None, finished_at=None)
    return record


def _write_origin(record: Record, config: RunConfig, origin: Origin) -> None:
    facts = environment.gather(threads=config.training.threads or 1, dataset_digest=record.dataset.digest)
    records.write_atomically(record.directory / records.CONFIG, config.to_yaml())
    records.write_json(record.directory / records.ENVIRONMENT, facts)
    records.write_atomically(record.directory / records.CODE_DIFF, environment.code_diff())
    for name, text in origin.hydra.items():
        (record.directory / records.HYDRA).mkdir(exist_ok=True)
        records.write_atomically(record.directory / records.HYDRA / name, text)


@contextmanager
def _recording(record: Record, config: RunConfig) -> Iterator[Mirror | None]:
    """Whatever happens inside ends in a state of the record, a line for the user, and the end of the MLflow run."""
    started, earlier = time.perf_counter(), record.seconds
    with _logging_to(record.directory / records.LOG):
        images = f"{record.dataset.name} ({record.dataset.source})"
        log.info(
            "%s: %s parameters, %s, %s threads", record.name, f"{record.parameters:,}", images, config.training.threads
        )
        mirror = tracking.start_mirror(record, config, records.home())
        state: State = "failed"
        failure: Failure | None = None
        try:
            yield mirror
            state = "finished"
        except StoppedError as error:
            state = "interrupted"
            log.warning("%s; go on: python -m experiments.run resume=%s", error, record.directory)
        except KeyboardInterrupt:  # before the first epoch or after the last one: nobody else listens then
            state = "interrupted"
            log.warning("stopped; go on: python -m experiments.run resume=%s", record.directory)
        except Exception as error:
            state = "diverged" if isinstance(error, DivergedError) else "failed"
            failure = Failure(type=type(error).__name__, message=str(error))
            log.error("%s: %s: %s", state, failure.type, error, exc_info=state == "failed")
        seconds = round(earlier + time.perf_counter() - started, 3)
        record.write(state=state, error=failure, finished_at=records.now(), seconds=seconds)
        if state == "finished":
            Checkpoints(record.directory / records.CHECKPOINT).remove()
        if mirror:
            with _timed(record, "mirror"):
                mirror.close()


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    package = logging.getLogger("experiments")
    package.setLevel(logging.INFO)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()


@contextmanager
def _timed(record: Record, part: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    record.timings[part] = round(record.timings.get(part, 0.0) + time.perf_counter() - started, 3)


def _train(
    trainer: Trainer,
    data: ImageData,
    record: Record,
    mirror: Mirror | None,
    tell: Callable[[EpochRow], None] | None,
) -> list[EpochRow]:
    from experiments.training import loop

    epochs, steps = trainer.config.training.epochs, trainer.batches.steps
    checkpoints = Checkpoints(record.directory / records.CHECKPOINT)
    state = checkpoints.restore(trainer.model)
    if state.rows:
        log.info("resumed after epoch %d", len(state.rows))
    for row in state.rows if mirror else []:
        mirror.log_epoch(row)  # what was mirrored before is not doubled, what was lost is made up for

    def on_epoch(state: loop.State) -> None:
        row = state.rows[-1]
        if not row.diverged:
            checkpoints.save(trainer.model, state)
        records.write_history(record.directory / records.HISTORY, state.rows)
        record.write(epochs_run=row.epoch, weights_digest=row.weights_digest)
        if mirror:
            mirror.log_epoch(row)
        if tell:
            tell(row)
        log.info(describe(row, epochs))

    bar = live_bar(Console(), trainer.model, steps=epochs * steps, done=len(state.rows) * steps)
    with _stoppable(record, mirror) as stop_requested, bar:
        return loop.train(trainer, data.validation, state, on_epoch=on_epoch, stop_requested=stop_requested)


@contextmanager
def _stoppable(record: Record, mirror: Mirror | None) -> Iterator[Callable[[], bool]]:
    """Listens to Ctrl-C and SIGTERM where this is the main thread: Python lets no other one."""

    def stop_soon() -> None:
        log.warning("stopping at the end of this epoch; Ctrl-C again stops now")

    def stop_now() -> None:
        record.write(state="interrupted", finished_at=records.now())
        if mirror:
            mirror.close(patience_seconds=ABORT_PATIENCE_SECONDS)
        exit_now()

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    with listening(StopRequest(on_first=stop_soon, on_second=stop_now)) as request:
        yield request


def _evaluate(trainer: Trainer, data: ImageData, rows: list[EpochRow], record: Record) -> Results:
    """The numbers of the final model, in the record and in `predictions.npz`. The test set is read here and only here."""
    with _timed(record, "evaluate"):
        predictions = Predictions(
            test_probabilities=trainer.predict(data.test.images),
            test_labels=data.test.labels,
            test_image_digests=image_digests(data.test.images),
            validation_probabilities=trainer.predict(data.validation.images),
            validation_labels=data.validation.labels,
        )
        np.savez(record.directory / records.PREDICTIONS, **vars(predictions))
        test = evaluate(predictions.test_probabilities, data.test.labels, doubtful=data.doubtful)
        validation = evaluate(predictions.validation_probabilities, data.validation.labels)
        seen = slice(len(data.validation.labels))  # as many training images as validation has: enough, and quick
        train = evaluate(trainer.predict(data.train.images[seen]), data.train.labels[seen])
        overfitting = find_overfitting(
            [row.train_cross_entropy for row in rows],
            [row.validation_cross_entropy for row in rows],
            train_accuracy=train.accuracy,
            validation_accuracy=validation.accuracy,
        )
    gap = {"generalisation_gap": overfitting.generalisation_gap}
    record.write(
        metrics=train.metrics("train") | validation.metrics("validation") | test.metrics("test") | gap,
        overfitting=overfitting,
        weights_digest=trainer.weights_digest(),
        predictions_digest=predictions_digest(predictions.test_probabilities),
    )
    return Results(predictions, test, overfitting)


def _draw(config: RunConfig, data: ImageData, record: Record, results: Results) -> None:
    from experiments.results import plots

    probabilities = results.predictions.test_probabilities
    shown = plots.Predictions(data.test.images, data.test.labels, probabilities, data.class_names, data.doubtful)
    title = f"{data.name} · {config.model.name} · {config.optimizer.name}"
    folder = record.directory / records.FIGURES
    folder.mkdir(exist_ok=True)
    with _timed(record, "figures"):
        for stem, figure in plots.all_figures(
            record.history, results.overfitting, results.evaluation, shown, title=title
        ):
            plots.save(figure, folder / f"{stem}.png")
