"""Which kernels TensorFlow computes with: what it reads once, while it is imported, and nothing can change later."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping

from experiments.errors import InputError

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
YES_OR_NO = {"0": False, "false": False, "1": True, "true": True}  # of TensorFlow's variables, in any case


def variables_of_import() -> dict[str, str]:
    """The environment variables that TensorFlow reads while it is imported, whoever imports it."""
    wanted = {"KERAS_BACKEND": os.environ.get("KERAS_BACKEND", "tensorflow"), "TF_CPP_MIN_LOG_LEVEL": "2"}
    if platform.machine() in ("x86_64", "AMD64"):
        # TensorFlow's own choice depends on the CPU: it is off where there is neither AVX512_VNNI nor AVX_VNNI.
        wanted[ONEDNN] = os.environ.get(ONEDNN, "1")
    return wanted


def refuse_others(wanted: Mapping[str, str]) -> None:
    """Does nothing where TensorFlow is not imported yet.

    Args:
        wanted: the variables that it should have been imported with.

    Raises:
        InputError: it was imported with another choice of oneDNN, so its results would not be those of other processes.
    """
    if "tensorflow" not in sys.modules:
        return
    from tensorflow.python.util._pywrap_util_port import IsMklEnabled

    on = IsMklEnabled()
    if YES_OR_NO.get(value := wanted.get(ONEDNN, "").lower(), on) != on:
        raise InputError(
            f"training: TensorFlow was imported in this process with oneDNN {'on' if on else 'off'}, and {ONEDNN} is "
            f"{value}: results would not be those of other processes; before the first import of tensorflow or keras, "
            f'set os.environ["{ONEDNN}"] = "{value}"'
        )
