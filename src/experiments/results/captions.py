"""What people read of runs and sweeps in MLflow: names, parameters, tags, numbers, descriptions, prepared tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.bounded import REPORT_BYTES, read_text
from experiments.config import RunConfig, as_text, flatten
from experiments.errors import InputError
from experiments.results import files
from experiments.results.files import MEASURED, EpochRow
from experiments.results.names import shorten
from experiments.results.records import Record
from experiments.results.states import RunState

NOTE = "mlflow.note.content"  # MLflow shows this tag as the description, in Markdown
SWEEPS = "sweeps"  # every sweep that a run is part of, each between spaces; the tag `sweep` is the one that trained it
VIEW = "mlflow.sharedViewState."  # begins the experiment tags that hold the views of MLflow's UI
COLOR = "mlflow.runColor"  # of a run's curves and bars; MLflow's own, from the run's id, may be alike
# Ten that can be told apart. Source: M. Petroff, Accessible Color Sequences for Data Visualization, 2021.
COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
LONGEST_PARAMETER = 6000  # characters, MLflow's limit
LONGEST_NOTE = 7000  # characters; MLflow's limit of a tag is 8000
LONGEST_VALUE = 40  # letters of a varied text in a run's name
MOST_VIEWS = 20  # MLflow's UI lets its user save none of their own where there are 40
SHOWN = (
    "validation/accuracy", "validation/cross_entropy", "test/accuracy", "test/cross_entropy", "generalisation_gap",
)  # fmt: skip
# Curves of accuracies all lie just below 1; those of errors are told apart.
ERRORS = {
    "validation/accuracy": "validation/error_percent", "train/measured_accuracy": "train/measured_error_percent",
}  # fmt: skip
CURVES = (
    "validation/accuracy", "validation/error_percent", "validation/cross_entropy", "train/measured_error_percent",
    *MEASURED, "train/accuracy", "train/cross_entropy",
)  # fmt: skip
CHARTS = (*CURVES[1:], CURVES[0])  # the errors come first
LOGARITHMIC = (
    "validation/error_percent",
    "validation/cross_entropy",
)  # on a linear axis the first epoch hides the rest
DIGITS = 6  # of a number, all that a float32 knows
HIDDEN = (  # from the charts: bars that look all alike
    "validation/accuracy_low", "validation/accuracy_high", "validation/calibration_error",
    "test/accuracy_low", "test/accuracy_high", "test/accuracy_corrected", "test/calibration_error",
    "validation/accuracy_one_view", "test/accuracy_one_view",
    "train/final_accuracy_low", "train/final_accuracy_high", "train/final_calibration_error",
    "train/final_accuracy", "train/final_cross_entropy",
)  # fmt: skip
METRIC_WIDTH = 170  # pixels of a column that is named like `validation/cross_entropy`


def run_name(record: Record) -> str:
    """What varies in its sweep, as `adam · seed 1`; the name of the run directory where nothing does."""
    if not record.sweep or not record.varied:
        return record.name
    return " · ".join(
        shorten(value, LONGEST_VALUE) if isinstance(value, str) else f"{name} {value}"
        for name, value in record.varied.items()
    )


def first_tags(record: Record) -> dict[str, str]:
    """What a run is given once, and its reader may change."""
    return {} if record.job is None else {COLOR: COLORS[record.job % len(COLORS)]}


def parameters(config: RunConfig, varied: Mapping[str, Any]) -> dict[str, str]:
    """What varies in a sweep, by short names, and every value of the config: `optimizer`, `optimizer.learning_rate`."""
    flat = flatten(config.model_dump(mode="json", exclude={"tracking"}))
    named = {key.removesuffix(".name"): value for key, value in flat.items()}
    first = {key: named.get(key, value) for key, value in varied.items()}
    return texts(first | named)


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as MLflow keeps them."""
    return {key: as_text(value)[:LONGEST_PARAMETER] for key, value in values.items()}


