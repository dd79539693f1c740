"""Figures decide nothing: a run is finished before they are drawn, and they can be drawn again from its directory."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import yaml

import commands
from conftest import SMALL, environment, started
from experiments import figures
from experiments.config import compose
from experiments.errors import InputError
from experiments.results import drawing, files, plots, records
from experiments.results.evaluation import image_digests
from experiments.results.records import Predictions, Record
from experiments.results.test_images import load_test_images, of_data
from synthetic_runs import configured, probabilities_of, write_run

CURVES = {"loss", "accuracy", "learning_rate"}
OF_CLASSES = {"confusion_matrix", "class_accuracy"}
GALLERIES = {"misclassified", "sample_predictions"}
DIGITS = compose("dataset=digits").dataset


def fail(*_: object) -> None:
    raise ZeroDivisionError("no ink")


@pytest.fixture(scope="module")
def digests() -> tuple[np.ndarray, np.ndarray]:
    """Labels and digests of the digits' test images."""
    test = DIGITS.load().test
    return test.labels, image_digests(test.images)


@pytest.fixture
def run(home: Path, digests: tuple[np.ndarray, np.ndarray]) -> Record:
    """A finished run on the digits, without figures."""
    labels, of_images = digests
    sure, validation = np.full(len(labels), 0.9), np.arange(20) % 10
    right = np.arange(len(labels)) % 7 > 0
    predictions = Predictions(
        probabilities_of(labels, right, sure), labels, of_images,
        probabilities_of(validation, validation > 0, sure[:20]), validation,
    )  # fmt: skip
    return write_run(home / "outputs" / "a-run", predictions)


def drawn(run: Record) -> set[str]:
    return {path.stem for path in (run.directory / "figures").glob("*.png")}


def change_config(run: Record, **dataset: Any) -> None:
    config = configured() | {"dataset": configured()["dataset"] | dataset}
    (run.directory / files.CONFIG).write_text(yaml.safe_dump(config))


# a run


def run_here(monkeypatch: pytest.MonkeyPatch, wanted: bool = True, **broken: Any) -> Record:
    from experiments.runner import run_experiment

    for name, replacement in broken.items():
        monkeypatch.setattr(plots, name, replacement)
    network = (f"figures={str(wanted).lower()}", "model=linear", "training.epochs=1", "tracking=none")
    return run_experiment(compose(*SMALL, *network))


