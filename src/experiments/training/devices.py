"""Which GPU a process trains on, and how much of its memory it takes."""

from __future__ import annotations

import logging
import os

from experiments import gpus
from experiments.gpus import GPU

log = logging.getLogger(__name__)
ADVICE = "its build or its CUDA libraries are missing; pip install 'tensorflow[and-cuda]' brings both"
_share: list[GPU] = []  # what the planner has given to this process
_trains_on: list[str | None] = []  # model of the GPU, None for the CPU; empty until `prepare`


def take(share: GPU) -> None:
    """Hides all other GPUs from this process. TensorFlow may have been imported, but must not have listed its devices.

    CUDA reads the variable when it is initialised, which TensorFlow's import does not do.
    """
    os.environ[gpus.VARIABLE] = share.name
    _share[:] = [share]


def prepare() -> None:
    """Has TensorFlow train on the first GPU that it sees, with memory that grows or with this process' share of it.

    Without a GPU nothing is asked of TensorFlow at all.
    """
    _trains_on[:] = [None]
    if not gpus.may_exist():
        return
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    if not found:
        log.warning("training on the CPU: there is a GPU, but TensorFlow sees none (%s)", ADVICE)
        return
    tf.config.set_visible_devices(found[0], "GPU")
    limit = _share[0].memory_bytes if _share else None
    if limit is None:
        tf.config.experimental.set_memory_growth(found[0], True)
    else:
        limited = tf.config.LogicalDeviceConfiguration(memory_limit=limit // gpus.MEBIBYTE)
        tf.config.set_logical_device_configuration(found[0], [limited])
    details = tf.config.experimental.get_device_details(found[0])
    _trains_on[:] = [details.get("device_name", gpus.UNKNOWN_MODEL)]


def trains_on_gpu() -> str | None:
    """Model of the GPU that this process trains on; None: the CPU."""
    return _trains_on[0] if _trains_on else None


def describe(threads: int | None) -> str:
    """`4 threads`, or `4 threads, NVIDIA H100`."""
    gpu = trains_on_gpu()
    return f"{threads} thread{'' if threads == 1 else 's'}{f', {gpu}' if gpu else ''}"


def facts() -> dict[str, str | None]:
    """What `environment.json` holds of it; nothing before TensorFlow was prepared."""
    return {"gpu": _trains_on[0]} if _trains_on else {}


def count_seen() -> int:
    """How many GPUs TensorFlow sees in this process."""
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))
