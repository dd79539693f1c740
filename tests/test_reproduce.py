"""Runs that are repeated, and what is said about them."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

import commands
from conftest import SMALL, Ended, Ending, environment, started, write_record
from experiments import reproduction
from experiments.config import RunConfig, compose
from experiments.errors import InputError, StoppedError
from experiments.reproduce import main, reproduce
from experiments.results import files, lookup, mirrored, records, tracking
from experiments.results.records import Record

pytestmark = pytest.mark.usefixtures("stores")

MODEL = ("model=mlp", "model.units=[8]", "regularization=dropout", "training.epochs=3")
HEAVY = ("tensorflow", "keras", "mlflow", "matplotlib", "sklearn", "hydra")
SOURCES = Path(reproduction.__file__).parent


def run_here(config: RunConfig, directory: Path | None = None, **options: Any) -> Record:
    from experiments.runner import run_experiment

    return run_experiment(config, directory, **options)


@pytest.fixture(scope="session")
def finished(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three epochs; to be copied, not touched."""
    directory = tmp_path_factory.mktemp("finished") / "original"
    assert run_here(compose(*SMALL, *MODEL, "tracking=none"), directory).state == "finished"
    return directory


@pytest.fixture
def original(finished: Path, home: Path) -> Path:
    """A copy of the finished run in this test's home."""
    return Path(shutil.copytree(finished, home / "outputs" / "original"))


def edit(path: Path, key: str, value: Any) -> None:
    """Changes one value of a saved config; `...` takes it away."""
    values = yaml.safe_load(path.read_text())
    *groups, leaf = key.split(".")
    node = values
    for group in groups:
        node = node[group]
    if value is ...:
        del node[leaf]
    else:
        node[leaf] = value
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def repeat(run: Path | str, **options: Any) -> int:
    """What `python -m experiments.reproduce RUN …` does, in this process."""
    given = {"check": False, "stop_at_difference": False, "tolerance": None, "threads": None}
    return reproduce(Namespace(run=str(run), **given | options))


def verdict_of(out: str) -> dict[str, Any]:
    """The `verdict.json` in the directory that stands in the last line."""
    values: dict[str, Any] = json.loads((Path(out.splitlines()[-1]) / files.VERDICT).read_text())
    return values


# Verdicts on real runs.


def test_repeat_of_a_finished_run_is_identical(original: Path, home: Path, capsys: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "experiments")
    before = {path: path.read_bytes() for path in original.rglob("*") if path.is_file()}
    assert repeat(original) == 0
    assert {path: path.read_bytes() for path in original.rglob("*") if path.is_file()} == before
    out = capsys.readouterr().out
    again = records.load(Path(out.splitlines()[-1]))
    assert again.directory.parent == home / "outputs"
    assert again.reproduces == records.load(original).name
    assert out.splitlines()[-2] == "identical: 3 epochs, all metrics and 360 predictions, bit for bit"
    assert caplog.messages.count("  identical") == 3
    values = verdict_of(out)
    assert (values["verdict"], values["original"], values["repeat"]) == ("identical", again.reproduces, again.name)
    assert (values["changed_predictions"], values["causes"]) == (0, [])
    assert again.verdict == "identical"


def test_changed_yaml_value_is_the_first_cause(original: Path, capsys: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "experiments")
    before = yaml.safe_load((original / files.CONFIG).read_text())["optimizer"]["learning_rate"]
    edit(original / files.CONFIG, "optimizer.learning_rate", 0.05)
    assert repeat(original) == 1
    out = capsys.readouterr().out
    assert "\ndifferent from epoch 1 on: train/loss " in f"\n{out}"
    assert (
        f"  1. config: optimizer.learning_rate {before} then, 0.05 now (config.yaml was changed after the run)\n" in out
    )
    assert any(message.startswith("  different: train/loss") for message in caplog.messages)
    values = verdict_of(out)
    assert values["first"]["epoch"] == 1
    assert 0 < values["changed_predictions"] <= 360


