"""How a run enters its directory and leaves it: opened or gone on with, logged, stopped, and always with a state."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.config import RunConfig, config_key, flatten, is_run, run_key
from experiments.errors import DivergedError, InputError, PausedError, StoppedError
from experiments.ingredients.splits import ImageData
from experiments.results import environment, files, lease, own_code, records, tracking
from experiments.results.causes import Cause, changes_before, find_causes
from experiments.results.process import Process
from experiments.results.records import DatasetSummary, Failure, MLflowState, Record
from experiments.results.states import RunState
from experiments.results.tracking_mirror import Mirror
from experiments.screen import PlainFormatter
from experiments.training import devices
from experiments.training.checkpoint import Checkpoints
from experiments.training.interruption import StopRequest, exit_now, listening

log = logging.getLogger(__name__)
RESUMED = "resumed-"  # prefix of the digests of a run that was resumed under other code, data or packages: never reused
ABORT_PATIENCE_SECONDS = 5.0  # for the mirror, when the user has pressed Ctrl-C twice


@dataclass(frozen=True)
class Origin:
    """Where a run comes from, beside its config; `hydra` is name → text of Hydra's own files, kept in `.hydra/`."""

    sweep: str | None = None
    job: int | None = None
    varied: Mapping[str, Any] = field(default_factory=dict)
    reproduces: str | None = None
    parent_run_id: str | None = None
    hydra: Mapping[str, str] = field(default_factory=dict)


