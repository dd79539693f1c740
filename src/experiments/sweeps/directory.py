"""Where a sweep lies: the directory of the same plan or a new one, and `plan.json` in it."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.bounded import PLAN_BYTES, RECORD_BYTES, open_file, read_json
from experiments.config import validate_saved
from experiments.directories import made
from experiments.errors import InputError
from experiments.results import files
from experiments.sweeps import locks
from experiments.sweeps.jobs import Job, Plan
from experiments.upgrades import FORMAT, FormatError, bring_up, newest

log = logging.getLogger(__name__)
PLAN, LOCKS, ASIDE = "plan.json", ".locks", "set-aside"
LONGEST_NAME = 40  # characters of a sweep's name that tell what varies
HEAD_BYTES = 300  # of a plan.json: the key stands before the jobs
FIRST_JOB_BYTES = 4000  # in which the overrides of the first job stand, if there are not very many
KEY = re.compile(rb'"key": "([0-9a-f]{64})"')


@dataclass(frozen=True)
class Place:
    """The directory of a sweep.

    Attributes:
        threads: of each job, where the sweep was begun before.
        damage: what is wrong with its plan.json.
        grows: whether a search has got more jobs than its plan.json has.
    """

    path: Path
    is_new: bool
    threads: tuple[int, ...] = ()
    damage: str = ""
    grows: bool = False

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.path.name

    def directory_of(self, job: Job) -> Path:
        """The run directory of a job; a link where its run was made elsewhere."""
        return self.path / str(job.number)

    def output_of(self, job: Job) -> Path:
        """What a job prints, until it has a `run.log` to add it to."""
        return self.path / f".output-{job.number}"


@contextmanager
def locked(plan: Plan, home: Path) -> Iterator[None]:
    """Holds the plan, so that the same sweep started twice does not run twice.

    Raises:
        InputError: another process holds it, or `home` cannot be written.
    """
    path = home / "multirun" / LOCKS / f"plan-{plan.key}"
    with ExitStack() as stack:
        try:
            stack.enter_context(made(path.parent))
            mine = stack.enter_context(locks.held(path))
        except OSError as error:
            raise _unwritable(path.parent, error) from None
        if not mine:
            raise InputError(f"this sweep is being run already, by {locks.holder(path)}; wait for it or stop it")
        yield


def seems_begun(overrides: Sequence[str], home: Path) -> bool:
    """Whether a sweep's first job has these overrides: then the same command was probably given before."""
    return any(_asks_the_same(path, overrides) for path in home.glob(f"multirun/*/{PLAN}"))


def _asks_the_same(path: Path, overrides: Sequence[str]) -> bool:
    """How a sweep is carried out is left aside. A plan that cannot be read so quickly asks something else."""
    with suppress(OSError, InputError, ValueError, TypeError, AttributeError, RecursionError), open_file(path) as file:
        head = file.read(FIRST_JOB_BYTES).decode(errors="replace").partition('"overrides": ')[2]
        first, _ = json.JSONDecoder().raw_decode(head)
        return _questions(first) == _questions(overrides)
    return False


def _questions(overrides: Sequence[str]) -> list[str]:
    return [text for text in overrides if not text.startswith("sweep.")]


def find_place(plan: Plan, home: Path) -> Place:
    """The directory of the sweep with this very plan, or the name of a new one. Writes nothing.

    Raises:
        InputError: the directory that the user names holds something else.
    """
    name, fresh = plan.execution.title, plan.execution.reuse == "never"
    if name is not None:
        return _named(home / "multirun" / name, plan, fresh=fresh)
    for path in sorted(home.glob("multirun/[0-9]*"), reverse=True) if not fresh else []:
        if _holds(path, plan):
            return _begun(path, plan)
    words = "-".join(plan.varied)[:LONGEST_NAME].rstrip("-") or "one"
    words = re.sub(r"[^A-Za-z0-9._-]", "-", words)
    return Place(home / "multirun" / f"{files.now():%Y%m%d-%H%M%S}-{words}-{secrets.token_hex(2)}", is_new=True)


def _named(path: Path, plan: Plan, *, fresh: bool) -> Place:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return Place(path, is_new=True)
    if not path.is_dir() or (not (path / PLAN).exists() and not _jobs_agree(path, plan)):
        raise InputError(f"sweep.title: {path} holds something else than a sweep; choose another title")
    if fresh:
        raise InputError(
            f"sweep.title: {path} is there already, and sweep.reuse=never begins anew; choose another title"
        )
    if not _holds(path, plan):
        raise InputError(f"sweep.title: {path} holds another plan (other jobs, code or versions); choose another title")
    return _begun(path, plan)


