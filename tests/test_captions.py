"""What MLflow shows, as plain text; test_tracking reads it back, test_ui looks at it in a browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import epoch_row, write_record
from experiments.config import compose
from experiments.results import captions
from experiments.results.evaluation import Overfitting
from experiments.results.records import Failure

METRICS = {
    "train/accuracy": 0.9923, "train/accuracy_low": 0.99, "train/cross_entropy": 0.02,
    "validation/accuracy": 0.9837, "validation/accuracy_low": 0.98, "validation/accuracy_high": 0.9866,
    "validation/cross_entropy": 0.0558,
    "test/accuracy": 0.9826, "test/accuracy_low": 0.9798, "test/accuracy_high": 0.985, "test/cross_entropy": 0.0547,
    "generalisation_gap": 0.0086,
}  # fmt: skip


@pytest.mark.parametrize(
    ("varied", "name"),
    [
        ({"optimizer": "adam", "seed": 1}, "adam · seed 1"),
        ({"learning_rate": 0.001, "restore_best": True}, "learning_rate 0.001 · restore_best True"),
        ({"layers": "x" * 90}, f"{'x' * 20}…{'x' * 19}"),
        ({"path": f"/data/{'deep/' * 20}cats"}, "/data/deep/deep/deep…deep/deep/deep/cats"),
        ({}, "rates/0"),
    ],
)
def test_run_of_a_sweep_is_named_by_what_varies(varied: dict[str, object], name: str, tmp_path: Path) -> None:
    record = write_record(tmp_path / "0", name="rates/0", sweep="rates", job=0, varied=varied)
    assert captions.run_name(record) == name


def test_single_run_keeps_its_name(tmp_path: Path) -> None:
    assert captions.run_name(write_record(tmp_path / "20261122-cnn")) == "20261122-cnn"


def test_parameters_begin_with_what_varies_and_name_options_by_their_group() -> None:
    config = compose("dataset=digits", "optimizer=sgd", "optimizer.learning_rate=0.01", "seed=3")
    parameters = captions.parameters(config, {"optimizer": "sgd", "learning_rate": 0.01, "seed": 3})
    assert list(parameters)[:3] == ["optimizer", "learning_rate", "seed"]
    assert (parameters["optimizer"], parameters["model"], parameters["seed"]) == ("sgd", "cnn", "3")
    assert parameters["learning_rate"] == parameters["optimizer.learning_rate"] == "0.01"
    assert not any(name.endswith(".name") for name in parameters)


def test_jobs_have_colors_that_differ_from_their_neighbours(tmp_path: Path) -> None:
    records = [write_record(tmp_path / str(job), sweep="rates", job=job) for job in range(11)]
    colors = [captions.first_tags(record)["mlflow.runColor"] for record in records]
    assert len(set(colors[:10])) == 10
    assert colors[10] == colors[0]
    assert captions.first_tags(write_record(tmp_path / "single")) == {}


def test_sweeps_of_a_run_are_added_once() -> None:
    assert captions.with_sweep(None, "a") == " a "
    assert captions.with_sweep(" a ", "aa") == " a aa "
    assert captions.with_sweep(" a aa ", "a") == " a aa "


def test_epoch_begins_with_the_metric_that_runs_are_chosen_by() -> None:
    metrics = captions.epoch_metrics(epoch_row(1))
    assert next(iter(metrics)) == "validation/accuracy"
    assert metrics["learning_rate"] == 0.001
    assert len(metrics) == 12
    assert (metrics["validation/error_percent"], metrics["train/measured_error_percent"]) == (25.0, 15.0)
    assert "weights_digest" not in metrics


def test_final_metrics_of_training_are_apart_from_its_curve(tmp_path: Path) -> None:
    final = captions.final_metrics(write_record(tmp_path / "run", metrics=METRICS, state="finished"))
    assert final["train/final_accuracy"] == 0.9923
    assert "train/accuracy" not in final
    assert final["parameters"] == 7850
    assert final["validation/error_percent"] == 1.63
    assert len(final) == len(METRICS) + 2
    for metrics in ({}, METRICS):  # those of a run that was killed between its evaluation and its end
        assert captions.final_metrics(write_record(tmp_path / f"unfinished-{len(metrics)}", metrics=metrics)) == {}


def test_numbers_are_rounded_to_what_a_float32_knows(tmp_path: Path) -> None:
    record = write_record(
        tmp_path / "run", metrics={"test/accuracy": 0.9837000370025635}, parameters=12_345_678, state="finished"
    )
    final = captions.final_metrics(record)
    assert final["test/accuracy"] == 0.9837
    assert final["parameters"] == 12_345_678


def test_note_of_a_run_says_how_good_it_is_and_how_to_repeat_it(tmp_path: Path) -> None:
    verdict = Overfitting("No overfitting.", None, 3, 0.0086)
    record = write_record(tmp_path / "run", state="finished", metrics=METRICS, overfitting=verdict)
    scores, sentence, command = captions.run_note(record).split("\n\n")
    assert scores == (
        "validation accuracy **98.37%** [98.00, 98.66], cross-entropy 0.0558; "
        "test accuracy **98.26%** [97.98, 98.50], cross-entropy 0.0547"
    )
    assert sentence == "No overfitting."
    assert command == "`python -m experiments.reproduce run`"


def test_note_of_a_run_that_did_not_finish_says_why(tmp_path: Path) -> None:
    failure = Failure(type="DivergedError", message="loss is nan")
    record = write_record(tmp_path / "run", state="diverged", epochs_run=2, error=failure)
    assert captions.run_note(record) == "**diverged** after epoch 2: DivergedError: loss is nan"
    assert captions.run_note(write_record(tmp_path / "b", state="interrupted")) == "**interrupted** after epoch 0"


def test_note_of_a_sweep_is_the_answer_and_the_ranking(tmp_path: Path) -> None:
    assert captions.sweep_note(tmp_path).startswith("All runs in one table")
    answer = "**sgd is worse than adam.**\n\nOne split.\n"
    ranking = "## Ranking\n\n| # | 1 |\n\n## Images that most runs miss\n\n| image |\n"
    report = f"# rates\n\n{answer}\n- **best**: adam\n\n{ranking}"
    (tmp_path / "report.md").write_text(report)
    note = captions.sweep_note(tmp_path)
    assert note.endswith("\n- **best**: adam\n\n## Ranking\n\n| # | 1 |")
    assert note.startswith("**sgd is worse than adam.**\n\nOne split.\n\nAll runs in one table: **Views** → ")
    assert tmp_path.name in note.splitlines()[4]
    (tmp_path / "report.md").write_text("# rates\n" + "| a row |\n" * 2000)
    assert 6900 < len(captions.sweep_note(tmp_path)) <= 7000


def test_view_filters_sorts_and_shows_what_varies() -> None:
    key, text = captions.sweep_view("rates", ["optimizer", "seed"])
    assert key == "mlflow.sharedViewState.rates"
    view = json.loads(text)
    state = json.loads(view["state"])
    assert view["name"] == "rates"
    assert state["searchFilter"] == 'tags.sweeps LIKE "% rates %"'
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`validation/accuracy`", False)
    assert state["selectedColumns"][:3] == ["params.`optimizer`", "params.`seed`", "metrics.`validation/accuracy`"]
    shown = [chart["metricKey"] for chart in state["compareRunCharts"] if not chart["deleted"]]
    assert shown[0] == "validation/error_percent"
    scales = {chart["metricKey"]: chart.get("scaleType") for chart in state["compareRunCharts"]}
    assert (scales["validation/error_percent"], scales["validation/accuracy"]) == ("log", "linear")
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == {
        section["uuid"] for section in state["compareRunSections"]
    }
    assert len(captions.sweep_view("x" * 100, [f"regularization.augmentation.{n}" for n in range(40)])[1]) < 20_000


def test_views_of_sweeps_are_told_from_those_of_people() -> None:
    def view(name: str, at: int) -> str:
        return json.dumps({"name": name, "createdAt": at, "state": "{}"})

    tags = {
        "mlflow.sharedViewState.old": view("old", 1),
        "mlflow.sharedViewState.new": view("new", 2),
        "mlflow.sharedViewState.7f3a": view("mine", 3),
        "mlflow.sharedViewState.link": "deflate;eJw=",
        "mlflow.note.content": "text",
    }
    assert captions.sweep_views(tags) == ["mlflow.sharedViewState.new", "mlflow.sharedViewState.old"]
