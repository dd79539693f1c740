"""The one look at the test images of a sealed run: what an unsealed run would have had, from its saved model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments.config import RunConfig
from experiments.errors import ExperimentsError, InputError
from experiments.ingredients.splits import ImageData
from experiments.recording import timed
from experiments.reproduction import config_of
from experiments.results import drawing, files, lease, looks, records, tracking
from experiments.results.evaluation import predictions_digest
from experiments.results.records import Record
from experiments.results.states import RunState
from experiments.results.test_images import of_data
from experiments.sweeps.executor import Ended, Ending
from experiments.sweeps.executors import processes
from experiments.sweeps.executors.processes import Planner

if TYPE_CHECKING:
    from experiments.training.loop import Trainer


class Unsealed(NamedTuple):
    """A run whose test images were looked at.

    Attributes:
        before: how often those of its data set had been looked at until then.
        unmirrored: why MLflow does not have the new numbers; "" where it has, or keeps no such run.
    """

    before: int
    unmirrored: str = ""


def unseal(record: Record, home: Path) -> Unsealed:
    """Evaluates a sealed run on its test images, in a process with the settings that it was trained with.

    Raises:
        InputError: its data, model or predictions are not those of the run, or cannot be read or written.
    """
    answer = processes.ask(work, record.directory, home)
    if isinstance(answer, Ended):
        raise InputError(answer.message)
    found: Unsealed = answer
    return found


def work(planner: Planner, directory: Path, home: Path) -> None:
    """Does what `unseal` promises, in a process of its own.

    Args:
        planner: is told `Unsealed`, or what is wrong.
        directory: of the run.
        home: which holds the ledger and MLflow's store.
    """
    try:
        with lease.held(directory, after=records.load(directory).lease):
            record = _load_sealed(directory)
            config = config_of(record)
            before = _look(record, config, home)
        planner.tell(Unsealed(before, _mirror(record, config, home)))
    except (ExperimentsError, OSError, ValueError) as error:
        planner.tell(Ended(Ending.FAILED, "; ".join(str(error).splitlines())))


def _load_sealed(directory: Path) -> Record:
    record = records.load(directory)
    if record.state != RunState.FINISHED or not record.sealed:
        raise InputError(f"{record.name}: was unsealed, or is trained anew, by another process")
    return record


def _look(record: Record, config: RunConfig, home: Path) -> int:
    """The numbers of an unsealed run in the record, `predictions.npz` and figures; how often was looked before."""
    from experiments.training import loop, runtime, scoring

    data = _load(record, config)
    predictions = record.predictions
    with runtime.alone(), runtime.quiet():
        runtime.prepare(config.training)
        trainer = loop.build(config, data)
        _take_weights(trainer, record)
        files.require_kinds(record.directory)
        before = looks.add(home, record, "unseal").before
        with timed(record, "evaluate"):
            test = scoring.score_test(trainer, data)
    whole = scoring.with_test(predictions, test, data)
    files.write_arrays(record.directory / files.PREDICTIONS, whole.to_arrays())
    record.__dict__.pop("predictions", None)
    record.write(
        metrics=record.metrics | test.metrics,
        predictions_digest=predictions_digest(test.probabilities),
        sealed=False,
    )
    drawing.draw(record, of_data(data))
    return before or 0


def _load(record: Record, config: RunConfig) -> ImageData:
    data = config.dataset.load()
    if data.digest != record.dataset.digest:
        raise InputError(f"{record.name}: the data set {data.source} holds other images than the run was trained on")
    return data


def _take_weights(trainer: Trainer, record: Record) -> None:
    """Gives the trainer's model the weights that were saved, and makes sure that they are the run's."""
    from experiments.results.saved_model import open_model

    path = record.directory / files.MODEL
    saved = open_model(path).get_weights()
    try:
        trainer.model.set_weights(saved)
    except ValueError:
        raise InputError(f"{path}: holds another architecture than the run's config") from None
    if trainer.weights_digest() != record.weights_digest:
        raise InputError(f"{path}: was changed after the run (its weights' digest is not the one in {files.RECORD})")


def _mirror(record: Record, config: RunConfig, home: Path) -> str:
    if not record.mlflow.run_id:
        return ""
    try:
        tracking.synchronise(record, config, home)
    except tracking.TrackingError as error:
        return str(error)
    return ""
