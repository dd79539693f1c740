"""A directory of results configures nothing: Hydra reads no file of it, whichever command was given."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest
import yaml
from omegaconf import OmegaConf

from conftest import SMALL, environment, write_record
from experiments import command_line
from experiments.config import compose, from_hydra
from experiments.config_sources import Folder
from experiments.errors import InputError
from experiments.results import files

CONFIG = yaml.safe_load(compose(*SMALL, "model=linear", "tracking=none").to_yaml())
GLOBAL = "# @package _global_\n"


class Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(autouse=True)
def mark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that every trap here would make; at the end it must not be there."""
    path = tmp_path_factory.mktemp("trap") / "sprung"
    yield path
    assert not path.exists()


def set_traps(folder: Path, mark: Path) -> None:
    """Every file by which a folder on Hydra's search path can make Hydra call something."""
    (folder / "payload").write_bytes(pickle.dumps(Trap(mark)))
    call = {"hydra": {"callbacks": {"trap": {"_target_": "joblib.load", "filename": str(folder / "payload")}}}}
    text = GLOBAL + yaml.safe_dump(call)
    groups = ("launcher", "sweeper", "help", "job_logging", "hydra_logging", "callbacks", "output", "env")
    names = ("local", "experiments", "none", "default", "trap")
    for group in groups:
        (folder / "hydra" / group).mkdir(parents=True)
        for name in names:
            (folder / "hydra" / group / f"{name}.yaml").write_text(text)
    (folder / "optimizer").mkdir()
    (folder / "optimizer" / "adam.yaml").write_text(text)
    (folder / "trap.yaml").write_text(text)
    (folder / "hydra_plugins").mkdir()
    (folder / "hydra_plugins" / "trap.py").write_text(f"import os; os.mkdir({str(mark)!r})")


@pytest.fixture
def stranger(home: Path, mark: Path) -> Path:
    """The directory of a finished run that somebody else has sent."""
    directory = write_record(home / "outputs" / "theirs", state="finished").directory
    (directory / files.CONFIG).write_text(yaml.safe_dump(CONFIG))
    set_traps(directory, mark)
    return directory


@pytest.fixture
def sweep(stranger: Path, mark: Path) -> Path:
    """A sweep that somebody else has sent, with one run."""
    folder = stranger.parents[1] / "multirun" / "all"
    folder.mkdir(parents=True)
    shutil.copytree(stranger, folder / "0")
    (folder / "plan.json").write_text("{}")
    (folder / "sweep.json").write_text("{}")
    set_traps(folder, mark)
    return folder


def answered(*arguments: str) -> str:
    """What a command says against its arguments; nothing where it was carried out."""
    try:
        command_line.answer(arguments, from_hydra)
    except InputError as error:
        return str(error)
    return ""


def test_the_trap_is_a_real_one(stranger: Path, mark: Path) -> None:
    joblib.load(stranger / "payload")
    assert mark.exists()
    mark.rmdir()


