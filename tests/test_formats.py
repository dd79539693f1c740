"""What earlier versions saved opens today: a home of format 1, and files with less in them than today's."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

import commands
from conftest import Ended, environment, started, write_record
from experiments import figures, reproduce, sync
from experiments.comparison.comparison import Comparison
from experiments.comparison.comparison import compare as compare_runs
from experiments.comparison.images import load_images
from experiments.comparison.report import write
from experiments.conf import CONF
from experiments.config import config_key, load_config, run_key
from experiments.errors import InputError
from experiments.results import drawing, files, lookup, records
from experiments.results import environment as surroundings
from experiments.results.records import Predictions
from experiments.results.verdict import judge
from experiments.sweeps.archive import Archive
from experiments.sweeps.composition import Composer
from experiments.sweeps.directory import find_place, freeze
from experiments.sweeps.planning import make_plan
from experiments.sweeps.reuse import look_at
from experiments.upgrades import STEPS, FormatError, bring_up, newest

pytestmark = pytest.mark.usefixtures("stores")

FORMAT_1 = Path(__file__).parent / "fixtures" / "format_1"
RUN, MIXED, STOPPED = (
    "20261125-222744-linear-adam-22b0", "20261125-222757-linear-rmsprop-6a43", "20261125-230558-linear-adam-ea6a",
)  # fmt: skip
SWEEP = "20261125-222805-optimizer-seed-fbc4"
BASE = ("dataset=digits", "model=linear", "training.epochs=3", "training.threads=1")
WORDS = ("test_views", "shear_fraction", "stretch_fraction")  # knobs that came later


@pytest.fixture
def old(home: Path) -> Path:
    """A home as format 1 left it: two finished runs, an interrupted one, and a sweep of four, one of them a link."""
    shutil.copytree(FORMAT_1, home, dirs_exist_ok=True, symlinks=True)
    return home


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn after everything that is asked about here."""
    monkeypatch.setattr(drawing, "draw", lambda *_: None)


def command(home: Path, name: str, *arguments: str) -> Ended:
    done = commands.run(["-m", f"experiments.{name}", *arguments], env=environment(home), cwd=home, timeout=150)
    return Ended(done.returncode, done.stdout, done.stderr, home)