def tags(record: Record) -> dict[str, str]:
    """What can be searched for, beside parameters and metrics."""
    known = {
        "state": record.state,
        "run_key": record.run_key,
        "config_key": record.config_key,
        "code_digest": record.code_digest,
        "sources_digest": record.sources_digest,
        "own_code_digest": record.own_code_digest,
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
    """The tag `sweeps` with one more: ` a ` and `b` → ` a b `."""
    given = sweeps or " "
    return given if f" {sweep} " in given else f"{given}{sweep} "


def epoch_metrics(row: EpochRow) -> dict[str, float]:
    """The numbers of an epoch; MLflow shows first what is logged first, and compares by the very first."""
    values = _rounded({key: value for key, value in row.columns().items() if isinstance(value, float)})
    return {key: values[key] for key in CURVES if key in values} | values


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    """As people read them, with accuracies as errors too."""
    errors = {error: 100 * (1 - values[key]) for key, error in ERRORS.items() if key in values}
    told = {**values, **errors}
    return {key: value if value.is_integer() else float(f"{value:.{DIGITS}g}") for key, value in told.items()}


def final_metrics(record: Record) -> dict[str, float]:
    """The numbers of the finished model; a run that was killed after it was evaluated goes on, and is evaluated again.

    Those on training images get names of their own: under `train/accuracy` MLflow has the curve, which is a mean over
    each epoch with dropout and augmentation on, and no interval of the finished model's accuracy would hold it.
    """
    if not record.metrics or record.state != RunState.FINISHED:
        return {}
    of_training = {key for key in record.metrics if key.startswith("train/")}
    told = {key: value for key, value in record.metrics.items() if key not in of_training}
    trained = {f"train/final_{key.removeprefix('train/')}": record.metrics[key] for key in sorted(of_training)}
    return _rounded(told | {"parameters": float(record.parameters)} | trained)


def run_note(record: Record) -> str:
    """The numbers that decide, the verdict, what went wrong, and how to repeat it; MLflow shows four lines at once."""
    parts = []
    if record.state != RunState.FINISHED:
        why = f": {record.error.type}: {record.error.message}" if record.error else ""
        parts.append(f"**{record.state}** after epoch {record.epochs_run}{why}")
    if record.metrics:
        splits = ("validation",) if record.sealed else ("validation", "test")
        parts.append("; ".join(_score(record.metrics, split) for split in splits))
    if record.overfitting:
        parts.append(record.overfitting.verdict)
    if record.state == RunState.FINISHED:
        parts.append(f"`python -m experiments.reproduce {record.name}`")
    return "\n\n".join(parts)[:LONGEST_NOTE]


def _score(metrics: Mapping[str, float], split: str) -> str:
    """`validation accuracy **97.65%** [97.24, 98.00], cross-entropy 0.0902`."""
    accuracy, low, high, cross_entropy = (
        metrics.get(f"{split}/{name}", math.nan)
        for name in ("accuracy", "accuracy_low", "accuracy_high", "cross_entropy")
    )
    interval = f"[{100 * low:.2f}, {100 * high:.2f}]"
    return f"{split} accuracy **{100 * accuracy:.2f}%** {interval}, cross-entropy {cross_entropy:.4f}"


def sweep_note(directory: Path) -> str:
    """The answer of a sweep's `report.md`, where to look on, and as much of the rest as there is room for."""
    onward = f"All runs in one table: **Views** → {directory.name}, on the page of all runs. Galleries: `report.html`."
    try:
        _, _, text = read_text(directory / "report.md", REPORT_BYTES).partition("\n")
    except InputError:  # there is none, or it is none
        return onward
    told, _, _ = text.partition("\n## Images")
    first, begins, rest = f"\n{told.strip()}".partition("\n- **")
    lines: list[str] = []
    length = 0
    for line in [*first.strip().splitlines(), "", onward, "", *(begins[1:] + rest).splitlines()]:
        length += len(line) + 1
        if length > LONGEST_NOTE:
            break
        lines.append(line)
    return "\n".join(lines).strip()


def sweep_view(sweep: str, varied: Sequence[str]) -> tuple[str, str]:
    """An experiment tag that MLflow's UI offers as a saved view: the runs of a sweep without nesting, the best first.

    Columns are what varies and the metrics that decide; the charts begin with those that a run is chosen by. MLflow
    adds the charts of all other metrics itself.
    """
    shown = [f"params.`{name}`" for name in varied] + [f"metrics.`{name}`" for name in SHOWN]
    state = {
        "searchFilter": f'tags.{SWEEPS} LIKE "% {sweep} %"',
        "orderByKey": "metrics.`validation/accuracy`",
        "orderByAsc": False,
        "selectedColumns": shown,
        "columnOrder": shown,
        "columnWidths": {column: METRIC_WIDTH for column in shown if column.startswith("metrics")},
        "compareRunCharts": [_chart(metric, "LINE") for metric in CHARTS]
        + [_chart(metric, "BAR", deleted=True) for metric in HIDDEN],
        "compareRunSections": [
            {"uuid": split, "name": split, "display": True, "isReordered": False, "deleted": False, "isGenerated": True}
            for split in ("validation", "train", "test")
        ],
        "isAccordionReordered": True,  # keeps the order of the sections
    }
    now = round(1000 * files.now().timestamp())
    view = {"name": sweep, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    return f"{VIEW}{sweep}", json.dumps(view)


def _chart(metric: str, kind: str, *, deleted: bool = False) -> dict[str, Any]:
    """A chart as MLflow's UI keeps it."""
    split, _, name = metric.partition("/")
    chart = {
        "uuid": metric, "type": kind, "metricKey": metric, "displayName": name, "metricSectionId": split,
        "runsCountToCompare": 10, "deleted": deleted, "isGenerated": True,
    }  # fmt: skip
    line: dict[str, Any] = {
        "lineSmoothness": 0, "scaleType": "log" if metric in LOGARITHMIC else "linear", "range": {},
        "xAxisKey": "step", "xAxisScaleType": "linear", "selectedXAxisMetricKey": "", "yAxisKey": "metric",
        "yAxisExpressions": [], "ignoreOutliers": False, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True,
    }  # fmt: skip
    return chart | line if kind == "LINE" else chart


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
