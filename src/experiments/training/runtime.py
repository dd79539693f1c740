"""What must be set before TensorFlow starts: threads, instruction set, precision, determinism, silence."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TextIO

from experiments.errors import InputError
from experiments.ingredients.execution import Training
from experiments.results import environment

PORTABLE_ISA = "AVX2"  # the newest set that every x86-64 server and laptop of the last ten years has


def prepare(training: Training) -> None:
    """Starts TensorFlow in this process as `training` (threads resolved) wants it, before anything imports it.

    Raises:
        InputError: `portable` on a machine without AVX2, or a Keras that is set to another backend.
    """
    _set_environment(training)
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        raise InputError(f"KERAS_BACKEND must be tensorflow, received {keras.backend.backend()}")
    tf.config.threading.set_intra_op_parallelism_threads(training.threads or 1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(training.precision)


def _set_environment(training: Training) -> None:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    if training.determinism == "machine":
        return
    if PORTABLE_ISA.lower() not in environment.cpu()["isa"]:
        raise InputError("training.determinism: portable needs a CPU with AVX2, which this machine does not have")
    os.environ["ONEDNN_MAX_CPU_ISA"] = PORTABLE_ISA
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


class NativeOutput:
    """Keeps what C++ libraries write to file descriptor 2 away from the screen; Python's own stderr is not touched.

    TensorFlow prints lines while it is imported that no setting silences. They wait in a temporary file until there is
    a log to move them to.
    """

    def __init__(self) -> None:
        sys.stderr.flush()
        self._screen = os.dup(2)
        self._python_stderr, sys.stderr = sys.stderr, _stderr_of_its_own()
        self._waiting = tempfile.TemporaryFile()  # noqa: SIM115 - closed in restore
        os.dup2(self._waiting.fileno(), 2)

    def move_to(self, log: Path) -> None:
        """Appends what has come so far to `log`, and all that comes from now on."""
        self._waiting.seek(0)
        with log.open("ab") as file:
            shutil.copyfileobj(self._waiting, file)
            file.flush()
            os.dup2(file.fileno(), 2)

    def restore(self) -> None:
        """Gives descriptor 2 back to the screen."""
        sys.stderr = self._python_stderr
        os.dup2(self._screen, 2)
        os.close(self._screen)
        self._waiting.close()


@cache
def _stderr_of_its_own() -> TextIO:
    """Never closed: the loggers of libraries that are imported meanwhile keep it."""
    return os.fdopen(os.dup(2), "w", buffering=1)


@contextmanager
def quiet() -> Iterator[NativeOutput]:
    """A `NativeOutput` for the length of a block."""
    output = NativeOutput()
    try:
        yield output
    finally:
        output.restore()