def _holds(path: Path, plan: Plan) -> bool:
    try:
        with open_file(path / PLAN) as file:
            key = KEY.search(file.read(HEAD_BYTES))
    except (OSError, InputError):
        key = None
    return key[1].decode() == plan.key if key else _jobs_agree(path, plan)


def _jobs_agree(path: Path, plan: Plan) -> bool:
    """Whether the runs that lie there are this plan's: so a sweep is found again whose plan.json is damaged or gone."""
    agree = False
    for job in plan.jobs:
        with suppress(InputError, TypeError, KeyError):
            record = read_json(path / str(job.number) / files.RECORD, RECORD_BYTES)
            if not job.is_run(record["run_key"]) or record["sweep"] != path.name:
                return False
            agree = True
    return agree


def _begun(path: Path, plan: Plan) -> Place:
    try:
        frozen = bring_up("plan", read_json(path / PLAN, PLAN_BYTES))["jobs"]
        same = len(frozen) == len(plan.jobs) or bool(plan.ranges)  # a search may get more jobs, or ask for fewer
        same = same and all(_is_job(job, was) for job, was in zip(plan.jobs, frozen, strict=False))
        threads = [was["config"]["training"]["threads"] or 1 for was in frozen[: len(plan.jobs)]]
    except FormatError as error:
        raise InputError(f"{path / PLAN}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        reason = str(error).partition("\n")[0]
        return Place(path, is_new=False, damage=f"is damaged ({type(error).__name__}: {reason})")
    if not same:
        return Place(path, is_new=False, damage="was changed by hand")
    threads += threads[-1:] * (len(plan.jobs) - len(threads))
    return Place(path, is_new=False, threads=tuple(threads), grows=len(plan.jobs) > len(frozen))


def _is_job(job: Job, was: Mapping[str, Any]) -> bool:
    """Whether a job of a saved plan is this one; a config that is the same to the letter needs no validation."""
    if was["config"] == job.config.to_saved():
        return job.is_run(was["run_key"])
    return validate_saved(was["config"]).identity() == job.config.identity() and job.is_run(was["run_key"])


def _frozen(plan: Plan) -> dict[str, Any]:
    jobs = [
        {"number": job.number, "overrides": job.overrides, "varied": dict(job.varied), "run_key": job.run_key,
         "config_key": job.config_key, "config": job.config.to_saved()}
        for job in plan.jobs
    ]  # fmt: skip
    search = {"search": dict(plan.ranges)} if plan.ranges else {}
    return {FORMAT: newest("plan"), "key": plan.key, "workers": plan.workers, **search, "jobs": jobs}


def _text(plan: Plan) -> str:
    """`plan.json`: a line for each job, which is written many times faster than a line for each value."""
    values = _frozen(plan)
    jobs = ",\n".join(map(json.dumps, values.pop("jobs")))
    head = json.dumps(values, indent=1).removesuffix("\n}")
    return f'{head},\n "jobs": [\n{jobs}\n]\n}}\n'


def freeze(plan: Plan, place: Place) -> None:
    """Makes the directory of a new sweep, `plan.json` in it from the first moment on; replaces a damaged `plan.json`.

    Raises:
        InputError: somebody else has made a directory of that name, or it cannot be written.
    """
    try:
        if place.is_new:
            _make(plan, place)
        elif place.damage:
            path = place.path / PLAN
            kept = f"; set aside as {set_aside(path, place)}" if path.exists() else ""
            log.warning("%s: %s%s; written anew", path, place.damage, kept)
            files.write_atomically(path, _text(plan))
        elif place.grows:
            files.write_atomically(place.path / PLAN, _text(plan))
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise InputError(f"{place.path}: another process has made it just now; give the command again") from None
        raise _unwritable(place.path, error) from None


def _make(plan: Plan, place: Place) -> None:
    making = place.path.with_name(f".plan-{plan.key[:16]}")  # one name, for whoever holds the lock of this plan
    shutil.rmtree(making, ignore_errors=True)  # of a process that was killed
    making.mkdir(parents=True)
    try:
        files.write_atomically(making / PLAN, _text(plan))
        making.rename(place.path)  # refused where it is there and holds anything
    finally:
        shutil.rmtree(making, ignore_errors=True)


def set_aside(path: Path, place: Place) -> Path:
    """Moves what cannot be used out of the way, where nobody takes it for a run; nothing is ever thrown away."""
    aside = place.path / ASIDE / f"{path.name}-{secrets.token_hex(2)}"
    aside.parent.mkdir(exist_ok=True)
    os.rename(path, aside)
    return aside


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror})")
