"""A sealed test set: nothing of it is told until somebody unseals it, and the ledger counts every look."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

import commands
from conftest import environment, write_record
from experiments import unseal, unsealing
from experiments.comparison.comparison import compare
from experiments.comparison.exports import as_json, latex
from experiments.comparison.report import write
from experiments.comparison.sentences import sentences
from experiments.comparison.table import table
from experiments.config import RunConfig, compose, load_config
from experiments.errors import InputError
from experiments.results import files, looks, records, tracking
from experiments.results.records import Record
from experiments.results.verdict import judge, tell
from experiments.sweeps import tables
from experiments.sweeps.executor import Ended
from experiments.sweeps.status import JobState, Status

VIEWS = (
    "figures=true", "model=linear", "training.epochs=2", "regularization=augmentation",
    "regularization.augmentation.test_views=3",
)  # fmt: skip


class Told:
    """Takes the place of the planner that a worker tells its end."""

    def tell(self, message: Any) -> None:
        self.message = message


class Runs(NamedTuple):
    """The same run twice in one home: open, and sealed."""

    home: Path
    open: Record
    sealed: Record


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small: Callable[..., RunConfig], tensorflow: Any) -> Runs:
    from experiments.runner import run_experiment

    home = tmp_path_factory.mktemp("sealing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPERIMENTS_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        found = [run_experiment(small(*VIEWS, f"dataset.sealed={sealed}")) for sealed in ("false", "true")]
    return Runs(home, *found)


@pytest.fixture
def runs(made: Runs, home: Path) -> Runs:
    """A copy of them that a test may change."""
    shutil.copytree(made.home, home, dirs_exist_ok=True)
    return Runs(home, *(records.load(home / "outputs" / record.name) for record in made[1:]))


def unsealed(runs: Runs) -> Any:
    told = Told()
    unsealing.work(told, runs.sealed.directory, runs.home)  # type: ignore[arg-type]
    return told.message


def numbers_of(directory: Path) -> dict[str, Any]:
    record = records.load(directory)
    return {"metrics": record.metrics, "digest": record.predictions_digest, "weights": record.weights_digest} | {
        name: array.tolist() for name, array in record.predictions.to_arrays().items()
    }


def test_sealed_run_is_the_run_that_it_would_be_and_holds_no_test_number(runs: Runs) -> None:
    sealed, open_ = runs.sealed, runs.open
    assert (sealed.run_key, sealed.weights_digest, sealed.sealed) == (open_.run_key, open_.weights_digest, True)
    assert sealed.metrics == {k: v for k, v in open_.metrics.items() if not k.startswith("test/")}
    assert sealed.predictions_digest is None
    with np.load(sealed.directory / files.PREDICTIONS) as arrays:
        assert not [name for name in arrays.files if name.startswith("test")]
    drawn = {path.name for path in (sealed.directory / files.FIGURES).iterdir()}
    assert drawn < {path.name for path in (open_.directory / files.FIGURES).iterdir()}
    assert not drawn & {"confusion_matrix.png", "misclassified.png", "sample_predictions.png", "class_accuracy.png"}
    texts = [path.read_text() for path in sealed.directory.rglob("*") if path.suffix in (".json", ".csv", ".log")]
    assert not re.search(r"test/|test accuracy", "".join(texts))


def test_sealed_run_has_no_test_number_in_mlflow_until_it_is_unsealed(runs: Runs, monkeypatch: Any) -> None:
    client = tracking.connect(runs.home)
    of_test = lambda: {  # noqa: E731
        key for key in client.get_run(runs.sealed.mlflow.run_id).data.metrics if key.startswith("test/")
    }
    assert of_test() == set()
    assert "test accuracy" not in client.get_run(runs.sealed.mlflow.run_id).data.tags["mlflow.note.content"]
    assert unsealed(runs) == unsealing.Unsealed(before=1)
    assert of_test() == {key for key in runs.open.metrics if key.startswith("test/")}
    assert "test accuracy" in client.get_run(runs.sealed.mlflow.run_id).data.tags["mlflow.note.content"]


def test_unsealed_run_has_the_bits_of_one_that_was_never_sealed(runs: Runs) -> None:
    assert unsealed(runs) == unsealing.Unsealed(before=1)
    assert numbers_of(runs.sealed.directory) == numbers_of(runs.open.directory)
    one, other = (
        {path.name: path.read_bytes() for path in (record.directory / files.FIGURES).iterdir()}
        for record in (runs.open, runs.sealed)
    )
    assert one == other
    assert not records.load(runs.sealed.directory).sealed
    (first, second) = looks.read(runs.home).looks
    assert (first.purpose, first.run, first.before) == ("run", runs.open.name, None)
    assert (second.purpose, second.run, second.before) == ("unseal", runs.sealed.name, 1)
    assert second.dataset_digest == runs.open.dataset.digest
    assert "@" in second.by


def test_seal_is_broken_once(runs: Runs) -> None:
    unsealed(runs)
    again = unsealed(runs)
    assert isinstance(again, Ended)
    assert "was unsealed" in again.message
    with pytest.raises(InputError, match="is not sealed"):
        unseal.unseal([runs.sealed.name])
    assert len(looks.read(runs.home).looks) == 2


def test_nothing_is_looked_at_where_the_model_is_not_the_runs(runs: Runs) -> None:
    import keras

    path = runs.sealed.directory / files.MODEL
    model = keras.saving.load_model(path)
    model.set_weights([1.01 * weights for weights in model.get_weights()])
    model.save(path)
    assert "was changed after the run" in unsealed(runs).message
    path.unlink()
    assert "model.keras: cannot be read (No such file" in unsealed(runs).message
    assert records.load(runs.sealed.directory).sealed
    assert [look.purpose for look in looks.read(runs.home).looks] == ["run"]


def test_nothing_is_looked_at_where_the_look_cannot_be_written_down(runs: Runs) -> None:
    (runs.home / looks.LEDGER).unlink()
    (runs.home / looks.LEDGER).mkdir()
    assert "looks.jsonl: must be a regular file" in unsealed(runs).message
    assert records.load(runs.sealed.directory).sealed


def test_command_unseals(runs: Runs) -> None:
    ended = commands.run(
        ["-m", "experiments.unseal", runs.sealed.name], env=environment(runs.home), cwd=runs.home, timeout=150
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    accuracy = runs.open.metrics["test/accuracy"]
    assert ended.stdout.splitlines() == [
        f"{runs.sealed.name}: test accuracy {accuracy:.2%} (95% interval "
        f"{runs.open.metrics['test/accuracy_low']:.2%} to {runs.open.metrics['test/accuracy_high']:.2%}); these test "
        "images were looked at 1 times before",
        f"next: python -m experiments.compare {runs.sealed.name}",
    ]
    assert numbers_of(runs.sealed.directory) == numbers_of(runs.open.directory)


def test_unfinished_run_is_not_unsealed(home: Path) -> None:
    write_record(home / "outputs" / "stopped", state="interrupted")
    with pytest.raises(InputError, match="stopped: is interrupted; only a finished run can be unsealed"):
        unseal.unseal(["stopped"])


# Comparisons.


def test_comparison_of_sealed_runs_ranks_by_validation_and_tells_no_test_number(runs: Runs) -> None:
    open_, sealed = runs.open, runs.sealed
    compared = compare([sealed])
    assert compared.sealed
    assert compared.pairs == ()
    shown = [column.title for column in table(compared).columns]
    assert not {"test %", "95% interval", "against best", "cross-entropy"} & {*shown}
    told = "\n".join(sentence.text for sentence in sentences(compared))
    assert f"{open_.metrics['validation/accuracy']:.2%}" in told
    assert "python -m experiments.unseal" in told
    html, markdown, csv = (path.read_text() for path in write(compared, runs.home / "report"))
    for text in (told, html, markdown, csv, json.dumps(as_json(compared)["configurations"]), latex(compared)):
        assert f"{100 * open_.metrics['test/accuracy']:.2f}" not in text
        assert str(open_.metrics["test/cross_entropy"])[:6] not in text
        assert "nan" not in text.replace("domainance", "")
    assert not compare([open_, sealed]).sealed  # they are the same run, once unsealed


def test_report_lists_broken_seals_and_counts_looks(runs: Runs) -> None:
    unsealed(runs)
    compared = compare([records.load(runs.sealed.directory)])
    (sentence,) = [sentence.text for sentence in sentences(compared) if sentence.topic == "looks"]
    assert sentence.startswith("The test images of this data set were looked at 2 times since ")
    assert "1 of these broke a seal" in sentence
    assert "after 1 look." in sentence
    html = write(compared, runs.home / "report")[0].read_text()
    assert "Seals broken" in html
    assert looks.read(runs.home).looks[-1].by in html


def test_sweep_tells_no_test_number_where_a_job_is_sealed(runs: Runs) -> None:
    jobs = [SimpleNamespace(number=n, varied={"width": n}, run_key=f"{n}", config_key=f"{n}") for n in range(2)]
    statuses: Any = [
        Status(job, JobState.DONE, JobState.DONE, record=record)  # type: ignore[arg-type]
        for job, record in zip(jobs, (runs.open, runs.sealed), strict=True)
    ]
    plan: Any = SimpleNamespace(varied=["width"])
    assert all("test" not in row for row in tables.ended(plan, statuses))
    assert str(runs.open.metrics["test/accuracy"]) not in tables.summary(plan, statuses)
    assert str(runs.open.metrics["validation/accuracy"]) in tables.summary(plan, statuses)
    assert all("test" in row for row in tables.ended(plan, statuses[:1]))


# Repeats.


def test_repeat_is_as_sealed_as_its_original(runs: Runs) -> None:
    from experiments.reproduction import config_of

    assert config_of(runs.sealed).dataset.sealed
    assert not config_of(runs.open).dataset.sealed
    unsealed(runs)
    assert not config_of(records.load(runs.sealed.directory)).dataset.sealed
    assert load_config(runs.sealed.directory / files.CONFIG).dataset.sealed


def test_sealed_repeat_of_an_open_run_is_identical_as_far_as_it_is_known(runs: Runs) -> None:
    verdict = judge(runs.open, runs.sealed)
    assert verdict.verdict == "identical"
    assert tell(verdict)[0] == "identical: 2 epochs, all metrics, bit for bit"


# The ledger.


def test_ledger_keeps_the_lines_of_many_writers(home: Path) -> None:
    record = write_record(home / "outputs" / "a")
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: looks.add(home, record, "run"), range(40)))
    assert len(looks.read(home).at({record.dataset.digest}).looks) == 40
    assert looks.read(home).at({"another"}).looks == ()


def test_ledger_passes_over_what_is_damaged_and_begins_a_new_line_after_a_torn_one(home: Path) -> None:
    record = write_record(home / "outputs" / "a")
    (home / looks.LEDGER).write_bytes(b'{"format": 99}\n\xff\n[[[\n{"at": "2026-')
    look = looks.add(home, record, "unseal")
    found = looks.read(home)
    assert found.looks == (look,)
    assert (found.unreadable, look.before) == (4, 0)


def test_ledger_beyond_its_bound_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "LEDGER_BYTES", 100)
    (home / looks.LEDGER).write_bytes(b"x" * 101)
    with pytest.raises(InputError, match=re.escape("looks.jsonl: must be at most 100 bytes")):
        looks.read(home)
    assert looks.read_or_none(home) is None


def test_seal_changes_no_key(home: Path) -> None:
    from experiments.config import run_key

    keys = {run_key(compose("dataset=digits", f"dataset.sealed={sealed}"), "d") for sealed in ("true", "false")}
    assert len(keys) == 1
