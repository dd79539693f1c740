"""The plan of a sweep: overrides → frozen, validated, keyed jobs. Nothing here trains or writes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from hydra.core.override_parser.types import Override

from experiments.config import RunConfig, available_cores, config_key, run_key
from experiments.errors import InputError
from experiments.ingredients.execution import Sweep
from experiments.results import environment
from experiments.sweeps.composition import Composer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One run of a sweep, frozen: editing `conf/` afterwards changes nothing in it. `number` counts from 0.

    Attributes:
        varied: what differs between the jobs, by short names.
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

    def __str__(self) -> str:
        """`job 3 (optimizer=adam, seed=1)`."""
        return name_job(self.number, self.varied)


@dataclass(frozen=True)
class Plan:
    """All jobs of a sweep.

    Attributes:
        key: SHA-256 (hex) of the jobs' keys, the code and the versions: the same command again has the same key.
        image_shapes: (height, width, channels, classes) of each data set, by its config as JSON.
    """

    key: str
    jobs: tuple[Job, ...]
    workers: int
    image_shapes: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)

    @property
    def execution(self) -> Sweep:
        """How it is carried out."""
        return self.jobs[0].config.sweep

    @property
    def varied(self) -> tuple[str, ...]:
        """Short names of what differs between the jobs."""
        return tuple(self.jobs[0].varied)

    @property
    def threads(self) -> int:
        """Threads of the job that has most."""
        return max(job.config.training.threads or 1 for job in self.jobs)


def make_plan(overrides: Sequence[Sequence[str]], composer: Composer) -> Plan:
    """Composes, validates and keys every job.

    Raises:
        InputError: a mistake in any job (all mistakes of all jobs, each named), two jobs alike, or nothing to do.
    """
    if not overrides:
        raise InputError("the sweep is empty: give at least one value, as in optimizer=sgd,adam")
    varied = _varied([[composer.parse(text) for text in job] for job in overrides])
    mistakes, configs, data = _Mistakes(varied), [], _Data()
    for number, given in enumerate(overrides):
        with mistakes.of(number):
            configs.append(composer.config(given))
    mistakes.tell()
    jobs: list[Job] = []
    for number, config in enumerate(configs):
        with mistakes.of(number):
            resolved, digest = data.resolve(config)
            keys = run_key(resolved, digest), config_key(resolved, digest)
            jobs.append(Job(number, tuple(overrides[number]), varied[number], config, resolved, *keys, digest))
    mistakes.tell()
    _refuse_what_is_alike(jobs)
    _refuse_several_ways(configs)
    identity = [[job.run_key for job in jobs], environment.code_digest(), environment.versions()]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return _share_cores(Plan(key, tuple(jobs), 1, data.shapes))


def with_threads(plan: Plan, threads: Sequence[int]) -> Plan:
    """The plan with the threads that its jobs were begun with: results depend on them."""
    jobs = [replace(job, config=job.config.with_threads(n)) for job, n in zip(plan.jobs, threads, strict=True)]
    if any(job.composed.training.threads not in (None, n) for job, n in zip(jobs, threads, strict=True)):
        log.warning(
            "training.threads: this sweep was begun with %s; it goes on with that", count(max(threads), "thread")
        )
    workers = max(1, min(plan.workers, available_cores() // max(threads)))
    return replace(plan, jobs=tuple(jobs), workers=workers)


def count(number: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def name_job(number: int, varied: Mapping[str, Any]) -> str:
    """`job 3 (optimizer=adam, seed=1)`."""
    values = ", ".join(f"{name}={show(value)}" for name, value in varied.items())
    return f"job {number} ({values})" if values else f"job {number}"


def show(value: Any) -> str:
    """A varied value as it would be given on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def name_jobs(numbers: Sequence[int], varied: Sequence[Mapping[str, Any]]) -> str:
    """`job 3 (optimizer=adam)`, `every job`, or `12 jobs, the first is job 3 (optimizer=adam)`."""
    first = name_job(numbers[0], varied[numbers[0]])
    if len(numbers) == len(varied) > 1:
        return "every job"
    return first if len(numbers) == 1 else f"{len(numbers)} jobs, the first is {first}"


