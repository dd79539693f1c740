"""What every entrance shares: messages to the screen, mistakes to exit code 2."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable

from experiments.errors import ExperimentsError


class _Screen(logging.Handler):
    """Writes to what is standard output at the time: a progress bar puts itself there and lets lines pass above it."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError):  # a screen that is gone, as after `| head`, ends no training
            sys.stdout.write(f"{self.format(record)}\n")
            sys.stdout.flush()


def show_messages() -> None:
    """What the package logs goes to standard output, as plain sentences."""
    handler = _Screen(logging.INFO)
    handler.setFormatter(logging.Formatter("%(message)s"))
    package = logging.getLogger("experiments")
    package.handlers = [handler]
    package.setLevel(logging.INFO)
    package.propagate = False


def say(*lines: object) -> None:
    """Prints lines; where nobody reads them any more, as after `| head`, that is no error."""
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_with(command: Callable[[], int]) -> None:
    """Ends the process with the command's exit code; with 2 after a mistake of the user, with 130 after Ctrl-C."""
    show_messages()
    try:
        code = command()
    except ExperimentsError as error:
        sys.stderr.write(f"{error}\n")
        code = 2
    except KeyboardInterrupt:
        # Where it came while a library ran an exec(), Python would in the end kill itself by the signal, although it
        # was caught here; the beginning of any exec() forgets that.
        exec("")  # noqa: S102
        sys.stderr.write("stopped\n")
        code = 130
    sys.exit(code)
