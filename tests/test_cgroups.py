"""Made-up trees of control groups, as hosts and containers show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import config
from experiments.cgroups import quota_cores


def tree(root: Path, groups: str, **files: str) -> Path:
    """A file system with `proc/self/cgroup` and files below `sys/fs/cgroup`, `__` for a slash."""
    contents = {"proc/self/cgroup": groups}
    contents |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),  # docker --cpus=2, version 2
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # --cpus=1.5
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),  # the root group of a host has no such file
        # A systemd slice: its own group is free, one around it is not; the tightest counts.
        (
            "0::/user.slice/job.scope\n",
            {
                "user.slice/job.scope/cpu.max": "max 100000", "user.slice/cpu.max": "300000 100000",
                "cpu.max": "800000 100000",
            },
            3,
        ),
        ("0::/a/b\n", {"a/b/cpu.max": "100000 100000", "a/cpu.max": "400000 100000"}, 1),
        ("0::/a\n", {"b/cpu.max": "100000 100000"}, None),  # another one's group
        ("0::/../../outside\n", {"cpu.max": "200000 100000"}, 2),  # a name space that begins below
        # Version 1: the controllers are one folder, or two.
        (
            "5:cpu,cpuacct:/docker/1f\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            3,  # the container's own group is mounted as the root
        ),
        (
            "4:memory:/m\n5:cpu:/a/b\n",
            {
                "cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "100000",
                "cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "25000",
            },
            2,
        ),
        ("5:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, None),
        # Both: version 2 beside version 1.
        ("0::/x\n1:cpu:/\n", {"unified/x/cpu.max": "100000 100000"}, 1),
        # What no kernel writes.
        ("0::/\n", {"cpu.max": "many 100000"}, None),
        ("0::/\n", {"cpu.max": "100000 0"}, None),
        ("nonsense\n\n0\n", {"cpu.max": "100000 100000"}, 1),
    ],
)  # fmt: skip
def test_quota_is_the_tightest_of_all_groups_around(
    groups: str, files: dict[str, str], cores: int | None, tmp_path: Path
) -> None:
    assert quota_cores(tree(tmp_path, groups, **files)) == cores


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota_cores(tmp_path) is None


@pytest.mark.parametrize(("quota", "affinity", "cores"), [(2, 64, 2), (8, 4, 4), (None, 4, 4)])
def test_available_cores_are_the_fewer_of_quota_and_affinity(
    quota: int | None, affinity: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "quota_cores", lambda: quota)
    monkeypatch.setattr(config.os, "sched_getaffinity", lambda _: range(affinity), raising=False)
    assert config.available_cores() == cores