def test_figures_that_are_not_wanted_can_be_drawn_later(
    tensorflow: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run_here(monkeypatch, wanted=False)
    assert not (record.directory / files.FIGURES).exists()

    assert figures.redraw([record.name]) == 0
    assert f"{record.name}: 7 figures in " in capsys.readouterr().out


def test_run_is_finished_whatever_its_figures_do(
    tensorflow: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    states = []

    def look(*_: object) -> None:
        (path,) = files.home().glob(f"outputs/*/{files.RECORD}")
        states.append(json.loads(path.read_bytes())["state"])
        assert not (path.parent / files.CHECKPOINT).exists()
        assert (path.parent / files.MODEL).exists()
        fail()

    with caplog.at_level(logging.INFO, "experiments"):
        record = run_here(monkeypatch, loss=look, confusion_matrix=fail)

    assert states == ["finished"]
    assert (record.state, record.error) == ("finished", None)
    assert drawn(record) == (CURVES | OF_CLASSES | GALLERIES) - {"loss", "confusion_matrix"}
    (warning,) = [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert warning == (
        "not drawn: loss (ZeroDivisionError: no ink), confusion_matrix (ZeroDivisionError: no ink); the run itself is "
        f"whole, and `python -m experiments.figures {record.name}` tries again"
    )
    log = (record.directory / files.LOG).read_text()
    assert log.count("Traceback") == 2
    assert 'raise ZeroDivisionError("no ink")' in log
    saved = records.load(record.directory)
    assert saved.state == "finished"
    assert saved.timings["figures"] > 0


def test_ctrl_c_while_figures_are_drawn_ends_only_the_drawing(tensorflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    record = run_here(monkeypatch, accuracy=interrupt)

    assert records.load(record.directory).state == "finished"
    assert drawn(record) == {"loss"}


@pytest.mark.slow
def test_sweep_goes_on_where_a_figure_fails(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("src", "conf"):
        shutil.copytree(Path(__file__).parents[1] / name, checkout / name)
    curves = checkout / "src" / "experiments" / "results" / "plots" / "curves.py"
    whole = 'figure, axes = _axes("Learning rate", title)'
    assert whole in curves.read_text()
    curves.write_text(curves.read_text().replace(whole, f"raise ZeroDivisionError('no ink')\n    {whole}"))
    overrides = ("-m", *SMALL, "figures=true", "model=linear", "training.epochs=1", "seed=0,1", "tracking=none")
    with started(home, *overrides, PYTHONPATH=str(checkout / "src")) as command:
        ended = command.finish()

    assert (ended.code, ended.err) == (0, "")
    for job in Path(ended.out.splitlines()[-1]).glob("[0-9]"):
        record = records.load(job)
        assert record.state == "finished"
        assert drawn(record) == (CURVES | OF_CLASSES | GALLERIES) - {"learning_rate"}
        assert (job / files.LOG).read_text().count(" WARNING ") == 1


# again


def test_figures_are_drawn_again_from_the_directory(run: Record, capsys: pytest.CaptureFixture[str]) -> None:
    assert figures.redraw(["a-run"]) == 0
    assert capsys.readouterr().out == f"a-run: 7 figures in {run.directory / 'figures'}\n"
    assert drawn(run) == CURVES | OF_CLASSES | GALLERIES

    before = {path.name: path.read_bytes() for path in (run.directory / "figures").iterdir()}
    drawing.draw(records.load(run.directory), of_data(DIGITS.load()))
    assert {path.name: path.read_bytes() for path in (run.directory / "figures").iterdir()} == before


def test_runs_of_a_sweep_share_their_images(
    run: Record, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = []
    monkeypatch.setattr(
        "experiments.results.test_images.load_test_images",
        lambda *arguments: loaded.append(1) or load_test_images(*arguments),
    )
    for seed in range(2):
        write_run(home / "multirun" / "s" / str(seed), run.predictions, config=configured(seed=seed), sweep="s")
    write_run(home / "multirun" / "s" / "2", None, config=configured(seed=2), sweep="s", state="failed")

    assert figures.redraw(["s", "s/0"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "s/2: is failed; only a finished run has figures"
    assert [line.partition(": 7 figures")[0] for line in out[1:]] == ["s/0", "s/1"]
    assert loaded == [1]
    with pytest.raises(InputError, match=r"^s/2: is failed; only a finished run has figures$"):
        figures.redraw(["s/2"])


def test_galleries_are_left_out_where_the_images_are_not_here(
    run: Record, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "nothing"))
    monkeypatch.delenv("EXPERIMENTS_DATA", raising=False)
    change_config(run, name="mnist", path=None)

    assert figures.redraw([str(run.directory)]) == 0
    _, line = capsys.readouterr().out.splitlines()
    why = "The file of mnist is not on this machine, so there are no pictures here."
    assert line == f"  misclassified and sample_predictions are left out: {why}"
    assert drawn(run) == CURVES | OF_CLASSES


def test_galleries_are_left_out_where_the_images_are_others(run: Record, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = run.predictions
    others = {**vars(predictions), "test_image_digests": predictions.test_image_digests + np.uint64(1)}
    files.write_arrays(run.directory / files.PREDICTIONS, others)

    assert figures.redraw(["a-run"]) == 0
    assert "other test images than the runs" in capsys.readouterr().out
    assert drawn(run) == CURVES | OF_CLASSES


def test_classes_without_known_names_are_left_out(run: Record, capsys: pytest.CaptureFixture[str]) -> None:
    files_option = compose("dataset=files", "dataset.path=/no/such/folder").dataset
    change_config(run, **files_option.model_dump(mode="json"))

    assert figures.redraw(["a-run"]) == 0
    _, classes, galleries = capsys.readouterr().out.splitlines()
    assert classes == "  confusion_matrix and class_accuracy are left out: the names of the classes are not known here"
    assert "/no/such/folder" in galleries
    assert drawn(run) == CURVES


def test_galleries_are_left_out_where_the_config_is_damaged(run: Record, capsys: pytest.CaptureFixture[str]) -> None:
    change_config(run, validation_fraction=7)

    assert figures.redraw(["a-run"]) == 0
    assert "(dataset.validation_fraction: Input should be less than 1)" in capsys.readouterr().out
    assert drawn(run) == CURVES | OF_CLASSES


def test_predictions_that_were_changed_are_not_drawn(run: Record, capsys: pytest.CaptureFixture[str]) -> None:
    others = {**vars(run.predictions), "test_probabilities": run.predictions.test_probabilities[:, ::-1]}
    files.write_arrays(run.directory / files.PREDICTIONS, others)

    assert figures.redraw(["a-run"]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith("  only the figures over epochs can be drawn: ")
    assert line.endswith("was changed after the run (its digest is not the one in record.json)")
    assert drawn(run) == CURVES


@pytest.mark.parametrize("damage", ["history", "figures"])
def test_damage_is_one_line_and_exit_code_1(
    run: Record, damage: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    if damage == "history":
        (run.directory / files.HISTORY).write_text("epoch\nx\n")
    else:
        (run.directory / files.FIGURES).write_text("a file")

    assert figures.redraw(["a-run"]) == 1
    assert "a-run: 0 figures" in capsys.readouterr().out
    (warning,) = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert len(warning.getMessage().splitlines()) == 1


def test_nothing_heavy_is_started_for_figures(run: Record, home: Path) -> None:
    code = (
        "import sys; from experiments import figures; sys.argv[1:] = ['a-run']\n"
        "try: figures.main()\n"
        "finally: print({'tensorflow', 'mlflow', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(home), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"a-run: 7 figures in {run.directory / 'figures'}", "set()"]


# titles


@pytest.mark.parametrize(
    ("dataset", "varied", "title"),
    [
        ({}, {}, "digits · cnn · adam"),
        (
            {}, {"optimizer": "adam", "learning_rate": 0.001, "seed": 3},
            "digits · cnn · adam · learning_rate 0.001 · seed 3",
        ),
        ({"name": "files", "path": "/data/cats"}, {"path": "/data/cats"}, "files /data/cats · cnn · adam"),
        (
            {"name": "files", "path": f"/data/{'deep/' * 20}cats"}, {},
            "files /data/deep/deep/deep…deep/deep/deep/cats · cnn · adam",
        ),
    ],
)  # fmt: skip
def test_title_says_what_was_run_and_on_which_images(
    dataset: dict[str, Any], varied: dict[str, Any], title: str, home: Path
) -> None:
    config = configured() | {"dataset": configured()["dataset"] | dataset}
    assert drawing.title_of(write_run(home / "outputs" / "r", None, config=config, varied=varied)) == title


def test_title_of_a_damaged_config_is_what_is_left(home: Path) -> None:
    run = write_run(home / "outputs" / "r", None)
    (run.directory / files.CONFIG).write_text("model: 3\noptimizer: {name: sgd}\n")
    assert drawing.title_of(records.load(run.directory)) == "sgd"


# settings


HOSTILE = {
    "text.usetex": True,
    "axes.grid": True,
    "font.size": 30.0,
    "savefig.transparent": True,
    "lines.linewidth": 9.0,
}


def test_settings_of_matplotlib_change_no_figure_and_stay_as_they_are(run: Record) -> None:
    images = of_data(DIGITS.load())
    drawing.draw(run, images)
    before = {path.name: path.read_bytes() for path in (run.directory / "figures").iterdir()}
    with matplotlib.rc_context(HOSTILE):
        assert drawing.draw(run, images).failed == ()
        assert {name: matplotlib.rcParams[name] for name in HOSTILE} == HOSTILE
    assert {path.name: path.read_bytes() for path in (run.directory / "figures").iterdir()} == before


def test_matplotlibrc_of_the_current_folder_runs_no_module(tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text("open('sprung', 'w')")
    (tmp_path / "matplotlibrc").write_text("backend: module://trap\nno setting: \x1b[31m\n")
    code = "from experiments.entrance import exit_with; exit_with(lambda: __import__('matplotlib.pyplot') and 0)"
    ended = commands.run(["-c", code], env=environment(tmp_path), cwd=tmp_path, fork=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert not (tmp_path / "sprung").exists()
