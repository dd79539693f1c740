"""Sweeps that are mirrored on an MLflow server with PostgreSQL, which is killed in their middle and started again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

import commands
from conftest import SMALL, Ended, environment, started
from ray_nodes import free_port, kill_family
from test_sweep import BASE, EPOCHS, jobs_of, sweep_of, wait_for_epoch, wait_until

SCRIPT = Path(__file__).parents[1] / "scripts" / "mlflow_server.sh"
HAS_SERVER = shutil.which("initdb") or any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
HAS_PACKAGES = all(map(importlib.util.find_spec, ("psycopg2", "flask_wtf")))
WHY = "POSTGRESQL OR ITS DRIVER IS NOT INSTALLED: no MLflow server was tried; make install EXTRAS=server"
pytestmark = pytest.mark.skipif(not (HAS_SERVER and HAS_PACKAGES), reason=WHY)
MIRRORED = ("tracking.log_model=false", "optimizer=sgd,adam")
EIGHT = "import experiments.sweeps.executors.cores as cores; cores.available_cores = lambda: 8"


class Server:
    """What `scripts/mlflow_server.sh` starts, over and over in the same folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return (self._folder / "uri").read_text().strip()

    @property
    def secrets(self) -> list[str]:
        return [urlsplit(self.uri).password or "", (self._folder / "database_password").read_text()]

    def start(self) -> None:
        command = [str(SCRIPT), str(self._folder), str(self._port)]
        variables = os.environ | {"PYTHON": sys.executable}
        self._process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL)
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5):
            return True
        return False

    def kill(self) -> None:
        """MLflow's processes at once, whatever they are doing; its database then ends too."""
        assert self._process
        for child in psutil.Process(self._process.pid).children():
            if "mlflow" in " ".join(child.cmdline()):
                kill_family(child.pid)
        self._process.wait(60)

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)


@pytest.fixture
def server() -> Iterator[Server]:
    """In a folder of its own, which the database's user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="experiments-server-"))
    made = Server(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


def checkpointed(home: Path) -> set[Path]:
    """The jobs that are on their way."""
    return {path.parent.parent for path in home.glob("multirun/*/*/checkpoint/*.json")}


def sync(home: Path, server: Server) -> Ended:
    variables = environment(home, MLFLOW_TRACKING_URI=server.uri)
    ended = commands.run(["-m", "experiments.sync"], env=variables, timeout=150)
    return Ended(ended.returncode, ended.stdout, ended.stderr, home)


def assert_everything_is_there_once(sweep: Path, server: Server) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=server.uri)
    jobs = jobs_of(sweep)
    experiment = client.get_experiment_by_name("experiments")
    found = client.search_runs([experiment.experiment_id], f"tags.sweep = '{sweep.name}'")
    assert sorted(run.info.run_id for run in found) == sorted(job.mlflow.run_id or "" for job in jobs)
    for job in jobs:
        assert (job.state, job.mlflow.synced) == ("finished", True)
        run = client.get_run(job.mlflow.run_id)
        assert run.info.status == "FINISHED"
        for name in ("train/loss", "validation/cross_entropy", "learning_rate"):
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
            assert sorted(steps)[:EPOCHS] == list(range(1, EPOCHS + 1))
            assert len(steps) <= EPOCHS + 1  # the last is of the finished model
        assert len(client.get_metric_history(run.info.run_id, "test/accuracy")) == 1
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert files >= {"config.yaml", "record.json", "history.csv", "predictions.npz", "run.log", "hydra"}


def assert_no_secret_is_told(home: Path, server: Server, *ends: Ended) -> None:
    told = [text for ended in ends for text in (ended.out, ended.err)]
    told += [path.read_text(errors="replace") for path in home.rglob("*") if path.is_file()]
    assert [secret for secret in server.secrets for text in told if secret in text] == []


@pytest.mark.cluster
def test_server_that_is_killed_in_the_middle_of_a_sweep_loses_and_doubles_nothing(home: Path, server: Server) -> None:
    with started(
        home, *BASE, *MIRRORED, f"training.epochs={EPOCHS}", "seed=0,1", MLFLOW_TRACKING_URI=server.uri
    ) as command:
        wait_for_epoch(home, 1)
        server.kill()
        server.start()
        ended = command.finish()
    assert ended.code == 0, ended
    again = sync(home, server)
    assert again.code == 0, again
    assert_everything_is_there_once(sweep_of(ended), server)
    assert_no_secret_is_told(home, server, ended, again)


@pytest.mark.exhaustive
def test_server_that_is_killed_twice_under_eight_workers_loses_and_doubles_nothing(home: Path, server: Server) -> None:
    code = f"{EIGHT}\nfrom experiments.run import main; main()"
    sweep = ["-m", *SMALL, "model=linear", "sweep.workers=8", *MIRRORED, f"training.epochs={EPOCHS}", "seed=range(16)"]
    variables = environment(home, MLFLOW_TRACKING_URI=server.uri)
    with commands.start(["-c", code, *sweep], env=variables, stdout=subprocess.PIPE) as process:
        for _ in range(2):
            before = checkpointed(home)
            # Other jobs have begun, and were told to the server that is there now.
            wait_until(lambda before=before: checkpointed(home) - before or process.poll() is not None)
            assert process.poll() is None, "the sweep goes on"
            server.kill()
            # What runs goes on without a server, and nothing else begins: a start may take longer than all jobs.
            process.send_signal(signal.SIGSTOP)
            server.start()
            process.send_signal(signal.SIGCONT)
        assert process.stdout
        ended = Ended(process.wait(), process.stdout.read(), "", home)
    assert ended.code == 0, ended
    again = sync(home, server)
    assert again.code == 0, again
    assert_everything_is_there_once(sweep_of(ended), server)
