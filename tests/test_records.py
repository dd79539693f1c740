from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import epoch_row, write_record
from experiments.errors import InputError
from experiments.results import files, lookup, records
from experiments.results.evaluation import Overfitting
from experiments.results.records import Failure, MLflowState, Predictions, Process
from experiments.upgrades import FormatError

KEYS = [
    "format", "name", "state", "run_key", "config_key", "seed", "sweep", "job", "varied", "started_at", "finished_at",
    "seconds", "timings", "process", "lease", "epochs_run", "parameters", "metrics", "overfitting", "weights_digest",
    "predictions_digest", "dataset", "code_digest", "sources_digest", "own_code_digest", "versions", "mlflow",
    "reproduces", "error", "sealed",
]  # fmt: skip


@pytest.fixture
def predictions() -> Predictions:
    return Predictions(
        test_probabilities=np.full((3, 2), 0.5, np.float32),
        test_labels=np.array([0, 1, 0]),
        test_image_digests=np.array([2**64 - 1, 1, 2], np.uint64),
        validation_probabilities=np.array([[0.25, 0.75]], np.float32),
        validation_labels=np.array([1]),
    )


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# Writing.


def test_record_has_all_keys_from_its_first_moment(tmp_path: Path) -> None:
    write_record(tmp_path / "run")
    values = json.loads((tmp_path / "run" / "record.json").read_text())
    assert list(values) == KEYS
    assert values["state"] == "running"
    assert values["error"] is None
    assert values["process"]["pid"] == os.getpid()


def test_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    record = write_record(tmp_path / "run", sweep="s", job=3, varied={"optimizer": "adam", "seed": 1})
    record.write(
        state="diverged",
        metrics={"test/accuracy": 0.1 + 0.2, "test/cross_entropy": 1e-17},
        overfitting=Overfitting("Overfits.", 3, 2, 0.01),
        error=Failure(type="DivergedError", message="é\n✓"),
        mlflow=MLflowState(run_id="f" * 32, synced=True),
    )
    loaded = records.load(tmp_path / "run")
    assert loaded.model_dump() == record.model_dump()
    assert loaded.metrics["test/accuracy"] == 0.1 + 0.2
    assert loaded.directory == tmp_path / "run"


def test_change_of_a_wrong_type_is_refused(tmp_path: Path) -> None:
    record = write_record(tmp_path / "run")
    with pytest.raises(ValueError, match="state"):
        record.write(state="happy")


def test_cached_history_survives_a_write(tmp_path: Path) -> None:
    record = write_record(tmp_path / "run")
    files.write_history(record.directory / files.HISTORY, [epoch_row(1)])
    history = record.history
    record.write(epochs_run=1)
    assert record.history is history
    assert json.loads((tmp_path / "run" / "record.json").read_text()).keys() == set(KEYS)


def test_write_replaces_in_one_step(tmp_path: Path) -> None:
    """A reader never sees a part: the old file is replaced, not written into."""
    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as reader:
        files.write_atomically(path, "new" * 1000)
        assert reader.read() == "old"
    assert path.read_text() == "new" * 1000
    assert names_in(tmp_path) == ["file"]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_readers_beside_many_writers_always_see_a_whole_record(tmp_path: Path) -> None:
    record = write_record(tmp_path / "run")
    done = threading.Event()

    def write() -> None:
        for number in range(40):
            record.write(metrics={f"m{i}": float(number) for i in range(50)})
        done.set()

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not done.is_set():
        assert len({*records.load(tmp_path / "run").metrics.values()}) <= 1
    for thread in threads:
        thread.join()
    assert names_in(tmp_path / "run") == ["record.json"]


# A directory of one's own.


def test_create_takes_an_empty_directory_but_no_other(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_record(tmp_path / "empty")
    with pytest.raises(InputError, match="is not empty; a run needs a directory of its own"):
        write_record(tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="is not empty"):
        write_record(tmp_path / "full")
    assert names_in(tmp_path / "full") == ["thesis.tex"]


def test_create_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_record(tmp_path / "file" / "run")


def test_create_on_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="cannot be written \\(No space left on device\\)"):
        write_record(tmp_path / "run")
    assert names_in(tmp_path) == []


# States.


def test_running_record_of_a_living_process_is_running(tmp_path: Path) -> None:
    write_record(tmp_path / "run")
    assert records.load(tmp_path / "run").state == "running"


def test_running_record_of_a_gone_process_is_interrupted(tmp_path: Path) -> None:
    here = Process.current()
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    write_record(tmp_path / "ended", process=here.model_copy(update={"pid": int(gone.stdout)}))
    after_boot = here.started_after_boot
    write_record(tmp_path / "number reused", process=here.model_copy(update={"started_after_boot": after_boot - 60}))
    older = here.model_copy(update={"started": here.started - 60, "started_after_boot": None, "boot": ""})
    write_record(tmp_path / "of an older format", process=older)
    for name in ("ended", "number reused", "of an older format"):
        assert records.load(tmp_path / name).state == "interrupted"
        assert json.loads((tmp_path / name / "record.json").read_text())["state"] == "running"  # reading writes nothing