def rewrite_config(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = yaml.safe_load((directory / files.CONFIG).read_text())
    change(values)
    (directory / files.CONFIG).write_text(yaml.safe_dump(values, sort_keys=False))


def rewrite_predictions(directory: Path, *without: str) -> None:
    with np.load(directory / files.PREDICTIONS) as arrays:
        kept = {name: arrays[name] for name in arrays.files if name not in without}
    np.savez(directory / files.PREDICTIONS, **kept)


def test_fixtures_hold_no_words_of_the_machine_that_made_them() -> None:
    paths = [path for path in FORMAT_1.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in paths) < 400_000
    text = "".join(path.read_text() for path in paths if path.suffix not in (".npz", ".keras"))
    assert not re.search(r"(?<![\w./])/\w+/|\d+\.\d+\.\d+\.\d+|GHz|Xeon|Traceback", text)
    hosts = {json.loads(path.read_text())["host"] for path in FORMAT_1.rglob(files.ENVIRONMENT)}
    assert hosts == {"elsewhere"}


# Format 1, command by command.


def test_every_run_of_format_1_is_read_as_it_was(old: Path) -> None:
    found = {record.name: record for record in map(records.load, lookup.run_directories(old))}
    assert {name: str(record.state) for name, record in found.items()} == {
        RUN: "finished", MIXED: "finished", STOPPED: "interrupted",
        **{f"{SWEEP}/{job}": "finished" for job in (0, 1, 3)},
    }  # fmt: skip
    for record in found.values():
        config = load_config(record.directory / files.CONFIG)
        assert config.seed == record.seed
        assert "sweep" not in record.config
        assert [row.unknown for row in record.rows] == [files.MEASURED] * record.epochs_run
        assert record.sources_digest is None
        assert record.environment["code"]["digest"] == record.code_digest
        if record.name != MIXED:  # its label says less than its values
            assert run_key(config, record.dataset.digest) == record.run_key
            assert config_key(config, record.dataset.digest) == record.config_key
        assert record.keys == (run_key(config, record.dataset.digest), config_key(config, record.dataset.digest))
    assert found[MIXED].config["regularization"]["name"] == "l2"
    assert found[MIXED].keys[0] != found[MIXED].run_key
    assert found[RUN].predictions.validation_labels.shape == (144,)


def test_sweep_of_format_1_is_compared(old: Path) -> None:
    ended = command(old, "compare", SWEEP)
    assert (ended.code, ended.err) == (0, "")
    report = (old / "multirun" / SWEEP / "report.md").read_text()
    assert "adam" in report
    assert "sgd" in report
    assert "enters no test" not in report
    assert (old / "multirun" / SWEEP / "report.html").exists()


def check(name: str) -> int:
    arguments = argparse.Namespace(run=name, check=True, threads=None, tolerance=None, stop_at_difference=False)
    return reproduce.reproduce(arguments)


@pytest.mark.parametrize("name", [RUN, MIXED, f"{SWEEP}/3"])
def test_run_of_format_1_differs_from_now_in_code_and_machine_only(
    name: str, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(name) == 1
    told = capsys.readouterr().out
    assert "a repeat may differ" in told
    assert "code: " in told
    assert "config: " not in told
    assert "data: " not in told


@pytest.mark.parametrize("name", [RUN, MIXED])
def test_run_of_format_1_is_repeated(
    name: str, old: Path, tensorflow: Any, without_figures: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the same bits on the same class of machine; elsewhere a matrix product may round otherwise."""
    arguments = argparse.Namespace(run=name, check=False, threads=None, tolerance=1e-4, stop_at_difference=False)
    assert reproduce.reproduce(arguments) == 0
    told = capsys.readouterr().out
    assert re.search(r"^(identical: 3 epochs|equal within tolerance 0\.0001: 3 epochs)", told, re.M)
    again = records.load(told.splitlines()[-1])
    assert again.reproduces == name
    assert "format: 2\n" in (again.directory / files.CONFIG).read_text()


def test_interrupted_run_of_format_1_goes_on(
    old: Path, tensorflow: Any, without_figures: None, caplog: pytest.LogCaptureFixture
) -> None:
    from experiments.runner import run_experiment

    before = records.load(old / "outputs" / STOPPED)
    rows = before.rows
    with caplog.at_level("INFO", logger="experiments"):
        record = run_experiment(load_config(before.directory / files.CONFIG), before.directory)
    assert (record.directory, record.state, record.epochs_run) == (before.directory, "finished", 6)
    assert record.rows[:3] == rows
    assert record.run_key == before.run_key
    assert "resumed after a change (code: " in caplog.text
    assert "after a change (config" not in caplog.text
    assert record.code_digest == f"resumed-{before.code_digest}"
    assert "format: 2\n" in (record.directory / files.CONFIG).read_text()
    assert judge(record, record).verdict == "identical"


def test_runs_of_format_1_are_mirrored(old: Path) -> None:
    assert sync.sync([]) == 0
    found = list(map(records.load, lookup.run_directories(old)))
    assert all(record.mlflow.synced for record in found)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{old / 'mlflow.db'}")
    run = client.get_run(next(record for record in found if record.name == f"{SWEEP}/3").mlflow.run_id)
    assert run.data.params["optimizer"] == "adam"
    assert len(client.get_metric_history(run.info.run_id, "validation/accuracy")) >= 3
    assert not [key for key in run.data.params if key.startswith("sweep")]


def test_sweep_of_format_1_is_reused_where_any_code_will_do(old: Path) -> None:
    again = ("-m", *BASE, "optimizer=sgd,adam", "seed=0,1", "tracking=none", "sweep.workers=1")
    with started(old, *again, "sweep.reuse=loose") as reused:
        ended = reused.finish()
    assert ended.code == 0, ended
    assert "4 jobs: 4 done" in ended.out
    sweep = Path(ended.out.splitlines()[-1])
    assert sweep.name != SWEEP
    targets = [(sweep / str(job)).resolve().relative_to(old.resolve()).as_posix() for job in range(4)]
    assert targets == [*(f"multirun/{SWEEP}/{job}" for job in (0, 1)), f"outputs/{RUN}", f"multirun/{SWEEP}/3"]
    assert (sweep / "report.md").exists()


Plans = Callable[..., list[str]]


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plans]:
    """What is found of each job of `before(home, choices…)`; with a `package`, by the digests of its sources."""

    gatherers = surroundings.code_digest, surroundings.sources_digest, surroundings._files

    def forget() -> None:
        for gatherer in gatherers:
            gatherer.cache_clear()

    def plan(home: Path, *choices: str, package: Path | None = None, finish: bool = False, loose: bool = False) -> Any:
        forget()
        if package:
            monkeypatch.setattr(surroundings, "PACKAGE", package)
        split = [[f"{k}={v}" for v in text.split(",")] for k, _, text in (c.partition("=") for c in choices)]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composer = Composer(lambda overrides: hydra_compose("config", overrides=overrides))
            made = make_plan([[*BASE, *job] for job in product(*split)], composer)
        place = find_place(made, home)
        if finish:
            freeze(made, place)
            for job in made.jobs:
                write_record(
                    place.directory_of(job), state="finished", run_key=job.run_key, config_key=job.config_key,
                    sweep=place.name, code_digest=surroundings.code_digest(),
                    sources_digest=surroundings.sources_digest(), versions=surroundings.versions(),
                )  # fmt: skip
        return [str(status.before) for status in look_at(made, place, Archive(home, any_code=loose))]

    yield plan
    forget()


def test_run_of_format_1_is_reused_by_itself_only_if_the_whole_package_is_the_same(
    old: Path, before: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = ("optimizer=sgd,adam", "seed=0,1")
    assert before(old, *choices) == ["new"] * 4
    assert before(old, *choices, loose=True) == ["done"] * 4
    made_by = records.load(old / "outputs" / RUN)
    monkeypatch.setattr(surroundings, "versions", lambda: made_by.versions)
    monkeypatch.setattr(surroundings, "code_digest", lambda: made_by.code_digest)
    archive = Archive(old)  # looks at the digests of now
    assert all(archive.accepts(records.load(old / "multirun" / SWEEP / str(job))) for job in range(4))
    monkeypatch.setattr(surroundings, "code_digest", lambda: "edited")
    assert not archive.accepts(made_by)


def test_key_of_a_mixed_preset_is_found_by_the_rule_it_was_made_under(old: Path, before: Plans) -> None:
    mixed = (
        "optimizer=rmsprop", "regularization=l2", "regularization.augmentation.rotation_degrees=5",
        "regularization.augmentation.shift_fraction=0.1", "seed=3,4",
    )  # fmt: skip
    assert before(old, *mixed, loose=True) == ["done", "new"]


# Files with less in them than today's.


@pytest.fixture
def older(old: Path) -> Path:
    """The sweep's runs as still older versions left them: no later knobs, columns, arrays."""
    for directory in lookup.run_directories(old):
        rewrite_config(directory, lambda values: [values["regularization"]["augmentation"].pop(w) for w in WORDS])
    first, second = (old / "multirun" / SWEEP / name for name in "01")
    lines = (first / files.HISTORY).read_text().splitlines()
    drop = lines[0].split(",").index("train/cross_entropy")
    (first / files.HISTORY).write_text(
        "".join(",".join(v for i, v in enumerate(line.split(",")) if i != drop) + "\n" for line in lines)
    )
    rewrite_predictions(first, "validation_probabilities", "validation_labels", "test_image_digests")
    rewrite_predictions(second, "validation_probabilities", "validation_labels")
    return old


def compare(home: Path, name: str) -> Comparison:
    return compare_runs(lookup.find(name, home))


def test_what_an_old_run_lacks_costs_its_sweep_no_report(older: Path, tmp_path: Path) -> None:
    comparison = compare(older, SWEEP)
    assert [len(c.records) for c in comparison.configurations] == [2, 2]
    assert comparison.options == ("optimizer",)
    assert all(c.scores is not None for c in comparison.configurations)
    assert not [note for note in comparison.notes if "enters no test" in note]
    write(comparison, tmp_path)
    assert "not known" not in (tmp_path / "report.md").read_text()


def test_runs_without_digests_of_their_test_images_are_compared(older: Path, tmp_path: Path) -> None:
    for job in ("0", "1", "2", "3"):
        rewrite_predictions(
            older / "multirun" / SWEEP / job, "test_image_digests", "validation_labels", "validation_probabilities"
        )
    comparison = compare(older, SWEEP)
    assert all(c.scores is not None for c in comparison.configurations)
    assert load_images(comparison.best).pixels is not None
    assert comparison.ensemble is not None
    assert {member.cost_of_leaving for member in comparison.ensemble.members} == {None}
    assert [path.suffix for path in write(comparison, tmp_path)][:1]


def test_figures_are_drawn_of_what_an_old_run_holds(
    older: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr("experiments.results.plots.save", lambda figure, path: drawn.append(path.stem))
    assert figures.redraw([f"{SWEEP}/0"]) == 0
    assert f"{SWEEP}/0: 7 figures in " in capsys.readouterr().out
    assert {"loss", "accuracy", "confusion_matrix", "misclassified"} <= set(drawn)


def test_unknown_columns_and_arrays_read_as_not_known(older: Path) -> None:
    record = records.load(older / "multirun" / SWEEP / "0")
    assert {row.unknown for row in record.rows} == {("train/cross_entropy", *files.MEASURED)}
    assert np.isnan(record.history["train/cross_entropy"]).all()
    assert len(record.predictions.validation_labels) == len(record.predictions.test_image_digests) == 0
    assert len(record.predictions.test_labels) == 360
    other = records.load(older / "multirun" / SWEEP / "1")
    assert len(other.predictions.test_image_digests) == 360
    assert judge(record, record).verdict == "identical"


def test_config_from_before_later_knobs_is_repeated_resumed_and_mirrored(
    older: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(RUN) == 1
    assert "config: " not in capsys.readouterr().out
    for directory in lookup.run_directories(older):
        config = load_config(directory / files.CONFIG)
        assert config.regularization.augmentation.test_views == 1
        environment_json = json.loads((directory / files.ENVIRONMENT).read_text())
        for word in WORDS:
            del environment_json["config"][f"regularization.augmentation.{word}"]
        (directory / files.ENVIRONMENT).write_text(json.dumps(environment_json))
    assert check(RUN) == 1
    assert "config: " not in capsys.readouterr().out


# Numbers of formats.


@pytest.mark.parametrize("kind", STEPS)
def test_newer_format_is_refused_in_one_line(kind: str) -> None:
    with pytest.raises(FormatError) as caught:
        bring_up(kind, {"format": newest(kind) + 1})
    assert re.fullmatch(
        rf"format: {newest(kind) + 1} needs a newer version of experiments; this one, \S+, knows formats up to "
        rf"{newest(kind)}",
        str(caught.value),
    )


@pytest.mark.parametrize("number", [0, -1, True, "2", 1.0, None, [1]])
def test_what_is_no_number_of_a_format_is_refused(number: Any) -> None:
    with pytest.raises(InputError, match=r"^format: must be a whole number from 1 on, received "):
        bring_up("record", {"format": number})


def test_steps_are_taken_in_turn_from_the_format_that_a_file_has(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (lambda values: values | {"a": 1}, lambda values: values | {"b": values.get("a", 0) + 1})
    monkeypatch.setattr("experiments.upgrades.STEPS", {"thing": steps})
    assert newest("thing") == 3
    assert bring_up("thing", {}) == {"a": 1, "b": 2}
    assert bring_up("thing", {"format": 2, "a": 5}) == {"a": 5, "b": 6}
    assert bring_up("thing", {"format": 3}) == {}


def test_predictions_of_a_newer_format_are_refused(old: Path) -> None:
    directory = old / "outputs" / RUN
    record = records.load(directory)
    arrays = record.predictions.to_arrays()
    assert int(arrays["format"]) == newest("predictions")
    files.write_arrays(directory / files.PREDICTIONS, arrays | {"format": np.array(9)})
    with pytest.raises(FormatError, match=r"predictions\.npz: format: 9 needs a newer version"):
        _ = records.load(directory).predictions


def test_predictions_need_what_every_figure_needs(old: Path) -> None:
    rewrite_predictions(old / "outputs" / RUN, "test_labels")
    with pytest.raises(InputError, match="cannot be read as predictions"):
        _ = records.load(old / "outputs" / RUN).predictions
    assert Predictions(np.ones((1, 2), np.float32), np.zeros(1, np.int64)).to_arrays().keys() == {
        "test_probabilities", "test_labels", "format",
    }  # fmt: skip


# Which edits of the code make runs anew.


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        (
            ["ui.py", "comparison/report.py", "sweeps/launch.py", "results/plots/curves.py", "training/progress.py"],
            "done",
        ),
        (["training/loop.py"], "new"),
        (["ingredients/optimizers.py"], "new"),
        (["results/evaluation.py"], "new"),
    ],
    ids=["make no numbers", "training", "optimizers", "evaluation"],
)
def test_edit_of_the_code_makes_runs_anew_only_where_it_makes_numbers(
    sources: list[str], found: str, home: Path, tmp_path: Path, before: Plans
) -> None:
    package = tmp_path / "src" / "experiments"
    shutil.copytree(surroundings.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    choices = ("seed=0,1",)
    assert before(home, *choices, package=package, finish=True) == ["done", "done"]
    for source in sources:
        (package / source).write_text(f"{(package / source).read_text()}# a comment\n")
    assert before(home, *choices) == [found, found]
    assert before(home, *choices, loose=True) == ["done", "done"]
    assert len(list((home / "multirun").iterdir())) == 1
