"""What every message passes on its way to a screen or a log: nothing in it commands a terminal or tells a password."""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import IO

# Control characters but tab and line feed, marks that turn the direction of text, separators of lines, halves of pairs.
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
LONGEST_LINE = 1000  # letters of a message
_LOGIN = re.compile(r"(?<=://)[^\s/?#'\"]*@|(?<=://)[^\s/:@'\"]*:[^\s'\"]*@")


def printable(text: object) -> str:
    """A text without characters that a terminal obeys, each replaced by `�`, and without logins in addresses."""
    return _COMMANDS.sub("\ufffd", without_login(str(text)))


def one_line(text: object) -> str:
    """As `printable`, in one line: what somebody else has named cannot look like a message of its own."""
    return printable(" ".join(str(text).split("\n")))


def without_login(text: str) -> str:
    """`http://user:password@host` → `http://***@host`, wherever it stands in a text."""
    return _LOGIN.sub("***@", text)


class PlainFormatter(logging.Formatter):
    """Formats messages as single printable lines; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line of a record."""
        return one_line(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802
        """The traceback of a record."""
        return printable(super().formatException(ei))  # type: ignore[arg-type]


def say(*lines: object) -> None:
    """Prints each of `lines` as one line; where nobody reads them any more, as after `| head`, that is no error."""
    write(sys.stdout, "".join(f"{one_line(line)}\n" for line in lines))


def complain(*lines: object) -> None:
    """As `say`, on standard error, without the middle of lines that are very long, as what was received may be."""
    write(sys.stderr, "".join(f"{_without_middle(one_line(line))}\n" for line in lines))


def _without_middle(line: str) -> str:
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]} … {line[-half:]}"


def write(stream: IO[str], text: str) -> None:
    """Writes and flushes a text; a stream whose reader is gone, or whose disk is full, is led to nowhere."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        write_nowhere(stream.fileno())


def write_nowhere(*descriptors: int) -> None:
    """What is written to file descriptors from now on is dropped: a reader that is gone ends no run."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def prepare_streams() -> None:
    """Makes standard streams that any message can be written to: open, and with a sign for what they cannot encode."""
    for descriptor, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file that is opened would take its place
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "r" if descriptor == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        if descriptor and hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="replace")
