"""What a job gets on Slurm, and whether the cluster has that at all: what it has not would wait for ever."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.comparison import machines
from experiments.errors import InputError
from experiments.ingredients.execution import SlurmSweep
from experiments.results.records import Record
from experiments.sweeps.executors import slurm_commands
from experiments.sweeps.executors.cores import own_threads
from experiments.sweeps.executors.slurm_commands import Nodes, SlurmError
from experiments.sweeps.executors.slurm_script import arguments
from experiments.sweeps.jobs import Plan

UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}  # megabytes, as Slurm counts them
FEATURE = re.compile(r"[A-Za-z0-9_.:-]+")  # in a constraint, which joins them by & | ( ) [ ] * ,


def share(plan: Plan, options: SlurmSweep) -> Plan:
    """The plan with as many threads a job as it has cores.

    Args:
        plan: of the sweep.
        options: its own.

    Raises:
        InputError: a job asks for more threads than that.
    """
    wanted = [own_threads(job.composed) or options.cpus for job in plan.jobs]
    if max(wanted) > options.cpus:
        raise InputError(f"sweep.cpus: must be ≥ {max(wanted)}, the threads of a job, received {options.cpus}")
    jobs = [replace(job, config=job.config.with_threads(n)) for job, n in zip(plan.jobs, wanted, strict=True)]
    return replace(plan, jobs=tuple(jobs), workers=min(options.array_parallelism or len(jobs), len(jobs)))


def check(options: SlurmSweep) -> None:
    """Asks Slurm for what the options name.

    Raises:
        InputError: Slurm is not there, or does not have it; one line for each.
    """
    nodes = slurm_commands.nodes()
    mistakes = list(_mistakes(options, nodes))
    if mistakes:
        raise InputError(*mistakes)
    try:
        slurm_commands.call("sbatch", "--test-only", *arguments(options, "exp-test", Path.cwd(), 1), "--wrap=true")
    except SlurmError as error:
        raise InputError(f"sweep: Slurm refuses its jobs ({error})") from None


def _mistakes(options: SlurmSweep, nodes: Sequence[Nodes]) -> Iterator[str]:
    partition = options.partition or os.environ.get("SBATCH_PARTITION")
    wanted = partition.split(",") if partition else [one.partition for one in nodes if one.is_default]
    known = sorted({one.partition for one in nodes})
    unknown = [name for name in wanted if name not in known]
    if unknown:
        yield f"sweep.partition: must be one of {', '.join(known)}, received {', '.join(unknown)}"
        return
    usable = [one for one in nodes if one.partition in wanted]
    if not usable:
        yield f"sweep.partition: must be given, as this cluster has no default; one of {', '.join(known) or 'none'}"
        return
    where = f"a node of {', '.join(dict.fromkeys(wanted))}"
    if options.cpus > (most := max(one.cpus for one in usable)):
        yield f"sweep.cpus: must be ≤ {most}, the most that {where} has, received {options.cpus}"
    if options.memory and megabytes(options.memory) > (most := max(one.megabytes for one in usable)):
        yield f"sweep.memory: must be ≤ {most}M, the most that {where} has, received {options.memory}"
    if options.gpus > (most := max(one.gpus for one in usable)):
        yield f"sweep.gpus: must be ≤ {most}, the most that {where} has, received {options.gpus}"
    yield from _unknown_features(options.constraint, usable, where)


def _unknown_features(constraint: str | None, usable: Sequence[Nodes], where: str) -> Iterator[str]:
    known = sorted({feature for one in usable for feature in one.features})
    for feature in FEATURE.findall(re.sub(r"\*\d+", "", constraint or "")):
        if feature not in known:
            valid = ", ".join(known) or "none has any"
            yield f"sweep.constraint: must name features of {where} ({valid}), received {feature}"


def unmet(options: SlurmSweep, records: Sequence[Record]) -> str:
    """That `cpu_class` was asked for in vain, as the finished runs of a sweep tell; empty where it was not."""
    if options.cpu_class is None or len(found := machines.classes(records)) < 2:
        return ""
    return (
        f"sweep.cpu_class=same was not met: nodes with constraint={options.constraint} are of {len(found)} CPU classes"
    )


def megabytes(memory: str) -> float:
    """Of `4G`, `500M`."""
    return int(memory[:-1]) * UNITS[memory[-1]]


def memory_bytes(options: SlurmSweep) -> int:
    """Of a job; where the options do not say it, as much as any: the cluster gives it what it gives."""
    return int(megabytes(options.memory) * 2**20) if options.memory else sys.maxsize
