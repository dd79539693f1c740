"""Hydra's sweeper and launcher of `experiments`: `-m` plans, validates, and carries out what is missing.

Hydra takes plugins only from the namespace `hydra_plugins`, which every application of the environment looks into; so
this module imports nothing but Hydra until a sweep is launched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import ceil, prod
from typing import Any, overload

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


class LocalSweeper(Sweeper):  # type: ignore[misc]
    """Expands choices and ranges into jobs, all in one batch, and leaves no file of its own."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self._params = params or {}
        self._points: int | None = None  # of a search

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's call before `sweep`."""
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self._context, self._config = hydra_context, config
        self._points = OmegaConf.select(config, "sweep.jobs")
        self._most_jobs = OmegaConf.select(config, "sweep.most_jobs")
        self._parser = OverridesParser.create(config_loader=hydra_context.config_loader)

    def sweep(self, arguments: list[str]) -> Any:
        """Hands every combination to the launcher; the command line wins over `hydra.sweeper.params` in a file."""
        from experiments.sweeps.auto_seed import expand

        seeded = any(override.key_or_group == "seed" for override in self._parser.parse_overrides(arguments))
        params = [f"{key}={value}" for key, value in self._params.items() if not (seeded and key == "seed")]
        given = self._parser.parse_overrides([*params, *arguments])
        if self._is_search(given):
            return self._search(given)
        overrides = self._parser.parse_overrides(expand(given))
        self._refuse_too_many(overrides)
        values = {override.get_key_element(): _values(override) for override in overrides}
        return self._launcher.launch([list(job) for job in product(*values.values())], initial_job_idx=0)

    def _is_search(self, given: Sequence[Override]) -> bool:
        points = self._points
        for override in given:
            points = override.value() if override.key_or_group == "sweep.jobs" else points
        return points is not None

    def _search(self, given: Sequence[Override]) -> Any:
        """Hands the points that are tried to the launcher."""
        from experiments.sweeps.composition import Composer
        from experiments.sweeps.proposals import plan_jobs

        def compose(overrides: list[str]) -> Any:
            return self._context.config_loader.load_sweep_config(self._config, overrides)

        jobs, ranges = plan_jobs(given, Composer(compose).compose)
        return self._launcher.launch([list(job) for job in jobs], initial_job_idx=0, ranges=ranges)

    def _refuse_too_many(self, overrides: Sequence[Override]) -> None:
        from experiments.errors import InputError

        number = prod({override.get_key_element(): _count(override) for override in overrides}.values())
        if isinstance(self._most_jobs, int) and number > self._most_jobs:
            raise InputError(
                f"the sweep would have {number:,} jobs, more than sweep.most_jobs={self._most_jobs}; ask for fewer, or "
                f"say that you want so many: sweep.most_jobs={number}"
            )


def _count(override: Override) -> int:
    """How many values an override gives, without making a list of them."""
    value = override.value()
    if isinstance(value, RangeSweep):
        number: int = ceil((value.stop - value.start) / value.step)
        return max(0, number)
    return len(_values(override))


def _values(override: Override) -> list[str]:
    """What an override is in each of its jobs: `seed=0,1` → `seed=0` and `seed=1`."""
    from experiments.errors import InputError
    from experiments.sweeps.ranges import is_mapping_of_ranges

    continuous = override.is_sweep_override() and not override.is_discrete_sweep()
    if continuous or is_mapping_of_ranges(override.value()):
        ways = "name them, use range(start,stop,step), or try some of them: sweep.jobs=40"
        raise InputError(f"{override.input_line}: holds any number of values; {ways}")
    if not override.is_sweep_override():
        return [override.input_line or ""]
    values = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    if not values:
        raise InputError(f"{override.input_line}: the sweep is empty, because this gives no value")
    return values


class _Returns(Sequence[JobReturn]):
    """What a launcher returns of its jobs, each made when it is asked for: that takes milliseconds a job."""

    def __init__(self, jobs: Sequence[Any], make: Callable[[Any], JobReturn]) -> None:
        self._jobs, self._make = jobs, make

    def __len__(self) -> int:
        """How many jobs there were."""
        return len(self._jobs)

    @overload
    def __getitem__(self, place: int) -> JobReturn: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[JobReturn]: ...
    def __getitem__(self, place: int | slice) -> JobReturn | Sequence[JobReturn]:
        """That of one job, or of several."""
        return _Returns(self._jobs[place], self._make) if isinstance(place, slice) else self._make(self._jobs[place])


class LocalLauncher(Launcher):  # type: ignore[misc]
    """Carries out a sweep on this machine, a fresh process per job."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's call before `launch`."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int, ranges: Mapping[str, str] | None = None
    ) -> Sequence[JobReturn]:
        """Plans and carries out all jobs; leaves the sweep's exit code with the task, as its `code`.

        Args:
            job_overrides: of each job.
            initial_job_idx: Hydra's; not used.
            ranges: of a search: what it chooses, by key.
        """
        del initial_job_idx
        from experiments.sweeps.launch import launch

        hydra: Any = OmegaConf.to_container(self._config.hydra, enum_to_str=True)
        outcome = launch(job_overrides, self._compose, hydra, self._notify, ranges)
        self._task.code = outcome.exit_code
        return _Returns(outcome.jobs, self._returned)

    def _compose(self, overrides: list[str]) -> Any:
        return self._context.config_loader.load_sweep_config(self._config, overrides)

    def _notify(self, status: Any) -> None:
        """Tells Hydra's callbacks of a job that starts or has ended, in this process."""
        callbacks = self._context.callbacks
        if not callbacks.callbacks:
            return
        config = self._compose(list(status.job.overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = status.job.number
        if status.state == "running":
            callbacks.on_job_start(config=config, task_function=self._task)
        elif status.ended:
            callbacks.on_job_end(config=config, job_return=self._returned(status))

    def _returned(self, ended: Any) -> JobReturn:
        """What Hydra wants to know of a job: its config, whether it is done, and its error."""
        done = ended.state == "done"
        return JobReturn(
            overrides=list(ended.job.overrides),
            cfg=OmegaConf.create(ended.job.config.model_dump(mode="json")),
            hydra_cfg=OmegaConf.masked_copy(self._config, "hydra"),
            working_dir=os.getcwd(),
            task_name=self._config.hydra.job.name,
            status=JobStatus.COMPLETED if done else JobStatus.FAILED,
            _return_value=None if done else RuntimeError(f"{ended.job} {ended.state}: {ended.message}"),
        )


for _group, _plugin in (("sweeper", LocalSweeper), ("launcher", LocalLauncher)):
    _node: dict[str, Any] = {"_target_": f"{__name__}.{_plugin.__name__}"} | (
        {"params": {}} if _group == "sweeper" else {}
    )
    ConfigStore.instance().store(group=f"hydra/{_group}", name="local", node=_node, provider="experiments")
