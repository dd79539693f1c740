"""Sweeps on Slurm: what it is told, what its answers mean, and whole sweeps on a cluster of two nodes on this host."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import commands
import slurm_cluster
from conftest import Ended as Done
from conftest import environment, epoch_row, messages_of, started, write_record
from experiments.config import compose
from experiments.errors import InputError
from experiments.ingredients.execution import SlurmSweep
from experiments.recording import Origin
from experiments.results import files, records
from experiments.sweeps.executor import Ended, Ending, EpochDone, Moved, Run
from experiments.sweeps.executors import slurm, slurm_commands, slurm_resources, slurm_script, slurm_task
from experiments.sweeps.executors.slurm import SlurmExecutor
from experiments.sweeps.executors.slurm_commands import Entry, Nodes, SlurmError

VALUES: dict[str, Any] = {
    "name": "slurm", "title": None, "workers": None, "per_gpu": 1, "most_jobs": 1000, "timeout_minutes": None,
    "fail_fast": False, "reuse": "auto", "dry_run": False, "until": "all", "margin": 0.1, "confidence": 0.95,
    "metric": "validation/accuracy", "jobs": None, "keep": 0.25, "finalists": 3, "partition": None, "account": None,
    "time": None, "cpus": 1, "memory": None, "gpus": 0, "constraint": None, "cpu_class": None,
    "array_parallelism": None, "signal_seconds": 120, "setup": [], "arguments": [], "wait": True,
}  # fmt: skip


def options(**values: Any) -> SlurmSweep:
    return SlurmSweep.model_validate(VALUES | values)


# What Slurm is told.


def test_sbatch_gets_every_option_of_its_own_and_nothing_else() -> None:
    given = slurm_script.arguments(
        options(
            partition="gpu", account="lab", time=90, cpus=4, memory="4G", gpus=2, constraint="(rome|milan)&nvme",
            array_parallelism=7, signal_seconds=300, arguments=["--qos=long"],
        ),
        "exp-1", Path("/home/a b/50%/slurm/0"), 12,
    )  # fmt: skip
    assert given[:3] == ["--array=0-11%7", "--job-name=exp-1", "--output=/home/a b/50%%/slurm/0/%a.out"]
    assert set(given[4:]) == {
        "--open-mode=append", "--requeue", "--signal=TERM@300", "--nodes=1", "--ntasks=1", "--cpus-per-task=4",
        "--partition=gpu", "--account=lab", "--time=90", "--mem=4G", "--gres=gpu:2", "--constraint=(rome|milan)&nvme",
        "--qos=long",
    }  # fmt: skip
    bare = slurm_script.arguments(options(), "exp-1", Path("/x"), 1)
    assert bare[0] == "--array=0-0"
    assert not any(text.startswith(("--partition", "--time", "--mem", "--gres")) for text in bare)


BAD = [
    ({"partition": "gpu; rm -rf ~"}, "partition"),
    ({"partition": "--wrap=x"}, "partition"),
    ({"account": "a\nb"}, "account"),
    ({"constraint": "$(date)"}, "constraint"),
    ({"memory": "4 GB"}, "memory"),
    ({"memory": "-1G"}, "memory"),
    ({"time": 0}, "time"),
    ({"time": 2, "signal_seconds": 120}, "must be less than the 120 seconds of time"),
    ({"cpus": 0}, "cpus"),
    ({"workers": 4}, "array_parallelism"),
    ({"arguments": ["--array=0-9"]}, "--array"),
    ({"arguments": ["--arr=0-9"]}, "--arr"),
    ({"arguments": ["--wrap=x"]}, "--wrap"),
    ({"arguments": ["-p", "gpu"]}, "arguments"),
    ({"setup": ["module load a\nrm x"]}, "setup"),
    ({"cpu_class": "same"}, "needs constraint"),
    ({"cpu_class": "other", "constraint": "rome"}, "cpu_class"),
]


@pytest.mark.parametrize(("values", "rule"), BAD, ids=[str(values) for values, _ in BAD])
def test_options_refuse_what_sbatch_or_a_shell_would_misread(values: Mapping[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule.replace("(", r"\(")):
        options(**values)


# The script of an array, run by bash with commands in place of Slurm's.


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Comes first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def fake(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def run_script(folder: Path, bin_folder: Path, code: int, *, setup: tuple[str, ...] = ()) -> int:
    fake(
        bin_folder, "srun", f'printf "%s\\n" "$EXPERIMENTS_HOME" "$SETTING" "$@" > "{bin_folder}/srun.txt"; exit {code}'
    )
    fake(bin_folder, "scontrol", f'echo "$@" > "{bin_folder}/scontrol.txt"')
    folder.mkdir(exist_ok=True)
    script = folder / "array.sh"
    script.write_text(slurm_script.script_text(options(cpus=2, setup=list(setup)), folder))
    return subprocess.run(
        ["bash", str(script)], env=os.environ | {"SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "17"}, check=False
    ).returncode


def test_script_runs_the_description_of_its_task_whatever_the_paths_hold(tmp_path: Path, bin_folder: Path) -> None:
    folder = tmp_path / "it's a $(touch x) folder"
    assert run_script(folder, bin_folder, 0, setup=("export SETTING='a b'",)) == 0
    home, setting, *told = (bin_folder / "srun.txt").read_text().splitlines()
    assert (home, setting) == (str(tmp_path), "a b")
    assert told[:2] == ["--ntasks=1", "--cpus-per-task=2"]
    assert told[-3:] == ["-m", "experiments.sweeps.worker", f"{folder}/3.json"]
    assert (folder / "3.exit").read_text() == "0\n"
    assert not (bin_folder / "scontrol.txt").exists()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("code", slurm_script.STOPPED)
def test_script_queues_a_stopped_run_again_unless_it_shall_stay_so(tmp_path: Path, bin_folder: Path, code: int) -> None:
    assert run_script(tmp_path / "a", bin_folder, code) == code
    assert (bin_folder / "scontrol.txt").read_text() == "requeue 17\n"
    (bin_folder / "scontrol.txt").unlink()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "3.stop").touch()
    (bin_folder / "srun.txt").unlink()
    assert run_script(tmp_path / "b", bin_folder, code) == 0
    assert not (bin_folder / "srun.txt").exists()
    assert not (bin_folder / "scontrol.txt").exists()


def test_script_leaves_a_failed_run_failed(tmp_path: Path, bin_folder: Path) -> None:
    assert run_script(tmp_path / "a", bin_folder, 1) == 1
    assert not (bin_folder / "scontrol.txt").exists()


# What Slurm answers.


def test_queue_is_read_with_states_reasons_and_scripts(bin_folder: Path) -> None:
    lines = ["7|3|PENDING|JobArrayTaskLimit|/a b|c/slurm/0/array.sh", "7|0|RUNNING|None|/x", "7|N/A|CANCELLED|None|/x"]
    fake(bin_folder, "squeue", "\n".join(f"echo '{line}'" for line in lines) + "\necho 'slurm_load_jobs: what'")
    found = slurm_commands.queue("exp-1")
    assert found[0] == Entry(7, 3, "PENDING", "JobArrayTaskLimit", Path("/a b|c/slurm/0/array.sh"))
    assert [(entry.task, entry.is_active) for entry in found] == [(3, True), (0, True), (None, False)]


def test_nodes_are_read_with_cores_memory_features_and_gpus(bin_folder: Path) -> None:
    lines = ["low*|16|64000|rome,ib|(null)", "gpu|64+|512000|(null)|gpu:a100:4(S:0-1),lustre:1", "old|8|1000||gpu:2"]
    fake(bin_folder, "sinfo", "\n".join(f"echo '{line}'" for line in lines))
    assert slurm_commands.nodes() == [
        Nodes("low", True, 16, 64000, ("rome", "ib"), 0),
        Nodes("gpu", False, 64, 512000, (), 4),
        Nodes("old", False, 8, 1000, ("",), 2),
    ]


def test_refusals_are_told_in_slurms_own_words(bin_folder: Path, tmp_path: Path) -> None:
    fake(bin_folder, "sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")
    with pytest.raises(SlurmError, match="sbatch: sbatch: error: Invalid account"):
        slurm_commands.submit([], tmp_path)
    fake(bin_folder, "sbatch", "echo 12\\;cluster")
    assert slurm_commands.submit([], tmp_path) == 12


def test_variables_of_a_surrounding_job_are_kept_from_slurm(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "64")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    fake(bin_folder, "sinfo", "env")
    said = slurm_commands.call("sinfo").splitlines()
    assert "SLURM_CONF=/etc/slurm.conf" in said
    assert not any(line.startswith("SLURM_CPUS") for line in said)


CLUSTER = [Nodes("low", True, 8, 16000, ("rome", "ib"), 0), Nodes("gpu", False, 64, 512000, ("milan",), 4)]
ASKED = [
    ({"partition": "gpus"}, ["sweep.partition: must be one of gpu, low, received gpus"]),
    ({"cpus": 9}, ["sweep.cpus: must be ≤ 8, the most that a node of low has, received 9"]),
    ({"cpus": 9, "partition": "gpu"}, []),
    ({"memory": "16G"}, ["sweep.memory: must be ≤ 16000M, the most that a node of low has, received 16G"]),
    ({"gpus": 1}, ["sweep.gpus: must be ≤ 0, the most that a node of low has, received 1"]),
    ({"constraint": "rome&ib"}, []),
    ({"constraint": "milan"}, ["sweep.constraint: must name features of a node of low (ib, rome), received milan"]),
    ({"constraint": "[rome*2|milan]", "partition": "low,gpu"}, []),
]


@pytest.mark.parametrize(("values", "mistakes"), ASKED, ids=[str(values) for values, _ in ASKED])
def test_cluster_is_asked_before_anything_is_submitted(
    values: Mapping[str, Any], mistakes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_commands, "nodes", lambda: CLUSTER)
    monkeypatch.setattr(slurm_commands, "call", lambda *_: "")
    if not mistakes:
        slurm_resources.check(options(**values))
        return
    with pytest.raises(InputError) as raised:
        slurm_resources.check(options(**values))
    assert list(raised.value.mistakes) == mistakes


def test_sbatch_has_the_last_word_on_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*command: str) -> str:
        raise SlurmError("sbatch: Invalid account")

    monkeypatch.setattr(slurm_commands, "nodes", lambda: CLUSTER)
    monkeypatch.setattr(slurm_commands, "call", refuse)
    with pytest.raises(InputError, match=r"sweep: Slurm refuses its jobs \(sbatch: Invalid account\)"):
        slurm_resources.check(options(account="none"))


# The executor, with a queue that the test writes.


class Queue:
    """In place of Slurm: what was submitted, and the entries that squeue would give."""

    def __init__(self) -> None:
        self.submitted: list[tuple[list[str], Path]] = []
        self.entries: list[Entry] = []
        self.told: list[tuple[Any, ...]] = []
        self.refusal = ""

    def submit(self, arguments: list[str], script: Path) -> int:
        if self.refusal:
            raise SlurmError(self.refusal)
        self.submitted.append((arguments, script))
        tasks = int(arguments[0].partition("%")[0].rpartition("-")[2]) + 1
        self.entries += [Entry(len(self.submitted), n, "PENDING", "Priority", script) for n in range(tasks)]
        return len(self.submitted)

    def set(self, state: str, reason: str = "None") -> None:
        """The same for all tasks of the last array; `gone`: squeue has forgotten them."""
        self.entries = [one._replace(state=state, reason=reason) for one in self.entries] if state != "gone" else []


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    made = Queue()
    monkeypatch.setattr(slurm_commands, "submit", made.submit)
    monkeypatch.setattr(slurm_commands, "queue", lambda name: made.entries)
    monkeypatch.setattr(slurm_commands, "largest_array", lambda: 1001)
    for name in ("signal", "withdraw", "cancel", "start_now"):
        monkeypatch.setattr(slurm_commands, name, lambda *given, name=name: made.told.append((name, *given)))
    for module, name in [(slurm, "LOOK_SECONDS"), (slurm, "QUEUE_SECONDS"), (slurm, "UNSURE_SECONDS"),
                         (slurm, "AGAIN_SECONDS"), (slurm_task, "LOST_SECONDS")]:  # fmt: skip
        monkeypatch.setattr(module, name, 0.0)
    monkeypatch.setattr(slurm_resources, "check", lambda options: None)
    return made


def run_of(directory: Path, until_epoch: int | None = None) -> Run:
    config = compose("dataset=digits", "model=linear", "training.threads=1")
    return Run(config, directory, Origin(sweep="s", job=0), directory.with_name("lock"), "c" * 64, until_epoch)


def made(folder: Path) -> SlurmExecutor:
    executor = SlurmExecutor(options(), "k" * 64, folder, 2000)
    executor.open()
    return executor


def events(executor: SlurmExecutor) -> list[Any]:
    executor._next_look = 0.0
    return [event for _, event in executor.events(0.0)]


def test_thousand_runs_are_one_call_of_sbatch(tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "write_run", lambda run, path: None)
    executor = made(tmp_path)
    run = run_of(tmp_path / "0")
    for _ in range(1200):
        executor.submit(run, tmp_path / "output")
    events(executor)
    assert [(given[0], script) for given, script in queue.submitted] == [
        ("--array=0-999", tmp_path / "slurm" / "0" / "array.sh"),
        ("--array=0-199", tmp_path / "slurm" / "1" / "array.sh"),
    ]
    assert queue.submitted[0][0][1] == "--job-name=exp-kkkkkkkkkkkkkkkk"


def test_files_tell_a_run_from_its_queue_to_its_end(tmp_path: Path, queue: Queue) -> None:
    executor = made(tmp_path)
    executor.submit(run_of(tmp_path / "0"), tmp_path / "output")
    assert events(executor) == [Moved(running=False)]
    queue.set("RUNNING")
    record = write_record(tmp_path / "0")
    assert events(executor) == [Moved(running=True)]
    files.write_history(tmp_path / "0" / files.HISTORY, [epoch_row(1)])
    assert [event.row.epoch for event in events(executor) if isinstance(event, EpochDone)] == [1]
    (tmp_path / "slurm" / "0" / "0.out").write_text("printed\n")
    record.write(state="finished")
    assert events(executor) == [Ended(Ending.FINISHED)]
    assert (tmp_path / "output").read_text() == "printed\n"
    assert events(executor) == []


def test_stopped_run_that_is_queued_again_is_followed_on_and_hurried(tmp_path: Path, queue: Queue) -> None:
    executor = made(tmp_path)
    executor.submit(run_of(tmp_path / "0"), tmp_path / "output")
    events(executor)
    queue.set("RUNNING")
    record = write_record(tmp_path / "0")
    events(executor)
    record.write(state="interrupted", finished_at=files.now())
    (tmp_path / "slurm" / "0" / "0.exit").write_text("75\n")
    queue.set("PENDING", "BeginTime")
    assert events(executor) == [Moved(running=False)]
    assert queue.told == [("start_now", "1_0")]
    assert events(executor) == []
    record.write(state="running", finished_at=None)
    queue.set("RUNNING")
    assert events(executor) == [Moved(running=True)]
    assert len(queue.submitted) == 1


@pytest.mark.parametrize("state", ["gone", "TIMEOUT", "NODE_FAIL"])
def test_run_that_the_queue_has_lost_is_submitted_again(tmp_path: Path, queue: Queue, state: str) -> None:
    executor = made(tmp_path)
    executor.submit(run_of(tmp_path / "0"), tmp_path / "output")
    events(executor)
    queue.set("RUNNING")
    record = write_record(tmp_path / "0")
    events(executor)
    queue.set(state)
    assert events(executor) == []  # its process is alive
    record.write(state="interrupted", finished_at=files.now())
    assert events(executor) == [Moved(running=False)]
    events(executor)
    assert [script.parent.name for _, script in queue.submitted] == ["0", "1"]


FATES = [
    ("gone", "", "Slurm has forgotten it): it has printed nothing"),
    ("FAILED", "module: no such module\n\n", "Slurm says FAILED): module: no such module"),
    ("NODE_FAIL", "srun: error: no node\n", "Slurm says NODE_FAIL): srun: error: no node"),
]


@pytest.mark.parametrize(("state", "printed", "told"), FATES, ids=[state for state, *_ in FATES])
def test_run_that_never_begins_is_submitted_three_times(
    tmp_path: Path, queue: Queue, state: str, printed: str, told: str
) -> None:
    executor = made(tmp_path)
    executor.submit(run_of(tmp_path / "0"), tmp_path / "output")
    found: list[Any] = []
    for _ in range(20):
        for _, script in queue.submitted if printed else ():
            (script.parent / "0.out").write_text(printed)
        queue.set(state)
        found += [event for event in events(executor) if isinstance(event, Ended)]
    assert found == [Ended(Ending.KILLED, f"Killed: 3 tries, and it never began ({told}")]
    assert len(queue.submitted) == slurm_task.MOST_TRIES == 3


def test_run_that_begins_and_is_lost_again_and_again_has_failed(tmp_path: Path, queue: Queue) -> None:
    record = write_record(tmp_path / "0", state="interrupted", finished_at=files.now())
    executor = made(tmp_path)
    executor.submit(run_of(tmp_path / "0"), tmp_path / "output")
    found: list[Any] = []
    for _ in range(10):
        events(executor)
        queue.set("RUNNING")
        record.write(state="running", finished_at=None)
        events(executor)
        record.write(state="interrupted", finished_at=files.now())
        queue.set("gone")
        found += [event for event in events(executor) if isinstance(event, Ended)]
    assert found == [Ended(Ending.KILLED, "Killed: Slurm has lost it")]
    assert len(queue.submitted) == slurm_task.MOST_STARTS


@pytest.mark.parametrize("printed", ["interrupted", "busy"])
def test_run_that_never_begins_and_is_queued_again_fails_unless_another_process_trains_it(
    tmp_path: Path, queue: Queue, printed: str
) -> None:
    executor = made(tmp_path)
    executor.submit(run_of(tmp_path / "0"), tmp_path / "output")
    events(executor)
    found: list[Any] = []
    for _ in range(10):
        (tmp_path / "slurm" / "0" / "0.out").write_text(f"{printed} \n")
        (tmp_path / "slurm" / "0" / "0.exit").write_text("75\n")
        queue.set("PENDING", "BeginTime")
        found += [event for event in events(executor) if isinstance(event, Ended)]
    why = "Killed: 5 starts without a finished epoch (interrupted ); see sweep.time"
    assert found == ([] if printed == "busy" else [Ended(Ending.KILLED, why)])
    assert len(queue.submitted) == 1


def test_run_that_somebody_cancels_stays_so(tmp_path: Path, queue: Queue) -> None:
    executor = made(tmp_path)
    executor.submit(run_of(tmp_path / "0"), tmp_path / "output")
    events(executor)
    queue.entries = [queue.entries[0]._replace(task=None, state="CANCELLED")]
    assert events(executor) == [Ended(Ending.INTERRUPTED, "Cancelled: scancel has ended it")]


EXITS = [
    ("1", "failed InputError: edited", Ended(Ending.FAILED, "InputError: edited")),
    ("137", "srun: error", Ended(Ending.KILLED, "Killed: the job ended with exit code 137 (out of memory?); started")),
    ("127", "no python", Ended(Ending.KILLED, "Killed: the job ended with exit code 127; no python")),
]


@pytest.mark.parametrize(("code", "line", "ended"), EXITS, ids=[code for code, *_ in EXITS])
def test_exit_code_tells_of_a_run_that_got_no_record(
    tmp_path: Path, queue: Queue, code: str, line: str, ended: Ended
) -> None:
    executor = made(tmp_path)
    executor.submit(run_of(tmp_path / "0"), tmp_path / "output")
    events(executor)
    (tmp_path / "slurm" / "0" / "0.out").write_text(f"started\n{line}\n")
    (tmp_path / "slurm" / "0" / "0.exit").write_text(f"{code}\n")
    assert events(executor) == [ended]


def test_waiting_run_is_withdrawn_and_running_one_told_to_stop(tmp_path: Path, queue: Queue) -> None:
    executor = made(tmp_path)
    waiting = executor.submit(run_of(tmp_path / "0"), tmp_path / "output-0")
    running = executor.submit(run_of(tmp_path / "1"), tmp_path / "output-1")
    events(executor)
    queue.entries[1] = queue.entries[1]._replace(state="RUNNING")
    record = write_record(tmp_path / "1")
    events(executor)
    executor.stop(waiting, now=False)
    executor.stop(running, now=False)
    assert (tmp_path / "slurm" / "0" / "1.stop").exists()
    del queue.entries[0]
    assert events(executor) == [Ended(Ending.WITHDRAWN)]
    assert queue.told == [("withdraw", ["1_0", "1_1"]), ("signal", ["1_0", "1_1"], "TERM"), ("cancel", [])]
    record.write(state="interrupted", finished_at=files.now())
    (tmp_path / "slurm" / "0" / "1.exit").write_text("75\n")
    assert events(executor) == [Ended(Ending.INTERRUPTED)]


def test_gathered_run_that_is_stopped_is_never_submitted(tmp_path: Path, queue: Queue) -> None:
    executor = made(tmp_path)
    executor.stop(executor.submit(run_of(tmp_path / "0"), tmp_path / "output"), now=False)
    assert events(executor) == [Ended(Ending.WITHDRAWN)]
    assert queue.submitted == []


def test_refused_submission_is_tried_again(tmp_path: Path, queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    executor = made(tmp_path)
    executor.submit(run_of(tmp_path / "0"), tmp_path / "output")
    queue.refusal = "sbatch: QOSMaxSubmitJobPerUserLimit"
    events(executor)
    events(executor)
    assert messages_of(caplog) == ["sbatch: QOSMaxSubmitJobPerUserLimit; 1 job to be submitted"]
    queue.refusal = ""
    assert events(executor) == [Moved(running=False)]


def test_next_planner_finds_what_the_last_one_has_submitted(tmp_path: Path, queue: Queue) -> None:
    first = made(tmp_path)
    for number in range(2):
        first.submit(run_of(tmp_path / str(number)), tmp_path / f"output-{number}")
    first.submit(run_of(tmp_path / "2"), tmp_path / "output-2")
    lines = first.leave()
    assert lines[0] == "0 running and 3 queued go on in Slurm without this command, as exp-kkkkkkkkkkkkkkkk"
    record = write_record(tmp_path / "0", state="finished", epochs_run=1)
    del record
    queue.entries = queue.entries[1:2]
    second = made(tmp_path)
    assert [second.carries(tmp_path / str(number)) for number in range(3)] == [False, True, False]
    second.submit(run_of(tmp_path / "1"), tmp_path / "output-1")
    second.submit(run_of(tmp_path / "2"), tmp_path / "output-2")
    events(second)
    assert [given[0] for given, _ in queue.submitted] == ["--array=0-2", "--array=0-0"]
    write_record(tmp_path / "1", state="running")
    files.write_history(tmp_path / "1" / files.HISTORY, [epoch_row(1)])
    told = events(second)
    assert Moved(running=True) in told


# Commands.

SMALL = (
    "-m", "sweep=slurm", "sweep.cpus=1", "dataset=digits", "dataset.train_limit=64", "training.batch_size=16",
    "model=linear", "tracking=none", "figures=false", "sweep.title=tried",
)  # fmt: skip


def command(home: Path, *arguments: str, **variables: str) -> Done:
    done = commands.run(
        ["-m", "experiments.run", *arguments], env=environment(home, **variables), cwd=home.parent, timeout=300
    )
    return Done(done.returncode, done.stdout, done.stderr, home)


def test_sweep_without_slurm_says_what_is_missing_and_leaves_nothing(home: Path) -> None:
    done = command(home, *SMALL, "seed=0,1", PATH="/nonexistent")
    assert (done.code, done.out.splitlines()[-1:]) == (2, done.out.splitlines()[-1:])
    assert done.err == "sinfo: is not installed here; give the command where jobs are submitted\n"
    assert not (home / "multirun" / "tried").exists()


def test_sweep_with_mistakes_in_its_options_names_each(home: Path, bin_folder: Path) -> None:
    fake(bin_folder, "sinfo", "echo 'low*|2|4000|(null)|(null)'")
    path = os.environ["PATH"]
    done = command(home, *SMALL, "seed=0,1", "sweep.partition=high", PATH=path)
    assert (done.code, done.err) == (2, "sweep.partition: must be one of low, received high\n")
    done = command(home, *SMALL, "seed=0,1", "sweep.cpus=4", "sweep.memory=8G", PATH=path)
    assert (done.code, len(done.err.splitlines())) == (2, 2)
    done = command(home, *SMALL, "seed=0,1", "training.threads=2", PATH=path)
    assert done.err == "sweep.cpus: must be ≥ 2, the threads of a job, received 1\n"
    assert not (home / "multirun" / "tried").exists()


# Whole sweeps, on a cluster.


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_cluster.Cluster]:
    if missing := slurm_cluster.missing():
        pytest.skip(f"NOT TESTED, a real Slurm: {', '.join(missing)} are not installed (apt-get install slurm-wlm)")
    with slurm_cluster.running(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def digests(home: Path) -> list[tuple[str | None, str | None]]:
    sweep = home / "multirun" / "tried"
    runs = sorted(sweep.glob(f"*/{files.RECORD}"), key=lambda path: int(path.parent.name))
    found = [records.load(path.parent) for path in runs]
    assert {record.state for record in found} == {"finished"}
    return [(record.weights_digest, record.predictions_digest) for record in found]


def wait_until(look: Callable[[], bool], seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            pytest.fail("waited in vain")
        time.sleep(0.05)


def trains(home: Path, job: int, epochs: int = 1) -> bool:
    """Whether a job trains, and has finished some epochs."""
    directory = home / "multirun" / "tried" / str(job)
    try:
        record = records.load(directory)
    except InputError:
        return False
    return record.state == "running" and record.epochs_run >= epochs


def task_of(cluster: slurm_cluster.Cluster, job: int) -> str:
    """The id of a job's task in the newest array, whose indices are the jobs' numbers."""
    return cluster.call("squeue", "-h", "-r", "-o", "%F").split()[0] + f"_{job}"


def log_of(home: Path, job: int) -> str:
    return (home / "multirun" / "tried" / str(job) / files.LOG).read_text()


def on_this_host(home: Path, *arguments: str) -> list[tuple[str | None, str | None]]:
    """The digests of the same sweep, carried out by local workers."""
    home.mkdir()
    done = command(home, *(text for text in SMALL if text not in ("sweep=slurm", "sweep.cpus=1")), "training.threads=1",
                   *arguments)  # fmt: skip
    assert done.code == 0, done.err
    return digests(home)


@pytest.mark.cluster
def test_slurm_gives_the_bits_of_local_workers_also_where_a_job_is_queued_again(
    tmp_path: Path, cluster: slurm_cluster.Cluster
) -> None:
    asked = ("optimizer=sgd,adam", "seed=0,1,2,3", "training.epochs=60")
    home = tmp_path / "cluster"
    home.mkdir()
    with started(home, *SMALL, *asked, **cluster.variables) as running:
        wait_until(lambda: trains(home, 0, 5))
        cluster.call("scontrol", "requeue", task_of(cluster, 0))
        done = running.finish()
    assert done.code == 0, done.out
    assert "resumed after epoch" in log_of(home, 0)
    assert digests(home) == on_this_host(tmp_path / "local", *asked)
    assert len(digests(home)) == 8
    assert len(list((home / "multirun" / "tried" / "slurm").iterdir())) == 1


# What happens to two jobs that take a while; each must end in the bits of undisturbed ones.

LONG = ("seed=0,1", "training.epochs=600")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str | None, str | None]]:
    return on_this_host(tmp_path_factory.mktemp("undisturbed") / "home", *LONG)


@pytest.fixture
def cluster_home(tmp_path: Path) -> Path:
    folder = tmp_path / "cluster"
    folder.mkdir()
    return folder


@pytest.mark.exhaustive
def test_preempted_jobs_go_on_to_the_same_bits(
    cluster_home: Path, cluster: slurm_cluster.Cluster, undisturbed: list[Any]
) -> None:
    with started(cluster_home, *SMALL, *LONG, **cluster.variables) as running:
        wait_until(lambda: trains(cluster_home, 0, 5) and trains(cluster_home, 1, 5))
        for _ in cluster.nodes:
            cluster.call("sbatch", "--partition=high", "--output=/dev/null", "--wrap=sleep 5")
        done = running.finish()
    assert done.code == 0, done.out
    assert "resumed after epoch" in log_of(cluster_home, 0)
    assert digests(cluster_home) == undisturbed


@pytest.mark.exhaustive
def test_jobs_out_of_time_go_on_to_the_same_bits(cluster_home: Path, cluster: slurm_cluster.Cluster) -> None:
    asked = ("seed=0,1", "training.epochs=1000")
    limit = ("sweep.time=1", "sweep.signal_seconds=40")
    with started(cluster_home, *SMALL, *limit, *asked, **cluster.variables) as running:
        done = running.finish()
    assert done.code == 0, done.out
    assert "resumed after epoch" in log_of(cluster_home, 0)
    assert digests(cluster_home) == on_this_host(cluster_home.with_name("local"), *asked)


@pytest.mark.exhaustive
def test_jobs_of_a_dead_node_go_on_to_the_same_bits(
    cluster_home: Path, cluster: slurm_cluster.Cluster, undisturbed: list[Any]
) -> None:
    with started(cluster_home, *SMALL, *LONG, **cluster.variables) as running:
        wait_until(lambda: trains(cluster_home, 0, 5) and trains(cluster_home, 1, 5))
        cluster.kill_node("node2")
        done = running.finish()
    cluster.start_node("node2")
    cluster.wait_for(lambda: cluster.states().count("idle"), 2, 120)
    assert done.code == 0, done.out
    assert digests(cluster_home) == undisturbed


@pytest.mark.exhaustive
def test_controller_may_be_gone_for_a_while(
    cluster_home: Path, cluster: slurm_cluster.Cluster, undisturbed: list[Any]
) -> None:
    with started(cluster_home, *SMALL, *LONG, **cluster.variables) as running:
        wait_until(lambda: trains(cluster_home, 0, 5))
        cluster.kill_controller()
        time.sleep(5)
        cluster.start_controller()
        done = running.finish()
    assert done.code == 0, done.out
    assert digests(cluster_home) == undisturbed


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", ["wait=false", "Ctrl-C", "SIGKILL"])
def test_planner_may_leave_and_come_back(
    cluster_home: Path, cluster: slurm_cluster.Cluster, undisturbed: list[Any], way: str
) -> None:
    asked = (*SMALL, *LONG)
    if way == "wait=false":
        left = command(cluster_home, *asked, "sweep.wait=false", **cluster.variables)
        assert left.code == 0, left.out
        assert "2 queued go on in Slurm without this command" in left.out
    else:
        with started(cluster_home, *asked, **cluster.variables) as running:
            wait_until(lambda: trains(cluster_home, 0, 5))
            running.process.send_signal(signal.SIGINT if way == "Ctrl-C" else signal.SIGKILL)
            left = running.finish()
        assert left.code == (130 if way == "Ctrl-C" else -9), left.out
    assert cluster.call("squeue", "-h", "-r").splitlines(), "they go on"
    done = command(cluster_home, *asked, **cluster.variables)
    assert done.code == 0, done.out
    assert digests(cluster_home) == undisturbed
    assert len(list((cluster_home / "multirun" / "tried" / "slurm").iterdir())) == 1, "nothing is submitted twice"


@pytest.mark.exhaustive
def test_jobs_whose_setup_fails_are_given_up(cluster_home: Path, cluster: slurm_cluster.Cluster) -> None:
    setup = "sweep.setup=['echo no such module','exit 3']"
    done = command(cluster_home, *SMALL, "seed=0,1", setup, **cluster.variables)
    assert done.code == 1, done
    assert done.out.count("failed: Killed: 3 tries, and it never began (Slurm says FAILED): no such module") == 2
    assert len(list((cluster_home / "multirun" / "tried" / "slurm").iterdir())) == 3
    for job in range(2):
        assert records.load(cluster_home / "multirun" / "tried" / str(job)).state == "failed"
        assert log_of(cluster_home, job).count("no such module\n") == 4, "what each printed, and the last word"


@pytest.mark.exhaustive
def test_race_that_is_decided_leaves_nothing_in_the_queue(cluster_home: Path, cluster: slurm_cluster.Cluster) -> None:
    race = ("optimizer.learning_rate=1.0e-9,0.01", "seed=auto", "training.epochs=100")
    done = command(cluster_home, *SMALL, *race, **cluster.variables)
    assert done.code == 0, done
    assert cluster.call("squeue", "-h", "-r") == ""
    found = [records.load(path.parent) for path in cluster_home.glob(f"multirun/tried/*/{files.RECORD}")]
    finished = [record for record in found if record.state == "finished"]
    assert len(finished) == 6, "three seeds of each, and nothing of what was submitted ahead"
    assert {record.state for record in found} <= {"finished", "paused"}
    assert len(list((cluster_home / "multirun" / "tried" / "slurm").glob("*/*.stop"))) > 0, "some was submitted"


@pytest.mark.exhaustive
def test_second_interrupt_ends_the_jobs(cluster_home: Path, cluster: slurm_cluster.Cluster) -> None:
    with started(cluster_home, *SMALL, *LONG, **cluster.variables) as running:
        wait_until(lambda: trains(cluster_home, 0, 5))
        running.process.send_signal(signal.SIGINT)
        running.wait_for("leaving in 5 seconds")
        running.process.send_signal(signal.SIGINT)
        done = running.finish()
    assert done.code == 130, done.out
    cluster.wait_for(lambda: cluster.call("squeue", "-h", "-r"), "", 60)
    assert records.load(cluster_home / "multirun" / "tried" / "0").state == "interrupted"
