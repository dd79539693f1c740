"""Code of one's own: modules of the current project that register options, metrics and callbacks."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import commands
from conftest import environment, epoch_row, write_record
from experiments import config as config_module
from experiments import init, project
from experiments.config import OURS, RunConfig, compose, load_config, run_key, validate_saved
from experiments.errors import InputError
from experiments.ingredients import kernels, registry
from experiments.ingredients.registry import Epoch
from experiments.results import environment as environment_module
from experiments.results import files, own_code, own_metrics
from experiments.results.causes import find_causes
from experiments.sweeps.archive import Archive
from experiments.training import callbacks

MODEL = """\
from typing import Literal
from experiments.options import Count, ModelOption, register
from mylab import blocks

@register
class Tiny(ModelOption):
    name: Literal["tiny"]
    width: Count

    def stack(self, x, regularization):
        from mylab.late import widen
        return widen(x, self.width)
"""
METRICS = """\
import numpy as np
from experiments.options import Epoch, callback, metric

@metric
def top_2(probabilities, labels):
    best = np.argsort(probabilities, axis=1)[:, -2:]
    return {"top_2": (best == labels[:, None]).any(axis=1).mean()}

@callback
def shout(epoch: Epoch) -> None:
    raise RuntimeError(f"epoch {epoch.number} of {epoch.epochs}")
"""
SGD2 = """\
from typing import Literal
from experiments.options import OptimizerOption, register

@register
class SGD2(OptimizerOption):
    name: Literal["sgd2"]

    def create(self, optimizers, shared):
        return optimizers.SGD(**shared)
"""
SMALL = ("dataset=digits", "training.threads=1", "tracking=none")
Write = Callable[..., Path]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """A project in a folder of its own, which is the current one; what it registers is forgotten after the test."""
    folder = tmp_path / "lab"
    (folder / "mylab").mkdir(parents=True)
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "model" / "tiny.yaml").write_text("name: tiny\nwidth: 3\n")
    (folder / "conf" / "optimizer").mkdir()
    (folder / "conf" / "optimizer" / "sgd2.yaml").write_text("name: sgd2\nlearning_rate: 0.1\nweight_decay: 0.0\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv(project.VARIABLE, raising=False)

    def write(modules: str = '["mylab.models", "mylab.metrics", "mylab.sgd2"]', **sources: str) -> Path:
        contents = {
            "__init__": "", "models": MODEL, "metrics": METRICS, "sgd2": SGD2, "blocks": "", "unused": "",
            "late": "def widen(x, width): ...\n",
        }  # fmt: skip
        for name, text in (contents | sources).items():
            (folder / "mylab" / f"{name}.py").write_text(text)
        table = f'[tool.experiments]\nmodules = {modules}\nconfig_dir = "conf"\n'
        (folder / "pyproject.toml").write_text(table)
        return folder

    with forgotten():
        yield write


class forgotten:  # noqa: N801 - reads as what it does
    """Takes back, at the end of a block, what was registered and imported in it."""

    def __enter__(self) -> None:
        self._reset()

    def __exit__(self, *_: object) -> None:
        self._reset()

    def _reset(self) -> None:
        for known in (registry.OPTIONS, registry.METRICS, registry.CALLBACKS):
            known.clear()  # type: ignore[attr-defined]
        for schema in (RunConfig, config_module._Composed):
            for group, annotation in OURS.items():
                schema.model_fields[group].annotation = annotation
            schema.model_rebuild(force=True)
        for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
            del sys.modules[name]
        for cached in (project._settings, project._load, own_code._imported, own_code._digest):
            cached.cache_clear()
        importlib.invalidate_caches()


def refused(*overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        compose(*overrides)
    (line,) = caught.value.mistakes
    assert "\n" not in line
    return line


def test_registered_class_is_an_option_like_ours(lab: Write) -> None:
    lab()
    config = compose(*SMALL, "model=tiny", "optimizer=sgd2", "model.width=7")
    assert (type(config.model).__module__, config.model.width) == ("mylab.models", 7)
    assert validate_saved(config.to_saved()) == config
    assert run_key(config, "d") != run_key(compose(*SMALL, "model=tiny", "optimizer=sgd2"), "d")
    assert compose("model=cnn").model.name == "cnn"
    assert refused("model=tinny").startswith("model=tinny: no such option; did you mean tiny?")
    assert refused("model=tiny", "+model.depth=3").startswith("model.depth: no such key; did you mean width?")
    assert refused("model=tiny", "model.width=0") == "model.width: must be greater than or equal to 1, received 0"


def test_config_dir_of_the_command_line_and_the_variable_win(lab: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    lab('["mylab.nonesuch"]')
    monkeypatch.setenv(project.VARIABLE, "mylab.models, mylab.metrics")
    assert compose(*SMALL, "model=tiny").model.name == "tiny"
    assert project.settings().source == project.VARIABLE
    assert "sgd2" in refused("optimizer=sgd2")


def test_project_of_a_folder_of_results_is_not_asked(lab: Write) -> None:
    """A `pyproject.toml` beside somebody else's run must not have code of theirs imported."""
    folder = lab(models="raise SystemExit('imported')")
    (folder / "record.json").write_text("{}")
    assert project.settings().modules == ()
    assert compose().model.name == "cnn"


