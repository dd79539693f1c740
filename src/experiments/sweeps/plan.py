"""The plan of a sweep: overrides → frozen, validated, keyed jobs and their states. Nothing here trains."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from experiments.config import RunConfig, available_cores, config_key, run_key
from experiments.errors import InputError
from experiments.ingredients.datasets import ImageData
from experiments.results import environment, records
from experiments.results.records import Record
from experiments.sweeps.composition import Composer

log = logging.getLogger(__name__)
PLAN = "plan.json"
JobState = Literal["new", "done", "interrupted", "failed", "diverged", "running"]
LONGEST_NAME = 40  # characters of a sweep's name that tell what varies


@dataclass(frozen=True)
class Job:
    """One run of a sweep, frozen: editing `conf/` afterwards changes nothing in it. `number` counts from 0."""

    number: int
    overrides: tuple[str, ...]
    varied: Mapping[str, Any]
    config: RunConfig
    run_key: str
    config_key: str

    def __str__(self) -> str:
        """`job 3 (optimizer=adam, seed=1)`."""
        return f"job {self.number} ({', '.join(f'{k}={v}' for k, v in self.varied.items())})"


@dataclass(frozen=True)
class Plan:
    """All jobs of a sweep and the directory they go to.

    Attributes:
        key: SHA-256 (hex) of the jobs' keys, the code and the versions: the same command again has the same key.
        image_shapes: (height, width, channels, classes) of each data set, by its config as JSON.
    """

    directory: Path
    key: str
    jobs: tuple[Job, ...]
    workers: int
    threads: int
    image_shapes: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The sweep's name: that of its directory."""
        return self.directory.name

    @property
    def varied(self) -> tuple[str, ...]:
        """Short names of what differs between the jobs."""
        return tuple(self.jobs[0].varied)

    def directory_of(self, job: Job) -> Path:
        """The run directory of a job; a link where its run was made elsewhere."""
        return self.directory / str(job.number)


def make_plan(overrides: Sequence[Sequence[str]], composer: Composer, home: Path) -> Plan:
    """Composes, validates and keys every job and finds the sweep that they belong to. Writes nothing.

    Raises:
        InputError: a mistake in any job (all mistakes of all jobs, each named), two jobs alike, or nothing to do.
    """
    if not overrides:
        raise InputError("the sweep is empty: give at least one value, as in optimizer=sgd,adam")
    varied = _varied(overrides)
    configs = _validated(overrides, varied, composer)
    execution = configs[0].sweep
    workers, threads = _share_cores(configs)
    data = _Data()
    jobs: list[Job] = []
    for number, (given, config) in enumerate(zip(overrides, configs, strict=True)):
        config, digest = data.resolve(config, 1 if config.training.determinism == "portable" else threads)
        keys = run_key(config, digest), config_key(config, digest)
        jobs.append(Job(number, tuple(given), varied[number], config, *keys))
    _refuse_duplicates(jobs)
    key = _plan_key(jobs)
    directory = _directory(home, execution.name, key, jobs[0].varied, fresh=execution.reuse == "never")
    return Plan(directory, key, tuple(jobs), min(workers, len(jobs)), threads, data.shapes)


def _validated(
    overrides: Sequence[Sequence[str]], varied: Sequence[Mapping[str, Any]], composer: Composer
) -> list[RunConfig]:
    configs: list[RunConfig] = []
    mistakes: dict[str, list[int]] = {}
    for number, given in enumerate(overrides):
        try:
            configs.append(composer.config(given))
        except InputError as error:
            for mistake in error.mistakes:
                mistakes.setdefault(mistake, []).append(number)
    if mistakes:
        raise InputError(*(f"{_jobs(numbers, varied)}: {mistake}" for mistake, numbers in mistakes.items()))
    return configs


def _jobs(numbers: Sequence[int], varied: Sequence[Mapping[str, Any]]) -> str:
    """`job 3 (optimizer=adam)`, or `12 jobs, the first is job 3 (optimizer=adam)`."""
    first = numbers[0]
    name = f"job {first} ({', '.join(f'{k}={v}' for k, v in varied[first].items())})"
    return name if len(numbers) == 1 else f"{len(numbers)} jobs, the first is {name}"


