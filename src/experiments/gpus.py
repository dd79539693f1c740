"""The NVIDIA GPUs that a process may use, as the driver and the environment tell; nothing is imported to know.

Source: NVIDIA, CUDA C++ Programming Guide, "CUDA Environment Variables"; nvidia-smi(1).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

VARIABLE = "CUDA_VISIBLE_DEVICES"
QUERY = ("nvidia-smi", "--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits")
ANSWER_SECONDS = 10.0  # without its persistence daemon the driver takes seconds to wake a GPU; a broken one hangs
MEBIBYTE = 2**20
UNKNOWN_MODEL = "NVIDIA GPU"


class GPU(NamedTuple):
    """One GPU, or one job's share of it.

    Attributes:
        name: what `CUDA_VISIBLE_DEVICES` takes: a UUID, or a number where none is known.
        memory_bytes: that there are, or that the job may use; None: not known, or no limit.
    """

    name: str
    model: str = UNKNOWN_MODEL
    memory_bytes: int | None = None


def visible(variables: Mapping[str, str] = os.environ, machine: Sequence[GPU] | None = None) -> list[GPU]:
    """The GPUs that CUDA shows to a process, the first one first; UUIDs stand where no order was asked for.

    Args:
        variables: of the process.
        machine: all GPUs in the order of their PCI addresses; None: those that are installed here.
    """
    machine = (_installed() if may_exist(variables) else []) if machine is None else machine
    wanted = variables.get(VARIABLE)
    if wanted is None or not machine:
        return list(machine)
    in_order = variables.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({gpu.model for gpu in machine}) == 1
    found: list[GPU] = []
    for name in map(str.strip, wanted.split(",")):
        gpu = _named(name, machine, in_order=in_order)
        if gpu is None:  # CUDA ignores it, and all that stand behind it
            break
        found.append(gpu)
    return found


def may_exist(variables: Mapping[str, str] = os.environ, root: Path = Path("/")) -> bool:
    """Whether there is any GPU that is not hidden from the process: a quick look that asks no driver.

    Args:
        variables: of the process.
        root: of the file system.
    """
    return not hides_all(variables.get(VARIABLE)) and bool(_numbers(root) or _under_windows(root))


def hides_all(wanted: object) -> bool:
    """Whether a value of `CUDA_VISIBLE_DEVICES` shows no GPU; None: it is not set, which shows all."""
    return wanted is not None and str(wanted).partition(",")[0].strip() in ("", "-1", "none", "NoDevFiles")


def _named(name: str, machine: Sequence[GPU], *, in_order: bool) -> GPU | None:
    """A GPU by what stands in `CUDA_VISIBLE_DEVICES`; without `in_order` a number may mean another one than here."""
    if name.isdecimal():
        if int(name) >= len(machine):
            return None
        return machine[int(name)]._replace(name=name) if in_order else GPU(name)
    if name.startswith("MIG-"):
        return GPU(name)
    return next((gpu for gpu in machine if name.startswith("GPU-") and gpu.name.startswith(name)), None)


@cache
def _installed() -> list[GPU]:
    return installed()


def installed(root: Path = Path("/"), query: Sequence[str] = QUERY) -> list[GPU]:
    """All GPUs of this machine, or of this container, in the order of their PCI addresses.

    Args:
        root: of the file system.
        query: command that lists UUID, model and MiB of each; where it fails, the driver's files are read.
    """
    if not (_numbers(root) or _under_windows(root)):
        return []
    return _asked(query) or _told_by_driver(root) or [GPU(number) for number in _numbers(root)]


def _numbers(root: Path) -> list[str]:
    """Of the device files that are there: a container has fewer than its host."""
    return sorted(
        (path.name.removeprefix("nvidia") for path in root.glob("dev/nvidia[0-9]*")), key=lambda n: (len(n), n)
    )


def _under_windows(root: Path) -> bool:
    return (root / "dev/dxg").exists()


def _asked(query: Sequence[str]) -> list[GPU]:
    try:
        process = subprocess.Popen(query, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return []
    with suppress(subprocess.TimeoutExpired):
        printed, _ = process.communicate(timeout=ANSWER_SECONDS)
        lines = [line.split(",") for line in printed.decode(errors="replace").splitlines()]
        return [_parse(*line) for line in lines if len(line) == 3] if process.returncode == 0 else []
    process.kill()
    with suppress(subprocess.TimeoutExpired):  # one that waits for a broken driver does not even die
        process.communicate(timeout=1)
    return []


def _parse(name: str, model: str, memory: str) -> GPU:
    mebibytes = memory.strip()
    return GPU(name.strip(), model.strip(), int(mebibytes) * MEBIBYTE if mebibytes.isdecimal() else None)


def _told_by_driver(root: Path) -> list[GPU]:
    found: list[GPU] = []
    for path in sorted(root.glob("proc/driver/nvidia/gpus/*/information")):
        with suppress(OSError, ValueError):
            pairs = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
            fields = {key.strip(): value.strip() for key, value in pairs}
            number, name = fields.get("Device Minor", ""), fields.get("GPU UUID", "")
            if number in _numbers(root):
                known = name.startswith("GPU-") and "?" not in name
                found.append(GPU(name if known else str(len(found)), fields.get("Model", UNKNOWN_MODEL)))
    return found
