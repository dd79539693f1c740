"""Hydra as this package uses it: alone in its process or not, and with no setting that does nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import initialize_config_dir, version
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton

from experiments.conf import CONF
from experiments.config import compose
from experiments.errors import InputError


@dataclass
class Theirs:
    """The schema of another application, which calls its primary config `config` too."""

    lr: float = 0.1


def test_configs_compose_within_another_application_of_hydra(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text("model: big\n")
    store = ConfigStore.instance()
    store.store(name="config", node=Theirs)
    store.store(group="optimizer", name="adam", node={"name": "theirs"})
    try:
        with initialize_config_dir(str(tmp_path), version_base="1.2"):
            before = dict(Singleton._instances)
            assert compose("seed=3").seed == 3
            assert dict(Singleton._instances) == before
            assert version.getbase() == version.Version("1.2")
            assert hydra.compose("theirs").model == "big"
        assert not GlobalHydra.instance().is_initialized()
    finally:
        store.repo.pop("config.yaml")
        store.repo.pop("optimizer")


def test_configs_compose_from_many_threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        configs = list(pool.map(lambda seed: compose(f"seed={seed}", "model=linear"), range(8)))
    assert [config.seed for config in configs] == list(range(8))


@pytest.mark.parametrize(
    "override",
    [
        "hydra.run.dir=x", "hydra.sweep.dir=x", "hydra.sweep.subdir=x", "hydra.output_subdir=x", "hydra.job.chdir=true",
        "hydra.job.name=x", "+hydra.job.env_set.X=1", "hydra.verbose=true", "hydra.verbose=[a]",
        "hydra/job_logging=default", "hydra.job_logging.root={level: INFO}", "hydra/launcher=basic",
        "hydra/launcher=joblib", "hydra/sweeper=basic", "hydra/sweeper=optuna", "hydra.launcher=null",
        "hydra.launcher._target_=hydra._internal.core_plugins.basic_launcher.BasicLauncher", "+hydra.foo=1",
    ],
)  # fmt: skip
def test_setting_of_hydra_that_would_do_nothing_is_refused(override: str) -> None:
    key = override.lstrip("+").partition("=")[0]
    with pytest.raises(InputError) as caught:
        compose(override)
    assert str(caught.value).startswith(key)
    assert "is not used; " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_setting_of_hydra_in_a_file_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nhydra:\n  run:\n    dir: elsewhere\n")
    with pytest.raises(InputError, match=r"^hydra.run.dir=elsewhere: is not used; a run's directory is made in"):
        compose("experiment=mine", f"hydra.searchpath=[{tmp_path}]")


@pytest.mark.parametrize("override", ["hydra.job.chdir=false", "hydra/launcher=local", "hydra.mode=RUN"])
def test_setting_that_is_as_here_is_taken(override: str) -> None:
    assert compose(override) == compose()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=[cnn]", "model=[cnn]: is a list, and model is one option, as in model=cnn"),
        ("model=[cnn,mlp]", "model=[cnn,mlp]: is a list, and model is one option, as in model=cnn"),
        ("model=cnn.yaml", "model=cnn.yaml: no such option; "),
        ("model=../model/cnn", "no such option; did you mean cnn?"),
        (f"model={CONF}/model/cnn", "no such option; did you mean cnn?"),
        ("optimizer=sgd,adam", "optimizer=sgd,adam: is a sweep, which needs -m; a list is written in brackets, [a,b]"),
        ("seed=range(0,3)", "seed=range(0,3): is a sweep, which needs -m; "),
        ("optimizer.learning_rate={sgd: interval(0.1,1)}", "is a sweep, which needs -m; "),
        ("optimizer=null", "Config group override must be a string or a list"),
        ("hydra.searchpath=[/no/such/folder]", "/no/such/folder: no such folder"),
    ],
)
def test_choice_that_is_none_is_told_in_a_line(override: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        compose(override)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# The launcher.


class Callbacks:
    def __init__(self) -> None:
        self.callbacks, self.told = [self], []  # type: ignore[var-annotated]

    def on_job_start(self, *, config: Any, task_function: Any) -> None:
        self.told.append(("start", config.hydra.job.num, config.seed))

    def on_job_end(self, *, config: Any, job_return: Any) -> None:
        self.told.append(("end", config.hydra.job.num, job_return.status.name))


def test_launcher_keeps_hydras_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from hydra.core.utils import JobStatus
    from hydra.types import HydraContext, RunMode

    from experiments import hydra_loader
    from experiments.sweeps import launch
    from hydra_plugins.experiments_local import LocalLauncher

    def job(number: int, state: str, message: str = "") -> Any:
        overrides = (f"seed={number}",)
        job = SimpleNamespace(number=number, overrides=overrides, config=compose(*overrides))
        return SimpleNamespace(job=job, state=state, ended=state != "running", message=message)

    ended = [job(0, "done"), job(1, "failed", "ValueError: no")]

    def conducted(overrides: Any, compose: Any, hydra: Any, on_change: Any, ranges: Any = None) -> Any:
        for status in (job(0, "running"), ended[0], job(1, "running"), ended[1]):
            on_change(status)
        return SimpleNamespace(exit_code=1, jobs=ended)

    monkeypatch.setattr(launch, "launch", conducted)
    callbacks, task, launcher = Callbacks(), SimpleNamespace(), LocalLauncher()
    with hydra_loader.own_hydra():
        loader = hydra_loader.make_loader(CONF)
        config = loader.load_configuration("config", [], RunMode.MULTIRUN)
        launcher.setup(hydra_context=HydraContext(loader, callbacks), task_function=task, config=config)
        first, second = launcher.launch([["seed=0"], ["seed=1"]], 0)
    assert task.code == 1
    assert callbacks.told == [("start", 0, 0), ("end", 0, "COMPLETED"), ("start", 1, 1), ("end", 1, "FAILED")]
    assert (first.status, first.overrides, first.cfg.seed) == (JobStatus.COMPLETED, ["seed=0"], 0)
    assert first.return_value is None
    with pytest.raises(RuntimeError, match="failed: ValueError: no"):
        second.return_value  # noqa: B018
