"""The jobs of a sweep, frozen, and how they are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from experiments.config import RunConfig, as_text, is_run
from experiments.gpus import GPU
from experiments.ingredients.execution import Sweep


@dataclass(frozen=True)
class Job:
    """One run of a sweep, frozen: editing `conf/` afterwards changes nothing in it. `number` counts from 0.

    Attributes:
        varied: what differs between the jobs, by short names; without the keys that only other options have.
        composed: the config as Hydra composed it.
        config: the same with its real data set and number of threads.
    """

    number: int
    overrides: tuple[str, ...]
    varied: Mapping[str, Any]
    composed: RunConfig
    config: RunConfig
    run_key: str
    config_key: str
    dataset_digest: str

    def is_run(self, key: str) -> bool:
        """Whether a saved `run_key` is this job's, by today's rule or a former one."""
        return key == self.run_key or is_run(key, self.config, self.dataset_digest)

    def __str__(self) -> str:
        """`job 3 (optimizer=adam, seed=1)`."""
        return name_job(self.number, self.varied)


class ValidationImages(NamedTuple):
    """The images that the jobs of a race are judged by: how many, and SHA-256 (hex) of pixels and labels."""

    images: int
    digest: str


@dataclass(frozen=True)
class Plan:
    """All jobs of a sweep.

    Attributes:
        key: SHA-256 (hex) of the jobs' keys, the code and the versions: the same command again has the same key.
        execution: how it is carried out.
        image_shapes: (height, width, channels, classes) of each data set, by its config as JSON.
        validation: of each data set, by the same; empty where nothing is decided by them.
        ranges: of a search: what it chooses, by short name, in Hydra's grammar.
        gpus: that the workers share, each with the memory that a job may use; empty: they train on the CPU.
    """

    key: str
    jobs: tuple[Job, ...]
    workers: int
    execution: Sweep
    image_shapes: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)
    validation: Mapping[str, ValidationImages] = field(default_factory=dict)
    ranges: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[GPU, ...] = ()

    @property
    def varied(self) -> tuple[str, ...]:
        """Short names of what differs between the jobs."""
        return tuple(dict.fromkeys(name for job in self.jobs for name in job.varied))

    @property
    def threads(self) -> int:
        """Threads of the job that has most."""
        return max(job.config.training.threads or 1 for job in self.jobs)

    @property
    def resources(self) -> str:
        """`4 workers × 1 thread`, with `on 2 GPUs (MODEL)` where there are any."""
        models = ", ".join(dict.fromkeys(gpu.model for gpu in self.gpus))
        on_gpus = f" on {count(len(self.gpus), 'GPU')} ({models})" if self.gpus else ""
        return f"{count(self.workers, 'worker')} × {count(self.threads, 'thread')}{on_gpus}"


def count(number: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def name_job(number: int, varied: Mapping[str, Any]) -> str:
    """`job 3 (optimizer=adam, seed=1)`."""
    values = ", ".join(f"{name}={as_text(value)}" for name, value in varied.items())
    return f"job {number} ({values})" if values else f"job {number}"


def name_jobs(numbers: Sequence[int], varied: Sequence[Mapping[str, Any]]) -> str:
    """`job 3 (optimizer=adam)`, `every job`, or `12 jobs, the first is job 3 (optimizer=adam)`."""
    first = name_job(numbers[0], varied[numbers[0]])
    if len(numbers) == len(varied) > 1:
        return "every job"
    return first if len(numbers) == 1 else f"{len(numbers)} jobs, the first is {first}"
