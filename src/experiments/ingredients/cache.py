"""Decoded pictures on disk, memory-mapped by whoever needs them: made once, addressed by content, safe to delete."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.archives import UNREADABLE
from experiments.bounded import open_file, read_json, size
from experiments.directories import made
from experiments.errors import InputError
from experiments.ingredients.decoding import decode, find_shape, tell_all
from experiments.ingredients.resizing import Target

log = logging.getLogger(__name__)
FORMAT = 1
FOLDER = Path("cache", "pictures")  # in EXPERIMENTS_HOME
META, META_BYTES = "pictures.json", 256_000_000


class Decoded(NamedTuple):
    """Pictures by part.

    Attributes:
        images: part → (n, height, width, channels) uint8, read-only.
        read: part → the numbers of the files that the images are of: all but those with a mistake.
        mistakes: one line for each picture that was skipped.
        notes: what to tell of how the others were brought to one shape, sentences.
    """

    images: dict[str, NDArray[np.uint8]]
    read: dict[str, list[int]]
    mistakes: tuple[str, ...]
    notes: tuple[str, ...]


def decoded(
    parts: Mapping[str, Sequence[Path]], digests: Mapping[Path, str], target: Target, *, skip_bad: bool
) -> Decoded:
    """The pictures of a data set, decoded now or earlier, by this process or another.

    Args:
        parts: part → files.
        digests: file → digest of its content.
        target: what each picture is brought to.
        skip_bad: go on without pictures that cannot be read.

    Raises:
        InputError: pictures cannot be read, or are not alike; or the cache cannot be written.
    """
    folder = Path(os.environ.get("EXPERIMENTS_HOME") or ".").resolve() / FOLDER / _key(parts, digests, target, skip_bad)
    found = _open(folder, parts)
    if found is not None:
        return found
    try:
        with made(folder.parent), _alone(folder.with_suffix(".lock")):
            return _open(folder, parts) or _make(folder, parts, target, skip_bad=skip_bad)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None


def _key(parts: Mapping[str, Sequence[Path]], digests: Mapping[Path, str], target: Target, skip_bad: bool) -> str:
    """Half of the SHA-256 (hex) of all that the arrays depend on; another Pillow may decode a JPEG to other bits."""
    import PIL

    content = {part: [digests[file] for file in files] for part, files in parts.items()}
    text = json.dumps([FORMAT, PIL.__version__, target, skip_bad, content])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _open(folder: Path, parts: Mapping[str, Sequence[Path]]) -> Decoded | None:
    """What is there already, or None where nothing is, or something damaged."""
    try:
        meta = read_json(folder / META, META_BYTES)
        images = {part: _map(folder / f"{part}.npy") for part in parts}
        if any(not _belongs(images[part], meta["read"][part], len(files)) for part, files in parts.items()):
            return None
        return Decoded(images, meta["read"], tuple(meta["mistakes"]), tuple(meta["notes"]))
    except (*UNREADABLE, InputError, KeyError, TypeError, AttributeError):
        return None


def _map(path: Path) -> NDArray[np.uint8]:
    with open_file(path):  # a regular file; others would be waited for
        mapped: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _belongs(images: NDArray[np.uint8], read: Sequence[int], files: int) -> bool:
    """Whether these are images of so many files, those with the numbers `read`."""
    known = all(isinstance(number, int) and 0 <= number < files for number in read)
    return known and len(images) == len(read) and images.dtype == np.uint8 and images.ndim == 4


def _make(folder: Path, parts: Mapping[str, Sequence[Path]], target: Target, *, skip_bad: bool) -> Decoded:
    for remains in folder.parent.glob(f"{folder.name}*.part"):  # of a process that was killed
        shutil.rmtree(remains, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    shape, notes = find_shape([file for files in parts.values() for file in files], target)
    target = target._replace(channels=shape[2])
    count = sum(len(files) for files in parts.values())
    needed, free = count * int(np.prod(shape)), shutil.disk_usage(folder.parent).free
    if needed > free:
        raise InputError(f"{folder.parent}: has {size(free)} free; {count:,} decoded pictures need {size(needed)}")
    making = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    making.mkdir()
    try:
        mistakes: list[str] = []
        with _progress(count) as advance:
            read = {
                part: _decode_part(making / f"{part}.npy", files, target, shape, mistakes, advance)
                for part, files in parts.items()
            }
        if not skip_bad:
            tell_all(mistakes)
        (making / META).write_text(json.dumps({"read": read, "mistakes": mistakes, "notes": notes}))
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    count = sum(map(len, read.values()))
    log.info("decoded %s pictures into %s (%s, safe to delete)", f"{count:,}", folder, size(needed))
    made = _open(folder, parts)
    if made is None:
        raise InputError(f"{folder}: cannot be read after it was written")
    return made


def _decode_part(
    path: Path,
    files: Sequence[Path],
    target: Target,
    shape: tuple[int, int, int],
    mistakes: list[str],
    advance: Callable[[], None],
) -> list[int]:
    """Writes the array of a part; returns the numbers of the files that are in it."""
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(files), *shape))
    read: list[int] = []
    for number, pixels in enumerate(decode(files, target, shape, mistakes)):
        if pixels is not None:
            images[len(read)] = pixels
            read.append(number)
        advance()
    if len(read) < len(files):
        np.save(path.with_suffix(".shorter.npy"), images[: len(read)])
        path.with_suffix(".shorter.npy").replace(path)
    return read


@contextmanager
def _progress(count: int) -> Iterator[Callable[[], None]]:
    """A bar on the screen, where there is one; gives what moves it on by one picture."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("decoding pictures", total=count)
        yield lambda: bar.advance(task)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits until no other process is inside; the system ends it for one that dies."""
    while True:
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("another process decodes these pictures; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_still(path, file.fileno()):  # who was inside before has removed it, and somebody made another
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