def test_changed_label_is_the_first_cause(tensorflow: Any, home: Path, capsys: Any) -> None:
    data = compose("dataset=digits").dataset.load()
    arrays = {"x_train": data.train.images[:200], "y_train": data.train.labels[:200].copy()}
    arrays |= {"x_test": data.test.images, "y_test": data.test.labels}
    path = home / "mine.npz"
    np.savez(path, **arrays)
    config = compose(*SMALL, *MODEL, "dataset=files", f"dataset.path={path}", "dataset.train_limit=64", "tracking=none")
    run = run_here(config)
    arrays["y_train"][0] = (arrays["y_train"][0] + 1) % 10
    np.savez(path, **arrays)
    assert repeat(run.directory) == 1
    out = capsys.readouterr().out
    assert "  1. data: the images or labels are not the same (SHA-256 " in out
    assert [cause["kind"] for cause in verdict_of(out)["causes"]] == ["data"]


@pytest.fixture
def of_mnist(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of MNIST, and a file of MNIST with other content."""
    record = write_record(home / "outputs" / "ours", state="finished")
    (record.directory / files.CONFIG).write_text(compose("dataset=mnist", "training.threads=1").to_yaml())
    digits = compose("dataset=digits").dataset.load()
    arrays = {"x_train": digits.train.images, "y_train": digits.train.labels}
    np.savez(home / "mnist.npz", **arrays, x_test=digits.test.images, y_test=digits.test.labels)
    monkeypatch.setenv("EXPERIMENTS_DATA", str(home))
    return record.directory


@pytest.mark.parametrize("check", [True, False])
def test_mnist_that_is_no_longer_mnist_is_the_first_cause(check: bool, of_mnist: Path, home: Path, capsys: Any) -> None:
    assert repeat(of_mnist, check=check) == 1
    first, _, cause = capsys.readouterr().out.splitlines()
    assert first == ("ours: a repeat may differ" if check else "different before the first epoch: nothing was trained")
    assert cause.startswith(f"  1. data: {home / 'mnist.npz'}: x_train is not MNIST's: SHA-256 must be 741c98")
    assert [path.name for path in (home / "outputs").iterdir()] == ["ours"]


def test_data_that_is_gone_is_no_difference(of_mnist: Path, home: Path) -> None:
    edit(of_mnist / files.CONFIG, "dataset.path", str(home / "gone.npz"))
    for check in (True, False):
        with pytest.raises(InputError, match=r"dataset.path: .*gone.npz"):
            repeat(of_mnist, check=check)


def test_changed_epochs_are_noticed_at_the_end(original: Path, capsys: Any) -> None:
    edit(original / files.CONFIG, "training.epochs", 4)
    edit(original / files.CONFIG, "schedule", {"name": "constant", "warmup_fraction": 0.0})
    assert repeat(original) == 1
    out = capsys.readouterr().out
    assert "config: schedule.name cosine then, constant now" in out
    assert "config: training.epochs 3 then, 4 now" in out


def test_stop_at_difference_ends_the_repeat_there(original: Path, capsys: Any) -> None:
    edit(original / files.CONFIG, "seed", 1)
    assert repeat(original, stop_at_difference=True) == 1
    out = capsys.readouterr().out
    again = records.load(Path(out.splitlines()[-1]))
    assert (again.state, again.epochs_run) == ("interrupted", 1)
    assert out.splitlines()[0].startswith("different from epoch 1 on:")
    assert verdict_of(out)["complete"] is False


def test_tolerance_lets_a_small_difference_pass(original: Path, home: Path, capsys: Any) -> None:
    edit(original / files.CONFIG, "optimizer.epsilon", 1.1e-7)
    assert repeat(original, tolerance=0.01) == 0
    out = capsys.readouterr().out
    assert "\nequal within tolerance 0.01: 3 epochs and all metrics\n" in f"\n{out}"
    largest = verdict_of(out)["largest"]
    size = abs(largest["then"] - largest["now"])
    assert 0 < size < 0.01
    again = records.load(Path(out.splitlines()[-1]))
    for tolerance, code in ((size, 0), (size / 2, 1), (None, 1)):
        assert reproduction.conclude(records.load(original), again, home, tolerance=tolerance).exit_code == code


def test_diverged_run_diverges_again(tensorflow: Any, capsys: Any) -> None:
    hopeless = ("optimizer=sgd", "optimizer.learning_rate=1e30", "tracking=none")
    run = run_here(compose(*SMALL, *MODEL, *hopeless))
    assert run.state == "diverged"
    assert repeat(run.directory) == 0
    assert capsys.readouterr().out.splitlines()[-2].startswith("identical: ")


def test_stopped_repeat_has_no_verdict_until_it_has_gone_on(
    original: Path, home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments import run as entrance

    def stop(row: Any) -> None:
        raise StoppedError("stopped after epoch 1 of 3")

    monkeypatch.setattr(reproduction._Follower, "__call__", lambda _, row: stop(row))
    assert repeat(original) == 130
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("no verdict: interrupted after epoch 1; python -m experiments.run resume=2")
    assert not (Path(lines[-1]) / files.VERDICT).exists()
    monkeypatch.setattr(sys, "argv", ["run", f"resume={lines[-1]}"])
    # The name of a record is what finds the original, so the copy has to have it.
    original.rename(original.with_name(records.load(original).name))
    assert entrance._resume([f"resume={lines[-1]}"]) == 0
    assert "identical: 3 epochs, all metrics and 360 predictions, bit for bit" in capsys.readouterr().out


# MLflow.


def test_run_that_only_mlflow_has_can_be_repeated(tensorflow: Any, home: Path, capsys: Any) -> None:
    run = run_here(compose(*SMALL, *MODEL, "tracking.log_model=false"))
    shutil.rmtree(home / "outputs")
    assert repeat((run.mlflow.run_id or "")[:10]) == 0
    again = records.load(Path(capsys.readouterr().out.splitlines()[-1]))
    assert (again.reproduces, again.verdict) == (run.name, "identical")
    assert verdict_of(f"{again.directory}")["changed_predictions"] == 0
    assert sorted(path.name for path in (home / "outputs").iterdir()) == [again.name]
    # Both MLflow runs tell the verdict.
    client = tracking.connect(home)
    tags = [client.get_run(record.mlflow.run_id).data.tags for record in (run, again)]
    assert [tag["verdict"] for tag in tags] == ["identical", "identical"]
    assert tags[0]["reproduced_by"] == again.name
    assert tags[1]["reproduces"] == run.name
    assert "verdict.json" in [file.path for file in client.list_artifacts(again.mlflow.run_id)]


def test_mlflow_ids_that_mean_no_run_of_ours_are_refused(home: Path) -> None:
    experiment = tracking.prepare_store(home, "experiments")
    ids = [tracking.connect(home).create_run(experiment).info.run_id for _ in range(17)]
    with pytest.raises(InputError, match=f"MLflow run {ids[0]} holds no record.json; it is no run of this framework"):
        repeat(ids[0])
    shared = next(letter for letter in "0123456789abcdef" if sum(found[0] == letter for found in ids) > 1)
    with pytest.raises(InputError, match=rf"{shared}: begins the id of \d+ MLflow runs; give more of it"):
        mirrored.download(shared, home, home / "nowhere")
    for name in (shared, "abcdef0123456789abcdef0123456789", "%' OR '1'='1"):
        with pytest.raises(InputError, match="no such run or sweep"):
            repeat(name)


def test_mlflow_run_with_very_large_files_is_not_brought_here(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tracking.prepare_store(home, "experiments")
    client = tracking.connect(home)
    run_id = client.create_run(experiment).info.run_id
    for name in mirrored.NEEDED:
        (tmp_path / name).write_text("0123456789")
        client.log_artifact(run_id, str(tmp_path / name))
    monkeypatch.setattr(mirrored, "DOWNLOAD_BYTES", 29)
    (home / "nowhere").mkdir()
    with pytest.raises(InputError, match=r"must be at most 29 bytes, received 30 bytes$"):
        mirrored.download(run_id[:8], home, home / "nowhere")
    assert list((home / "nowhere").iterdir()) == []


# Then and now, without training.


def test_check_of_a_run_made_here_expects_the_same(original: Path, capsys: Any) -> None:
    assert repeat(original, check=True) == 0
    name = records.load(original).name
    assert capsys.readouterr().out.splitlines() == [
        f"{name}: a repeat should be identical",
        "nothing known differs: config, data, code, packages, CPU, threads and variables are the same",
    ]


@pytest.mark.parametrize(
    ("path", "value", "cause"),
    [
        (("threads",), 9, "threads: 9 then, 1 now"),
        (("packages", "tensorflow"), "2.0.0", "package: tensorflow 2.0.0 then, "),
        (("dataset_digest",), "f" * 64, "data: the images or labels are not the same"),
        (("code", "digest"), "f" * 64, "code: training/loop.py changed"),
        (("config", "seed"), 5, "config: seed 5 then, 0 now"),
        (("cpu", "model"), "Another", "CPU: Another then, "),
        (("variables", "ONEDNN_MAX_CPU_ISA"), "SSE41", "variable: ONEDNN_MAX_CPU_ISA SSE41 then, not there now"),
    ],
)
def test_check_names_what_differs(
    path: tuple[str, ...], value: Any, cause: str, original: Path, home: Path, capsys: Any
) -> None:
    facts = json.loads((original / files.ENVIRONMENT).read_text())
    node = facts
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    if path[0] == "code":
        facts["code"]["files"]["training/loop.py"] = "0" * 16
    files.write_json(original / files.ENVIRONMENT, facts)
    assert repeat(original, check=True) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("a repeat may differ")
    assert lines[2].startswith(f"  1. {cause}")
    assert [path.name for path in (home / "outputs").iterdir()] == ["original"]


def test_check_counts_the_threads_that_are_asked_for(original: Path, capsys: Any) -> None:
    assert repeat(original, check=True, threads=2) == 1
    assert "  1. threads: 1 then, 2 now" in capsys.readouterr().out


def test_check_starts_no_heavy_library(original: Path, home: Path) -> None:
    code = f"""
import sys
sys.argv = ["reproduce", {str(original)!r}, "--check"]
from experiments import reproduce
try:
    reproduce.main()
finally:
    print(sorted(sys.modules.keys() & set({HEAVY!r})), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(home), check=False
    )
    assert done.stderr == "[]\n", done.stderr


# What cannot be repeated.


@pytest.mark.parametrize("state", ["interrupted", "failed"])
def test_run_without_a_result_is_refused_with_the_next_command(state: str, home: Path) -> None:
    write_record(home / "outputs" / "unfinished", state=state)
    with pytest.raises(InputError, match=rf"is {state}, .* python -m experiments.run resume=unfinished goes on"):
        repeat("unfinished")


def test_sweep_is_refused(home: Path) -> None:
    for number in "01":
        write_record(home / "multirun" / "some" / number, state="finished", name=f"some/{number}")
    with pytest.raises(InputError, match=r"some: is a sweep of 2 runs; name one of them, as in some/0"):
        repeat("some")


def test_portable_run_has_one_thread(original: Path) -> None:
    edit(original / files.CONFIG, "training.determinism", "portable")
    with pytest.raises(InputError, match="threads must be 1"):
        repeat(original, threads=2)


def test_config_that_no_longer_fits_names_every_key(original: Path, home: Path) -> None:
    config = original / files.CONFIG
    edit(config, "optimizer.epsilon", ...)
    edit(config, "optimizer.amsgrad", False)
    edit(config, "training.precision", "float8")
    edit(config, "training.epochs", ...)
    edit(config, "schedule.name", "polynomial")
    with pytest.raises(InputError) as caught:
        repeat(original)
    lines = caught.value.mistakes
    assert lines[0].endswith(": its config.yaml does not fit the options of today's code:")
    assert sorted(line.split(":")[0].strip() for line in lines[1:-1]) == [
        "optimizer.amsgrad", "optimizer.epsilon", "schedule.name", "training.epochs", "training.precision",
    ]  # fmt: skip
    said = "\n".join(lines)
    assert "optimizer.epsilon: missing; every value must be given (conf/optimizer/adam.yaml: epsilon: 1e-07)" in said
    assert "training.epochs: missing; every value must be given (conf/training/default.yaml: epochs: 8)" in said
    assert "optimizer.amsgrad: no such key" in said
    assert "training.precision: no such choice 'float8'" in said
    assert "schedule.name: no such option 'polynomial'" in said
    commit = records.load(original).environment["code"]["commit"]
    way_out = "bring the config.yaml of a copy of the run up to date"
    assert lines[-1] in (way_out, f"check out commit {commit}, which made it, or {way_out}")
    assert [path.name for path in (home / "outputs").iterdir()] == ["original"]


# Whole commands.


def command(home: Path, *arguments: str, **variables: str) -> Ended:
    done = commands.run(["-m", "experiments.reproduce", *arguments], env=environment(home, **variables), cwd=home)
    return Ended(done.returncode, done.stdout, done.stderr, home)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing: no such run or sweep"),
        (["x", "--tolerance", "-1"], "must be a number from 0 on"),
        (["x", "--tolerance", "nan"], "must be a number from 0 on"),
        (["x", "--tolerance", "1,5"], "must be a number from 0 on, received 1,5"),
        (["x", "--threads", "0"], "must be a whole number from 1 on"),
        (["x", "--threads", "two"], "must be a whole number from 1 on, received two"),
        (["x", "--check", "--tolerance", "1"], "not allowed with argument --check"),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_bad_input_exits_with_2(
    arguments: list[str], message: str, home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduce", *arguments])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr("experiments.entrance.show_messages", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert list(home.iterdir()) == []


# What the commands do. `endings` in conftest.py has how they ended.


class Repeats(NamedTuple):
    """One run, repeated in four ways."""

    same: Ended
    other_threads: Ended
    other_code: Ended
    from_its_config: Ended


def repeat_in_four_ways(home: Path) -> Repeats:
    run = ("dataset=digits", "dataset.train_limit=256", "training.threads=1", "training.epochs=2",
           "model.filters=[8,8]", "tracking=none", "figures=false")  # fmt: skip
    with started(home, *run) as first:
        record = first.finish().record
    saved = str(record.directory.relative_to(home.parent))
    with started(home, "--config-path", saved, "--config-name", "config") as rerun:
        from_its_config = rerun.finish()
    return Repeats(
        same=command(home, str(record.directory)),
        other_threads=command(home, record.name, "--threads", "2"),
        other_code=command(home, record.name, "--stop-at-difference", PYTHONPATH=str(other_sources(home.parent))),
        from_its_config=from_its_config,
    )


def other_sources(folder: Path) -> Path:
    """A copy of the sources with one line changed."""
    sources = Path(shutil.copytree(SOURCES.parent, folder / "copy" / "src"))
    (folder / "copy" / "conf").symlink_to(SOURCES.parents[1] / "conf")
    loop = sources / "experiments" / "training" / "loop.py"
    text = loop.read_text()
    changed = text.replace("keras.utils.set_random_seed(config.seed)", "keras.utils.set_random_seed(config.seed + 1)")
    assert changed != text
    loop.write_text(changed)
    return sources


SCENARIOS = (repeat_in_four_ways,)


@pytest.fixture
def repeats(endings: dict[str, Ending[Repeats]]) -> Repeats:
    return endings["repeat_in_four_ways"].result()


@pytest.mark.slow
def test_repeat_by_the_command_is_identical(repeats: Repeats) -> None:
    assert (repeats.same.code, repeats.same.err) == (0, "")
    assert "\nidentical: 2 epochs, all metrics and 360 predictions, bit for bit\n" in repeats.same.out


@pytest.mark.slow
def test_other_threads_are_the_first_cause(repeats: Repeats) -> None:
    assert repeats.other_threads.code == 1
    assert "\ndifferent from epoch 1 on: " in repeats.other_threads.out
    assert "  1. threads: 1 then, 2 now\n" in repeats.other_threads.out


@pytest.mark.slow
def test_a_changed_line_of_code_is_the_first_cause(repeats: Repeats) -> None:
    assert repeats.other_code.code == 1
    assert "\ndifferent from epoch 1 on: " in repeats.other_code.out
    assert "  1. code: training/loop.py changed (" in repeats.other_code.out


@pytest.mark.slow
def test_saved_config_is_a_config_for_hydra(repeats: Repeats) -> None:
    assert repeats.from_its_config.code == 0, repeats.from_its_config
    again = repeats.from_its_config.record
    before = lookup.find(repeats.same.record.reproduces or "", repeats.same.home)[0]
    assert again.directory != before.directory
    assert again.run_key == before.run_key
    assert again.weights_digest == before.weights_digest
    assert again.predictions_digest == before.predictions_digest