WRONG_TABLES = {
    'modules = "mylab"': r"pyproject.toml: tool.experiments.modules: must be names of modules, as .*, received 'mylab'",
    'modules = ["my-lab"]': r"must be names of modules, .* received \['my-lab'\]",
    'module = ["mylab"]': r"pyproject.toml: tool.experiments.module: no such key; did you mean modules\?",
    "config_dir = 3": r'pyproject.toml: tool.experiments.config_dir: must be a folder, as "conf", received 3',
    'config_dir = "cnf"': r"/lab/cnf: no such folder",
    "modules = [": r"pyproject.toml: cannot be read \(",
    'modules = ["mylab.nonesuch"]': r"tool.experiments.modules: no module mylab.nonesuch in /.*/lab or among the",
    'modules = ["nonesuch"]': r"tool.experiments.modules: no module nonesuch in ",
}


@pytest.mark.parametrize(("line", "rule"), WRONG_TABLES.items(), ids=WRONG_TABLES)
def test_wrong_project_is_told_in_a_line(lab: Write, line: str, rule: str) -> None:
    (lab() / "pyproject.toml").write_text(f"[tool.experiments]\n{line}\n")
    with pytest.raises(InputError, match=rule) as caught:
        compose()
    assert len(caught.value.mistakes) == 1


WRONG_MODULES = {
    "x = 1 / 0": "mylab.models: cannot be imported (ZeroDivisionError: division by zero; mylab/models.py, line 1)",
    "import nonesuch": "mylab.models: cannot be imported (ModuleNotFoundError: No module named 'nonesuch'; "
    "mylab/models.py, line 1)",
    "x = (": "mylab.models: cannot be imported (SyntaxError: '(' was never closed (models.py, line 1); "
    "mylab/models.py, line 1)",
    MODEL.replace('"tiny"', '"cnn"'): "mylab.models.Tiny: the name 'cnn' is taken by model=cnn of this package",
    MODEL.replace('Literal["tiny"]', "str"): 'mylab.models.Tiny: must have a name, as in name: Literal["tiny"]',
    MODEL.replace("def stack", "def build_it"): "mylab.models.Tiny: must have a method stack or build, see ModelOption",
    MODEL.replace("ModelOption", "Option"): "mylab.models.Tiny: must be derived from one of DatasetOption, "
    "ModelOption, OptimizerOption, ScheduleOption",
    "from experiments.options import metric\nmetric(lambda p, y: {})": None,
    METRICS.replace("import numpy as np", "from mylab.metrics import top_2 as other"): None,
}


@pytest.mark.parametrize(("source", "message"), WRONG_MODULES.items(), ids=range(len(WRONG_MODULES)))
def test_wrong_module_is_told_in_a_line(lab: Write, source: str, message: str | None) -> None:
    lab('["mylab.models"]', models=source)
    if message:
        assert refused() == message
    elif "lambda" in source:
        assert compose().model.name == "cnn"  # a function of a module, whatever it is called
    else:
        assert refused() == "mylab.models.top_2: the name 'top_2' is taken by mylab.metrics.top_2"