def test_running_record_of_a_killed_process_that_nobody_waited_for_is_interrupted(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=subprocess.PIPE
    )
    assert child.stdout
    child.stdout.readline()
    import psutil

    process = Process(host=Process.current().host, pid=child.pid, started=psutil.Process(child.pid).create_time())
    write_record(tmp_path / "run", process=process)
    assert records.load(tmp_path / "run").state == "running"
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    assert records.load(tmp_path / "run").state == "interrupted"
    child.communicate()


def test_running_record_of_another_host_is_believed(tmp_path: Path) -> None:
    write_record(tmp_path / "run", process=Process(host="elsewhere", pid=1, started=0.0))
    assert records.load(tmp_path / "run").state == "running"


@pytest.mark.parametrize("state", ["finished", "failed", "diverged", "interrupted"])
def test_ended_record_keeps_its_state(state: str, tmp_path: Path) -> None:
    write_record(
        tmp_path / "run", state=state, process=Process(host=Process.current().host, pid=2**22 + 1, started=0.0)
    )
    assert records.load(tmp_path / "run").state == state


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"format": 1}', "\x00\x01", '{"format": 1, "name": "x", "state": "happy"}']
)
def test_damaged_record_is_refused_by_name(text: str, tmp_path: Path) -> None:
    write_record(tmp_path / "run")
    path = tmp_path / "run" / "record.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        records.load(tmp_path / "run")
    assert str(caught.value).startswith(f"{path}: is damaged or not a record of a run")
    assert "\n" not in str(caught.value)


def test_record_of_a_newer_format_is_refused_as_such(tmp_path: Path) -> None:
    write_record(tmp_path / "run")
    path = tmp_path / "run" / "record.json"
    path.write_text('{"format": 99}')
    with pytest.raises(FormatError) as caught:
        records.load(tmp_path / "run")
    assert str(caught.value).startswith(f"{path}: format: 99 needs a newer version of experiments; this one, ")
    assert str(caught.value).endswith("knows formats up to 1")


def test_directory_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"cannot be read \(No such file or directory\); a run directory holds a record"
    ):
        records.load(tmp_path)


