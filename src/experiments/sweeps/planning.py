"""The plan of a sweep: overrides → frozen, validated, keyed jobs. Nothing here trains or writes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override

from experiments.config import Composition, Keys, RunConfig
from experiments.errors import InputError
from experiments.ingredients.option import Option
from experiments.ingredients.splits import Split
from experiments.results import environment, own_code
from experiments.sweeps.composition import Composer
from experiments.sweeps.executors.choice import share_resources
from experiments.sweeps.jobs import Job, Plan, ValidationImages, name_jobs

log = logging.getLogger(__name__)


def make_plan(overrides: Sequence[Sequence[str]], composer: Composer, ranges: Mapping[str, str] | None = None) -> Plan:
    """Composes, validates and keys every job.

    Args:
        overrides: of each job.
        composer: of the sweep.
        ranges: of a search, by key: its plan may grow, so they stand for its jobs in the key.

    Raises:
        InputError: a mistake in any job (all mistakes of all jobs, each named), two jobs alike, or nothing to do.
    """
    if not overrides:
        raise InputError("the sweep is empty: give at least one value, as in optimizer=sgd,adam")
    parsed = [[composer.parse(text) for text in job] for job in overrides]
    values = _values(parsed)
    short = _short_names(values)
    varied = _varied(values, short)
    mistakes, composed = _Mistakes(varied), []
    for number, given in enumerate(overrides):
        with mistakes.of(number):
            composed.append(composer.compose(given))
    mistakes.tell()
    _require_same_sweep_settings(composed)
    jobs: list[Job] = []
    shared = _Shared(decides=composed[0].sweep.until == "decided" or ranges is not None)
    for number, (config, _) in enumerate(composed):
        with mistakes.of(number):
            jobs.append(shared.job(number, overrides[number], varied[number], config))
    mistakes.tell()
    _refuse_what_is_alike(jobs)
    what = [job.run_key for job in jobs] if ranges is None else [jobs[0].run_key, list(ranges.items())]
    identity = [what, environment.sources_digest(), environment.versions(), *sorted(shared.own_code)]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    named = {short.get(key, key): text for key, text in (ranges or {}).items()}
    return share_resources(Plan(key, tuple(jobs), 1, composed[0].sweep, shared.shapes, shared.validation, named))


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
        """Raises them all, if there are any.

        Raises:
            InputError: with one line for each mistake, which names its jobs.
        """
        if self._jobs:
            raise InputError(*(f"{name_jobs(jobs, self._varied)}: {text}" for text, jobs in self._jobs.items()))


def _values(jobs: Sequence[Sequence[Override]]) -> list[dict[str, Any]]:
    """What each job is given, by key; in a search some have more keys than others."""
    return [{override.key_or_group: _value(override) for override in job} for job in jobs]


def _varied(given: Sequence[Mapping[str, Any]], short: Mapping[str, str]) -> list[dict[str, Any]]:
    """What differs between the jobs, by short names."""
    return [{name: job[key] for key, name in short.items() if key in job} for job in given]


def _short_names(given: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The keys of what differs between the jobs, with the shortest names that are not ambiguous."""
    all_keys = dict.fromkeys(key for job in given for key in job)
    keys = [key for key in all_keys if len({json.dumps(job.get(key)) for job in given}) > 1]
    last = Counter(key.rpartition(".")[2] for key in keys)
    return {key: key.rpartition(".")[2] if last[key.rpartition(".")[2]] == 1 else key for key in keys}


def _value(override: Override) -> bool | int | float | str | None:
    value = override.value()
    return value if isinstance(value, bool | int | float | str | None) else override.get_value_element_as_str()


class _Resolved(NamedTuple):
    """What jobs share that differ in their seed alone; `composed` keeps the objects that they are told by."""

    composed: RunConfig
    config: RunConfig
    dataset_digest: str
    keys: Keys


class _Shared:
    """What jobs share, worked out once: digests and shapes of data sets, keys, and a race's validation images."""

    def __init__(self, *, decides: bool) -> None:
        self._decides = decides
        self.shapes: dict[str, tuple[int, int, int, int]] = {}
        self.validation: dict[str, ValidationImages] = {}
        self.own_code: set[str] = set()  # digests of what the jobs use of the user's code
        self._seen: dict[str, tuple[Any, str, int] | InputError] = {}
        self._resolved: dict[tuple[int, ...], _Resolved] = {}

    def job(self, number: int, overrides: Sequence[str], varied: Mapping[str, Any], composed: RunConfig) -> Job:
        """A job with its real data set and its keys.

        Args:
            number: of the job.
            overrides: of the job.
            varied: what differs between the jobs, by short names.
            composed: the config as Hydra composed it.

        Raises:
            InputError: the data cannot be had, or are fewer images than a batch.
        """
        options = tuple(id(value) for name, value in composed if name != "seed")
        if options not in self._resolved:
            self._resolved[options] = self._resolve(composed)
        _, config, digest, keys = self._resolved[options]
        config, run_key = config.with_seed(composed.seed), keys.run_key(composed.seed)
        return Job(number, tuple(overrides), varied, composed, config, run_key, keys.config_key, digest)

    def _resolve(self, config: RunConfig) -> _Resolved:
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
        config.training.require_images(images, dataset.name)
        resolved = config.model_copy(update={"dataset": dataset, "model": config.model.resolve()})
        if own := own_code.digest_of(resolved.model_dump()):
            self.own_code.add(own)
        return _Resolved(config, resolved, digest, Keys(resolved, digest))

    def _read(self, config: RunConfig) -> tuple[Any, str, int]:
        dataset, message = config.dataset.resolve()
        if message:
            log.warning(message)
        data = dataset.load()
        for note in data.notes:
            log.info("%s", note)
        self.shapes[dataset.model_dump_json()] = (*data.image_shape, data.classes)
        if self._decides:
            self.validation[dataset.model_dump_json()] = _digest(data.validation)
        return dataset, data.digest, len(data.train.labels)


def _digest(validation: Split) -> ValidationImages:
    digest = hashlib.sha256(str(validation.images.shape).encode())
    for images in validation.images:  # one after another: they may lie in a file
        digest.update(images.tobytes())
    digest.update(validation.labels.tobytes())
    return ValidationImages(len(validation.labels), digest.hexdigest())


def _refuse_what_is_alike(jobs: Sequence[Job]) -> None:
    first: dict[str, Job] = {}
    twins = [(job, twin) for job in jobs if (twin := first.setdefault(job.run_key, job)) is not job]
    if twins:
        job, twin = twins[0]
        more = f" (and {len(twins) - 1} more such pairs)" if len(twins) > 1 else ""
        raise InputError(
            f"{job} is the same run as {twin}{more}; jobs must differ in something that changes the result"
        )


def _require_same_sweep_settings(composed: Sequence[Composition]) -> None:
    """How a sweep is carried out and where it is tracked is asked once, not for each job."""
    settings: dict[str, list[Option]] = {
        "sweep": [sweep for _, sweep in composed],
        "tracking": [config.tracking for config, _ in composed],
    }
    for group, given in settings.items():
        different = {id(option): option for option in given}.values()
        if len({option.model_dump_json() for option in different}) > 1:
            raise InputError(f"{group}: must be the same in all jobs of a sweep")
