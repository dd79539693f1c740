"""What people read of runs and sweeps in MLflow: names, parameters, tags, numbers, descriptions, prepared tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config import RunConfig, flatten
from experiments.results import records
from experiments.results.records import Record

NOTE = "mlflow.note.content"  # MLflow shows this tag as the description, in Markdown
SWEEPS = "sweeps"  # every sweep that a run is part of, as `,a,b,`; the tag `sweep` is the one that trained it
VIEW = "mlflow.sharedViewState."  # begins the experiment tags that hold the views of MLflow's UI
LONGEST_PARAMETER = 6000  # characters, MLflow's limit
LONGEST_NOTE = 7000  # characters; MLflow's limit of a tag is 8000
LONGEST_VALUE = 40  # characters of a varied text in a run's name
MOST_VIEWS = 20  # MLflow's UI lets its user save none of their own where there are 40
SHOWN = (
    "validation/accuracy", "validation/cross_entropy", "test/accuracy", "test/cross_entropy", "generalisation_gap",
)  # fmt: skip
CURVES = ("validation/accuracy", "validation/cross_entropy", "train/accuracy", "train/cross_entropy")


def run_name(record: Record) -> str:
    """What varies in its sweep, as `adam · seed 1`; the name of the run directory where nothing does."""
    if not record.sweep or not record.varied:
        return record.name
    return " · ".join(
        value[:LONGEST_VALUE] if isinstance(value, str) else f"{name} {value}" for name, value in record.varied.items()
    )


def parameters(config: RunConfig, varied: Mapping[str, Any]) -> dict[str, str]:
    """What varies in a sweep, by short names, and every value of the config: `optimizer`, `optimizer.learning_rate`."""
    flat = flatten(config.model_dump(mode="json", exclude={"tracking", "sweep"}))
    named = {key.removesuffix(".name"): value for key, value in flat.items()}
    first = {key: named.get(key, value) for key, value in varied.items()}
    return texts(first | named)


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as MLflow keeps them."""
    given = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return {key: value[:LONGEST_PARAMETER] for key, value in given.items()}


def tags(record: Record) -> dict[str, str]:
    """What can be searched for, beside parameters and metrics."""
    known = {
        "state": record.state,
        "run_key": record.run_key,
        "config_key": record.config_key,
        "code_digest": record.code_digest,
        "dataset_digest": record.dataset.digest,
        "run_directory": str(record.directory),
        "sweep": record.sweep,
        "mlflow.parentRunId": record.mlflow.parent_run_id,
        "job": None if record.job is None else str(record.job),
        "overfitting": record.overfitting.verdict if record.overfitting else None,
        "reproduces": record.reproduces,
        "verdict": record.verdict,
        "error": f"{record.error.type}: {record.error.message}"[:LONGEST_PARAMETER] if record.error else None,
    }
    return {key: value for key, value in known.items() if value is not None}


def with_sweep(sweeps: str | None, sweep: str) -> str:
    """The tag `sweeps` with one more: `,a,` and `b` → `,a,b,`."""
    given = sweeps or ","
    return given if f",{sweep}," in given else f"{given}{sweep},"


def final_metrics(record: Record) -> dict[str, float]:
    """The numbers of the finished model.

    Those on training images get names of their own: under `train/accuracy` MLflow has the curve, which is a mean over
    each epoch with dropout and augmentation on, and no interval of the finished model's accuracy would hold it.
    """
    if not record.metrics:
        return {}
    named = {
        f"train/final_{key.removeprefix('train/')}" if key.startswith("train/") else key: value
        for key, value in record.metrics.items()
    }
    return named | {"parameters": float(record.parameters)}


def run_note(record: Record) -> str:
    """The numbers that decide, what went wrong, and how to repeat it."""
    parts = []
    if record.error:
        parts.append(f"**{record.state}** after epoch {record.epochs_run}: {record.error.type}: {record.error.message}")
    elif record.state != "finished":
        parts.append(f"**{record.state}** after epoch {record.epochs_run}")
    if record.metrics:
        parts.append("\n".join(_scores(record.metrics)))
    if record.overfitting:
        parts.append(record.overfitting.verdict)
    if record.state == "finished":
        parts.append(f"`python -m experiments.reproduce {record.name}`")
    return "\n\n".join(parts)[:LONGEST_NOTE]