def test_class_that_no_worker_could_find_is_refused(lab: Write) -> None:
    from experiments import options

    class Local(options.ModelOption):
        name: Literal["local"]

        def stack(self, x: Any, regularization: Any) -> Any: ...

    with pytest.raises(InputError, match="must be a class or a function of a module, not of a function"):
        options.register(Local)
    Local.__module__, Local.__qualname__ = "__main__", "Local"
    with pytest.raises(InputError, match="must be defined in a module that can be imported, not in a script"):
        options.register(Local)


def test_planning_with_own_modules_starts_no_tensorflow(lab: Write) -> None:
    folder = lab()
    code = (
        "import sys, experiments; config = experiments.compose('model=tiny', 'training.metrics=[top_2]'); "
        "print(config.model.name, {'tensorflow', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(folder), capture_output=True, text=True, check=True
    )
    assert done.stdout == "tiny set()\n"


def test_own_module_that_imports_tensorflow_gets_the_kernels_that_commands_have(
    lab: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to itself, TensorFlow chooses by the CPU, and a run alone would have other bits than one of a sweep."""
    for name in kernels.variables_of_import():
        monkeypatch.delenv(name, raising=False)
    lab('["mylab.early"]', early="import os\nFOUND = dict(os.environ)\n")
    compose("training.threads=1")
    found = importlib.import_module("mylab.early").FOUND
    assert found.items() >= kernels.variables_of_import().items()


# What a run uses.


def used(*overrides: str) -> set[str]:
    return set(own_code.files_of(compose(*SMALL, *overrides).model_dump()))


def test_run_uses_the_modules_that_it_names_and_what_they_import(lab: Write) -> None:
    lab(blocks="from . import deeper\nfrom .deeper import thing", deeper="import numpy\nthing = 1")
    ours = {"mylab/__init__.py"}
    model = ours | {"mylab/models.py", "mylab/blocks.py", "mylab/deeper.py", "mylab/late.py"}
    assert used() == set()
    assert used("model=tiny") == model
    assert used("optimizer=sgd2") == ours | {"mylab/sgd2.py"}
    assert used("training.metrics=[top_2]") == used("training.callbacks=[shout]") == ours | {"mylab/metrics.py"}
    assert used("model=tiny", "optimizer=sgd2") == model | {"mylab/sgd2.py"}


def digest(*overrides: str) -> str | None:
    own_code._imported.cache_clear()
    own_code._digest.cache_clear()
    return own_code.digest_of(compose(*SMALL, *overrides).model_dump())


@pytest.mark.parametrize(("edited", "changes"), [("late", True), ("models", True), ("unused", False), ("sgd2", False)])
def test_edit_changes_the_digest_of_the_runs_that_use_it(lab: Write, edited: str, changes: bool) -> None:
    folder = lab()
    before, plain = digest("model=tiny"), environment_module.sources_digest()
    with (folder / "mylab" / f"{edited}.py").open("a") as file:
        file.write("# edited\n")
    assert (digest("model=tiny") != before) == changes
    assert digest("model=cnn") is None
    assert environment_module.sources_digest() == plain
    assert own_code.code_digest(compose("model=cnn").model_dump()) == environment_module.code_digest()


def test_finished_run_is_reused_while_what_it_uses_is_the_same(lab: Write, home: Path) -> None:
    folder = lab()
    config = compose(*SMALL, "model=tiny")
    record = write_record(
        home / "outputs" / "a", state="finished", versions=environment_module.versions(),
        sources_digest=environment_module.sources_digest(), own_code_digest=digest("model=tiny"),
    )  # fmt: skip
    (record.directory / files.CONFIG).write_text(config.to_yaml())
    assert Archive(home).accepts(record)
    (folder / "mylab" / "late.py").write_text("def widen(x, width): return x\n")
    digest("model=tiny")  # as another process would see it
    assert not Archive(home).accepts(record)
    assert Archive(home, any_code=True).accepts(record)


def test_facts_hold_the_projects_own_commit_and_diff(lab: Write) -> None:
    folder = lab()
    values = compose(*SMALL, "model=tiny").model_dump()
    assert own_code.facts_of(values)["commit"] == environment_module.NOT_AVAILABLE
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    (folder / ".gitignore").write_text("late.py\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    facts = own_code.facts_of(values)
    assert facts["modules"] == ["mylab.models"]
    assert len(facts["commit"]) == 40
    assert set(facts["files"]) == {f"mylab/{name}.py" for name in ("__init__", "models", "blocks", "late")}
    (folder / "mylab" / "blocks.py").write_text("x = 1\n")
    (folder / "mylab" / "unused.py").write_text("x = 1\n")
    diff = own_code.diff_of(values)
    assert "+++ b/mylab/blocks.py\n@@ -0,0 +1 @@\n+x = 1" in diff
    assert "+++ b/mylab/late.py" in diff  # which git does not know
    assert "unused" not in diff
    assert own_code.diff_of(compose("model=cnn").model_dump()) == ""
    assert own_code.facts_of(compose("model=cnn").model_dump()) == {}


def test_repeat_names_the_users_file_that_changed() -> None:
    def facts(digest: str) -> dict[str, Any]:
        own = {"files": {"mylab/models.py": digest}, "commit": "c" * 40}
        return {"code": {"digest": "d", "own": own}, "python": "3", "system": "x"}

    (cause,) = find_causes(facts("a"), facts("b"))
    assert cause.likely
    assert cause.text == (
        "your own code: mylab/models.py changed (commit cccccccccccc both times; see own_code.diff of both runs)"
    )
    assert find_causes(facts("a"), facts("a")) == []


def test_saved_config_names_the_module_that_is_missing(lab: Write, tmp_path: Path, monkeypatch: Any) -> None:
    lab()
    config = compose(*SMALL, "model=tiny")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / files.CONFIG).write_text(config.to_yaml())
    facts = {"code": {"own": own_code.facts_of(config.model_dump())}}
    (tmp_path / "run" / files.ENVIRONMENT).write_text(json.dumps(facts))
    with forgotten():
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            InputError, match=r"config.yaml: needs mylab.models, which is not imported here; list it in"
        ):
            load_config(tmp_path / "run" / files.CONFIG)


# Metrics and callbacks.


def test_metrics_and_callbacks_must_be_registered(lab: Write) -> None:
    with forgotten():
        assert "no metric 'top_2' is registered; none is, see README.md" in refused("training.metrics=[top_2]")
    lab()
    assert refused("training.metrics=[top_3]").startswith(
        "training.metrics: no metric 'top_3' is registered; did you mean top_2?"
    )
    assert "must name each callback once" in refused("training.callbacks=[shout,shout]")


def test_metric_is_part_of_what_a_run_is_and_a_callback_is_not(lab: Write) -> None:
    lab()
    plain = run_key(compose(), "d")
    assert run_key(compose("training.callbacks=[shout]"), "d") == plain
    assert run_key(compose("training.metrics=[top_2]"), "d") != plain
    saved = compose().to_saved()
    del saved["training"]["metrics"], saved["training"]["callbacks"]
    assert validate_saved(saved) == compose()


def test_metric_is_measured_under_the_splits_name(lab: Write) -> None:
    lab()
    compose("training.metrics=[top_2]")
    probabilities = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.1, 0.2, 0.7]], np.float32)
    measured = own_metrics.measure(["top_2"], probabilities, np.array([0, 2, 1, 2]), "validation")
    assert measured == {"validation/top_2": 0.75}
    assert own_metrics.own_of(["test/accuracy", "test/top_2", "validation/top_2", "test/macro_f1"]) == ["test/top_2"]


WRONG_METRICS = {
    "return 0.5": "must return a mapping of names to numbers, received 0.5",
    "return {'accuracy': 1}": "the name 'accuracy' is taken; choose another",
    "return {'top-2': 1}": "a name must be letters, digits and _, received 'top-2'",
    "return {'a': float('nan')}": "a must be a finite number, received nan",
    "return {'a': 'b'}": "a must be a finite number, received 'b'",
    "probabilities[0] = 0": r"ValueError: assignment destination is read-only; mylab/wrong.py, line 4",
}


@pytest.mark.parametrize(("body", "rule"), WRONG_METRICS.items(), ids=WRONG_METRICS)
def test_wrong_metric_is_told_before_anything_is_trained(lab: Write, body: str, rule: str) -> None:
    source = f"from experiments.options import metric\n@metric\ndef wrong(probabilities, labels):\n    {body}\n"
    lab('["mylab.wrong"]', wrong=source)
    compose("training.metrics=[wrong]")
    with pytest.raises(InputError, match=rf"^training.metrics: wrong: {rule}"):
        own_metrics.require_usable(["wrong"], 3)


def test_callback_is_told_facts_and_what_it_raises_is_a_warning(
    lab: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab()
    config = compose("training.callbacks=[shout]")
    seen: list[Epoch] = []
    registry.CALLBACKS["look"] = seen.append
    training = config.training.model_copy(update={"callbacks": ["shout", "look"]})
    callbacks.teller(config.model_copy(update={"training": training}), tmp_path)(epoch_row(3))
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("training.callbacks: shout: RuntimeError: epoch 3 of 8; mylab/metrics.py, line 11")
    (epoch,) = seen
    assert (epoch.values["validation/accuracy"], epoch.config["model.name"], epoch.directory) == (0.75, "cnn", tmp_path)
    with pytest.raises(TypeError):
        epoch.values["validation/accuracy"] = 1.0  # type: ignore[index]


# The project that `init` writes.


def test_init_writes_a_project_whose_values_are_all_in_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "demo"
    init.create(folder)
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == {
        ".gitignore", "Makefile", "README.md", "pyproject.toml", "conf/model/conv_mixer.yaml",
        "conf/optimizer/adamax.yaml", "mylab/__init__.py", "mylab/models.py", "mylab/optimizers.py",
        "tests/test_mylab.py",
    }  # fmt: skip
    assert sys.executable in (folder / "Makefile").read_text()
    assert len((folder / "README.md").read_text().splitlines()) <= 12
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    with forgotten():
        assert compose("model=conv_mixer", "optimizer=adamax").model.name == "conv_mixer"


@pytest.mark.parametrize("arguments", [["-m", "experiments.init"], ["-m", "experiments.run", "init"]])
def test_init_refuses_a_folder_with_something_in_it(home: Path, arguments: list[str]) -> None:
    (home / "full").mkdir()
    (home / "full" / "mine.txt").write_text("mine")

    def call(*paths: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, *arguments, *paths], cwd=home, env=environment(home), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    assert call("full") == (2, "full: must be a new folder or an empty one; what is in it is left alone\n")
    assert call() == (2, "the following arguments are required: PATH (see --help)\n")
    assert [path.name for path in (home / "full").iterdir()] == ["mine.txt"]
    assert call("new")[0] == 0


@pytest.mark.slow
@pytest.mark.beside
def test_project_from_the_wheel_runs_and_retrains_only_what_was_edited(tmp_path: Path) -> None:
    """The wheel alone, in another folder: test, sweep, comparison, resume and repeat of a model of one's own."""
    pytest.importorskip("hatchling")
    root, site, demo = Path(__file__).parents[1], tmp_path / "site", tmp_path / "demo"
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    variables = environment(demo, PYTHONPATH=str(site))

    def call(*arguments: str, code: int = 0, fork: bool = True) -> str:
        done = commands.run(arguments, cwd=demo if demo.exists() else tmp_path, env=variables, fork=fork)
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    call("-m", "experiments.init", "demo")
    for fork in (True, False):
        assert str(site) in call("-c", "import experiments; print(experiments.__file__)", fork=fork)
    assert "Ran 2 tests" in call("-m", "unittest", "tests.test_mylab")
    sweep = (
        "-m", "experiments.run", "-m", "model=conv_mixer", "optimizer=adam,adamax", "dataset=digits",
        "dataset.train_limit=64", "training.epochs=1", "training.batch_size=16", "model.depth=1", "figures=false",
    )  # fmt: skip
    assert "2 jobs: 2 new" in call(*sweep)
    assert "adamax" in call("-m", "experiments.compare")
    with (demo / "mylab" / "optimizers.py").open("a") as file:
        file.write("# edited\n")
    assert "2 jobs: 1 done, 1 new" in call(*sweep)
    (first,) = sorted((demo / "multirun").glob("*/0"))[:1]
    assert "identical: 1 epoch," in call("-m", "experiments.reproduce", str(first.parent / "1"))
