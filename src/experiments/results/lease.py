"""Leases: which process owns a run directory or a lock, told by files alone, so that it holds on every host.

Files `lease-<n>.json`; the highest number owns. The next number is made with link(2), which fails where another
process was quicker, over NFS too. An owner renews its lease by touching it. A lease is over when its process is known
to be gone, or when it was not touched in time by the file server's clock: the clocks of the hosts play no part.

An owner that was frozen and wakes up after a take-over must not replace anything, wherever it was frozen. It writes
every file into a folder of its own, `.lease-<n>-<token>`, and renames it to its place from there; a take-over removes
that folder, so a late rename fails. The owner also looks before each rename whether it still owns, and if not, it ends.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from experiments.errors import BusyError, InputError
from experiments.results.lease_file import NAME, Holder, lease_seconds, look, numbers, path_of, read
from experiments.results.process import Process, end_process

ATTEMPTS = 10  # at removing a folder into which somebody writes
RENEWALS = 4  # in the time of a lease: three may fail or be late
LOST = 79  # exit code of a process whose lease was taken over; sysexits.h ends at 78
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # of link(2) on file systems without hard links


class Lease:
    """A lease that this process holds; made by `acquire`.

    Attributes:
        number: which one it is in its folder, from 1.
        staging: where files are written before they are renamed to their place in the folder.
    """

    def __init__(self, path: Path, number: int, holder: Holder) -> None:
        self.path, self.number, self._holder = path.absolute(), number, holder
        self.folder = os.path.realpath(path.parent)
        self.name = path.name.rpartition("-")[0]
        self.staging = self.path.with_name(f".{self.name}-{number}-{holder.token}")
        self._lock = threading.Lock()
        self._released = threading.Event()

    def begin(self) -> None:
        """Fences earlier owners off and starts the thread that renews the lease.

        Raises:
            FileExistsError: another process has taken it over already.
            OSError: the folder cannot be written.
        """
        try:
            self.staging.mkdir()
        except OSError:
            self.path.unlink(missing_ok=True)
            raise
        if self.is_lost():
            self.staging.rmdir()
            raise FileExistsError
        _remove_traces(self.path.parent, self.name, self.number)
        _held.append(self)
        threading.Thread(target=self._renew, daemon=True, name="lease").start()

    def is_mine(self) -> bool:
        """Whether this process holds it, and not the one that it was forked from."""
        return self._holder.pid == os.getpid() and not self._released.is_set()

    def _renew(self) -> None:
        while not self._released.wait(self._holder.seconds / RENEWALS):
            self.check()
            with suppress(OSError):
                os.utime(self.path)

    def check(self) -> None:
        """Ends the process where another one has taken the lease over."""
        with self._lock:
            if self.is_mine() and self.is_lost():
                with suppress(Exception):
                    sys.stderr.write(f"{self.path.parent}: another process has taken over; this one ends\n")
                    sys.stderr.flush()
                end_process(LOST)

    def is_lost(self) -> bool:
        """Whether the folder exists and another process, or none, owns it."""
        try:
            holder, _ = read(self.path)
        except FileNotFoundError:
            return os.path.isdir(self.folder)
        except OSError as error:
            return error.errno == errno.ESTALE
        lost = holder is None or holder.token != self._holder.token
        return lost or max(numbers(self.path.parent, self.name), default=0) > self.number

    def release(self) -> None:
        """Gives the lease up and removes its files."""
        with self._lock:
            if not self.is_mine():
                return
            self._released.set()
            with suppress(ValueError):
                _held.remove(self)
            shutil.rmtree(self.staging, ignore_errors=True)
            with suppress(OSError):
                if not self.is_lost():
                    self.path.unlink()


_held: list[Lease] = []  # by this process


def acquire(folder: Path, *, name: str = NAME, after: int = 0, take_over: bool = False) -> Lease:
    """Takes the lease on a folder, which is made where it is not there.

    Args:
        folder: what it is a lease on, or where it lies with others.
        name: of the lease.
        after: the highest number that is known to have been used.
        take_over: from a holder that may be alive, too; it then ends before it writes again.

    Raises:
        BusyError: another process holds it, or was quicker.
        InputError: see `lease_seconds`.
        OSError: the folder cannot be written.
    """
    holder = Holder(**vars(Process.current()), token=secrets.token_hex(8), seconds=lease_seconds())
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{name}-{holder.token}"
    try:
        draft.write_text(holder.model_dump_json() + "\n")
        found = look(folder, name)
        if found and not (take_over or found.is_over(now=draft.stat().st_mtime)):
            raise BusyError(f"{folder}: is in use by {found}")
        number = max(found.number if found else 0, after) + 1
        lease = Lease(path_of(folder, name, number), number, holder)
        _link(draft, lease.path)
        try:
            lease.begin()
        except KeyboardInterrupt:  # nobody would hold it, and on another host it would seem to be held
            lease.release()
            raise
    except (FileExistsError, FileNotFoundError):  # also where the quicker one has removed the draft
        raise BusyError(f"{folder}: is in use by another process, which was quicker") from None
    finally:
        draft.unlink(missing_ok=True)
    return lease


def _remove_traces(folder: Path, name: str, number: int) -> None:
    """Removes what is left of owners before `number`: none of them can rename a file to its place after that.

    The folder of an owner that comes into being later is never touched, however late this happens.
    """
    pattern = re.compile(rf"\.{re.escape(name)}-(?:([0-9]+)-)?[0-9a-f]{{16}}|\.probe-[0-9a-f]{{16}}")
    for found in filter(None, map(pattern.fullmatch, os.listdir(folder))):
        if int(found[1] or 0) < number:
            _remove(folder / found[0])
    for old in numbers(folder, name):
        if old < number:
            _remove(path_of(folder, name, old))


def _remove(path: Path) -> None:
    for _ in range(ATTEMPTS):  # an owner that is alive may be writing into it
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


def _link(draft: Path, path: Path) -> None:
    """Makes `path` the same file as `draft`.

    Raises:
        FileExistsError: it is there.
    """
    try:
        os.link(draft, path)
    except FileExistsError:
        if draft.stat().st_nlink == 1:  # otherwise it was made, and the server's answer got lost
            raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with path.open("xb") as file:
            file.write(draft.read_bytes())


def check() -> None:
    """Ends the process where one of its leases was taken over. To be called before anything is written."""
    for lease in list(_held):
        lease.check()


class LogFile(logging.FileHandler):
    """A log to which a process that was taken over adds nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        check()
        super().emit(record)


