"""What every entrance shares: streams that can be written to, messages on the screen, mistakes as exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from experiments.errors import ExperimentsError, InputError
from experiments.screen import PlainFormatter, complain, prepare_streams, write, write_nowhere

# Made between two looks of the garbage collector: nearly all that imports and plans make is kept, and looking through
# it at Python's own pace, 700, takes a sixth of the time.
OBJECTS = 100_000


class _Screen(logging.Handler):
    """Writes to what is standard output at the time: a progress bar puts itself there and lets lines pass above it."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError):  # a screen that is gone ends no training
            write(sys.stdout, f"{self.format(record)}\n")


class Parser(argparse.ArgumentParser):
    """Tells a mistake as every other one is told."""

    def error(self, message: str) -> NoReturn:
        """Raises an `InputError`."""
        raise InputError(f"{message} (see --help)")


def show_messages() -> None:
    """What the package logs goes to standard output, as plain sentences."""
    handler = _Screen(logging.INFO)
    handler.setFormatter(PlainFormatter("%(message)s"))
    package = logging.getLogger("experiments")
    package.handlers = [handler]
    package.setLevel(logging.INFO)
    package.propagate = False
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)  # what it thinks of a matplotlibrc, which is not used


def exit_with(command: Callable[[], int]) -> None:
    """Ends the process with the command's exit code; with 2 after a mistake of the user, with 130 after Ctrl-C.

    Raises:
        Exception: what the command raises beside these.
    """
    gc.set_threshold(OBJECTS)
    prepare_streams()
    show_messages()
    os.environ["MPLBACKEND"] = "agg"  # a matplotlibrc in the current folder may name any module
    # NumPy's and SciPy's threads wait busily, on every core of the machine, for products that nothing here is large
    # enough for: a third of the processor time of a comparison.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        code = command()
    except ExperimentsError as error:
        complain(*(error.mistakes if isinstance(error, InputError) else str(error).splitlines()))
        code = 2
    except BrokenPipeError:  # what a library printed, as Hydra's --help, had no reader any more
        write_nowhere(1)
        code = 0
    except (Exception, KeyboardInterrupt) as error:
        if not _was_stopped(error):
            raise
        # Where it came while a library ran an exec(), Python would in the end kill itself by the signal, although it
        # was caught here; the beginning of any exec() forgets that.
        exec("")  # noqa: S102
        complain("stopped")
        code = 130
    sys.exit(code)


def _was_stopped(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C, or what a library has made of it."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
