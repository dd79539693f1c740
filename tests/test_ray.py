"""Sweeps by Ray: what is refused, what its tasks' ends mean, and whole sweeps on a cluster of two nodes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import ray_nodes
from conftest import SMALL, Ended, epoch_row, started, write_record
from experiments.config import RunConfig, from_hydra
from experiments.errors import InputError
from experiments.hydra_loader import compose as compose_hydra
from experiments.ingredients.execution import RaySweep
from experiments.recording import Origin
from experiments.results import files
from experiments.sweeps import executor
from experiments.sweeps.executor import Ending, EpochDone, Run
from experiments.sweeps.executors import ray_cluster, ray_task
from experiments.sweeps.executors.ray_cluster import RayExecutor
from experiments.sweeps.executors.ray_connection import address_of
from experiments.sweeps.executors.ray_job import TRIES, Job
from experiments.sweeps.executors.ray_resources import as_options, needs_of, require_room, room
from experiments.sweeps.worker import read_run
from test_sweep import (
    EPOCHS,
    assert_nothing_runs,
    digests,
    jobs_of,
    left_behind,
    pid_of,
    sweep_of,
    wait_for_epoch,
    wait_until,
)  # fmt: skip

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(
    not HAS_RAY, reason="RAY IS NOT INSTALLED: no sweep was tried on a cluster; make install EXTRAS=ray"
)
NODE = {"CPU": 4.0, "memory": 8e9, "node:10.0.0.1": 1.0}


def options(*overrides: str) -> RaySweep:
    sweep = from_hydra(compose_hydra(["sweep=ray", *overrides])).sweep
    assert isinstance(sweep, RaySweep)
    return sweep


# What a cluster must have.


@pytest.mark.parametrize(
    ("needs", "jobs"),
    [({"CPU": 1}, 5), ({"CPU": 3}, 1), ({"CPU": 1, "memory": 3e9}, 2), ({"CPU": 1, "GPU": 0.5}, 1), ({"CPU": 8}, 0)],
)
def test_room_counts_jobs_node_by_node(needs: dict[str, float], jobs: int) -> None:
    assert room(needs, [NODE, {"CPU": 1.0, "GPU": 1.0}]) == jobs


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({"CPU": 5}, "sweep.cpus: must be ≤ 4, what one node has at most, received 5"),
        ({"CPU": 1, "GPU": 1}, "sweep.gpus: must be ≤ 0, what one node has at most, received 1"),
        ({"CPU": 1, "memory": 9e9}, "sweep.memory: must be ≤ 8, what one node has at most, received 9"),
        ({"CPU": 1, "disk": 2}, "sweep.resources.disk: must be ≤ 1, what one node has at most, received 2"),
        ({"CPU": 4, "disk": 1}, "sweep: no node of the cluster has all of 4 CPU, 1 disk"),
    ],
)
def test_job_that_no_node_can_begin_is_refused(needs: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        require_room(needs, [NODE, {"CPU": 1.0, "disk": 1.0}])


def test_task_asks_for_its_threads_and_for_what_the_user_names() -> None:
    given = options("sweep.cpus=2", "sweep.gpus=0.5", "sweep.memory=1.5", "sweep.resources={disk: 1}")
    assert as_options(needs_of(given, 4)) == {
        "num_cpus": 4,
        "num_gpus": 0.5,
        "memory": 1.5e9,
        "resources": {"disk": 1.0},
    }
    assert as_options({"CPU": 1}) == {"num_cpus": 1, "resources": {}}
    with pytest.raises(InputError, match=r"sweep.resources: must not have GPU: sweep.cpus, sweep.gpus"):
        options("sweep.resources={GPU: 1}")


def test_address_is_the_option_the_variable_or_a_ray_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert address_of(None) == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert address_of(None) == "10.0.0.1:6379"
    assert address_of("auto") == "auto"


def test_sweep_without_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"sweep=ray needs Ray, which is not installed: pip install 'experiments\[ray\]'"
    ):
        RayExecutor(options(), threads=1, home=Path("/home")).open()


# What the end of a task means.


@pytest.fixture
def run(tmp_path: Path, small: Callable[..., RunConfig]) -> Run:
    return Run(small(), tmp_path / "3", Origin(job=3), tmp_path / "lock", "c" * 64)


def ended(
    run: Run, outcome: dict[str, Any], *, printed: str = "", stops: int = 0, **record: Any
) -> executor.Ended | None:
    output = run.directory.with_name("output")
    output.write_text(printed)
    job = Job(run, output)
    job.begin(1)
    job.stops = stops
    if record:
        write_record(run.directory, **record)
    assert list(job.news()) == []
    job.end(outcome)
    return job.ending()


@pytest.mark.parametrize(
    ("outcome", "printed", "stops", "end"),
    [
        ({"code": 0}, "loaded\nfinished \n", 0, (Ending.FINISHED, "")),
        ({"code": 0}, "paused ", 0, (Ending.PAUSED, "")),
        ({"code": 1}, "diverged DivergedError: nan\n", 0, (Ending.DIVERGED, "DivergedError: nan")),
        (
            {"code": 1},
            "run.json: is not the description\n",
            0,
            (Ending.FAILED, "InputError: run.json: is not the description"),
        ),
        ({"code": 75}, "busy \n", 0, (Ending.BUSY, "")),
        ({"code": 75}, "interrupted \n", 1, (Ending.INTERRUPTED, "")),
        ({"code": 79}, "another process has taken over; this one ends\n", 0, (Ending.BUSY, "")),
        ({"code": -signal.SIGTERM}, "", 1, (Ending.INTERRUPTED, "")),
        ({"cancelled": True}, "", 1, (Ending.INTERRUPTED, "")),
        ({"lost": "NodeDiedError: gone"}, "", 1, (Ending.INTERRUPTED, "")),
        ({"failed": "FileNotFoundError: /home"}, "", 0, (Ending.FAILED, "FileNotFoundError: /home")),
        ({"lost": "NodeDiedError: gone"}, "", 0, None),
        ({"code": -signal.SIGKILL}, "epoch 1\n", 0, None),
    ],
)
def test_end_of_a_task_is_the_end_of_its_run_or_begun_again(
    run: Run, outcome: dict[str, Any], printed: str, stops: int, end: tuple[str, str] | None
) -> None:
    assert ended(run, outcome, printed=printed, stops=stops) == (executor.Ended(*end) if end else None)


def test_run_whose_record_tells_an_end_is_not_begun_again(run: Run) -> None:
    assert ended(run, {"lost": "NodeDiedError"}, state="finished") == executor.Ended(Ending.FINISHED)


def test_job_is_given_up_when_it_is_lost_again_and_again_without_an_epoch(run: Run) -> None:
    job = Job(run, run.directory.with_name("output"))
    record = None
    for number in range(2 * TRIES - 1):
        job.begin(number)
        if number == TRIES - 1:  # before the last try it gets one epoch further
            record = write_record(run.directory, state="running")
            files.write_history(run.directory / files.HISTORY, [epoch_row(1)])
            assert [event for event in job.news() if isinstance(event, EpochDone)] == [EpochDone(epoch_row(1))]
        job.end({"lost": "WorkerCrashedError: killed"})
        end = job.ending()
        assert (end is None) == (number < 2 * TRIES - 2)
    assert record
    assert end == executor.Ended(Ending.KILLED, "Killed: WorkerCrashedError: killed")


class FakeConnection:
    """A connection whose messages the test gives."""

    made: list[FakeConnection]

    def __init__(self, address: str) -> None:
        self.is_lost, self.orders, self.messages = False, [], [{"nodes": [NODE]}]
        self.made.append(self)

    def send(self, **order: Any) -> None:
        self.orders.append(order)

    def receive(self, timeout_seconds: float) -> list[dict[str, Any]]:
        found, self.messages = self.messages, []
        return found

    def explain(self) -> str:
        return "the head is dead"

    def close(self) -> None: ...


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[FakeConnection]:
    monkeypatch.setattr(FakeConnection, "made", [], raising=False)
    monkeypatch.setattr(ray_cluster, "Connection", FakeConnection)
    monkeypatch.setattr(ray_cluster, "require_ray", lambda: None)
    monkeypatch.setattr(ray_cluster, "AGAIN_SECONDS", 0.0)
    return FakeConnection.made


@pytest.fixture
def opened(connections: list[FakeConnection], tmp_path: Path) -> RayExecutor:
    made = RayExecutor(options(), threads=1, home=tmp_path)
    made.open()
    return made


def test_run_is_submitted_as_a_file_with_the_planners_variables(
    opened: RayExecutor, connections: list[FakeConnection], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    monkeypatch.setenv("HOSTNAME", "planner")
    job = opened.submit(run, run.directory.with_name("output"))
    (order,) = connections[0].orders
    task = order["task"]
    assert read_run(Path(task["arguments"][-1])) == run
    assert task["variables"]["MLFLOW_TRACKING_URI"] == "http://server"
    assert task["variables"]["EXPERIMENTS_HOME"] == str(opened._home)
    assert "HOSTNAME" not in task["variables"]
    assert order["needs"] == {"num_cpus": 1, "resources": {}}
    assert json.loads(json.dumps(order)) == order
    assert opened.slots == 4
    opened.stop(job, now=False)
    opened.stop(job, now=True)
    opened.kill(job)
    assert connections[0].orders[1:] == [{"stop": 1}, {"stop": 1}, {"kill": 1}]


def test_lost_task_is_submitted_again_and_told_once(
    opened: RayExecutor, connections: list[FakeConnection], run: Run
) -> None:
    job = opened.submit(run, run.directory.with_name("output"))
    connections[0].messages = [{"ended": 1, "lost": "NodeDiedError"}]
    assert list(opened.events(0)) == []
    connections[0].messages = [{"ended": 2, "code": 75}, {"nodes": [NODE, NODE]}]
    (run.directory.with_name("output")).write_text("busy \n")
    assert list(opened.events(0)) == [(job, executor.Ended(Ending.BUSY))]
    assert [order["submit"] for order in connections[0].orders] == [1, 2]
    assert opened.slots == 8
    assert list(opened.events(0)) == []
    assert not job.description.exists()


def test_jobs_go_on_when_a_cluster_that_was_lost_is_back(
    opened: RayExecutor, connections: list[FakeConnection], run: Run
) -> None:
    job = opened.submit(run, run.directory.with_name("output"))
    connections[0].is_lost = True
    assert list(opened.events(0)) == []
    later = opened.submit(run, run.directory.with_name("output-4"))
    assert list(opened.events(0)) == []  # connects again
    assert list(opened.events(0)) == []  # is connected
    assert [order["submit"] for order in connections[1].orders] == [2, 3]
    assert [job.number, later.number] == [2, 3]


def test_jobs_are_interrupted_when_a_cluster_does_not_come_back(
    opened: RayExecutor, connections: list[FakeConnection], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = opened.submit(run, run.directory.with_name("output"))
    monkeypatch.setattr(ray_cluster, "RECONNECT_SECONDS", -1.0)
    connections[0].is_lost = True
    assert list(opened.events(0)) == [(job, executor.Ended(Ending.INTERRUPTED, "Ray at local is gone"))]
    with pytest.raises(InputError, match="Ray at local is gone"):
        opened.submit(run, run.directory.with_name("output"))


# What runs on a node.


def task_of(code: str, tmp_path: Path, **variables: str) -> ray_task.Task:
    return ray_task.Task(
        arguments=["-c", code], folder=str(tmp_path), output=str(tmp_path / "output"), variables=variables
    )


@pytest.fixture
def handler() -> Iterator[None]:
    earlier = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.mark.usefixtures("handler")
def test_task_runs_a_process_with_the_planners_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OF_THE_NODE", "kept")
    names = ("OMP_NUM_THREADS", "OF_THE_NODE", "MLFLOW_TRACKING_URI")
    code = f"import os, sys; print(*map(os.environ.get, {names}), os.getcwd(), sys.argv[1:]); sys.exit(75)"
    assert ray_task.carry_out(task_of(code, tmp_path, MLFLOW_TRACKING_URI="http://server")) == 75
    assert (tmp_path / "output").read_text() == f"None kept http://server {tmp_path} ['{os.getpid()}']\n"
    with pytest.raises(FileNotFoundError):
        ray_task.carry_out(task_of(code, tmp_path / "elsewhere"))


@pytest.mark.usefixtures("handler")
def test_task_passes_each_interruption_on(tmp_path: Path) -> None:
    here = (
        "import os, signal, sys, time\n"
        "told = []\n"
        "def tell(*_):\n"
        "    told.append(1)\n"
        "    len(told) == 2 and sys.exit(2)\n"
        "    os.kill(int(sys.argv[1]), signal.SIGINT)\n"
        "signal.signal(signal.SIGTERM, tell)\n"
        "os.kill(int(sys.argv[1]), signal.SIGINT)\n"
        "time.sleep(60)\n"
    )
    assert ray_task.carry_out(task_of(here, tmp_path)) == 2


def test_process_ends_with_its_parent() -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "there = 'import sys, time; from experiments.results.process import end_with; end_with(int(sys.argv[1]));"
        " print(flush=True); time.sleep(60)'\n"
        "command = [sys.executable, '-c', there, sys.argv[1] or str(os.getpid())]\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE)\n"
        "child.stdout.readline() and print(child.pid, flush=True)\n"
        "sys.exit(child.wait())"
    )
    with subprocess.Popen([sys.executable, "-c", code, ""], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, seconds=10)
    assert subprocess.run([sys.executable, "-c", code, "1"], capture_output=True).returncode == 1  # it is gone already


# Whole sweeps.

JOBS = (
    "-m",
    *SMALL,
    "model=linear",
    "tracking=none",
    f"training.epochs={EPOCHS}",
    "optimizer=sgd,adam",
    "seed=range(4)",
)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ...]]:
    """All bits of the sweep, as this machine alone makes them."""
    home = tmp_path_factory.mktemp("local") / "home"
    home.mkdir()
    with started(home, *JOBS, "sweep.workers=2") as command:
        return digests(jobs_of(sweep_of(command.finish())))


@pytest.fixture(scope="module")
def cluster() -> Iterator[ray_nodes.Nodes]:
    with ray_nodes.running() as nodes:
        yield nodes


def kill_job(home: Path, job: int) -> None:
    wait_for_epoch(home, job)
    os.kill(pid_of(home, job), signal.SIGKILL)


def assert_same_bits(ended: Ended, local: dict[str, tuple[Any, ...]]) -> None:
    assert ended.code == 0, ended
    jobs = jobs_of(sweep_of(ended))
    assert [job.state for job in jobs] == ["finished"] * 8
    assert digests(jobs) == local
    assert not list(sweep_of(ended).glob(".run-*"))


@needs_ray
@pytest.mark.cluster
def test_sweep_on_two_nodes_has_the_bits_of_a_local_one_also_of_a_killed_job(
    home: Path, cluster: ray_nodes.Nodes, local: dict[str, tuple[Any, ...]]
) -> None:
    with started(home, *JOBS, "sweep=ray", f"sweep.address={cluster.address}") as command:
        kill_job(home, 1)
        ended = command.finish()
    assert_same_bits(ended, local)
    assert "job 1 is lost (the process ended with SIGKILL); it goes on after its last epoch" in ended.out
    assert ended.err == ""  # nor does Ray print anything among our lines
    assert "ray" not in ended.out.partition("job 0")[2].lower().replace(str(home), "")
    with started(home, *JOBS, "sweep=ray", "sweep.address=nowhere:1") as command:
        again = command.finish()  # nothing is left to do, so nobody looks for a cluster
    assert (again.code, "8 done" in again.out) == (0, True)


@needs_ray
@pytest.mark.cluster
def test_what_cannot_be_carried_out_is_refused_and_nothing_is_left(home: Path, cluster: ray_nodes.Nodes) -> None:
    with started(home, *JOBS, "sweep=ray", f"sweep.address={cluster.address}", "sweep.cpus=2") as command:
        ended = command.finish()
    assert ended.code == 2
    assert ended.err.splitlines()[-1] == "sweep.cpus: must be ≤ 1, what one node has at most, received 2"
    assert not list(home.glob("multirun/[0-9]*"))


@needs_ray
@pytest.mark.exhaustive
def test_sweep_is_stopped_and_goes_on(home: Path, cluster: ray_nodes.Nodes, local: dict[str, tuple[Any, ...]]) -> None:
    """Ctrl-C: what runs ends with its epoch, what waits in Ray does not begin; the planner's end ends its tasks."""
    ray = ("sweep=ray", f"sweep.address={cluster.address}", "sweep.workers=3")
    with started(home, *JOBS, *ray) as command:
        wait_for_epoch(home, 1)
        command.process.send_signal(signal.SIGINT)
        ended = command.finish()
    assert ended.code == 130, ended
    assert "interrupted" in ended.out
    with started(home, *JOBS, *ray) as command:
        wait_for_epoch(home, 1)
        command.process.kill()
        command.finish()
    with started(home, *JOBS, *ray) as command:
        assert_same_bits(command.finish(), local)
    assert_nothing_runs(home)


