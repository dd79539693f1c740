"""The finished runs under a home, by their keys: what need not be trained again, in this sweep or in another one."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from experiments.config import former_run_keys
from experiments.errors import InputError
from experiments.results import environment, files, own_code, records
from experiments.results.records import Record
from experiments.results.states import RunState
from experiments.sweeps.jobs import Job

SETTLED_SECONDS = 2.0  # after which an entry that a folder gets later changes the folder's own time for certain


class Archive:
    """The finished runs under a home, by their key.

    A look reads only what can have changed since the last one, so that it costs a sweep of thousands no more than a
    small one; a record is validated when its key is asked for.

    Args:
        home: with the runs.
        any_code: whether runs of another code and other versions are accepted too.
        own: the directory of the sweep that asks: it knows its own runs.
    """

    def __init__(self, home: Path, *, any_code: bool = False, own: Path | None = None) -> None:
        self._home, self._any_code, self._own = home, any_code, own
        self._folders = _Folders()
        self._written: dict[Path, int] = {}  # when each record was written that had not finished then
        self._finished: defaultdict[str, list[Path]] = defaultdict(list)
        self._holds_old = False  # runs from before there were digests of sources: their keys may follow former rules
        self.reread()

    def accepts(self, record: Record) -> bool:
        """Whether a run has finished, with the code and the versions of today."""
        if record.state != RunState.FINISHED or self._any_code:
            return record.state == RunState.FINISHED
        return record.versions == environment.versions() and _has_todays_code(record)

    def find(self, job: Job) -> Record | None:
        """A finished run of the same key, code and versions."""
        former = former_run_keys(job.config, job.dataset_digest) if self._holds_old else []
        paths = (path for key in (job.run_key, *former) for path in reversed(self._finished.get(key, ())))
        return next((record for record in map(self._accepted, paths) if record), None)

    def _accepted(self, directory: Path) -> Record | None:
        with suppress(InputError):  # a damaged one is named when its own sweep looks at it; one may be gone
            record = records.load(directory)
            if self.accepts(record):
                return record
        return None

    def reread(self) -> None:
        """Looks for what has finished since the last look: another sweep may have finished a job meanwhile."""
        for directory in self._new():
            self._written[directory] = 0
        for directory, before in list(self._written.items()):
            try:
                written = (directory / files.RECORD).stat().st_mtime_ns
            except OSError:  # nothing is there yet, or no more
                written = 0
            if written != before:
                self._written[directory] = written
                self._glance(directory)

    def _new(self) -> Iterator[Path]:
        """The directories of runs that have come: single ones, then sweeps' jobs."""
        yield from self._folders.new(self._home / "outputs")
        for sweep in self._folders.all(self._home / "multirun"):
            if sweep != self._own:
                yield from self._folders.new(sweep)

    def _glance(self, directory: Path) -> None:
        with suppress(InputError):
            seen = records.glance(directory)
            if seen.state == RunState.FINISHED:
                self._finished[seen.run_key].append(directory)
                self._holds_old = self._holds_old or not seen.sources_digest
                del self._written[directory]


class _Folders:
    """Folders whose entries are listed again only when they may have changed."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[str, Path]] = {}
        self._since: dict[Path, tuple[int, float]] = {}  # the time of a folder, and when it was first seen so

    def all(self, folder: Path) -> list[Path]:
        """The directories in a folder; a link to one may be a sweep that was moved."""
        self.new(folder, links=True)
        return sorted(self._known.get(folder, {}).values())

    def new(self, folder: Path, *, links: bool = False) -> list[Path]:
        """Those that have come since the last call, without links where they are not asked for, and hidden ones."""
        try:
            changed, now = folder.stat().st_mtime_ns, time.monotonic()
        except OSError:
            return []
        before, since = self._since.get(folder, (0, now))
        if changed == before and now - since > SETTLED_SECONDS:
            return []
        self._since[folder] = (changed, since if changed == before else now)
        known = self._known.setdefault(folder, {})
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.name not in known and e.is_dir(follow_symlinks=links)]
        names = [name for name in names if not name.startswith(".")]
        known.update((name, folder / name) for name in names)
        return sorted(known[name] for name in names)


def _has_todays_code(record: Record) -> bool:
    """By the sources that make numbers; an older record has only the digest of the whole package."""
    if record.own_code_digest is not None and record.own_code_digest != own_code.digest_of(record.config):
        return False
    if record.sources_digest is None:
        return record.code_digest == environment.code_digest()
    return record.sources_digest == environment.sources_digest()
