"""Run directories that somebody has damaged: one line each, whatever stands in the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import epoch_row, write_record
from experiments.comparison import report
from experiments.comparison.comparison import compare
from experiments.config import compose
from experiments.errors import InputError
from experiments.results import causes, files, records, tracking
from experiments.results.records import DatasetSummary, Predictions
from experiments.results.tracking import TrackingError
from synthetic_runs import configured, probabilities_of, write_run

DEEP = "[" * 100_000 + "]" * 100_000


def test_deep_json_is_refused_or_not_known(tmp_path: Path) -> None:
    record = write_record(tmp_path / "run")
    for name in (files.ENVIRONMENT, files.VERDICT):
        (record.directory / name).write_text(DEEP)
    assert records.load(record.directory).environment == {}
    assert records.load(record.directory).verdict is None
    (record.directory / files.RECORD).write_text(DEEP)
    with pytest.raises(InputError, match=r"record\.json: is damaged .* \(must be JSON of at most 30 levels\)$"):
        records.load(record.directory)


@pytest.mark.parametrize("other", [3, "text", [1], {"a": 1}, None, True, 1e308])
def test_environment_of_other_types_names_causes(other: Any, tmp_path: Path) -> None:
    record = write_record(tmp_path / "run")
    facts = dict.fromkeys(("config", "code", "packages", "cpu", "gpus", "variables", "threads", "resumed"), other)
    (record.directory / files.ENVIRONMENT).write_text(json.dumps(facts))
    then = records.load(record.directory).environment
    assert all(isinstance(cause.text, str) for cause in causes.find_causes(then, {"threads": 1}))
    assert all(isinstance(change, str) for change in causes.changes_before(then))


@pytest.mark.parametrize("value", ["1e308", "-1e39", "1" * 5000])
def test_history_beyond_all_training_is_refused(value: str, tmp_path: Path) -> None:
    files.write_history(tmp_path / "h.csv", [epoch_row(1)])
    text = (tmp_path / "h.csv").read_text().replace("0.75", value)
    (tmp_path / "h.csv").write_text(text)
    if value.isdigit():  # a float that is read as infinity, as of a training that has diverged
        assert files.read_history(tmp_path / "h.csv")[0].validation_accuracy == float("inf")
        return
    with pytest.raises(InputError, match="validation/loss: must be a number that float32 holds"):
        files.read_history(tmp_path / "h.csv")


def test_folder_in_the_place_of_a_history_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h.csv").mkdir()
    with pytest.raises(InputError, match="must be a regular file, received a directory"):
        files.read_history(tmp_path / "h.csv")


@pytest.mark.parametrize("name", [*files.FILES, *files.FOLDERS])
def test_run_does_not_go_on_over_other_kinds_of_files(name: str, tmp_path: Path) -> None:
    if name in files.FILES:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("a file")
    with pytest.raises(InputError, match=f"{name}: must be a (regular file|folder); move it away"):
        files.require_kinds(tmp_path)


def test_read_only_run_is_not_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = write_record(tmp_path / "run", state="finished")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(records, "write_atomically", refuse)
    with pytest.raises(TrackingError, match=r"^run: not mirrored; its record cannot be written \(Permission denied\)$"):
        tracking.synchronise(record, compose("dataset=digits"), tmp_path)
    assert not (tmp_path / tracking.STORE).exists()


@pytest.mark.parametrize("damage", [{"model": 3, "optimizer": None}, {"dataset": [], "training": "x"}])
def test_run_is_compared_whose_config_lost_what_was_chosen(damage: dict[str, Any], tmp_path: Path) -> None:
    labels, own = np.arange(20) % 10, DatasetSummary(name="files", digest="d" * 64, source="a test")
    values = probabilities_of(labels, labels > 0, np.full(20, 0.9))
    predictions = Predictions(values, labels, np.arange(20, dtype=np.uint64), values, labels)
    record = write_run(tmp_path / "run", predictions, dataset=own)
    (record.directory / files.CONFIG).write_text(yaml.safe_dump(configured() | damage))
    report.write(compare([records.load(record.directory)]), tmp_path)
    assert (tmp_path / "report.md").exists()