def _scores(metrics: Mapping[str, float]) -> list[str]:
    lines = ["| images | accuracy | 95 % interval | cross-entropy |", "| --- | ---: | :---: | ---: |"]
    for split in ("validation", "test", "train"):
        accuracy, low, high, cross_entropy = (
            metrics.get(f"{split}/{name}") for name in ("accuracy", "accuracy_low", "accuracy_high", "cross_entropy")
        )
        interval = f"{100 * low:.2f} – {100 * high:.2f} %" if low is not None and high is not None else "–"
        if accuracy is not None and cross_entropy is not None:
            lines.append(f"| {split} | {100 * accuracy:.2f} % | {interval} | {cross_entropy:.4f} |")
    return lines


def sweep_note(directory: Path) -> str:
    """The answer and the ranking of a sweep's `report.md`, as far as it goes, and where to look on."""
    onward = f"All runs in one table: **Views** → {directory.name}, on the page of all runs. Galleries: `report.html`."
    report = directory / "report.md"
    if not report.exists():
        return onward
    _, _, text = report.read_text(encoding="utf-8").partition("\n")
    told, _, _ = text.partition("\n## Images")
    lines, length = [onward, ""], len(onward)
    for line in told.strip().splitlines():
        length += len(line) + 1
        if length > LONGEST_NOTE:
            break
        lines.append(line)
    return "\n".join(lines)


def sweep_view(sweep: str, varied: Sequence[str]) -> tuple[str, str]:
    """An experiment tag that MLflow's UI offers as a saved view: the runs of a sweep without nesting, the best first.

    Columns are what varies and the metrics that decide; the charts begin with those that a run is chosen by. MLflow
    adds the charts of all other metrics itself.
    """
    shown = [f"params.`{name}`" for name in varied] + [f"metrics.`{name}`" for name in SHOWN]
    splits = ("validation", "train", "test")
    state = {
        "searchFilter": f'tags.{SWEEPS} LIKE "%,{sweep},%"',
        "orderByKey": "metrics.`validation/accuracy`",
        "orderByAsc": False,
        "selectedColumns": shown,
        "compareRunCharts": [_line_chart(metric) for metric in CURVES],
        "compareRunSections": [
            {"uuid": split, "name": split, "display": True, "isReordered": False, "deleted": False, "isGenerated": True}
            for split in splits
        ],
        "isAccordionReordered": True,  # keeps the order of the sections
    }
    now = round(1000 * records.now().timestamp())
    view = {"name": sweep, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    return f"{VIEW}{sweep}", json.dumps(view)


def _line_chart(metric: str) -> dict[str, Any]:
    """A chart as MLflow's UI keeps it."""
    split, _, name = metric.partition("/")
    return {
        "uuid": metric, "type": "LINE", "metricKey": metric, "displayName": name, "metricSectionId": split,
        "runsCountToCompare": 10, "deleted": False, "isGenerated": True, "lineSmoothness": 0,
        "scaleType": "linear", "range": {}, "xAxisKey": "step", "xAxisScaleType": "linear",
        "selectedXAxisMetricKey": "", "yAxisKey": "metric", "yAxisExpressions": [], "ignoreOutliers": False,
        "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True,
    }  # fmt: skip


def sweep_views(experiment_tags: Mapping[str, str]) -> list[str]:
    """The keys of the views that were made by `sweep_view`, the newest first."""
    made = []
    for key, text in experiment_tags.items():
        if not key.startswith(VIEW):
            continue
        try:
            view = json.loads(text)
            if view["name"] == key.removeprefix(VIEW):  # those that people save have keys of their own
                made.append((int(view["createdAt"]), key))
        except (ValueError, KeyError, TypeError):
            continue  # of another version of MLflow
    return [key for _, key in sorted(made, reverse=True)]
