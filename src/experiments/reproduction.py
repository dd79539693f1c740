"""A run repeated from what it left behind, and the verdict on the repeat."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments import project
from experiments.conf import CONF
from experiments.config import RunConfig, flatten, validate, validate_saved
from experiments.errors import DataError, InputError, StoppedError
from experiments.plain_yaml import read_yaml
from experiments.recording import Origin, gather_facts
from experiments.results import files, lookup, mirrored
from experiments.results.causes import Cause, find_causes
from experiments.results.environment import NOT_AVAILABLE
from experiments.results.files import EpochRow
from experiments.results.records import Record
from experiments.results.states import RunState
from experiments.results.verdict import Difference, Verdict, as_json, compare_rows, judge
from experiments.training import runtime

log = logging.getLogger(__name__)
MLFLOW_ID = re.compile(r"[0-9a-f]{4,32}")
REPEATABLE = (RunState.FINISHED, RunState.DIVERGED)  # both are what the same config would lead to again


@contextmanager
def original(name: str, home: Path) -> Iterator[Record]:
    """The run that `name` means; one that only MLflow has lies in a temporary folder for the length of the block.

    Raises:
        InputError: there is none, there are several, or it has not ended.
    """
    with tempfile.TemporaryDirectory(prefix="experiments-") as folder:
        try:
            found = lookup.find(name, home)
        except InputError:
            downloaded = mirrored.download(name, home, Path(folder)) if MLFLOW_ID.fullmatch(name) else None
            if downloaded is None:
                raise
            found = [downloaded]
        if len(found) != 1:
            raise InputError(f"{name}: is a sweep of {len(found)} runs; name one of them, as in {found[0].name}")
        if found[0].state not in REPEATABLE:
            raise InputError(
                f"{name}: is {found[0].state}, so there is no result to repeat; "
                f"python -m experiments.run resume={name} goes on with it"
            )
        yield found[0]


def config_of(record: Record, *, threads: int | None = None) -> RunConfig:
    """The saved config of a run, with another number of threads where that is wanted.

    Raises:
        InputError: it does not fit today's options; each key that has changed is named.
    """
    values = read_yaml(record.directory / files.CONFIG)
    try:
        config = validate_saved(values)
    except InputError as error:
        raise _explain(record, values, error.mistakes) from None
    chosen = config.model_dump()
    chosen["dataset"]["sealed"] = record.sealed  # a repeat looks at what its original has looked at, and no more
    return validate(chosen | {"training": chosen["training"] | {"threads": threads or chosen["training"]["threads"]}})


def _explain(record: Record, values: Any, mistakes: Sequence[str]) -> InputError:
    """What has changed in the options since a run was made, and which code made it."""
    if missing := project.missing(record.environment):
        return InputError(f"{record.name}: {missing}")
    for mistake in mistakes:
        if (key := mistake.partition(": ")[0]).endswith("_target_"):
            return InputError(f"{record.name}: config.yaml: {key}: a config names options, and calls nothing")
    lines = [f"  {mistake}{_today(values, mistake)}" for mistake in mistakes]
    commit = record.environment.get("code", {}).get("commit", NOT_AVAILABLE)
    origin = "" if commit == NOT_AVAILABLE else f"check out commit {commit}, which made it, or "
    return InputError(
        f"{record.name}: its config.yaml does not fit the options of today's code:",
        *lines,
        f"{origin}bring the config.yaml of a copy of the run up to date",
    )


def _today(values: Any, mistake: str) -> str:
    """What `conf/` holds for a key that a run's config lacks."""
    key, _, rule = mistake.partition(": ")
    group, _, leaf = key.partition(".")
    if not (leaf and rule.startswith("missing")):
        return ""
    try:
        chosen = values[group].get("name", "default")
        file = CONF / group / f"{chosen}.yaml"
        value = flatten(read_yaml(file))[leaf] if file.parent == CONF / group else ""
    except (InputError, KeyError, TypeError, AttributeError):
        return ""
    return f" (conf/{group}/{chosen}.yaml: {leaf}: {value})"


def expect(run: Record, config: RunConfig) -> list[Cause]:
    """What differs between then and now, found without starting TensorFlow.

    Raises:
        InputError: the data cannot be had.
    """
    variables = os.environ | runtime.variables(config.training)
    try:
        with _noticing_other_data():
            digest = config.dataset.load().digest
    except OtherDataError as error:
        return [error.cause]
    return find_causes(run.environment, gather_facts(config, digest, variables))


class OtherDataError(Exception):
    """The file of a data set is there, and holds something that is no longer that data set."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.text)
        self.cause = cause


@contextmanager
def _noticing_other_data() -> Iterator[None]:
    """A run has read its data once: where that can be found and is refused today, it has changed."""
    try:
        yield
    except DataError as error:
        raise OtherDataError(Cause("data", f"data: {error.faults[0]}")) from None  # of several bad pictures the first


def repeat(run: Record, config: RunConfig, *, stop_at_difference: bool = False) -> Record:
    """Runs the config again in a new directory, and says after every epoch whether it is the same.

    Args:
        run: the original; its rows are compared.
        config: of the original, perhaps with another number of threads.
        stop_at_difference: whether the repeat ends, in state `interrupted`, after the first epoch that differs.

    Raises:
        OtherDataError: the data set has been changed, so that it is refused; nothing was started.
    """
    from experiments.runner import run_experiment

    follower = _Follower(run.rows, stop_at_difference=stop_at_difference)
    with _noticing_other_data():
        return run_experiment(config, origin=Origin(reproduces=run.name), on_epoch=follower)


class _Follower:
    """Holds every epoch of a repeat against the original's."""

    def __init__(self, rows: Sequence[EpochRow], *, stop_at_difference: bool) -> None:
        self._rows, self._stop = rows, stop_at_difference
        self._same = True

    def __call__(self, row: EpochRow) -> None:
        then = self._rows[row.epoch - 1] if row.epoch <= len(self._rows) else None
        surplus = Difference(row.epoch, "epochs", len(self._rows), row.epoch)
        difference = next(compare_rows(then, row), None) if then else surplus
        if difference is None:
            log.info("  identical" if self._same else "  identical again")
            return
        log.info("  different: %s", difference)
        self._same = False
        if self._stop:
            raise StoppedError(f"stopped at the first difference, in epoch {row.epoch}")


def differs(run: Record, again: Record) -> bool:
    """Whether a repeat is known not to be the same, perhaps before its end."""
    return judge(run, again).first is not None


def conclude(run: Record, again: Record, home: Path, *, tolerance: float | None = None) -> Verdict:
    """The verdict on a repeat that has ended, in its directory and in MLflow.

    Args:
        run: the original.
        again: the repeat; `verdict.json` is written into its directory.
        home: folder of MLflow's store, see `files.home`.
        tolerance: the largest absolute difference of any metric that counts as equal, 0 or more; None: none does.
    """
    verdict = judge(run, again, tolerance=tolerance)
    values: Mapping[str, Any] = as_json(verdict)
    files.write_json(again.directory / files.VERDICT, values)
    mirrored.publish_verdict(verdict.verdict, run, again, home)
    return verdict
