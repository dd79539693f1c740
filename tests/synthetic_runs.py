"""Run directories as the framework writes them, from numbers instead of training."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments.results import files
from experiments.results.evaluation import evaluate, find_overfitting, predictions_digest
from experiments.results.files import EpochRow
from experiments.results.records import DatasetSummary, Failure, Predictions, Process, Record

CONFIG: dict[str, Any] = {
    "dataset": {"name": "digits", "validation_fraction": 0.1, "train_limit": None},
    "model": {"name": "cnn", "width": 32},
    "optimizer": {"name": "adam", "learning_rate": 0.001},
    "schedule": {"name": "cosine"},
    "regularization": {"name": "dropout", "dropout": 0.5},
    "training": {"epochs": 4, "batch_size": 128, "threads": 1},
    "tracking": {"name": "none"},
    "sweep": {"name": "local", "workers": 2},
    "seed": 0,
}


def configured(**changes: Any) -> dict[str, Any]:
    """The default config with dotted keys changed: `configured(**{"optimizer.name": "sgd"})`."""
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        *groups, leaf = key.split(".")
        node = config
        for group in groups:
            node = node[group]
        node[leaf] = value
    return config


def rows_of(train: list[float], validation: list[float], accuracy: list[float]) -> list[EpochRow]:
    return [
        EpochRow(epoch + 1, t, t, a, v, v, a, 0.001, 1.5, f"{epoch:064x}")
        for epoch, (t, v, a) in enumerate(zip(train, validation, accuracy, strict=True))
    ]


def probabilities_of(labels: np.ndarray, right: np.ndarray, confidence: np.ndarray, classes: int = 10) -> np.ndarray:
    """(n, classes) float32 with the label on top where `right`, else the class after it."""
    top = np.where(right, labels, (labels + 1) % classes)
    probabilities = np.full((len(labels), classes), 0.0)
    probabilities += ((1 - confidence) / (classes - 1))[:, None]
    probabilities[np.arange(len(labels)), top] = confidence
    return probabilities.astype(np.float32)


def write_run(
    directory: Path,
    predictions: Predictions | None,
    *,
    config: dict[str, Any] | None = None,
    rows: list[EpochRow] | None = None,
    state: str = "finished",
    sweep: str | None = None,
    varied: dict[str, Any] | None = None,
    **fields: Any,
) -> Record:
    """One run directory. Without predictions it has no `predictions.npz`, but may have metrics in `fields`."""
    config = config or configured()
    rows = rows if rows is not None else rows_of([0.5, 0.3, 0.2], [0.4, 0.3, 0.25], [0.9, 0.95, 0.97])
    without_seed = {k: v for k, v in config.items() if k not in ("seed", "tracking", "sweep")}
    key = predictions_digest(np.frombuffer(repr(without_seed).encode(), np.uint8))
    started = datetime(2026, 11, 22, 8, 15, 30, tzinfo=UTC)
    record = Record(
        name=f"{sweep}/{directory.name}" if sweep else directory.name,
        state=state,
        run_key=predictions_digest(np.frombuffer(f"{key}{config['seed']}".encode(), np.uint8)),
        config_key=key,
        seed=config["seed"],
        sweep=sweep,
        job=int(directory.name) if sweep else None,
        varied=varied or {},
        started_at=started,
        finished_at=started + timedelta(seconds=41),
        process=Process.current(),
        parameters=34_826,
        dataset=DatasetSummary(name=config["dataset"]["name"], digest="d" * 64, source="a test"),
        code_digest="c" * 64,
        versions={"tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.6"},
    )
    record.create(directory)
    (directory / files.CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    files.write_history(directory / files.HISTORY, rows)
    changes: dict[str, Any] = {"seconds": 41.2, "epochs_run": len(rows)}
    if predictions is not None:
        np.savez(directory / files.PREDICTIONS, **vars(predictions))
        changes |= evaluated(predictions, rows)
    if state != "finished":
        changes["error"] = Failure(type="ValueError", message="loss is not finite")
    record.write(**(changes | fields))
    return record


def evaluated(predictions: Predictions, rows: list[EpochRow]) -> dict[str, Any]:
    test = evaluate(predictions.test_probabilities, predictions.test_labels)
    validation = evaluate(predictions.validation_probabilities, predictions.validation_labels)
    overfitting = find_overfitting(
        [row.train_cross_entropy for row in rows],
        [row.validation_cross_entropy for row in rows],
        images=1000,
        train_accuracy=rows[-1].train_accuracy,
        validation_accuracy=validation.accuracy,
    )
    metrics = {
        **test.metrics("test"),
        **validation.metrics("validation"),
        "train/accuracy": rows[-1].train_accuracy,
        "train/cross_entropy": rows[-1].train_cross_entropy,
        "generalisation_gap": overfitting.generalisation_gap,
    }
    return {
        "metrics": metrics,
        "overfitting": overfitting,
        "weights_digest": "w" * 64,
        "predictions_digest": predictions_digest(predictions.test_probabilities),
    }
