"""The ledger of looks at test images: `looks.jsonl` in the home, a line for each evaluation, only ever added to."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from experiments.bounded import exists, read_bytes
from experiments.errors import InputError
from experiments.results import environment, files
from experiments.results.records import Record
from experiments.upgrades import newest

LEDGER = "looks.jsonl"
LEDGER_BYTES = 64_000_000  # some 200,000 looks
Text = Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f]*$")]


class Look(BaseModel):
    """One evaluation on test images.

    `before` is how often those of this data set had been looked at until then; it is counted where a seal is broken.
    """

    model_config = ConfigDict(extra="ignore")

    format: Annotated[int, Field(ge=1, le=newest("look"))] = newest("look")
    at: datetime
    purpose: Literal["run", "unseal"]
    run: Text
    dataset: Text
    dataset_digest: Text
    by: Text
    commit: Text
    before: Annotated[int, Field(ge=0)] | None = None


class Ledger(NamedTuple):
    """The looks that could be read, in the order of the file, and how many lines could not."""

    looks: tuple[Look, ...]
    unreadable: int = 0

    def at(self, digests: Collection[str]) -> Ledger:
        """Those at the test images of some data sets."""
        return self._replace(looks=tuple(look for look in self.looks if look.dataset_digest in digests))


def add(home: Path, record: Record, purpose: Literal["run", "unseal"]) -> Look:
    """Adds a look at the test images of a run's data set, before it is taken.

    One write to the end of the file: lines of several processes do not mix.

    Args:
        home: see `files.home`.
        record: of the run.
        purpose: `run` at the end of a training, `unseal` where a seal is broken.

    Raises:
        OSError: the ledger cannot be written.
        InputError: it cannot be read, where looks until now are counted.
    """
    look = Look(
        at=files.now(),
        purpose=purpose,
        run=record.name,
        dataset=record.dataset.name,
        dataset_digest=record.dataset.digest,
        by=f"{_user()}@{socket.gethostname()}",
        commit=environment.commit(),
        before=len(read(home).at({record.dataset.digest}).looks) if purpose == "unseal" else None,
    )
    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home / LEDGER, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # somebody's disk was full
        os.write(descriptor, b"\n" * torn + look.model_dump_json().encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return look


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        return environment.NOT_AVAILABLE


def read(home: Path) -> Ledger:
    """All looks; none where there is no ledger yet. A line that is damaged or of a newer format is only counted.

    Raises:
        InputError: the file cannot be read, or is larger than any ledger.
    """
    path = home / LEDGER
    if not exists(path):
        return Ledger(())
    looks, unreadable = [], 0
    for line in read_bytes(path, LEDGER_BYTES).splitlines():
        try:
            looks.append(Look.model_validate_json(line))
        except ValidationError:
            unreadable += 1
    return Ledger(tuple(looks), unreadable)


def read_or_none(home: Path) -> Ledger | None:
    """The same; None where it cannot be read."""
    try:
        return read(home)
    except InputError:
        return None