def node_of(home: Path, job: int, nodes: ray_nodes.Nodes) -> int:
    """The number of the node that a job's process runs on."""
    above = {process.pid for process in psutil.Process(pid_of(home, job)).parents()}
    return next(number for number, pid in enumerate(nodes.nodes) if pid in above)


@needs_ray
@pytest.mark.exhaustive
def test_node_that_dies_costs_the_epochs_that_ran_on_it(home: Path, local: dict[str, tuple[Any, ...]]) -> None:
    with ray_nodes.running() as nodes, started(home, *JOBS, "sweep=ray", f"sweep.address={nodes.address}") as command:
        wait_for_epoch(home, 2)
        nodes.kill_node(node_of(home, 2, nodes))
        ended = command.finish()
    assert_same_bits(ended, local)
    assert re.search(r"job \d is lost \((NodeDied|WorkerCrashed|Ray)\w*", ended.out)


@needs_ray
@pytest.mark.exhaustive
def test_head_that_dies_and_comes_back_costs_the_epochs_that_ran(home: Path, local: dict[str, tuple[Any, ...]]) -> None:
    port = ray_nodes.free_port()
    with (
        ray_nodes.running(port) as nodes,
        started(home, *JOBS, "sweep=ray", f"sweep.address={nodes.address}") as command,
    ):
        wait_for_epoch(home, 2)
        nodes.kill_head()
        with ray_nodes.running(port) as again:
            assert again.address == nodes.address
            ended = command.finish()
    assert_same_bits(ended, local)
    assert f"Ray at {nodes.address}: the connection is lost" in ended.out


@needs_ray
@pytest.mark.exhaustive
def test_job_that_takes_too_long_is_ended(home: Path, cluster: ray_nodes.Nodes) -> None:
    long = ("training.epochs=100000", "sweep.timeout_minutes=0.3", f"sweep.address={cluster.address}")
    with started(home, "-m", *SMALL, "model=linear", "tracking=none", "seed=0", "sweep=ray", *long) as command:
        ended = command.finish()
    assert ended.code == 1
    (job,) = jobs_of(sweep_of(ended))
    assert job.error
    assert (job.state, job.error.message) == ("failed", "took longer than sweep.timeout_minutes=0.3")
    assert_nothing_runs(home)


@needs_ray
@pytest.mark.exhaustive
def test_ray_of_this_machine_alone_ends_with_its_planner(home: Path, local: dict[str, tuple[Any, ...]]) -> None:
    with started(home, *JOBS, "sweep=ray") as command:
        wait_for_epoch(home, 0)
        command.process.kill()
        command.finish()
    wait_until(lambda: not left_behind(home), seconds=60)
    with started(home, *JOBS, "sweep=ray") as command:
        assert_same_bits(command.finish(), local)
    assert_nothing_runs(home)