# Finding.


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A home with two single runs, and a sweep of eleven jobs whose ids begin with c0 … ca."""
    for name, run_id in [("20260101-000000-cnn-adam-aa11", "a1" * 16), ("20260101-000000-cnn-sgd-bb22", "a2" * 16)]:
        write_record(tmp_path / "outputs" / name, mlflow=MLflowState(run_id=run_id))
    for job in range(11):
        directory = tmp_path / "multirun" / "rates" / str(job)
        write_record(
            directory, name=f"rates/{job}", sweep="rates", job=job, mlflow=MLflowState(run_id=f"c{job:x}" * 16)
        )
    return tmp_path


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("20260101-000000-cnn-adam-aa11", "20260101-000000-cnn-adam-aa11"),
        ("20260101-000000-cnn-s", "20260101-000000-cnn-sgd-bb22"),
        ("a1a1", "20260101-000000-cnn-adam-aa11"),
        ("a2" * 16, "20260101-000000-cnn-sgd-bb22"),
        ("rates/3", "rates/3"),
        ("rates/10", "rates/10"),
        ("c4c4", "rates/4"),
    ],
)
def test_run_is_found_by(text: str, name: str, several: Path) -> None:
    assert [record.name for record in lookup.find(text, several)] == [name]


def test_run_is_found_by_its_directory_from_anywhere(several: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(several / "multirun")
    elsewhere = several / "no" / "home"
    assert lookup.find(str(several / "multirun/rates/3"), elsewhere)[0].name == "rates/3"
    assert lookup.find("rates/3", elsewhere)[0].name == "rates/3"
    assert lookup.find("./rates/3/", elsewhere)[0].name == "rates/3"
    assert len(lookup.find("rates", elsewhere)) == 11


def test_sweep_is_found_with_its_jobs_in_their_order(several: Path) -> None:
    assert [record.job for record in lookup.find("rates", several)] == list(range(11))
    assert [record.job for record in lookup.newest_sweep(several)] == list(range(11))


@pytest.mark.parametrize("text", ["2026", "a", "c"])
def test_several_matches_are_named(text: str, several: Path) -> None:
    with pytest.raises(InputError, match=r"matches \d+ runs \(.*\); give more of it"):
        lookup.find(text, several)


@pytest.mark.parametrize("text", ["a1", "a2a", "c4"])
def test_beginning_that_may_be_several_tomorrow_is_refused(text: str, several: Path) -> None:
    with pytest.raises(InputError, match=rf"^{text}: begins .* today and may begin others tomorrow; give 4 characters"):
        lookup.find(text, several)


@pytest.mark.parametrize("text", ["x" * 5000, "x/" * 3000, "a\0b"])
def test_name_that_no_file_can_have_is_refused_in_a_line(text: str, several: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read \((File name too long|embedded null byte)\)"):
        lookup.find(text, several)


def test_folder_that_is_closed_is_told(several: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.stat", closed)
    with pytest.raises(InputError, match=r"record.json: cannot be read \(Permission denied\)$"):
        lookup.find(str(several), several)


@pytest.mark.parametrize("text", ["nothing", "rates/11", "zz"])
def test_no_match_says_what_was_looked_for(text: str, several: Path) -> None:
    with pytest.raises(InputError) as caught:
        lookup.find(text, several)
    message = str(caught.value)
    assert message.startswith(f"{text}: no such run or sweep; looked for")
    assert str(several / "outputs") in message
    assert "python -m experiments.run" in message


def test_empty_name_names_nothing(several: Path) -> None:
    for name in ("", " "):
        with pytest.raises(InputError, match="received nothing"):
            lookup.find(name, several)


def test_damaged_neighbour_does_not_hide_a_run(several: Path) -> None:
    (several / "outputs" / "20260101-000000-cnn-adam-aa11" / "record.json").write_text("{")
    assert lookup.find("a2a2", several)[0].name == "20260101-000000-cnn-sgd-bb22"
    with pytest.raises(InputError, match="is damaged"):
        lookup.find("20260101-000000-cnn-adam-aa11", several)


def test_newest_sweep_is_the_one_that_began_last(several: Path) -> None:
    from datetime import UTC, datetime

    write_record(several / "multirun" / "a" / "0", job=0, sweep="a", started_at=datetime(2027, 1, 1, tzinfo=UTC))
    assert [record.sweep for record in lookup.newest_sweep(several)] == ["a"]


def test_newest_sweep_may_consist_of_older_runs(several: Path) -> None:
    """It links to them; and another sweep's runs may be written again, when they are mirrored later."""
    newer = several / "multirun" / "newer"
    newer.mkdir()
    (newer / "0").symlink_to("../rates/3")
    for name, at in (("rates", 1e9), ("newer", 2e9)):
        path = several / "multirun" / name / "sweep.json"
        path.touch()
        os.utime(path, (at, at))
    records.load(several / "multirun" / "rates" / "0").write(mlflow=MLflowState(synced=True))
    assert [record.job for record in lookup.newest_sweep(several)] == [3]