def staging(path: Path) -> Path | None:
    """Where a file is written before it is renamed to `path`; None where this process holds no lease on that folder."""
    folder = os.path.realpath(path.parent) + os.sep
    held = [lease for lease in list(_held) if lease.name == NAME and lease.is_mine()]
    return next((lease.staging for lease in held if folder.startswith(lease.folder + os.sep)), None)


def release(folder: Path) -> None:
    """Gives up the lease that this process holds on a folder, if it does."""
    where = os.path.realpath(folder)
    for lease in [lease for lease in list(_held) if lease.name == NAME and lease.folder == where]:
        lease.release()


@contextmanager
def held(folder: Path, *, name: str = NAME, after: int = 0) -> Iterator[Lease]:
    """Holds a lease for the length of the block; see `acquire`.

    Args:
        folder: what it is a lease on, or where it lies with others.
        name: of the lease.
        after: the highest number that is known to have been used.

    Raises:
        BusyError: another process holds it, or was quicker.
        OSError: the folder cannot be written.
    """
    mine = acquire(folder, name=name, after=after)
    try:
        yield mine
    finally:
        mine.release()


@contextmanager
def owned(folder: Path, *, after: int, take_over: bool) -> Iterator[Lease]:
    """Takes a lease that outlives the block; where the block fails, it is given up, and the folder removed if empty.

    Args:
        folder: see `acquire`, as for the others.
        after: the highest number that is known to have been used.
        take_over: from a holder that may be alive, too.

    Raises:
        BusyError: another process holds it, or was quicker.
        InputError: the folder cannot be written.
    """
    try:
        mine = acquire(folder, after=after, take_over=take_over)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    try:
        yield mine
    except BaseException:
        mine.release()
        with suppress(OSError):
            folder.rmdir()
        raise


@contextmanager
def released(folder: Path) -> Iterator[None]:
    """However the block ends, this process then gives up its lease on a folder."""
    try:
        yield
    finally:
        release(folder)
