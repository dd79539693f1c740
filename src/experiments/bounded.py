"""The reader of every file that somebody else may have written; `archives.py` is its part for arrays.

Only regular files are opened, no more is read than the kind of file may hold, and archives and pictures are judged by
their headers before anything is unpacked. Each refusal is one `InputError` line.
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.errors import InputError

# The most that a file of each kind holds, bytes: about ten times the largest that this program writes.
CONFIG_BYTES = 1_000_000
RECORD_BYTES = 4_000_000
ENVIRONMENT_BYTES = 4_000_000
HISTORY_BYTES = 32_000_000
PLAN_BYTES = 256_000_000
REPORT_BYTES = 4_000_000
DECISIONS_BYTES = 64_000_000
PREDICTIONS_BYTES = 500_000_000  # uncompressed: 100,000 images of 1,000 classes take 400 MB
HISTORY_ROWS = 100_000
DEEPEST_JSON = 30  # levels; ours have 8 at most
PICTURE_BYTES = 256_000_000  # of the file
PIXELS = 50_000_000  # of a picture: what the cameras of phones make, 200 MB unpacked


def size(count: float) -> str:
    """A number of bytes for people: `3.2 GB`."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


@contextmanager
def open_file(path: Path, most_bytes: int | None = None) -> Iterator[io.BufferedReader]:
    """Opens a regular file for reading, and waits for nothing.

    Args:
        path: the file; a link is followed.
        most_bytes: its largest size; None if whoever reads it keeps to bounds of his own.

    Raises:
        InputError: it is missing, closed to this user, too large, or a directory, pipe, socket or device.
    """
    try:
        _require_regular(path, os.stat(path).st_mode)
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise _unreadable(path, error) from None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _require_regular(path, status.st_mode)  # again: it may have been exchanged
        if most_bytes is not None and status.st_size > most_bytes:
            raise InputError(f"{path}: must be at most {size(most_bytes)}, received {size(status.st_size)}")
        yield file


def exists(path: Path) -> bool:
    """Whether there is a file or folder of a name.

    Raises:
        InputError: nobody can know: the way there is closed to this user, the name too long, or a loop of links.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise _unreadable(path, error) from None
    return True


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {stat.S_IFDIR: "directory", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    raise InputError(f"{path}: must be a regular file, received a {kinds.get(stat.S_IFMT(mode), 'device')}")


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
    return InputError(f"{path}: cannot be read ({reason})")


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file.

    Raises:
        InputError: as `open_file`, or reading fails.
    """
    with open_file(path, most_bytes) as file:
        try:
            return file.read(os.fstat(file.fileno()).st_size) or b""
        except OSError as error:
            raise _unreadable(path, error) from None


def read_text(path: Path, most_bytes: int) -> str:
    """The text of a regular UTF-8 file.

    Raises:
        InputError: as `read_bytes`, or it is no UTF-8.
    """
    try:
        return read_bytes(path, most_bytes).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be UTF-8 text, received byte {error.object[error.start]:#04x}") from None


def read_json(path: Path, most_bytes: int) -> Any:
    """What a JSON file says.

    Raises:
        InputError: as `read_bytes`, or it is no JSON or deeper than `DEEPEST_JSON` levels.
    """
    return parse_json(read_bytes(path, most_bytes), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """What a JSON text says; `where` it stands begins the message of an error.

    Raises:
        InputError: it is no JSON or deeper than `DEEPEST_JSON` levels.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise InputError(f"{where}: must be JSON of at most {DEEPEST_JSON} levels") from None
    except ValueError as error:  # also what is no UTF-8, or a number of thousands of digits
        raise InputError(f"{where}: is not JSON ({error})") from None
    if _brackets(text) <= DEEPEST_JSON:  # it cannot be deeper, and need not be walked through
        return value
    level = [value]
    for _ in range(DEEPEST_JSON):
        level = [child for node in level for child in _children(node)]
        if not level:
            return value
    raise InputError(f"{where}: must be JSON of at most {DEEPEST_JSON} levels")


def _brackets(text: str | bytes) -> int:
    if isinstance(text, str):
        return text.count("{") + text.count("[")
    return text.count(b"{") + text.count(b"[")


def _children(node: Any) -> Iterable[Any]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return (child for child in children if isinstance(child, dict | list))


def read_rows(path: Path, most_bytes: int = HISTORY_BYTES, most_rows: int = HISTORY_ROWS) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, each by column.

    Args:
        path: the file.
        most_bytes: its largest size.
        most_rows: the most rows after the header.

    Raises:
        InputError: as `read_text`, or it has too many rows, or a row has not the header's number of values.
    """
    lines = csv.reader(io.StringIO(read_text(path, most_bytes), newline=""), strict=True)
    rows: list[dict[str, str]] = []
    try:
        header = next(lines, [])
        for values in lines:
            if len(rows) == most_rows:
                raise InputError(f"{path}: must have at most {most_rows:,} rows, received more")
            if len(values) != len(header):
                rule = f"must have {len(header)} values like the header"
                raise InputError(f"{path}: row {len(rows) + 1} {rule}, received {len(values)}")
            rows.append(dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise InputError(f"{path}: is not CSV ({error})") from None
    return rows


# Memory and pictures.


def require_memory(count: int, where: str) -> None:
    """Refuses what does not fit into the memory that is free.

    Raises:
        InputError: `count` bytes are more than that.
    """
    free = available_memory()
    if count > free:
        raise InputError(f"{where}: takes {size(count)} of memory, and {size(free)} are free here")


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, and of the container where it is in one."""
    import psutil

    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group, or one without a limit: `max`
        return free
    return max(0, min(free, most - used + int(kept.get("inactive_file", 0))))


def require_pixels(width: int, height: int, where: str) -> None:
    """Refuses a picture by its header.

    Args:
        width: pixels.
        height: pixels.
        where: begins the message of an error, as the path of the picture.

    Raises:
        InputError: it has more than `PIXELS` pixels.
    """
    if width * height > PIXELS:
        rule = f"pictures must have at most {PIXELS // 10**6} megapixels"
        raise InputError(f"{where}: {rule}, received {width}×{height}, {width * height // 10**6}")
