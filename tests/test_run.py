"""Whole commands, each a process of its own with an empty home."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import commands
from conftest import SMALL, Ended, Ending, environment, started, write_record
from experiments.config import compose, config_key, load_config, run_key
from experiments.errors import InputError
from experiments.results import lookup, records
from experiments.results.evaluation import evaluate, image_digests, predictions_digest
from experiments.results.records import Record

EPOCHS = 30  # of a run that is stopped on its way: enough to be caught in the middle
PLAIN = (
    *SMALL,
    "model=mlp",
    "model.units=[16]",
    "regularization=full",
    f"training.epochs={EPOCHS}",
    "seed=3",
)
RUN = (*PLAIN, "figures=true")
PASSWORD = "pass-word-of-anna"
NOWHERE = f"http://anna:{PASSWORD}@127.0.0.1:9"  # the discard port: refuses at once
HEAVY = ("tensorflow", "keras", "mlflow", "matplotlib", "sklearn", "pandas")
FIGURES = {
    "loss.png", "accuracy.png", "learning_rate.png", "confusion_matrix.png", "misclassified.png", "class_accuracy.png",
    "sample_predictions.png",
}  # fmt: skip


def only_record(home: Path) -> Record:
    """The record of the only run in a home, where the command could not say it."""
    (directory,) = lookup.run_directories(home)
    return records.load(directory)


def wait_until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# What the commands do. `endings` in conftest.py has how they ended.


def run_whole(home: Path) -> Ended:
    """A process like a user's, which imports all by itself; the others, which do not, must come to the same bits."""
    with started(home, *RUN, fork=False) as command:
        return command.finish()