@pytest.mark.parametrize("flag", ["--config-path", "-cp", "--config-p"])
def test_saved_config_is_read_as_values_alone(flag: str, stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ([flag, str(stranger)], [f"{flag}={stranger}"]):
        assert answered(*form, "--config-name", "config", "--cfg", "job") == ""
        printed = yaml.safe_load(capsys.readouterr().out)
        assert printed == {key: value for key, value in CONFIG.items() if key != "format"} | {"sweep": printed["sweep"]}


@pytest.mark.parametrize(
    "question",
    [["--help"], ["--hydra-help"], ["--cfg", "all"], ["--info"], ["--info", "searchpath"], ["-sc", "query=bash"], []],
    ids=" ".join,
)
@pytest.mark.parametrize("way", ["--config-path={}", "--config-dir={}", "hydra.searchpath=[{}]"])
def test_no_question_about_a_strangers_run_calls_anything(
    way: str, question: list[str], stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", f"experiments {way.format(stranger)} optimizer=")
    said = answered(way.format(stranger), *question)
    assert "Traceback" not in said
    if not way.startswith("--config-path") and "--hydra-help" not in question:
        assert f"{stranger}: belongs to the results in {stranger}, which configure nothing" in said
        assert "\n" not in said


def test_link_to_a_run_is_a_run(stranger: Path, home: Path) -> None:
    (home / "mine").symlink_to(stranger)
    (home / "inside").symlink_to(stranger / "hydra")
    for folder in ("mine", "inside"):
        for way in ("--config-dir={}", "hydra.searchpath=[{}]", "hydra.searchpath=[file://{}]"):
            assert "belongs to the results in" in answered(way.format(home / folder), "--cfg", "hydra")


def test_link_within_an_own_folder_leads_into_no_run(stranger: Path, home: Path) -> None:
    (home / "own").mkdir()
    (home / "own" / "hydra").symlink_to(stranger / "hydra")
    (home / "own" / "optimizer").mkdir()
    (home / "own" / "optimizer" / "theirs.yaml").symlink_to(stranger / "trap.yaml")
    assert "belongs to the results" in answered(f"--config-dir={home / 'own'}", "+hydra/callbacks=trap", "--cfg", "job")
    assert "belongs to the results" in answered(f"--config-dir={home / 'own'}", "optimizer=theirs", "--cfg", "job")


@pytest.mark.parametrize("part", ["", "0", "hydra", "0/hydra"])
def test_sweep_and_what_lies_in_it_configure_nothing(part: str, sweep: Path) -> None:
    for way in ("--config-dir={}", "hydra.searchpath=[{}]"):
        assert "belongs to the results in" in answered(way.format(sweep / part), "--cfg", "hydra")


@pytest.mark.parametrize("marker", ["record.json", "history.csv", "plan.json", "environment.json"])
def test_damaged_run_is_still_a_run(marker: str, stranger: Path) -> None:
    (stranger / "record.json").unlink()
    (stranger / marker).symlink_to("nowhere")
    (stranger / files.CONFIG).write_text(yaml.safe_dump(CONFIG | {"defaults": [{"hydra/callbacks": "trap"}]}))
    assert "belongs to the results in" in answered(f"--config-dir={stranger}", "--cfg", "hydra")
    assert "defaults: no such key" in answered("--config-path", str(stranger))


@pytest.mark.parametrize(
    "argument",
    [
        "--config-name=../outputs/theirs/trap", "--config-name={stranger}/trap", "optimizer={stranger}/trap",
        "optimizer=../../outputs/theirs/trap", "+hydra/callbacks={stranger}/trap", "optimizer=./adam",
        "hydra.searchpath=[pkg://outputs.theirs]", "hydra.searchpath=[pkg://hydra_plugins_theirs]",
    ],
)  # fmt: skip
def test_no_name_leads_out_of_the_folders_of_options(
    argument: str, stranger: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home))
    assert answered(argument.format(stranger=stranger))


@pytest.mark.parametrize("trap", [{"hydra": {"run": {"dir": "x"}}}, {"defaults": []}, {"_target_": "joblib.load"}])
def test_saved_config_holds_no_more_than_a_runs_values(trap: dict[str, Any], stranger: Path) -> None:
    (stranger / files.CONFIG).write_text(yaml.safe_dump(CONFIG | trap))
    for more in ([], ["-m", "seed=1,2"], ["--cfg", "job"], ["--help"]):
        said = answered("--config-path", str(stranger), *more)
        assert said.endswith("config.yaml: " + said.partition("config.yaml: ")[2])
        assert "no such key" in said


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "${hydra:runtime.cwd}", "x${now:%Y}", "???"])
def test_saved_config_refers_to_nothing(text: str, stranger: Path) -> None:
    dataset = {**CONFIG["dataset"], "name": "mnist", "path": text}
    (stranger / files.CONFIG).write_text(yaml.safe_dump(CONFIG | {"dataset": dataset}))
    assert "a saved config refers to nothing, received" in answered("--config-path", str(stranger), "--cfg", "job")