def _varied(overrides: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """What differs between the jobs, by the shortest names that are not ambiguous."""
    given = [dict(_split(text) for text in job) for job in overrides]
    keys = [key for key in given[0] if len({job.get(key) for job in given}) > 1]
    last = Counter(key.rpartition(".")[2] for key in keys)
    short = {key: key.rpartition(".")[2] if last[key.rpartition(".")[2]] == 1 else key for key in keys}
    return [{short[key]: _value(job[key]) for key in keys} for job in given]


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _value(text: str) -> Any:
    value = yaml.load(text, Loader=yaml.CSafeLoader)
    return value if isinstance(value, bool | int | float) else text


def _share_cores(configs: Sequence[RunConfig]) -> tuple[int, int]:
    """Workers and threads each, so that workers × threads ≤ cores."""
    cores, first = available_cores(), configs[0]
    threads = first.training.threads
    if first.training.determinism == "portable":
        threads = 1
    workers = first.sweep.workers
    if workers is None:
        workers = max(1, min(cores // (threads or 1), len(configs)))
    if workers * (threads or 1) > cores:
        capped = max(1, cores // (threads or 1))
        log.warning("sweep.workers: %d workers need more than the %d cores here; using %d", workers, cores, capped)
        workers = capped
    return workers, threads or max(1, cores // workers)


class _Data:
    """Digests and shapes of the data sets of a sweep, each read once."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, int, int, int]] = {}
        self._seen: dict[str, tuple[Any, str, int]] = {}

    def resolve(self, config: RunConfig, threads: int) -> tuple[RunConfig, str]:
        """The config with its real data set and threads, and the data set's digest."""
        text = config.dataset.model_dump_json()
        if text not in self._seen:
            dataset, message = config.dataset.resolve()
            if message:
                log.warning(message)
            data: ImageData = dataset.load()
            self.shapes[dataset.model_dump_json()] = (*data.image_shape, data.classes)
            self._seen[text] = dataset, data.digest, len(data.train.labels)
        dataset, digest, images = self._seen[text]
        if config.training.batch_size > images:
            raise InputError(
                f"training.batch_size: must be ≤ {images}, the training images of {dataset.name}, "
                f"received {config.training.batch_size}"
            )
        return config.model_copy(update={"dataset": dataset}).with_threads(threads), digest


def _refuse_duplicates(jobs: Sequence[Job]) -> None:
    first: dict[str, Job] = {}
    for job in jobs:
        twin = first.setdefault(job.run_key, job)
        if twin is not job:
            raise InputError(
                f"{job} is the same run as {twin}; every job must differ in something that changes the result"
            )


def _plan_key(jobs: Sequence[Job]) -> str:
    identity = [[job.run_key for job in jobs], environment.code_digest(), environment.versions()]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _directory(home: Path, name: str | None, key: str, varied: Mapping[str, Any], *, fresh: bool) -> Path:
    """The directory of the sweep with this very plan, or of a new one."""
    if name is not None:
        directory = home / "multirun" / name
        found = read_plan_key(directory)
        if found not in (None, key):
            raise InputError(
                f"sweep.name: {directory} holds another plan (other jobs, code or versions); choose another name"
            )
        return directory
    for plan in sorted(home.glob(f"multirun/*/{PLAN}"), reverse=True) if not fresh else []:
        if read_plan_key(plan.parent) == key:
            return plan.parent
    words = "-".join(varied)[:LONGEST_NAME].rstrip("-") or "one"
    return home / "multirun" / f"{records.now():%Y%m%d-%H%M%S}-{words}-{secrets.token_hex(2)}"


def read_plan_key(directory: Path) -> str | None:
    """The key of the plan that a sweep's directory holds; None where there is none, or a damaged one, which is set aside."""
    path = directory / PLAN
    try:
        return str(json.loads(path.read_bytes())["key"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        aside = path.with_name(f"{PLAN}.damaged-{secrets.token_hex(2)}")
        path.rename(aside)
        log.warning("%s: is damaged (%s: %s); set aside as %s", path, type(error).__name__, error, aside.name)
        return None


def write_plan(plan: Plan) -> None:
    """Freezes the plan to `plan.json`.

    Raises:
        InputError: the directory cannot be made or written.
    """
    jobs = [
        {"number": job.number, "overrides": job.overrides, "varied": dict(job.varied), "run_key": job.run_key,
         "config_key": job.config_key, "config": job.config.model_dump(mode="json")}
        for job in plan.jobs
    ]  # fmt: skip
    values = {"format": 1, "key": plan.key, "workers": plan.workers, "threads": plan.threads, "jobs": jobs}
    try:
        plan.directory.mkdir(parents=True, exist_ok=True)
        records.write_json(plan.directory / PLAN, values)
    except OSError as error:
        raise InputError(f"{plan.directory}: cannot be written ({error.strerror})") from None


class Archive:
    """The finished runs under a home, by their key: what need not be trained again."""

    def __init__(self, home: Path, *, any_code: bool = False) -> None:
        self._identity = (environment.code_digest(), environment.versions())
        self._any_code = any_code
        self._finished = {record.run_key: record for record in self._read(home)}

    def _read(self, home: Path) -> Iterator[Record]:
        for directory in records.run_directories(home):
            try:
                record = records.load(directory)
            except InputError:
                continue  # named when its own sweep looks at it
            if record.state == "finished" and self.agrees(record):
                yield record

    def agrees(self, record: Record) -> bool:
        """Whether the code and the versions that made a run are today's."""
        return self._any_code or (record.code_digest, record.versions) == self._identity

    def find(self, job: Job) -> Record | None:
        """A finished run of the same key, code and versions."""
        return self._finished.get(job.run_key)


def state_of(plan: Plan, job: Job, archive: Archive | None) -> tuple[JobState, Record | None]:
    """What is known of a job, and the record that tells. A damaged record is named and set aside."""
    directory = plan.directory_of(job)
    if (directory / records.RECORD).exists():
        try:
            record = records.load(directory)
        except InputError as error:
            aside = directory.with_name(f"{directory.name}.damaged-{secrets.token_hex(2)}")
            os.rename(directory, aside)
            log.warning("%s; set aside as %s, and the job is run again", error, aside)
        else:
            if record.run_key == job.run_key:
                return ("done" if record.state == "finished" else record.state), record
            log.warning("%s: holds another run than the plan says; see %s", directory, records.RECORD)
            raise InputError(f"{directory}: was changed by hand; move it away and give the command again")
    elif directory.is_symlink():
        directory.unlink()  # the run that it led to is gone
    found = archive.find(job) if archive else None
    return ("done", found) if found else ("new", None)
