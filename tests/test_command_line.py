"""What is given to `run` and cannot be meant is one line, and nothing is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import environment
from experiments import command_line
from experiments.errors import InputError
from experiments.hydra_loader import Loader
from experiments.sweeps import launch


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--epochs=3"],
            "--epochs=3: no such flag; values have no dashes, as training.epochs=3, and --help tells them",
        ),
        (["-x", "--y"], "-x: no such flag; "),
        (["--config-dir=/nonexistent"], "/nonexistent: no such folder"),
        (["--config-dir="], "must be given once, and not empty"),
        (["--config-dir=a", "--config-dir=b"], "argument --config-dir/-cd: must be given once"),
        (["--package=model"], "--package: goes only with --cfg"),
        (["--resolve"], "--resolve: goes only with --cfg or --help"),
        (["-m", "--cfg", "job"], "--cfg and --multirun: only one of them can be asked for at a time"),
        (["--cfg"], "argument --cfg/-c: expected one argument"),
        (["--cfg", "x"], "argument --cfg/-c: invalid choice: 'x'"),
        (["--config", "x"], "ambiguous option: --config could match"),
        (["--config-name=nothing"], "nothing"),
        (["--config-path=/nonexistent"], "/nonexistent/config.yaml: cannot be read (No such file or directory)"),
        (["--config-path=" + "x" * 5000], "cannot be read (File name too long)"),
        (["--shell-completion"], "--shell-completion: must be followed by install=SHELL"),
        (["--shell-completion", "install=["], "received install=["),
        (["--experimental-rerun=x"], "--experimental-rerun: would open a pickle"),
        (["seed"], "seed: is not `key=value` in Hydra's grammar"),
        (["+hydra.callbacks.x._target_=no.such.thing"], "no.such.thing"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_arguments_that_cannot_be_meant_are_told(arguments: list[str], said: str) -> None:
    def task(_: object) -> None:
        pytest.fail("was started")

    with pytest.raises(InputError) as caught:
        command_line.answer(arguments, task)
    assert said in str(caught.value)
    assert len(caught.value.mistakes) == len(str(caught.value).splitlines()) <= 2


def test_flags_may_stand_between_values(capsys: pytest.CaptureFixture[str]) -> None:
    command_line.answer(["seed=3", "--cfg", "job", "model=linear"], print)
    assert "\nseed: 3\n" in capsys.readouterr().out


OWN = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 0,1\n"


@pytest.mark.parametrize(
    ("arguments", "composed", "sweeps"),
    [
        (["seed=3", "model=linear"], 1, False),  # a single run is not composed twice to find that it is one
        (["experiment=fast"], 2, False),
        (["experiment=optimizers"], 2, True),
        (["hydra.mode=MULTIRUN", "seed=0,1"], 2, True),
        (["--config-dir=own", "+mine=several"], 2, True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_option_may_choose_a_sweep(
    arguments: list[str], composed: int, sweeps: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "own" / "mine").mkdir(parents=True)
    (home / "own" / "mine" / "several.yaml").write_text(OWN)
    monkeypatch.chdir(home)
    compose, composes, started = Loader.load_configuration, [], []
    ended = SimpleNamespace(exit_code=0, jobs=[])

    def count(*given: Any, **named: Any) -> Any:
        composes.append(given)
        return compose(*given, **named)

    monkeypatch.setattr(Loader, "load_configuration", count)
    monkeypatch.setattr(launch, "launch", lambda *_: started.append("a sweep") or ended)
    command_line.answer(arguments, lambda _: started.append("a run"))
    assert started == ["a sweep" if sweeps else "a run"]
    assert len(composes) == composed


@pytest.mark.parametrize("body", ["raise ValueError('inside')", "raise KeyError('inside')"])
def test_error_of_a_sweep_is_no_mistake_of_the_user(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        exec(body)

    monkeypatch.setattr(launch, "launch", fails)
    with pytest.raises((ValueError, KeyError), match="inside"):
        command_line.answer(["-m", "seed=0,1"], print)


def test_package_alone_tells_its_commands(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments"], env=environment(home), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "python -m experiments.run " in done.stderr
    assert "Traceback" not in done.stderr
