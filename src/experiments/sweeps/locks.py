"""Locks between processes. The system lets go of them when their holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Holds the lock at `path` for the length of a block; False where another process has it.

    Raises:
        OSError: the file cannot be made.
    """
    file = _acquire(path)
    try:
        yield file is not None
    finally:
        if file is not None:
            path.unlink(missing_ok=True)
            file.close()


def holder(path: Path) -> str:
    """The process that holds a lock, as far as it has said so: `process 1234`."""
    try:
        return f"process {int(path.read_text())}"
    except (OSError, ValueError):
        return "another process"


def _acquire(path: Path) -> FileIO | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("ab", buffering=0)  # what a full disk refuses would be tried again when it is closed
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if _is_there(file, path):
            with suppress(OSError):  # a full disk: the lock holds without a name in it
                file.truncate(0)
                file.write(str(os.getpid()).encode())
            return file
        file.close()  # its holder has removed it just now, and the next process would lock another file


def _is_there(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
