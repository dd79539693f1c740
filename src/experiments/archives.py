"""Archives of arrays (`.npz`) that somebody else may have written: judged by their headers, and never unpickled."""

from __future__ import annotations

import io
import math
import os
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from experiments.bounded import open_file, require_memory, size
from experiments.errors import InputError, shorten

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNREADABLE = (  # what NumPy, zipfile and Pillow raise on damaged files; they have no common base
    OSError, ValueError, EOFError, RuntimeError, MemoryError, SyntaxError, NotImplementedError, OverflowError,
    tokenize.TokenError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
DIRECTORY_BYTES = 8_000_000  # of an archive's table of contents: more than 80,000 names
MEMBERS = 20_000  # of an archive that is read; a checkpoint has one for each variable
ARRAY_HEADER_BYTES = 10_000  # NumPy's own bound on what it evaluates
BOMB_BYTES = 256_000_000  # an archive that unpacks to more than this,
BOMB_RATIO = 200  # and to more than this times its own size, is no archive of images


class ArrayHeader(NamedTuple):
    """What an array in an archive will be, known without reading it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class _SmallReads(io.BufferedReader):
    """Refuses the one large read that `zipfile` makes by itself: a table of contents as long as the file claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads like its base class, but refuses to read more than `DIRECTORY_BYTES` at once.

        Raises:
            ValueError: more would be read: `size` bytes or, where it is None or negative, all that is left of the file.
        """
        if size is None or size < 0:
            here = self.tell()
            size = self.seek(0, os.SEEK_END) - here
            self.seek(here)
        if size > DIRECTORY_BYTES:
            raise ValueError("its table of contents is too long")
        return super().read(size)


def read_arrays(path: Path, wanted: Sequence[str] | None = None, most_bytes: int | None = None) -> dict[str, Any]:
    """The arrays of an `.npz`, by name; see `unpack_arrays`.

    Args:
        path: the `.npz` file.
        wanted: the names to read, which must be there; None: all.
        most_bytes: the most that they take in memory together, bytes; None: what is free.

    Raises:
        InputError: as `open_file` and `unpack_arrays`.
    """
    with open_file(path) as file:
        return unpack_arrays(file, str(path), wanted, most_bytes)


def unpack_arrays(
    file: BinaryIO, where: str, wanted: Sequence[str] | None = None, most_bytes: int | None = None
) -> dict[str, NDArray[Any]]:
    """The arrays of an open `.npz`; all headers are checked before the first array is read.

    Args:
        file: an open regular file, or `io.BytesIO`.
        where: begins the message of an error.
        wanted: the names to read, which must be there; None: all.
        most_bytes: the most that they take in memory together; None: what is free.

    Raises:
        InputError: it is no whole archive of plain arrays, lacks one, or unpacks to too much.
    """
    import numpy as np

    with open_archive(file, where) as archive:
        headers = _read_headers(archive, where, wanted)
        _require_room(archive, where, headers, most_bytes)
        arrays = {}
        for name in headers:
            with archive.open(f"{name}.npy") as member:
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
                member.read(1)  # makes zipfile check the sum at the very end
    return arrays


def read_names(path: Path) -> list[str]:
    """The names of the arrays of an `.npz`, none of which is read.

    Raises:
        InputError: as `read_arrays`, but for what only the arrays show.
    """
    with open_file(path) as file, open_archive(file, str(path)) as archive:
        return _names(archive)


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


@contextmanager
def open_archive(file: BinaryIO, where: str, what: str = "plain arrays") -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive, and turns whatever damage shows in the block into one line.

    Args:
        file: an open regular file, or `io.BytesIO`.
        where: begins the message of an error.
        what: it should hold, for that message.

    Raises:
        InputError: it is no whole archive, holds a name twice, or is packed in another way than NumPy and Keras do it.
    """
    raw: Any = getattr(file, "raw", file)
    reader = _SmallReads(raw)
    try:
        with zipfile.ZipFile(reader) as archive:
            _check_members(archive)
            yield archive
    except UNREADABLE as error:
        if str(error) == "File is not a zip file":
            error = ValueError("must be a whole zip archive, received something else, or it is cut off")
        raise InputError(f"{where}: must be readable as {what}, received {_one_line(error)}") from None
    finally:
        reader.detach()  # the file is its opener's to close


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"  # NumPy repeats the whole header


def _check_members(archive: zipfile.ZipFile) -> None:
    twice = [name for name, times in Counter(archive.namelist()).items() if times > 1]
    if twice:
        raise ValueError(f"{twice[0]} twice")
    for member in archive.infolist():
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
            raise ValueError(f"{member.filename}, which is encrypted or not compressed as NumPy does it")


def _read_headers(archive: zipfile.ZipFile, where: str, wanted: Sequence[str] | None) -> dict[str, ArrayHeader]:
    held = _names(archive)
    names = held if wanted is None else wanted
    if missing := [name for name in names if name not in held]:
        raise InputError(f"{where}: must hold {', '.join(missing)}, received {shorten(held) or 'nothing'}")
    if len(names) > MEMBERS:
        raise InputError(f"{where}: must hold at most {MEMBERS:,} arrays, received {len(names):,}")
    return {name: _read_header(archive, name) for name in names}


def _read_header(archive: zipfile.ZipFile, name: str) -> ArrayHeader:
    import numpy as np

    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        start = io.BytesIO(member.read(ARRAY_HEADER_BYTES))
    version = np.lib.format.read_magic(start)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} in version {version} of NumPy's format, must be 1 or 2")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(start)
    header = ArrayHeader(shape, dtype)
    if dtype.hasobject or dtype.names or dtype.subdtype:
        raise ValueError(f"{name} of type {dtype}; object arrays cannot be loaded, nor those of several fields")
    if min(shape, default=1) < 0 or start.tell() + header.bytes != info.file_size:
        raise ValueError(f"{name} of shape {shape}, {dtype}, which is not what its {info.file_size} bytes hold")
    return header


def _require_room(
    archive: zipfile.ZipFile, where: str, headers: dict[str, ArrayHeader], most_bytes: int | None
) -> None:
    total = sum(header.bytes for header in headers.values())
    packed = sum(archive.getinfo(f"{name}.npy").compress_size for name in headers)
    if most_bytes is not None and total > most_bytes:
        raise InputError(f"{where}: must unpack to at most {size(most_bytes)}, received {size(total)}")
    if total > max(BOMB_BYTES, BOMB_RATIO * packed):
        raise InputError(f"{where}: {size(packed)} unpack to {size(total)}, more than {BOMB_RATIO} times as much")
    require_memory(total, where)
