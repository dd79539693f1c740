"""The processor time that Linux control groups leave to this process: `docker --cpus=2` on 64 cores is 2.

Source: the kernel's admin-guide/cgroup-v2 (`cpu.max`) and scheduler/sched-bwc (`cpu.cfs_quota_us`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

GROUPS = "proc/self/cgroup"  # lines `number:controllers:path`; version 2 has number 0 and no controllers
MOUNTED = "sys/fs/cgroup"


def quota_cores(root: Path = Path("/")) -> int | None:
    """The least quota ÷ period of this process's groups and all groups around them, rounded up; None without a quota.

    Args:
        root: of the file system.
    """
    shares = [share for folder in _folders(root) for share in _shares(folder)]
    return max(1, math.ceil(min(shares))) if shares else None


def _folders(root: Path) -> Iterator[Path]:
    """The folder of each group, and of each around it; in a container its own group may be all that is there."""
    try:
        lines = (root / GROUPS).read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or "cpu" in controllers.split(","):
            group = PurePosixPath(path.lstrip("/"))
            inside = [PurePosixPath()] if ".." in group.parts else [group, *group.parents]
            for mount in {"", "unified"} if number == "0" else {controllers, "cpu"}:
                yield from (root / MOUNTED / mount / folder for folder in inside)


def _shares(folder: Path) -> Iterator[float]:
    """The cores of a group where it has a quota, by either version's files."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        if quota != "max":
            yield int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:  # -1: none
            yield int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
