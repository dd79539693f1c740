"""Slurm's commands and what they answer. Arguments go to them as lists: no shell reads a value."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.errors import InputError

LONGEST_SECONDS = 120.0  # of one command: a controller that is restarted answers after about a minute
MOST_IDS = 500  # tasks named in one command line
# Where a task stands while it may still run; SPECIAL_EXIT and REQUEUE_HOLD wait for `scontrol release`.
ACTIVE = {
    "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING",
    "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD",
}  # fmt: skip
FIELDS = "%F|%K|%T|%r|%o"  # job id of the array, index, state, reason, script


class SlurmError(InputError):
    """A command of Slurm was refused or did not answer."""


class Entry(NamedTuple):
    """A task in the queue.

    Attributes:
        array: job id of its array.
        task: its index; None: tasks of the array that have no entry of their own any more.
        state: as `PENDING`, see `man squeue`.
        reason: why it is in that state, as `BeginTime`.
        script: of its array.
    """

    array: int
    task: int | None
    state: str
    reason: str
    script: Path

    @property
    def is_active(self) -> bool:
        """Whether it runs, or may run."""
        return self.state in ACTIVE


class Nodes(NamedTuple):
    """Nodes of one kind in one partition.

    Attributes:
        partition: its name.
        is_default: whether jobs that name no partition go there.
        cpus: of one node.
        megabytes: of memory of one node.
        features: that a constraint may name.
        gpus: of one node.
    """

    partition: str
    is_default: bool
    cpus: int
    megabytes: int
    features: tuple[str, ...]
    gpus: int


def call(*command: str) -> str:
    """What a command prints.

    Raises:
        SlurmError: it is not installed, does not answer, or refuses; with what it says.
    """
    # Inside a job of Slurm, its variables would be taken for options of the new one.
    variables = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k == "SLURM_CONF"}
    try:
        done = subprocess.run(
            command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=LONGEST_SECONDS, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise SlurmError(f"{command[0]}: is not installed here; give the command where jobs are submitted") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]}: does not answer ({type(error).__name__})") from None
    if done.returncode and (done.stderr.strip() or command[0] != "scancel"):  # which says nothing of what has ended
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise SlurmError(f"{command[0]}: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout


def submit(arguments: Sequence[str], script: Path) -> int:
    """Submits a script; returns the job id of its array.

    Raises:
        SlurmError: sbatch refuses it.
    """
    said = call("sbatch", "--parsable", *arguments, str(script))
    text = said.strip().splitlines()[-1].partition(";")[0] if said.strip() else ""
    if not text.isdigit():
        raise SlurmError(f"sbatch: must answer with a job id, received {said.strip()!r}")
    return int(text)


def queue(name: str) -> list[Entry]:
    """All tasks of the arrays of one name that Slurm still knows, ended ones too.

    Raises:
        SlurmError: squeue does not answer.
    """
    lines = call("squeue", "--noheader", "--array", "--states=all", f"--name={name}", f"--format={FIELDS}").splitlines()
    return [entry for entry in map(_entry, lines) if entry]


def _entry(line: str) -> Entry | None:
    parts = line.split("|", 4)
    if len(parts) < 5 or not parts[0].isdigit():
        return None
    array, index, state, reason, script = parts
    return Entry(int(array), int(index) if index.isdigit() else None, state, reason, Path(script.strip()))


def nodes() -> list[Nodes]:
    """The nodes of every partition that this user sees.

    Raises:
        SlurmError: sinfo does not answer.
    """
    lines = call("sinfo", "--noheader", "--exact", "--format=%P|%c|%m|%f|%G").splitlines()
    return [found for found in (_nodes(line.split("|")) for line in lines) if found]


def _nodes(parts: Sequence[str]) -> Nodes | None:
    if len(parts) != 5:
        return None
    name, cpus, megabytes, features, resources = (part.strip() for part in parts)
    known = () if features == "(null)" else tuple(features.split(","))
    return Nodes(name.rstrip("*"), name.endswith("*"), _number(cpus), _number(megabytes), known, _gpus(resources))


def _number(text: str) -> int:
    """`16` and `16+`."""
    return int(text.rstrip("+")) if text.rstrip("+").isdigit() else 0


def _gpus(resources: str) -> int:
    """Of `gpu:2`, `gpu:a100:4(S:0-1),lustre:1`."""
    parts = [resource.partition("(")[0].split(":") for resource in resources.split(",")]
    return sum(int(part[-1]) if part[-1].isdigit() else 1 for part in parts if part[0] == "gpu")


def largest_array() -> int | None:
    """One more than the largest index that an array may have here; None where it is not told."""
    for line in call("scontrol", "show", "config").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize" and value.strip().isdigit():
            return int(value)
    return None


def signal(tasks: Sequence[str], name: str) -> None:
    """Sends a signal to the programs of running tasks, as `12_3`, and not to their scripts.

    Raises:
        SlurmError: scancel does not answer.
    """
    _each(tasks, "scancel", "--quiet", "--state=RUNNING", f"--signal={name}")


def withdraw(tasks: Sequence[str]) -> None:
    """Takes tasks that wait out of the queue.

    Raises:
        SlurmError: scancel does not answer.
    """
    _each(tasks, "scancel", "--quiet", "--state=PENDING")


def cancel(tasks: Sequence[str], *options: str) -> None:
    """Ends tasks: SIGTERM, and SIGKILL after Slurm's KillWait.

    Raises:
        SlurmError: scancel does not answer.
    """
    _each(tasks, "scancel", "--quiet", *options)


def _each(tasks: Sequence[str], *command: str) -> None:
    for start in range(0, len(tasks), MOST_IDS):
        call(*command, *tasks[start : start + MOST_IDS])


def start_now(task: str) -> None:
    """Has a task that was queued again start as soon as there is room; Slurm makes it wait for two minutes otherwise.

    Raises:
        SlurmError: scontrol refuses.
    """
    call("scontrol", "update", f"JobId={task}", "StartTime=now")