def gather_facts(config: RunConfig, dataset_digest: str, variables: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What `environment.json` holds of a run.

    Args:
        config: of the run, resolved; threads that are None count as 1.
        dataset_digest: SHA-256 (hex), see `ImageData.digest`.
        variables: of the environment; those that can change a result are kept.
    """
    return devices.facts() | environment.gather(
        threads=config.training.threads or 1,
        dataset_digest=dataset_digest,
        config=flatten(config.identity()),
        own_code=own_code.facts_of(config.model_dump()),
        variables=variables,
    )


def open_record(
    config: RunConfig,
    data: ImageData,
    parameters: int,
    directory: Path | None,
    origin: Origin,
    *,
    take_over: bool = False,
) -> Record:
    """The record of a new run, or of the interrupted one that `directory` holds, with the files known at the start.

    This process then holds the lease on the directory; `recording` gives it up. Not so where another process has
    finished the run: its record is returned as it is.

    Args:
        config: of the run, resolved.
        data: what it trains on.
        parameters: of its network.
        directory: new or of an interrupted run; by default a new one in `outputs/`.
        origin: where the run comes from.
        take_over: also from a process that may still work on it.

    Raises:
        BusyError: another process works on it.
        InputError: the directory cannot be used.
    """
    facts = gather_facts(config, data.digest)
    texts = {files.CONFIG: config.to_yaml(), **{f"{files.HYDRA}/{k}": text for k, text in origin.hydra.items()}}
    dataset = DatasetSummary(
        name=data.name, digest=data.digest, source=data.source, scale=data.scale, notes=list(data.notes)
    )
    record = new_record(config, dataset, parameters, origin)
    directory = directory or files.home() / "outputs" / record.name
    earlier = records.load(directory) if (directory / files.RECORD).exists() else None
    if earlier and not take_over:
        records.refuse_running(earlier)
    with lease.owned(directory, after=earlier.lease if earlier else 0, take_over=take_over) as mine:
        if (directory / files.RECORD).exists():
            return _reopen(directory, config, facts, texts, mine.number)
        record.lease = mine.number
        texts |= {files.ENVIRONMENT: files.json_text(facts), **own_code.diffs_of(config.model_dump())}
        record.create(directory, texts)
    return record


def new_record(config: RunConfig, dataset: DatasetSummary, parameters: int, origin: Origin) -> Record:
    """The record of a run that begins now in this process, not yet written.

    Args:
        config: with its real data set and threads.
        dataset: which images it is trained on.
        parameters: of the model, 0 where it is not known.
        origin: of the run.
    """
    name = f"{files.now():%Y%m%d-%H%M%S}-{config.model.name}-{config.optimizer.name}-{secrets.token_hex(2)}"
    return Record(
        name=f"{origin.sweep}/{origin.job}" if origin.sweep else name,
        run_key=run_key(config, dataset.digest),
        config_key=config_key(config, dataset.digest),
        seed=config.seed,
        sweep=origin.sweep,
        job=origin.job,
        varied=dict(origin.varied),
        started_at=files.now(),
        process=Process.current(),
        parameters=parameters,
        dataset=dataset,
        code_digest=environment.code_digest(),
        sources_digest=environment.sources_digest(),
        own_code_digest=own_code.digest_of(config.model_dump()),
        versions=environment.versions(),
        reproduces=origin.reproduces,
        mlflow=MLflowState(parent_run_id=origin.parent_run_id),
    )


def _reopen(
    directory: Path, config: RunConfig, facts: Mapping[str, Any], texts: Mapping[str, str], lease_number: int
) -> Record:
    record = records.load(directory)
    causes = find_causes(record.environment, facts)
    if not is_run(record.run_key, config, facts["dataset_digest"]):
        why = [cause.text for cause in causes if cause.kind in ("config", "data")]
        raise InputError(f"{directory}: holds another run; {'; '.join(why) or 'its run_key differs'}")
    if record.state == RunState.FINISHED:  # by another process, since it was looked at
        lease.release(directory)
        return record
    try:
        files.require_kinds(directory)
        for name, text in texts.items():
            files.write_atomically(directory / name, text)
        _note_changes(record, [cause for cause in causes if cause.likely and cause.kind != "resumed"])
    except OSError as error:
        raise InputError(f"{error.filename2 or error.filename}: cannot be written ({error.strerror})") from None
    record.write(state=RunState.RUNNING, process=Process.current(), lease=lease_number, error=None, finished_at=None)
    return record


def _note_changes(record: Record, causes: Sequence[Cause]) -> None:
    """Records changes of code, data or packages at a resume, and marks the run as not reusable."""
    earlier = changes_before(record.environment)
    new = [cause.text for cause in causes if cause.text not in earlier]
    if not new:
        return
    record.environment = record.environment | {"resumed": [*earlier, *new]}
    files.write_json(record.directory / files.ENVIRONMENT, record.environment)
    record.code_digest = f"{RESUMED}{record.code_digest.removeprefix(RESUMED)}"
    if record.sources_digest is not None:
        record.sources_digest = f"{RESUMED}{record.sources_digest.removeprefix(RESUMED)}"


def _warn_of_changes(record: Record) -> None:
    changes = changes_before(record.environment)
    for text in changes:
        log.warning("resumed after a change (%s): results may match neither version", text)
    if changes:
        again = "a clean run from the same config: python -m experiments.run --config-path %s --config-name config"
        log.warning(again, record.directory)


@contextmanager
def recording(
    record: Record, config: RunConfig, *, when_finished: Callable[[], object] = lambda: None
) -> Iterator[Mirror | None]:
    """Whatever happens inside ends in a state of the record, a line for the user, and the end of the MLflow run.

    Args:
        record: of the run; its directory is there.
        config: of the run.
        when_finished: is called when the record says `finished`, and before the mirror takes the directory's files.
    """
    started, earlier = time.perf_counter(), record.seconds
    with lease.released(record.directory), _logging_to(record.directory / files.LOG):
        name, what, where = record.name, record.dataset, devices.describe(config.training.threads)
        log.info("%s: %s parameters, %s (%s), %s", name, f"{record.parameters:,}", what.name, what.source, where)
        for note in record.dataset.notes:
            log.info("%s", note)
        _warn_of_changes(record)
        mirror = tracking.start_mirror(record, config, files.home())
        state = RunState.FAILED
        failure: Failure | None = None
        try:
            yield mirror
            state = RunState.FINISHED
        except (PausedError, StoppedError) as error:
            state = RunState.PAUSED if isinstance(error, PausedError) else RunState.INTERRUPTED
            log.warning("%s", error)
        except KeyboardInterrupt:  # before the first epoch or after the last one: nobody else listens then
            state = RunState.INTERRUPTED
            log.warning("stopped after epoch %d", record.epochs_run)
        except Exception as error:
            state = RunState.DIVERGED if isinstance(error, DivergedError) else RunState.FAILED
            failure = Failure(type=type(error).__name__, message=str(error))
            log.error("%s: %s: %s", state, failure.type, error)
            log.debug("traceback", exc_info=True)  # for run.log; the screen has the line above
        seconds = round(earlier + time.perf_counter() - started, 3)
        record.write(state=state, error=failure, finished_at=files.now(), seconds=seconds)
        if state == RunState.FINISHED:
            Checkpoints(record.directory / files.CHECKPOINT).remove()
            with timed(record, "figures"):
                when_finished()
            record.write()
        if mirror:
            with timed(record, "mirror"):
                mirror.close()
            record.write()


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    package = logging.getLogger("experiments")
    package.setLevel(logging.DEBUG)
    handler = lease.LogFile(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()


@contextmanager
def timed(record: Record, part: str) -> Iterator[None]:
    """Adds the time of a block to the record's timings, seconds."""
    started = time.perf_counter()
    try:
        yield
    finally:
        record.timings[part] = round(record.timings.get(part, 0.0) + time.perf_counter() - started, 3)


@contextmanager
def stoppable(record: Record, mirror: Mirror | None) -> Iterator[Callable[[], bool]]:
    """Listens to Ctrl-C and SIGTERM where this is the main thread: Python lets no other one."""

    def stop_soon() -> None:
        log.warning("stopping at the end of this epoch; Ctrl-C again stops now")

    def stop_now() -> None:
        record.write(state=RunState.INTERRUPTED, finished_at=files.now())
        if mirror:
            mirror.close(patience_seconds=ABORT_PATIENCE_SECONDS)
        lease.release(record.directory)
        exit_now()

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    with listening(StopRequest(on_first=stop_soon, on_second=stop_now)) as request:
        yield request
