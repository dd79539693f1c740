"""The mirror, read back through MLflow's own client."""

from __future__ import annotations

import fcntl
import json
import math
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import epoch_row, write_record
from experiments.config import RunConfig, compose
from experiments.results import captions, files, records, tracking, tracking_mirror, tracking_sweep
from experiments.results.evaluation import Overfitting
from experiments.results.files import EpochRow
from experiments.results.records import Failure, Record

pytestmark = pytest.mark.usefixtures("stores")

ROWS = [epoch_row(1, 0.5), epoch_row(2, 0.25), epoch_row(3, 0.2)]
METRICS = {"test/accuracy": 0.99, "test/cross_entropy": 0.03, "validation/accuracy": 0.98, "generalisation_gap": 0.004}
NOWHERE = "http://127.0.0.1:9"  # the discard port: refuses at once


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose MLflow store all tests share: a fresh one takes more than a second."""
    home = tmp_path_factory.mktemp("a home with spaces")
    tracking.prepare_store(home, "experiments")
    return home


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return compose("dataset=digits", "model=linear", "optimizer.learning_rate=0.01", "seed=7").with_threads(1)


@pytest.fixture
def untracked(config: RunConfig) -> RunConfig:
    return compose("dataset=digits", "model=linear", "tracking=none").with_threads(1)


@pytest.fixture
def record(store: Path, request: pytest.FixtureRequest) -> Record:
    """A run that is running, with the files of its beginning."""
    made = write_record(store / "outputs" / f"{request.node.name}-{time.monotonic_ns()}")
    (made.directory / "config.yaml").write_text("seed: 7\n")
    (made.directory / "figures").mkdir()
    (made.directory / "figures" / "loss.png").write_bytes(b"png")
    (made.directory / ".hydra").mkdir()
    (made.directory / ".hydra" / "overrides.yaml").write_text("[]\n")
    return made


def finish(record: Record, state: str = "finished", rows: list[EpochRow] = ROWS, **fields: Any) -> None:
    files.write_history(record.directory / files.HISTORY, rows)
    overfitting = Overfitting("No overfitting.", None, 3, 0.004)
    ended = {"seconds": 12.5, "epochs_run": len(rows), "metrics": METRICS, "overfitting": overfitting}
    record.write(state=state, **ended | fields)


def mirrored(record: Record, config: RunConfig, home: Path, state: str = "finished", **fields: Any) -> Any:
    """Mirrors a whole life of a run as it happens; returns the MLflow run."""
    mirror = tracking.start_mirror(record, config, home)
    assert mirror
    for row in ROWS:
        mirror.log_epoch(row)
    finish(record, state, **fields)
    mirror.close()
    assert record.mlflow.error is None
    assert record.mlflow.synced
    return read(record, home)


def client(home: Path) -> Any:
    import mlflow

    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")


def read(record: Record, home: Path) -> Any:
    return client(home).get_run(record.mlflow.run_id)


def histories(record: Record, home: Path) -> dict[str, list[tuple[int, float, int]]]:
    """Every metric's (step, value, time) as MLflow kept them."""
    names = read(record, home).data.metrics
    kept = {name: client(home).get_metric_history(record.mlflow.run_id, name) for name in names}
    return {name: [(m.step, m.value, m.timestamp) for m in metrics] for name, metrics in kept.items()}


def artifacts(record: Record, home: Path, folder: str | None = None) -> set[str]:
    found: set[str] = set()
    for item in client(home).list_artifacts(record.mlflow.run_id, folder):
        found |= artifacts(record, home, item.path) if item.is_dir else {item.path}
    return found


def test_store_is_the_home_or_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.store_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    assert tracking.store_uri(tmp_path) == NOWHERE


def test_store_is_made_once_and_keeps_artifacts_in_the_home(store: Path) -> None:
    first = tracking.prepare_store(store, "experiments")
    assert tracking.prepare_store(store, "experiments") == first
    assert client(store).get_experiment(first).artifact_location == (store / "mlartifacts").as_uri()
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert "MLFLOW_TRACKING_URI" not in os.environ


