"""What must be set before TensorFlow starts: threads, instruction set, precision, determinism, silence."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TextIO

from experiments.errors import InputError
from experiments.ingredients import kernels
from experiments.ingredients.execution import Training
from experiments.results import environment
from experiments.training import devices
from experiments.training.portable import use_exact_operations

PORTABLE_ISA = "AVX2"  # the newest set that every x86-64 server and laptop of the last ten years has
# Beginnings of variables that choose other kernels; a portable run must have the same ones everywhere.
CHOOSING_KERNELS = ("ONEDNN_", "DNNL_", "TF_ENABLE_", "TF_DISABLE_", "TF_XLA_", "TF_MKL_", "TF_ONEDNN_", "XLA_")
_run = threading.Lock()
_started_as: list[Training] = []  # by `prepare` in this process


def prepare(training: Training) -> None:
    """Starts TensorFlow in this process as `training` (threads resolved) wants it, before anything imports it.

    Raises:
        InputError: `portable` where it cannot be kept, a Keras that is set to another backend, or a process in which
            TensorFlow was imported with other kernels or has started with other settings.
    """
    wanted = variables(training)
    kernels.refuse_others(wanted)
    os.environ.update(wanted)
    with without_collection():
        import keras
        import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        raise InputError(f"KERAS_BACKEND must be tensorflow, received {keras.backend.backend()}")
    _refuse_another_start(training)
    tf.config.threading.set_intra_op_parallelism_threads(training.threads or 1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    devices.prepare()
    keras.config.set_dtype_policy(training.precision)
    # What ~/.keras/keras.json may say otherwise.
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    if training.determinism == "portable":
        use_exact_operations()
    _started_as[:] = [training]


@contextmanager
def alone() -> Iterator[None]:
    """Keeps other runs out of this process for the length of a block: seeds and threads belong to all of it.

    Raises:
        InputError: a run is in its block already.
    """
    if not _run.acquire(blocking=False):
        raise InputError(
            "a run is going on in this process already, and two would change each other's results; wait for it, start "
            "the other one in a process of its own, or both as a sweep: python -m experiments.run -m"
        )
    try:
        yield
    finally:
        _run.release()


@contextmanager
def without_collection() -> Iterator[None]:
    """No search for garbage in the block: a large import makes none, and is a quarter faster without."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def variables(training: Training) -> dict[str, str]:
    """The environment variables that must be set before TensorFlow is imported, beside those that are.

    Raises:
        InputError: `portable` without AVX2, or with a variable that chooses other kernels.
    """
    wanted = kernels.variables_of_import()
    if training.determinism == "machine":
        return wanted
    if PORTABLE_ISA.lower() not in environment.cpu()["isa"]:
        raise InputError("training.determinism: portable needs a CPU with AVX2, which this machine does not have")
    fixed = {kernels.ONEDNN: "1", "ONEDNN_MAX_CPU_ISA": PORTABLE_ISA, "CUDA_VISIBLE_DEVICES": "-1"}
    for name, value in os.environ.items():
        if name.startswith(CHOOSING_KERNELS) and fixed.get(name) != value:
            raise InputError(f"training.determinism: portable cannot be kept with {name}={value}; unset it")
    return wanted | fixed


def _refuse_another_start(training: Training) -> None:
    """TensorFlow and oneDNN read their settings once, when the first operation runs."""
    earlier = _started_as[0] if _started_as else None
    same = earlier is not None and (earlier.threads, earlier.determinism) == (training.threads, training.determinism)
    if not same and _has_started():
        here = f"{earlier.threads} threads, {earlier.determinism}" if earlier else "settings of its own"
        wanted = f"{training.threads} threads, {training.determinism}"
        raise InputError(f"training: TensorFlow has started in this process with {here}; {wanted} needs a new process")


def _has_started() -> bool:
    import tensorflow as tf

    try:
        for threads in (1, 2):  # the one that is set is accepted at any time
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        return True
    return False


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
    """A `NativeOutput` for the length of a block, and no advice on retracing: every run of a notebook traces anew."""
    output = NativeOutput()
    log = logging.getLogger("tensorflow")
    log.addFilter(_is_no_advice)
    try:
        yield output
    finally:
        log.removeFilter(_is_no_advice)
        output.restore()


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in record.getMessage()
