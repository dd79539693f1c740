"""The CPU classes that runs were made on: equal configs give equal bits within one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.comparison.formats import count
from experiments.comparison.settings import part_of
from experiments.results.environment import NOT_AVAILABLE
from experiments.results.records import Record

if TYPE_CHECKING:
    from experiments.comparison.configurations import Configuration

CpuClass = tuple[str, tuple[str, ...]]  # model name, and the instruction sets that kernels are chosen by


def classes(records: Sequence[Record]) -> Counter[CpuClass]:
    """How many runs each CPU class has made; empty where it is not known of two hosts, or there is one host.

    One `environment.json` is read for each host. Runs with `training.determinism=portable` are left out, as their bits
    depend on no class.
    """
    hosts: dict[str, list[Record]] = {}
    for record in records:
        if part_of(record.config, "training").get("determinism") != "portable":
            hosts.setdefault(record.process.host, []).append(record)
    found: Counter[CpuClass] = Counter()
    for host, runs in hosts.items() if len(hosts) > 1 else ():
        cpu = next((known for record in runs if (known := _class_of(record, host))), None)
        if cpu:
            found[cpu] += len(runs)
    return found


def _class_of(record: Record, host: str) -> CpuClass | None:
    """Of the host where a run was begun; None where it went on at another one, or the file does not tell."""
    environment = record.environment
    cpu = environment.get("cpu")
    if environment.get("host") != host or not isinstance(cpu, dict):
        return None
    model, isa = cpu.get("model", NOT_AVAILABLE), cpu.get("isa", NOT_AVAILABLE)
    if NOT_AVAILABLE in (model, isa) or not isinstance(isa, list):
        return None
    return str(model), tuple(map(str, isa))


def sentence(configurations: Sequence[Configuration]) -> str:
    """That the runs were made on several CPU classes; empty where they were not, as far as that is known."""
    return text(classes([record for configuration in configurations for record in configuration.records]))


def text(found: Counter[CpuClass]) -> str:
    """Of the runs of each class; empty where there are fewer than two."""
    if len(found) < 2:
        return ""
    models = Counter(model for model, _ in found)
    shared = set.intersection(*(set(isa) for _, isa in found))
    named = [
        f"{model}{_of(isa, shared) if models[model] > 1 else ''} ({count(runs, 'run')})"
        for (model, isa), runs in found.most_common()
    ]
    return (
        f"The runs were made on {len(found)} CPU classes, which round differently: {', '.join(named)}. The same config "
        "has the same bits on one of them; training.determinism=portable makes them equal on all."
    )


def _of(isa: Sequence[str], shared: set[str]) -> str:
    """What tells classes with one model name apart, as virtual machines have them."""
    more = [name for name in isa if name not in shared]
    return f" with {', '.join(more)}" if more else ""