def test_option_that_is_chosen_anew_replaces_the_saved_one(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["optimizer=sgd", "optimizer.learning_rate=0.5", "seed=7"]
    assert answered("--config-path", str(stranger), "--cfg", "job", *overrides) == ""
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["optimizer"] == {"name": "sgd", "learning_rate": 0.5, "weight_decay": 0.0}
    assert (printed["seed"], printed["model"], printed["dataset"]) == (7, CONFIG["model"], CONFIG["dataset"])


def test_own_folders_work_as_before(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "own" / "optimizer").mkdir(parents=True)
    (home / "own" / "optimizer" / "mine.yaml").write_text("name: sgd\nlearning_rate: 0.25\nweight_decay: 0.0\n")
    for way in ("--config-dir={}", "hydra.searchpath=[{}]"):
        assert answered(way.format(home / "own"), "optimizer=mine", "--cfg", "job") == ""
        assert yaml.safe_load(capsys.readouterr().out)["optimizer"]["learning_rate"] == 0.25


@pytest.mark.parametrize("way", ["--config-dir={}", "hydra.searchpath=[{}]", "--config-path={}"])
def test_number_trap_is_named_wherever_the_file_lies(way: str, home: Path) -> None:
    (home / "own" / "optimizer").mkdir(parents=True)
    (home / "own" / "optimizer" / "mine.yaml").write_text("name: sgd\nlearning_rate: 010\n")
    (home / "own" / "config.yaml").write_text("defaults: [optimizer: mine]")
    said = answered(way.format(home / "own"), "optimizer=mine", "--cfg", "job")
    assert said == (
        f"{home}/own/optimizer/mine.yaml:2: learning_rate: 010 would be read as 8; write a number without a leading 0"
    )
    if "searchpath" in way:
        with pytest.raises(InputError, match="010 would be read as 8"):
            compose(way.format(home / "own"), "optimizer=mine")


@pytest.mark.parametrize(
    "text",
    ["", "# nothing", "null", "word", "a: 1e-3\nb: [1_000, .5, -.inf, 1., +3]\nc: 2026-11-27\nd: yes\ne: 'é ∞'\nf: ~",
     "# @package _global_\nx: ${y}\ny: !!str 3\nz: {p: [{q: 1}], r: '010'}",
     "a: |\n  two\n  lines\nb: >-\n  one\n  line"],
)  # fmt: skip
def test_config_says_what_omegaconf_reads_in_it(text: str, home: Path) -> None:
    (home / "some.yaml").write_text(text)
    found = Folder("test", f"file://{home}").load_config("some").config
    expected = OmegaConf.load(home / "some.yaml")
    assert (found, type(found)) == (expected, type(expected))
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("text", "told"),
    [("a: 1\na: 2", "found duplicate key a"), ("3", "type: 'int'"), ("!!python/name:os.system {}", "python/name")],
)
def test_what_is_no_config_is_told(text: str, told: str, home: Path) -> None:
    (home / "some.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"some\.yaml: is no.*{told}"):
        Folder("test", f"file://{home}").load_config("some")


def test_files_that_editors_leave_are_no_options(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "own" / "optimizer"
    folder.mkdir(parents=True)
    (folder / ".#adam.yaml").symlink_to("somebody@somewhere.1234")
    (folder / "._adam.yaml").write_bytes(b"\x00\x05\x16\x07\xff")
    (folder / "note.yaml").write_bytes(b"# \xe4\n")
    (folder / "old.yaml").mkdir()
    assert answered(f"--config-dir={home / 'own'}", "--help") == ""
    assert "optimizer: adagrad, adam, adamw, lion, muon, nadam, note, rmsprop, sgd" in capsys.readouterr().out
    assert "note.yaml: is not plain YAML" in answered(f"--config-dir={home / 'own'}", "optimizer=note")
    assert "optimizer=old: no such option" in answered(f"--config-dir={home / 'own'}", "optimizer=old")


def test_modules_in_a_run_are_not_pythons_either(stranger: Path, home: Path) -> None:
    for name in ("joblib.py", "difflib.py", "yaml.py"):
        shutil.copy(stranger / "hydra_plugins" / "trap.py", stranger / name)
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", "--config-path", ".", "--cfg", "job"],
        cwd=stranger, env=environment(home, HYDRA_MAIN_MODULE="trap"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.dumps(yaml.safe_load(done.stdout)["model"]) == json.dumps(CONFIG["model"])


@pytest.mark.parametrize("key", ["model." + "x" * 5000, "model/" + "x" * 5000, "optimizer=" + "x" * 5000])
def test_what_is_too_long_for_a_name_is_no_option(key: str) -> None:
    with pytest.raises(InputError) as caught:
        compose(key if "=" in key else f"{key}=1")
    assert len(str(caught.value)) < 12_000