@pytest.mark.slow
def test_store_survives_being_made_by_several_processes_at_once(home: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from experiments.results import tracking\n"
        "import mlflow.store.tracking.sqlalchemy_store\n"
        "child = os.fork()\n"
        "print(tracking.prepare_store(Path(sys.argv[1]), 'experiments'), flush=True)\n"
        "if child: os.waitpid(child, 0)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "1\n" * 2
    assert {path.name for path in home.iterdir()} == {"mlflow.db"}


def test_draft_of_a_store_whose_maker_was_killed_is_removed(home: Path) -> None:
    for name in (".mlflow.db.0123abcd", ".mlflow.db.0123abcd-journal", ".mlflow.db.89abcdef"):
        (home / name).write_bytes(b"half")
    with (home / ".mlflow.db.89abcdef").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # its maker is at work
        tracking._remove_drafts(home)
        assert [path.name for path in home.iterdir()] == [".mlflow.db.89abcdef"]
    os.link(home / ".mlflow.db.89abcdef", home / "mlflow.db")
    tracking._remove_drafts(home)
    assert [path.name for path in home.iterdir()] == ["mlflow.db"]


def test_parameters_are_flat(record: Record, config: RunConfig, store: Path) -> None:
    record.write(varied={"optimizer": "adam", "seed": 7})
    parameters = mirrored(record, config, store).data.params
    assert parameters["optimizer.learning_rate"] == "0.01"
    assert parameters["regularization.augmentation.zoom_fraction"] == "0.0"
    assert parameters["model"] == "linear"
    assert parameters["seed"] == "7"
    assert parameters["optimizer"] == "adam"
    assert parameters["dataset.train_limit"] == "null"
    assert not any(key.startswith(("tracking", "sweep")) for key in parameters)


def test_parameter_longer_than_mlflow_allows_is_cut(record: Record, config: RunConfig, store: Path) -> None:
    record.write(varied={"model.layers": "x" * 7000})
    assert mirrored(record, config, store).data.params["model.layers"] == "x" * 6000


def test_every_epoch_has_its_metrics_once(record: Record, config: RunConfig, store: Path) -> None:
    mirrored(record, config, store)
    kept = histories(record, store)
    begun = int(record.started_at.timestamp() * 1000)
    assert kept["train/loss"] == [(1, 0.5, begun + 1234), (2, 0.25, begun + 2468), (3, 0.2, begun + 3702)]
    assert [value for _, value, _ in kept["validation/cross_entropy"]] == [0.5, 0.25, 0.2]
    assert kept["test/accuracy"] == [(0, 0.99, begun + 12500)]  # step 0: MLflow draws a bar, not a curve of one point
    assert kept["generalisation_gap"] == [(0, 0.004, begun + 12500)]
    ended = (3, 0.98, begun + 12500)  # of the finished model; the last epoch's is another where weights were restored
    assert kept["validation/accuracy"][2:] == [(3, 0.75, begun + 3702), ended]
    assert read(record, store).data.metrics["validation/accuracy"] == 0.98
    assert {
        "train/cross_entropy", "train/accuracy", "validation/loss", "validation/accuracy", "learning_rate", "seconds",
    } <= kept.keys()  # fmt: skip
    assert "epoch" not in kept


def test_files_are_artifacts(record: Record, config: RunConfig, store: Path) -> None:
    for name in ("environment.json", "code.diff", "predictions.npz", "run.log"):
        (record.directory / name).write_text("x")
    run = mirrored(record, config, store)
    assert artifacts(record, store) == {
        "config.yaml", "record.json", "history.csv", "environment.json", "code.diff", "predictions.npz", "run.log",
        "figures/loss.png", "hydra/overrides.yaml",
    }  # fmt: skip
    assert run.info.artifact_uri.startswith((store / "mlartifacts").as_uri())


def test_tags_tell_what_the_record_knows(record: Record, config: RunConfig, store: Path) -> None:
    record.write(sweep="rates", job=3)
    tags = mirrored(record, config, store).data.tags
    assert tags["run_key"] == "a" * 64
    assert tags["config_key"] == "b" * 64
    assert tags["dataset_digest"] == "d" * 64
    assert tags["run_directory"] == str(record.directory)
    assert (tags["sweep"], tags["job"], tags["state"]) == ("rates", "3", "finished")
    assert tags["overfitting"] == "No overfitting."
    assert "error" not in tags


def test_data_set_has_its_whole_digest(record: Record, config: RunConfig, store: Path) -> None:
    (given,) = mirrored(record, config, store).inputs.dataset_inputs
    assert given.dataset.name == "digits"
    assert json.loads(given.dataset.profile) == {"sha256": "d" * 64}
    assert json.loads(given.dataset.source) == {"source": "a test"}


@pytest.mark.parametrize(
    ("state", "status"),
    [("finished", "FINISHED"), ("failed", "FAILED"), ("diverged", "FAILED"), ("interrupted", "KILLED")],
)
def test_run_ends_as_the_record_does(state: str, status: str, record: Record, config: RunConfig, store: Path) -> None:
    failure = Failure(type="ValueError", message="no") if state in ("failed", "diverged") else None
    run = mirrored(record, config, store, state, error=failure)
    assert run.info.status == status
    assert run.info.start_time == int(record.started_at.timestamp() * 1000)
    assert run.info.end_time == run.info.start_time + 12500
    assert run.data.tags.get("error") == ("ValueError: no" if failure else None)


def test_synchronising_again_doubles_nothing(record: Record, config: RunConfig, store: Path) -> None:
    mirrored(record, config, store)
    before, files, run = histories(record, store), artifacts(record, store), record.mlflow.run_id
    for _ in range(2):
        assert tracking.synchronise(records.load(record.directory), config, store) == run
    assert histories(record, store) == before
    assert artifacts(record, store) == files
    assert len(read(record, store).inputs.dataset_inputs) == 1
    assert read(record, store).info.status == "FINISHED"


def test_run_that_was_killed_after_its_evaluation_has_its_final_metrics_once(
    record: Record, config: RunConfig, store: Path
) -> None:
    """Its planner calls it failed and mirrors it; then it goes on, and ends some seconds later."""
    finish(record, "failed", seconds=11.0)
    tracking.synchronise(record, config, store)
    assert "test/accuracy" not in read(record, store).data.metrics
    record.write(state="running")
    mirrored(record, config, store)
    assert [len(histories(record, store)[name]) for name in ("test/accuracy", "train/loss")] == [1, 3]


def test_metrics_that_the_store_has_under_another_time_are_not_doubled(
    record: Record, config: RunConfig, store: Path
) -> None:
    mirrored(record, config, store)
    before = histories(record, store)
    record.write(state="running")
    again = tracking.start_mirror(record, config, store)
    assert again
    for row in ROWS:
        again.log_epoch(replace(row, seconds=9.0))
    finish(record, seconds=99.0)
    again.close()
    assert histories(record, store) == before


def test_run_whose_id_was_not_noted_before_a_kill_is_found_again(
    record: Record, config: RunConfig, store: Path
) -> None:
    run_id = mirrored(record, config, store).info.run_id
    record.write(lease=2, mlflow=record.mlflow.model_copy(update={"run_id": None, "synced": False}))
    assert tracking.synchronise(record, config, store) == run_id


def test_parent_whose_id_was_not_noted_before_a_kill_is_found_again(config: RunConfig, store: Path) -> None:
    directory = store / "it's mine" / "killed"
    first = tracking_sweep.open_sweep(directory, config, store, None, ["seed"], is_new=True)
    assert tracking_sweep.open_sweep(directory, config, store, None, ["seed"]) == first
    assert tracking_sweep.open_sweep(directory, config, store, None, ["seed"], is_new=True) != first


def test_synchronising_later_gives_the_same_as_mirroring(
    record: Record, config: RunConfig, untracked: RunConfig, store: Path
) -> None:
    mirrored(record, config, store)
    other = write_record(store / "outputs" / f"later-{time.monotonic_ns()}")
    finish(other)
    assert tracking.start_mirror(other, untracked, store) is None
    tracking.synchronise(other, config, store)
    assert histories(other, store) == histories(record, store)
    assert read(other, store).data.params == read(record, store).data.params
    assert other.mlflow.synced


def test_losses_that_are_not_finite_are_mirrored(record: Record, config: RunConfig, store: Path) -> None:
    rows = [epoch_row(1, 0.5), epoch_row(2, math.nan)]
    finish(record, "diverged", rows, metrics={}, overfitting=None)
    for _ in range(2):
        tracking.synchronise(record, config, store)
    steps = [(step, math.isnan(value)) for step, value, _ in histories(record, store)["train/loss"]]
    assert steps == [(1, False), (2, True)]
    assert read(record, store).info.status == "FAILED"


def test_resumed_run_goes_on_in_its_mlflow_run(record: Record, config: RunConfig, store: Path) -> None:
    """Interrupted after two epochs, resumed with another number of threads, which MLflow has written down already."""
    first = tracking.start_mirror(record, config, store)
    assert first
    for row in ROWS[:2]:
        first.log_epoch(row)
    finish(record, "interrupted", ROWS[:2], metrics={}, overfitting=None)
    first.close()
    run_id = record.mlflow.run_id
    assert read(record, store).info.status == "KILLED"
    record.write(state="running")
    run = mirrored(record, config.with_threads(2), store)
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["training.threads"] == "1"
    assert [step for step, *_ in histories(record, store)["train/loss"]] == [1, 2, 3]


@pytest.mark.parametrize("gone", ["deleted", "never there"])
def test_run_that_the_store_lost_is_mirrored_anew(gone: str, record: Record, config: RunConfig, store: Path) -> None:
    mirrored(record, config, store)
    lost = record.mlflow.run_id
    if gone == "deleted":
        client(store).delete_run(lost)
    else:
        record.write(mlflow=record.mlflow.model_copy(update={"run_id": "0" * 32}))
    tracking.synchronise(record, config, store)
    assert record.mlflow.run_id not in (lost, "0" * 32)
    assert read(record, store).info.status == "FINISHED"


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.mark.usefixtures("down")
def test_store_that_is_down_is_told_and_made_up_for(
    record: Record, config: RunConfig, store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = tracking.start_mirror(record, config, store)
    assert mirror
    for row in ROWS:
        mirror.log_epoch(row)
    finish(record)
    mirror.close()
    assert not record.mlflow.synced
    assert record.mlflow.run_id is None
    assert "127.0.0.1" in (record.mlflow.error or "")
    assert f"python -m experiments.sync {record.name}" in caplog.text
    with pytest.raises(tracking.TrackingError, match="could not be mirrored"):
        tracking.synchronise(record, config, store)
    assert not records.load(record.directory).mlflow.synced

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    tracking.synchronise(record, config, store)
    assert [step for step, *_ in histories(record, store)["train/loss"]] == [1, 2, 3]
    assert records.load(record.directory).mlflow.error is None


def test_locked_store_holds_nobody_up(record: Record, config: RunConfig, store: Path) -> None:
    with closing(sqlite3.connect(store / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        mirror = tracking.start_mirror(record, config, store)
        assert mirror
        for row in ROWS:
            mirror.log_epoch(row)
        assert time.monotonic() - began < 1
        finish(record)
        mirror.close(patience_seconds=0.3)
        assert record.mlflow.error == "the store did not answer within 0 s"
        assert not record.mlflow.synced
        other.execute("ROLLBACK")
    mirror._thread.join()
    tracking.synchronise(record, config, store)
    assert [step for step, *_ in histories(record, store)["train/loss"]] == [1, 2, 3]
    assert read(record, store).info.status == "FINISHED"


def test_model_is_logged_once_with_signature_example_and_requirements(
    record: Record, config: RunConfig, store: Path, tensorflow: Any
) -> None:
    import keras
    import mlflow

    pixels = keras.Input((4, 4, 1), name="pixels")
    scores = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(pixels))
    model = keras.Model(pixels, scores)
    model.save(record.directory / files.MODEL)
    run = mirrored(record, config, store)
    tracking.synchronise(record, config, store)
    (logged,) = read(record, store).outputs.model_outputs
    assert [output.model_id for output in run.outputs.model_outputs] == [logged.model_id]
    kept = client(store).get_logged_model(logged.model_id)
    assert kept.experiment_id == run.info.experiment_id
    assert kept.artifact_location.startswith((store / "mlartifacts").as_uri())
    assert kept.status == "READY"

    uri = f"models:/{logged.model_id}"
    info = mlflow.models.get_model_info(uri)
    assert info.signature.inputs.to_dict()[0]["tensor-spec"] == {"dtype": "uint8", "shape": (-1, 4, 4, 1)}
    assert info.signature.outputs.to_dict()[0]["tensor-spec"] == {"dtype": "float32", "shape": (-1, 3)}
    assert info.saved_input_example_info is not None
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    required = (folder / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in required} >= {"mlflow", "tensorflow", "keras", "numpy"}
    assert all("==" in line for line in required)

    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), np.uint8)
    served = mlflow.pyfunc.load_model(uri).predict(images)
    np.testing.assert_allclose(served, model.predict(images, verbose=0), rtol=1e-6)


def test_model_is_not_logged_where_it_is_not_wanted(record: Record, store: Path) -> None:
    (record.directory / files.MODEL).write_bytes(b"")
    config = compose("dataset=digits", "tracking.log_model=false").with_threads(1)
    assert mirrored(record, config, store).outputs.model_outputs == []


def test_mirror_leaves_nothing_in_the_current_directory(
    record: Record, config: RunConfig, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mirrored(record, config, store)
    assert list(tmp_path.iterdir()) == []
    assert "MLFLOW_TRACKING_URI" not in os.environ


def opened(name: str, config: RunConfig, home: Path, run_id: str | None = None) -> Any:
    """The parent run of a sweep that varies optimizer and seed."""
    (home / "multirun" / name).mkdir(parents=True, exist_ok=True)
    parent = tracking_sweep.open_sweep(home / "multirun" / name, config, home, run_id, ["optimizer", "seed"])
    assert parent
    return client(home).get_run(parent)


def test_sweep_has_a_run_of_its_own_with_counts_files_and_the_answer(config: RunConfig, store: Path) -> None:
    parent = opened("counted", config, store)
    assert (parent.info.run_name, parent.info.status, parent.data.tags["kind"]) == ("counted", "RUNNING", "sweep")
    directory = store / "multirun" / "counted"
    (directory / "report.md").write_text("# counted\n\n- **best**: adam\n")
    tracking_sweep.close_sweep(parent.info.run_id, directory, store, {"done": 5, "failed": 1}, status="FAILED")
    run = client(store).get_run(parent.info.run_id)
    assert run.info.status == "FAILED"
    assert run.data.metrics == {"jobs/done": 5, "jobs/failed": 1}
    assert run.data.tags["mlflow.note.content"].endswith("- **best**: adam")
    assert [file.path for file in client(store).list_artifacts(run.info.run_id)] == ["report.md"]
    again = opened("counted", config, store, run.info.run_id)
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "RUNNING")


def test_sweep_without_tracking_or_store_has_none(
    config: RunConfig, untracked: RunConfig, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking_sweep.open_sweep(store, untracked, store, None, []) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert tracking_sweep.open_sweep(store, config, store, None, []) is None


def test_run_is_found_by_every_sweep_that_it_is_part_of(record: Record, config: RunConfig, store: Path) -> None:
    """Made by one sweep, reused by another, which varies something that the first did not, and mirrored once more."""
    record.write(sweep="first", job=0, varied={"optimizer": "adam"})
    run = mirrored(record, config, store).info.run_id
    parent = opened("second", config, store).info.run_id
    ended = (parent, store / "multirun" / "second", store, {"done": 1})
    for _ in range(2):
        tracking_sweep.close_sweep(*ended, status="FINISHED", reused=[(record, {"optimizer": "adam", "epochs": 3})])
        tracking.synchronise(record, config, store)
    experiment = [read(record, store).info.experiment_id]
    for sweep in ("first", "second"):
        (found,) = client(store).search_runs(experiment, f"tags.sweeps LIKE '% {sweep} %'")
        assert found.info.run_id == run
    assert (found.data.params["epochs"], found.data.params["optimizer"]) == ("3", "adam")
    assert found.data.tags["sweep"] == "first"


def test_reused_run_that_is_not_in_the_store_is_no_mistake(record: Record, config: RunConfig, store: Path) -> None:
    parent = opened("alone", config, store).info.run_id
    directory = store / "multirun" / "alone"
    tracking_sweep.close_sweep(parent, directory, store, {"done": 1}, status="FINISHED", reused=[(record, {"seed": 7})])
    assert client(store).get_run(parent).info.status == "FINISHED"


def test_newest_sweeps_are_offered_as_views(config: RunConfig, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "MOST_VIEWS", 2)
    times = iter([files.now() + timedelta(minutes=minute) for minute in range(1, 9)])
    monkeypatch.setattr(files, "now", lambda: next(times))
    experiment = opened("one", config, store).info.experiment_id
    client(store).set_experiment_tag(experiment, "mlflow.sharedViewState.mine", "deflate;eJw=")
    for name in ("two", "three"):
        opened(name, config, store)
    views = {key for key in client(store).get_experiment(experiment).tags if key.startswith(captions.VIEW)}
    assert views == {captions.VIEW + name for name in ("two", "three", "mine")}


def test_colour_that_somebody_chose_is_kept(record: Record, config: RunConfig, store: Path) -> None:
    record.write(sweep="coloured", job=1)
    run = mirrored(record, config, store)
    assert run.data.tags["mlflow.runColor"] == captions.COLORS[1]
    client(store).set_tag(run.info.run_id, "mlflow.runColor", "#000000")
    tracking.synchronise(record, config, store)
    assert read(record, store).data.tags["mlflow.runColor"] == "#000000"


@pytest.mark.parametrize("name", ["plain", "with space", "why?", "my%20data", "a#b", "50%", "ä"])
def test_store_lies_in_its_home_whatever_that_is_called(name: str, tmp_path: Path) -> None:
    from sqlalchemy import make_url

    uri = tracking.store_uri(tmp_path / name)
    assert make_url(uri).database == str(tmp_path / name / "mlflow.db")
    if name in ("plain", "with space", "ä"):
        assert uri == f"sqlite:///{tmp_path / name}/mlflow.db"  # as ever


@pytest.mark.slow
def test_run_in_a_home_with_a_strange_name_is_mirrored_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "why? my%20data"
    monkeypatch.chdir(tmp_path)
    number = tracking.prepare_store(home, "mine") if home.mkdir() is None else ""
    client = tracking.connect(home)
    run = client.create_run(number)
    (tmp_path / "file").write_text("x")
    client.log_artifact(run.info.run_id, str(tmp_path / "file"))
    assert {path.name for path in tmp_path.iterdir()} == {home.name, "file"}
    tracking.close_stores()
    assert {path.name for path in home.iterdir()} == {"mlflow.db", "mlartifacts"}


def test_login_in_an_error_is_not_kept() -> None:
    error = ValueError("API request to http://anna:pass@host/api failed\nmore")
    assert tracking_mirror.first_line(error) == "ValueError: API request to http://***@host/api failed"
