"""Locks between processes of one host or of several: a lease each, which ends with its holder, however that ends."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from experiments.errors import BusyError
from experiments.results import lease
from experiments.results.lease_file import look


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Holds the lock at `path` for the length of a block; False where another process has it.

    A process that was frozen in the block, and whose lock another one took meanwhile, ends when it wakes up.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        mine = lease.acquire(path.parent, name=path.name)
    except BusyError:
        mine = None
    try:
        yield mine is not None
    finally:
        if mine:
            mine.release()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock at `path`; nothing is written."""
    found = look(path.parent, path.name)
    return found is not None and not found.is_over()


def clear(folder: Path, names: Collection[str]) -> None:
    """Removes what killed holders have left of some locks; those that are held stay.

    Args:
        folder: that holds the locks.
        names: of locks that nobody needs any more.
    """
    with suppress(OSError):  # what cannot be removed does no harm
        left = {entry.removeprefix(".").partition("-")[0] for entry in os.listdir(folder)}
        for name in left.intersection(names):
            with held(folder / name):
                pass


def holder(path: Path) -> str:
    """The process that holds a lock, as far as that is known: `process 1234`, `process 1234 on node7`."""
    return str(look(path.parent, path.name) or "another process")