class _Mistakes:
    """The mistakes of all jobs; one that many jobs share is told once."""

    def __init__(self, varied: Sequence[Mapping[str, Any]]) -> None:
        self._varied = varied
        self._jobs: dict[str, list[int]] = {}

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Keeps the mistakes of one job."""
        try:
            yield
        except InputError as error:
            for mistake in error.mistakes:
                self._jobs.setdefault(mistake, []).append(number)

    def tell(self) -> None:
        """Raises them all, if there are any."""
        if self._jobs:
            raise InputError(*(f"{name_jobs(jobs, self._varied)}: {text}" for text, jobs in self._jobs.items()))


def _varied(jobs: Sequence[Sequence[Override]]) -> list[dict[str, Any]]:
    """What differs between the jobs, by the shortest names that are not ambiguous."""
    given = [{override.key_or_group: _value(override) for override in job} for job in jobs]
    keys = [key for key in given[0] if len({json.dumps(job.get(key)) for job in given}) > 1]
    last = Counter(key.rpartition(".")[2] for key in keys)
    short = {key: key.rpartition(".")[2] if last[key.rpartition(".")[2]] == 1 else key for key in keys}
    return [{short[key]: job.get(key) for key in keys} for job in given]


def _value(override: Override) -> bool | int | float | str | None:
    value = override.value()
    return value if isinstance(value, bool | int | float | str | None) else override.get_value_element_as_str()


def _share_cores(plan: Plan) -> Plan:
    """The plan with workers and threads, so that workers × threads ≤ cores."""
    cores, wanted = available_cores(), plan.execution.workers
    most = max(_own_threads(job.composed) or 1 for job in plan.jobs)
    workers = min(max(1, cores // most) if wanted is None else wanted, len(plan.jobs))
    if workers > 1 and workers * most > cores:
        capped = max(1, cores // most)
        needed = f"{count(workers, 'worker')} × {count(most, 'thread')}"
        log.warning("sweep.workers: %s need more than the %s here; using %d", needed, count(cores, "core"), capped)
        workers = capped
    share = max(1, cores // workers)
    jobs = [replace(job, config=job.config.with_threads(_own_threads(job.composed) or share)) for job in plan.jobs]
    return replace(plan, jobs=tuple(jobs), workers=workers)


def _own_threads(config: RunConfig) -> int | None:
    return 1 if config.training.determinism == "portable" else config.training.threads


class _Data:
    """Digests and shapes of the data sets of a sweep, each read once."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, int, int, int]] = {}
        self._seen: dict[str, tuple[Any, str, int] | InputError] = {}

    def resolve(self, config: RunConfig) -> tuple[RunConfig, str]:
        """The config with its real data set, and the data set's digest."""
        text = config.dataset.model_dump_json()
        if text not in self._seen:
            try:
                self._seen[text] = self._read(config)
            except InputError as error:
                self._seen[text] = error
        seen = self._seen[text]
        if isinstance(seen, InputError):
            raise InputError(*seen.mistakes)
        dataset, digest, images = seen
        if config.training.batch_size > images:
            raise InputError(
                f"training.batch_size: must be ≤ {images}, the training images of {dataset.name}, "
                f"received {config.training.batch_size}"
            )
        return config.model_copy(update={"dataset": dataset}), digest

    def _read(self, config: RunConfig) -> tuple[Any, str, int]:
        dataset, message = config.dataset.resolve()
        if message:
            log.warning(message)
        data = dataset.load()
        self.shapes[dataset.model_dump_json()] = (*data.image_shape, data.classes)
        return dataset, data.digest, len(data.train.labels)


def _refuse_what_is_alike(jobs: Sequence[Job]) -> None:
    first: dict[str, Job] = {}
    twins = [(job, twin) for job in jobs if (twin := first.setdefault(job.run_key, job)) is not job]
    if twins:
        job, twin = twins[0]
        more = f" (and {len(twins) - 1} more such pairs)" if len(twins) > 1 else ""
        raise InputError(
            f"{job} is the same run as {twin}{more}; jobs must differ in something that changes the result"
        )


def _refuse_several_ways(configs: Sequence[RunConfig]) -> None:
    """How a sweep is carried out and where it is tracked is asked once, not for each job."""
    for group in ("sweep", "tracking"):
        if len({getattr(config, group).model_dump_json() for config in configs}) > 1:
            raise InputError(f"{group}: must be the same in all jobs of a sweep")