def test_no_sweep_at_all_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no sweep; `python -m experiments\.run -m"):
        lookup.newest_sweep(tmp_path)


def test_runs_that_ended_without_a_mirror_are_listed(several: Path) -> None:
    assert lookup.unmirrored(several) == []  # they are all running
    record = write_record(several / "outputs" / "x", state="finished")
    assert [found.name for found in lookup.unmirrored(several)] == ["x"]
    record.write(mlflow=MLflowState(run_id="e" * 32, synced=True))
    assert lookup.unmirrored(several) == []


# History and predictions.


def test_history_keeps_every_bit(tmp_path: Path) -> None:
    rows = [epoch_row(1, 0.1 + 0.2), epoch_row(2, math.nan), epoch_row(3, math.inf), epoch_row(4, 1e-300)]
    files.write_history(tmp_path / "history.csv", rows)
    read = files.read_history(tmp_path / "history.csv")
    assert [str(row) for row in read] == [str(row) for row in rows]  # NaN is not equal to itself
    header = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert header == (
        "epoch,train/loss,train/cross_entropy,train/accuracy,validation/loss,validation/cross_entropy,"
        "validation/accuracy,learning_rate,seconds,weights_digest,"
        "train/measured_cross_entropy,train/measured_accuracy,format"
    )


def test_history_by_column(tmp_path: Path) -> None:
    record = write_record(tmp_path / "run")
    files.write_history(record.directory / files.HISTORY, [epoch_row(1, 0.5), epoch_row(2, 0.25)])
    assert record.history["train/loss"].tolist() == [0.5, 0.25]
    assert record.history["epoch"].tolist() == [1, 2]
    assert record.rows == [epoch_row(1, 0.5), epoch_row(2, 0.25)]


def test_column_that_an_older_history_lacks_is_not_known(tmp_path: Path) -> None:
    record = write_record(tmp_path / "run")
    files.write_history(record.directory / files.HISTORY, [epoch_row(1), epoch_row(2)])
    lines = (record.directory / files.HISTORY).read_text().splitlines()
    cut = [",".join(line.split(",")[:2] + line.split(",")[3:9]) for line in lines]  # no train/cross_entropy, no digest
    (record.directory / files.HISTORY).write_text("\n".join(cut) + "\n")
    rows = record.rows
    assert rows[1].unknown == ("train/cross_entropy", "weights_digest", *files.MEASURED)
    assert rows[1].columns() == {k: v for k, v in epoch_row(2).columns().items() if k not in rows[1].unknown}
    assert np.isnan(record.history["train/cross_entropy"]).all()
    assert record.history["train/loss"].tolist() == [0.5, 0.5]
    files.write_history(record.directory / files.HISTORY, [*rows, epoch_row(3)])  # the run goes on
    assert [row.unknown for row in record.rows] == [rows[1].unknown, rows[1].unknown, ()]


def test_history_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    files.write_history(tmp_path / "history.csv", [epoch_row(1)])
    text = (tmp_path / "history.csv").read_text()
    (tmp_path / "history.csv").write_text(text.replace(",1\n", ",7\n"))
    with pytest.raises(FormatError, match=r"history\.csv: format: 7 needs a newer version of experiments"):
        files.read_history(tmp_path / "history.csv")


def test_run_without_an_epoch_has_an_empty_history(tmp_path: Path) -> None:
    record = write_record(tmp_path / "run")
    assert record.rows == []
    assert record.history["train/loss"].shape == (0,)


@pytest.mark.parametrize("text", ["train/loss\n1\n", "epoch\nx\n", "a,b\n1,2\n", "\x00", None, "cut"])
def test_damaged_history_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    files.write_history(path, [epoch_row(1), epoch_row(2)])
    whole = path.read_text()
    path.write_text(whole.replace("0.8", "x") if text is None else whole[:-80] if text == "cut" else text)
    if text == "\x00":
        path.write_bytes(whole.encode() + b"\xff\xfe,1\n")
    with pytest.raises(InputError, match=r"history\.csv: is damaged"):
        files.read_history(path)


def test_predictions_read_back(tmp_path: Path, predictions: Predictions) -> None:
    record = write_record(tmp_path / "run")
    np.savez(record.directory / files.PREDICTIONS, **vars(predictions))
    for name, expected in vars(predictions).items():
        read = getattr(record.predictions, name)
        np.testing.assert_array_equal(read, expected)
        assert read.dtype == expected.dtype


def pickled(_: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, test_probabilities=np.array([{"a": 1}], dtype=object))
    return buffer.getvalue()


def truncated(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()[:-50]


def missing_an_array(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array for name, array in arrays.items() if name != "test_labels"})
    return buffer.getvalue()


def one_array(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, arrays["test_labels"])
    return buffer.getvalue()


@pytest.mark.parametrize("damage", [pickled, truncated, missing_an_array, one_array, lambda _: b"", lambda _: b"hello"])
def test_predictions_that_are_none_are_refused(damage: Any, tmp_path: Path, predictions: Predictions) -> None:
    record = write_record(tmp_path / "run")
    (record.directory / files.PREDICTIONS).write_bytes(damage(vars(predictions)))
    with pytest.raises(InputError, match=r"predictions\.npz: cannot be read as predictions"):
        _ = record.predictions


def test_missing_predictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as predictions"):
        _ = write_record(tmp_path / "run").predictions


def test_config_is_read_as_plain_values(tmp_path: Path) -> None:
    record = write_record(tmp_path / "run")
    (record.directory / "config.yaml").write_text("seed: 1\nmodel: {name: cnn}\n")
    assert record.config == {"seed": 1, "model": {"name": "cnn"}, "figures": True}  # as before there was a choice
    other = write_record(tmp_path / "other")
    (other.directory / "config.yaml").write_text("- 1")
    with pytest.raises(InputError, match="must be a mapping, received list"):
        _ = other.config


# The home.


def test_home_is_the_variable_or_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.home() == tmp_path
    monkeypatch.setenv("EXPERIMENTS_HOME", "")
    monkeypatch.chdir(tmp_path)
    assert files.home() == tmp_path
    monkeypatch.setenv("EXPERIMENTS_HOME", "sub")
    assert files.home() == tmp_path / "sub"


# The home.


def test_home_may_be_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EXPERIMENTS_HOME", "~/exp")
    assert files.home() == tmp_path.resolve() / "exp"


@pytest.mark.parametrize("given", ["~nobody-of-this-name/exp", "x" * 5000, "loop", "a\0b"])
def test_home_that_leads_nowhere_is_refused_in_a_line(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.environ", {"EXPERIMENTS_HOME": given})
    with pytest.raises(InputError) as caught:
        files.home()
    assert "\n" not in str(caught.value)


def test_home_without_a_user_who_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("EXPERIMENTS_HOME", "~/exp")
    with pytest.raises(InputError, match=r"EXPERIMENTS_HOME: ~ must lead to the home of a user who is there"):
        files.home()
