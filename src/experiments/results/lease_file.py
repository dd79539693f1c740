"""The file of a lease: what it says, how it is found, and whether its holder is still there."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from experiments.errors import InputError
from experiments.results.process import Process

NAME = "lease"  # of the lease on a run directory
VARIABLE = "EXPERIMENTS_LEASE_SECONDS"
SHORTEST_SECONDS, DEFAULT_SECONDS, LONGEST_SECONDS = 1.0, 60.0, 3600.0
MOST_BYTES = 4096  # of a lease that are read: it may come from somebody else
LOOKS = 10  # at a folder in which leases come and go


class Holder(Process):
    """Who holds a lease, as its file says: for how many seconds after a touch, and under which random token."""

    token: str
    seconds: float = Field(ge=SHORTEST_SECONDS, le=LONGEST_SECONDS)


@dataclass(frozen=True)
class Found:
    """The newest lease in a folder.

    Attributes:
        path: its file.
        number: the highest in its folder.
        holder: None where the file is damaged.
        touched: when it was renewed last, seconds by the file server's clock.
    """

    path: Path
    number: int
    holder: Holder | None
    touched: float

    def is_over(self, now: float | None = None) -> bool:
        """Whether its holder is gone or has not renewed it in time; False where that cannot be known.

        Args:
            now: the file server's time; it is asked where it is not given.
        """
        if self.holder and self.holder.is_gone():
            return True
        now = server_time(self.path.parent) if now is None else now
        return now is not None and now - self.touched > (self.holder.seconds if self.holder else lease_seconds())

    def __str__(self) -> str:
        """Its holder, as far as it is known."""
        return str(self.holder or "another process")


def lease_seconds() -> float:
    """How long a lease holds after it was touched: `$EXPERIMENTS_LEASE_SECONDS`.

    Raises:
        InputError: the variable holds something else than a number from 1 to 3600.
    """
    text = os.environ.get(VARIABLE) or str(DEFAULT_SECONDS)
    with suppress(ValueError):
        if SHORTEST_SECONDS <= float(text) <= LONGEST_SECONDS:
            return float(text)
    raise InputError(
        f"{VARIABLE}: must be a number of seconds from {SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g}, received {text!r}"
    )


def server_time(folder: Path) -> float | None:
    """The time by the clock that dates the files in `folder`, seconds; None where nothing can be written there."""
    with suppress(OSError, AttributeError):  # a file without a name: it cannot be left behind
        return _date(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600))
    probe = folder / f".probe-{secrets.token_hex(8)}"
    try:
        return _date(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        return None
    finally:
        with suppress(OSError):
            probe.unlink()


def _date(descriptor: int) -> float:
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)


def look(folder: Path, name: str = NAME) -> Found | None:
    """The newest lease in a folder, if there is one."""
    for _ in range(LOOKS):
        number = max(numbers(folder, name), default=0)
        if not number:
            break
        path = path_of(folder, name, number)
        with suppress(FileNotFoundError):  # released between the two looks
            try:
                return Found(path, number, *read(path))
            except OSError:  # no plain file
                return Found(path, number, None, os.lstat(path).st_mtime)
    return None


def is_trace(name: str) -> bool:
    """Whether a file of that name belongs to a lease on a run directory, and says nothing of a run."""
    return name.startswith((f"{NAME}-", f".{NAME}-", ".probe-"))


def path_of(folder: Path, name: str, number: int) -> Path:
    """The file of one lease, which need not be there.

    Args:
        folder: that holds the lease.
        name: what all leases on the same thing share, as `NAME`.
        number: 1 or more; each new holder takes a higher one.
    """
    return folder / f"{name}-{number}.json"


def numbers(folder: Path, name: str) -> list[int]:
    pattern = re.compile(rf"{re.escape(name)}-([1-9][0-9]*)\.json")
    with suppress(OSError):
        return [int(found[1]) for found in map(pattern.fullmatch, os.listdir(folder)) if found]
    return []


def read(path: Path) -> tuple[Holder | None, float]:
    """Holder and time of the last touch. Opening asks an NFS server; what was known of the file may be old."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        touched, content = os.fstat(descriptor).st_mtime, os.read(descriptor, MOST_BYTES)
    finally:
        os.close(descriptor)
    try:
        return Holder.model_validate_json(content), touched
    except ValidationError:
        return None, touched