def run_without_store(home: Path) -> Ended:
    with started(home, *RUN, MLFLOW_TRACKING_URI=NOWHERE, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0") as command:
        return command.finish()


def terminate_in_training(home: Path) -> Ended:
    with started(home, *PLAIN) as command:
        command.wait_for("epoch  1/")
        command.process.send_signal(signal.SIGTERM)
        return command.finish()


def kill_in_training(home: Path) -> Ended:
    with started(home, *PLAIN, "tracking=none") as command:
        command.wait_for("epoch  2/")
        command.process.kill()
        return command.finish()


def kill_and_resume(home: Path) -> Ended:
    kill_in_training(home)
    with started(home, f"resume={only_record(home).name}") as command:
        return command.finish()


def interrupt_twice(home: Path) -> Ended:
    """In an epoch that would last for minutes."""
    with started(
        home, "dataset=digits", "training.threads=1", "model.filters=[512,512]", "model.kernel_size=5"
    ) as command:
        command.wait_for("20")
        wait_until(lambda: only_record(home).mlflow.run_id)  # the mirror's thread is still making the store
        command.process.send_signal(signal.SIGINT)
        command.wait_for("stopping at the end of this epoch")
        command.process.send_signal(signal.SIGINT)
        return command.finish()


def interrupt_after_training(home: Path) -> Ended:
    """On a terminal, where the bar is."""
    screen, its_end = pty.openpty()
    slowly = (
        "import time; from experiments.results import drawing as d; from experiments.run import main\n"
        "save = d._save; d._save = lambda *a: (time.sleep(0.5), save(*a)); main()"
    )
    process = commands.start(
        ["-c", slowly, *SMALL, "figures=true", "model=linear", "training.epochs=2"],
        env=environment(home, TERM="xterm", COLUMNS="150"), stdin=its_end, stdout=its_end, stderr=its_end,
    )  # fmt: skip
    os.close(its_end)
    with os.fdopen(screen, "rb", buffering=0) as terminal:
        seen, interrupted = b"", False
        while process.poll() is None or select.select([terminal], [], [], 0)[0]:
            if select.select([terminal], [], [], 0.05)[0]:
                try:
                    seen += terminal.read(65536)
                except OSError:  # the other end is closed
                    break
            if not interrupted and list(home.glob("outputs/*/figures/*.png")):
                process.send_signal(signal.SIGINT)
                interrupted = True
    return Ended(process.wait(60), seen.decode(), "", home)


def interrupt_at_the_start(home: Path) -> Ended:
    """While it imports."""
    with started(home, *RUN, fork=False) as command:
        time.sleep(1.5)
        command.process.send_signal(signal.SIGINT)
        return command.finish()


def diverge(home: Path) -> Ended:
    with started(home, *PLAIN, "optimizer=sgd", "optimizer.learning_rate=1e38") as command:
        return command.finish()


SCENARIOS = (
    run_whole, run_without_store, kill_and_resume, terminate_in_training, interrupt_twice, interrupt_after_training,
    interrupt_at_the_start, diverge,
)  # fmt: skip


@pytest.fixture
def ending(endings: dict[str, Ending[Ended]], request: pytest.FixtureRequest) -> Ended:
    return endings[request.param.__name__].result()


def after(scenario: Any) -> pytest.MarkDecorator:
    """The test is about what `scenario` left."""
    return pytest.mark.parametrize("ending", [scenario], indirect=True, ids=[scenario.__name__])


def mlflow_run(ended: Ended, record: Record) -> tuple[str, int]:
    """Status in the store of the home, and how many runs there are."""
    with closing(sqlite3.connect(ended.home / "mlflow.db")) as store:
        (status,) = store.execute("SELECT status FROM runs WHERE run_uuid = ?", (record.mlflow.run_id,)).fetchone()
        (count,) = store.execute("SELECT count(*) FROM runs").fetchone()
    return status, count


# A run that finishes.


@after(run_whole)
def test_finished_run_says_its_directory_last(ending: Ended) -> None:
    assert ending.code == 0
    assert ending.err == ""
    directory = Path(ending.out.splitlines()[-1])
    assert directory.parent == ending.home / "outputs"
    assert re.fullmatch(r"\d{8}-\d{6}-mlp-adam-[0-9a-f]{4}", directory.name)
    lines = ending.out.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == ending.record.epochs_run
    assert any(line.startswith("test accuracy ") for line in lines)
    assert any(line.startswith("next: python -m experiments") for line in lines)


@after(run_whole)
def test_screen_is_free_of_tensorflows_lines_and_the_log_has_them(ending: Ended) -> None:
    noise = ("oneDNN", "cuda", "port.cc", "WARNING", "retracing", "alembic", "0000 00:")
    assert not [line for line in (ending.out + ending.err).splitlines() if any(word in line for word in noise)]
    log = (ending.record.directory / "run.log").read_text()
    assert "oneDNN" in log
    assert f"epoch {EPOCHS}/{EPOCHS}" in log or f"epoch {ending.record.epochs_run}/{EPOCHS}" in log


@after(run_whole)
def test_directory_holds_everything_but_the_checkpoint(ending: Ended) -> None:
    directory = ending.record.directory
    assert {path.name for path in directory.iterdir()} == {
        "config.yaml", ".hydra", "record.json", "history.csv", "environment.json", "code.diff", "predictions.npz",
        "model.keras", "figures", "run.log",
    }  # fmt: skip
    assert {path.name for path in (directory / "figures").iterdir()} == FIGURES
    assert {path.name for path in (directory / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert {path.name for path in ending.home.iterdir()} == {"outputs", "mlflow.db", "mlartifacts", "looks.jsonl"}
    assert {path.name for path in ending.home.parent.iterdir()} == {"home"}  # the current directory


@after(run_whole)
def test_record_agrees_with_the_files(ending: Ended) -> None:
    record = ending.record
    config = load_config(record.directory / "config.yaml")
    assert record.run_key == run_key(config, record.dataset.digest)
    assert record.config_key == config_key(config, record.dataset.digest)
    assert (record.state, record.seed, record.error) == ("finished", 3, None)
    assert config.training.threads == 1
    rows = record.rows
    assert [row.epoch for row in rows] == list(range(1, record.epochs_run + 1))
    assert record.overfitting
    assert record.overfitting.best_epoch == 1 + int(np.argmin([row.validation_cross_entropy for row in rows]))

    data = config.dataset.load()
    predictions = record.predictions
    np.testing.assert_array_equal(predictions.test_labels, data.test.labels)
    np.testing.assert_array_equal(predictions.test_image_digests, image_digests(data.test.images))
    assert record.predictions_digest == predictions_digest(predictions.test_probabilities)
    test = evaluate(predictions.test_probabilities, predictions.test_labels).metrics("test")
    assert record.metrics.items() >= test.items()
    assert record.metrics.keys() >= {
        "test/accuracy", "test/accuracy_low", "test/accuracy_high", "test/cross_entropy", "test/calibration_error",
        "validation/accuracy", "validation/cross_entropy", "train/accuracy", "train/cross_entropy",
        "generalisation_gap",
    }  # fmt: skip
    assert record.timings.keys() >= {"train", "evaluate", "figures", "mirror"}
    assert record.seconds >= record.timings["train"] > 0


@after(run_whole)
def test_environment_tells_code_packages_and_machine(ending: Ended) -> None:
    facts = json.loads((ending.record.directory / "environment.json").read_text())
    assert facts["code"]["digest"] == ending.record.code_digest
    assert facts["threads"] == 1
    assert facts["dataset_digest"] == ending.record.dataset.digest
    overrides = (ending.record.directory / ".hydra" / "overrides.yaml").read_text()
    assert overrides.splitlines() == [f"- {override}" for override in RUN]


@after(run_whole)
def test_store_mirrors_the_run(ending: Ended) -> None:
    record = ending.record
    assert record.mlflow.synced
    assert mlflow_run(ending, record) == ("FINISHED", 1)
    with closing(sqlite3.connect(ending.home / "mlflow.db")) as store:
        logged = store.execute(
            "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = 'validation/accuracy' ORDER BY step",
            (record.mlflow.run_id,),
        ).fetchall()
    assert logged == [(row.epoch, float(f"{row.validation_accuracy:.6g}")) for row in record.rows]


@after(run_whole)
def test_logged_model_answers_raw_pixels(ending: Ended, tensorflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    record = ending.record
    mlflow.set_tracking_uri(f"sqlite:///{ending.home / 'mlflow.db'}")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    client = mlflow.MlflowClient()
    (output,) = client.get_run(record.mlflow.run_id).outputs.model_outputs
    model = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    images = load_config(record.directory / "config.yaml").dataset.load().test.images
    assert images.dtype == np.uint8
    np.testing.assert_allclose(model.predict(images), record.predictions.test_probabilities, atol=1e-6)


@after(run_whole)
def test_logged_model_is_served_over_http(ending: Ended, tensorflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By MLflow's own server, in this process."""
    import uvicorn
    from mlflow.pyfunc import load_model, scoring_server

    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # it sets it, and leaves it
    app = scoring_server.init(load_model(folder_of_model(ending.home)))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        request, expected = a_request(ending.record, server.servers[0].sockets[0].getsockname()[1])
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.loads(response.read())
    finally:
        server.should_exit = True
        thread.join()
    np.testing.assert_allclose(answer["predictions"], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.exhaustive
@after(run_whole)
def test_logged_model_is_served_by_mlflows_command(ending: Ended) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = ending.home / "served.log"
    with told.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "models", "serve", "-m", folder_of_model(ending.home),
             "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port), "--workers", "1"],
            env=environment(ending.home, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"),
            cwd=ending.home, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        request, expected = a_request(ending.record, port)
        answer = ask(request, server, told)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    np.testing.assert_allclose(answer["predictions"], expected, atol=1e-6)


def folder_of_model(home: Path) -> str:
    with closing(sqlite3.connect(home / "mlflow.db")) as store:
        (folder,) = store.execute("SELECT artifact_location FROM logged_models").fetchone()
    return str(folder)


def a_request(record: Record, port: int) -> tuple[urllib.request.Request, Any]:
    """Five test images, and the probabilities that a server must answer with."""
    images = load_config(record.directory / "config.yaml").dataset.load().test.images[:5]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps({"inputs": images.tolist()}).encode(),
        {"Content-Type": "application/json"},
    )
    return request, record.predictions.test_probabilities[:5]


def ask(request: urllib.request.Request, server: subprocess.Popen[bytes], told: Path) -> Any:
    """The answer of a server that may still be starting."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.loads(response.read())
        except ConnectionError:
            time.sleep(0.5)
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
            time.sleep(0.5)
    pytest.fail(f"the server did not answer; exit code {server.poll()}:\n{told.read_text()[-3000:]}")


@after(run_without_store)
def test_same_command_gives_the_same_bits_even_without_a_store(
    ending: Ended, endings: dict[str, Ending[Ended]]
) -> None:
    first, second = endings["run_whole"].result().record, ending.record
    assert first.directory != second.directory
    assert first.weights_digest == second.weights_digest
    assert first.predictions_digest == second.predictions_digest
    assert first.metrics == second.metrics
    assert [row.weights_digest for row in first.rows] == [row.weights_digest for row in second.rows]
    assert (first.run_key, first.config_key) == (second.run_key, second.config_key)


@after(run_without_store)
def test_store_that_is_down_fails_no_run(ending: Ended) -> None:
    assert ending.code == 0
    record = ending.record
    assert record.state == "finished"
    assert not record.mlflow.synced
    assert "127.0.0.1" in (record.mlflow.error or "")
    assert f"python -m experiments.sync {record.name}" in ending.out
    assert not (ending.home / "mlflow.db").exists()


@after(run_without_store)
def test_password_of_the_store_stands_nowhere(ending: Ended) -> None:
    assert PASSWORD not in ending.out + ending.err
    written = [path for path in ending.home.rglob("*") if path.is_file()]
    assert [path for path in written if PASSWORD.encode() in path.read_bytes()] == []
    assert "://***@127.0.0.1" in (ending.record.directory / "record.json").read_text()


# Runs that are stopped.


@after(terminate_in_training)
def test_terminated_run_ends_after_its_epoch_and_can_go_on(ending: Ended) -> None:
    assert ending.code == 130
    record = ending.record
    assert record.state == "interrupted"
    assert 1 <= record.epochs_run < EPOCHS
    assert len(record.rows) == record.epochs_run
    assert record.error is None
    assert mlflow_run(ending, record) == ("KILLED", 1)
    assert (record.directory / "checkpoint").is_dir()
    assert "stopping at the end of this epoch" in ending.out
    assert "python -m experiments.run resume=" in ending.out
    assert "Traceback" not in ending.out + ending.err


@after(kill_and_resume)
def test_killed_and_resumed_run_ends_in_the_same_bits(ending: Ended, endings: dict[str, Ending[Ended]]) -> None:
    whole, resumed = endings["run_whole"].result().record, ending.record
    assert ending.code == 0
    assert re.search(r"^resumed after epoch [12]?\d$", ending.out, re.MULTILINE)
    assert resumed.directory == only_record(ending.home).directory
    assert [row.weights_digest for row in resumed.rows] == [row.weights_digest for row in whole.rows]
    assert resumed.weights_digest == whole.weights_digest
    assert resumed.predictions_digest == whole.predictions_digest
    assert resumed.metrics == whole.metrics
    assert not (resumed.directory / "checkpoint").exists()


def test_killed_run_reads_as_interrupted(endings: dict[str, Ending[Ended]], tmp_path: Path) -> None:
    """The record as a killed run leaves it, which is the resumed one's with its process gone."""
    record = endings["kill_and_resume"].result().record
    shutil.copytree(record.directory, tmp_path / "copy")
    path = tmp_path / "copy" / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "running"}))
    assert records.load(tmp_path / "copy").state == "interrupted"


@after(interrupt_twice)
def test_second_interrupt_ends_the_run_at_once(ending: Ended) -> None:
    assert ending.code == 130
    record = only_record(ending.home)
    assert json.loads((record.directory / "record.json").read_text())["state"] == "interrupted"
    assert record.epochs_run == 0
    assert mlflow_run(ending, record) == ("KILLED", 1)


@after(interrupt_after_training)
def test_interrupt_while_figures_are_drawn_ends_only_the_drawing(ending: Ended) -> None:
    record = only_record(ending.home)
    assert (ending.code, record.state, record.epochs_run) == (0, "finished", 2)
    assert mlflow_run(ending, record) == ("FINISHED", 1)
    assert not (record.directory / "checkpoint").exists()
    assert 0 < len(list((record.directory / "figures").iterdir())) < len(FIGURES)
    assert "(KeyboardInterrupt); the run itself is whole" in ending.out


def test_interrupt_after_the_last_epoch_is_recorded(
    home: Path, tensorflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments import runner

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_evaluate", interrupt)
    record = runner.run_experiment(
        compose(*SMALL, "figures=true", "model=linear", "training.epochs=2", "tracking=none")
    )
    assert (record.state, record.epochs_run) == ("interrupted", 2)
    assert (record.directory / "checkpoint").is_dir()
    assert not (record.directory / "figures").exists()


@after(interrupt_after_training)
def test_terminal_shows_a_bar_below_whole_lines(ending: Ended) -> None:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ending.out)
    lines = re.split(r"[\r\n]+", plain)
    assert any(re.search(r"━.*% ", line) for line in lines)
    assert sum(line.startswith("epoch ") for line in lines) == 2


@after(interrupt_at_the_start)
def test_interrupt_before_training_leaves_nothing(ending: Ended) -> None:
    assert ending.code in (130, -signal.SIGINT)
    assert list(ending.home.iterdir()) == []


@after(diverge)
def test_diverged_run_names_its_epoch(ending: Ended) -> None:
    assert ending.code == 1
    record = ending.record
    assert record.state == "diverged"
    assert record.error
    assert record.error.type == "DivergedError"
    assert record.error.message.startswith("the loss of epoch 1 is not finite")
    assert record.epochs_run == len(record.rows) == 1
    assert mlflow_run(ending, record) == ("FAILED", 1)
    assert "diverged: DivergedError: the loss of epoch 1" in ending.out
    assert "Traceback" not in ending.out + ending.err


# Bad input.


def refused(home: Path, *arguments: str, **variables: str) -> str:
    """The answer to a command with mistakes, which must be quick, leave nothing, and exit with 2."""
    ended, modules = inspected(home, *arguments, **variables)
    assert ended.code == 2
    assert ended.out == ""
    assert modules == []
    assert not home.is_dir() or list(home.iterdir()) == []
    return ended.err


def inspected(home: Path, *arguments: str, **variables: str) -> tuple[Ended, list[str]]:
    """A command, and which of the heavy libraries it imported."""
    script = (
        "import atexit, json, os, sys\n"
        f"atexit.register(lambda: os.write(3, json.dumps([m for m in {HEAVY!r} if m in sys.modules]).encode()))\n"
        "import runpy; runpy.run_module('experiments.run', run_name='__main__', alter_sys=True)"
    )
    reader, writer = os.pipe()
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" 3>&{writer}', "-", sys.executable, "-c", script, *arguments],
        env=environment(home, **variables), cwd="/", pass_fds=[writer], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader) as file:
        modules = json.loads(file.read())
    return Ended(done.returncode, done.stdout, done.stderr, home), modules


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["optimizer=adma"], "optimizer=adma: no such option; did you mean adam?"),
        (["optimizer=null"], "Config group override must be a string or a list. Got NoneType\n"),
        (["optimizer=sgd,adam"], "optimizer=sgd,adam: is a sweep, which needs -m; a list is written in brackets"),
        (["--epochs=3"], "--epochs=3: no such flag; values have no dashes, as training.epochs=3"),
        ([*SMALL, "training.batch_size=65"], "training.batch_size: must be ≤ 64, the training images of digits"),
        (["resume=" + "x" * 5000], "x" * 100),
        (["+optimizer.lr=1"], "optimizer.lr: no such key; did you mean optimizer.learning_rate?\n"),
        (["training.epochs=1:30"], "training.epochs: must be a valid integer, received '1:30' (str)\n"),
        (["dataset=files", "dataset.path=/no/such.npz"], "dataset.path: no such file or folder"),
        (["resume=nothing"], "nothing: no such run or sweep; looked for"),
        (["resume=nothing", "seed=1"], "resume=RUN: stands alone, or with take_over=true;"),
        (["resume=nothing", "take_over=yes"], "resume=RUN: stands alone, or with take_over=true;"),
        (["resume=nothing", "take_over=true"], "nothing: no such run or sweep; looked for"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistake_exits_with_2_and_leaves_nothing(arguments: list[str], answer: str, home: Path) -> None:
    err = refused(home, *arguments)
    assert err.startswith(answer)
    assert err.count("\n") == 1


def test_wrong_time_of_a_lease_exits_with_2_and_leaves_nothing(home: Path) -> None:
    err = refused(home, EXPERIMENTS_LEASE_SECONDS="soon")
    assert err == "EXPERIMENTS_LEASE_SECONDS: must be a number of seconds from 1 to 3600, received 'soon'\n"


def test_every_mistake_has_its_line(home: Path) -> None:
    err = refused(home, "training.epochs=0", "regularization.dropout=1.5", "seed=x")
    assert err.splitlines() == [
        "regularization.dropout: must be less than 1, received 1.5",
        "training.epochs: must be greater than or equal to 1, received 0",
        "seed: must be a valid integer, received 'x' (str)",
    ]


def test_home_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    err = refused(tmp_path / "file" / "home", *SMALL)
    assert "cannot be written" in err
    assert err.count("\n") == 1


def test_home_that_is_read_only_is_refused(tmp_path: Path) -> None:
    """`/proc` is so even for root."""
    ended, modules = inspected(Path("/proc/1/home"), *SMALL)
    assert (ended.code, modules) == (2, [])
    assert "cannot be written" in ended.err
    assert ended.err.count("\n") == 1


def test_full_disk_is_refused(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    from experiments import runner

    full = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(InputError, match="has 1 MB free; a run needs 50 MB"):
        runner.check_room(home / "outputs")


def test_finished_run_is_judged_over_its_views(home: Path, tensorflow: Any) -> None:
    from experiments.results.saved_model import open_model
    from experiments.runner import run_experiment

    network = ("model=mlp", "model.units=[16]", "training.epochs=1", "tracking=none")
    record = run_experiment(
        compose(*SMALL, *network, "regularization=augmentation", "regularization.augmentation.test_views=5")
    )
    config, predictions = load_config(record.directory / "config.yaml"), record.predictions
    assert config.regularization.augmentation.test_views == 5
    right = predictions.test_probabilities.argmax(axis=1) == predictions.test_labels
    assert record.metrics["test/accuracy"] == right.mean()
    alone = open_model(record.directory / "model.keras").predict(config.dataset.load().test.images, verbose=0)
    assert record.metrics["test/accuracy_one_view"] == (alone.argmax(axis=1) == predictions.test_labels).mean()
    assert record.metrics["validation/accuracy_one_view"] == pytest.approx(record.rows[-1].validation_accuracy)
    gap = record.metrics["train/accuracy"] - record.metrics["validation/accuracy_one_view"]
    assert record.metrics["generalisation_gap"] == pytest.approx(gap)
    assert np.abs(alone - predictions.test_probabilities).max() > 0.01


def test_second_run_in_the_process_of_a_run_is_refused(home: Path, tensorflow: Any) -> None:
    from experiments.runner import run_experiment

    config = compose(*SMALL, "model=linear", "training.epochs=1", "tracking=none")
    refusals: list[str] = []

    def another(_: Any) -> None:
        with pytest.raises(InputError) as caught:
            run_experiment(config)
        refusals.append(str(caught.value))

    record = run_experiment(config, on_epoch=another)
    assert refusals
    assert "a run is going on in this process already" in refusals[0]
    assert [record.directory] == list(lookup.run_directories(home))
    assert record.state == "finished"


def test_diverged_run_is_not_gone_on_with(home: Path) -> None:
    record = write_record(home / "outputs" / "mine", state="diverged")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", "resume=mine"],
        env=environment(home), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mine: has diverged, and would again; choose other values")
    assert records.load(record.directory).state == "diverged"


def test_more_threads_than_cores_are_told(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    from experiments.runner import resolve

    assert resolve(compose(*SMALL, "training.threads=999")).training.threads == 999
    (line,) = [message for message in caplog.messages if message.startswith("training.threads")]
    assert line.startswith("training.threads: 999 on ")


def test_mistake_that_is_found_after_the_start_leaves_nothing(home: Path, tensorflow: Any) -> None:
    from experiments.runner import run_experiment

    for mistake in ("model.filters=[8,8,8,8]", "training.batch_size=65"):
        with pytest.raises(InputError):
            run_experiment(compose(*SMALL, mistake))
        assert list(home.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["--cfg", "job", "--resolve", "optimizer=sgd"]])
def test_questions_about_the_config_are_answered_without_tensorflow(arguments: list[str], home: Path) -> None:
    ended, modules = inspected(home, *arguments)
    assert ended.code == 0
    assert modules == []
    assert "learning_rate: " in ended.out
    assert list(home.iterdir()) == []
