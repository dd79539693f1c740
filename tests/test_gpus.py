"""Which GPUs a process may use, by made-up drivers, device files and variables."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from experiments import gpus
from experiments.gpus import GPU, installed, may_exist, visible

A = GPU("GPU-aaaa-1", "NVIDIA H100", 80 * 2**30)
B = GPU("GPU-bbbb-2", "NVIDIA H100", 80 * 2**30)
OLD = GPU("GPU-cccc-3", "Tesla K80", 11 * 2**30)
NO_COMMAND = ("there-is-no-such-command",)


def machine(root: Path, *, files: int = 2, told: int = 2, uuid: str = "GPU-{0}") -> Path:
    """A file system with device files, and what the driver tells of its GPUs, the last device file first."""
    (root / "dev").mkdir()
    for number in range(files):
        (root / "dev" / f"nvidia{number}").touch()
    (root / "dev" / "nvidiactl").touch()
    for number in range(told):
        folder = root / "proc/driver/nvidia/gpus" / f"0000:{9 - number}0:00.0"
        folder.mkdir(parents=True)
        lines = (
            "Model: \t\t NVIDIA A{0}",
            f"GPU UUID: \t {uuid}",
            "Device Minor: \t {0}",
            "Bus Location: 0000:10:00.0",
        )
        (folder / "information").write_text("\n".join(lines).format(number))
    return root


def command(printed: str, code: int = 0, seconds: float = 0) -> tuple[str, ...]:
    return (
        sys.executable,
        "-S",
        "-c",
        f"import time\nprint({printed!r})\ntime.sleep({seconds})\nraise SystemExit({code})",
    )


@pytest.mark.parametrize(
    ("variables", "all_gpus", "found"),
    [
        ({}, [A, B], [A, B]),
        ({}, [], []),
        ({"CUDA_VISIBLE_DEVICES": "0"}, [], []),
        ({"CUDA_VISIBLE_DEVICES": ""}, [A, B], []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, [A, B], []),
        ({"CUDA_VISIBLE_DEVICES": "1"}, [A, B], [B._replace(name="1")]),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, [A, B], [B._replace(name="1"), A._replace(name="0")]),
        ({"CUDA_VISIBLE_DEVICES": "1, 0"}, [A, B], [B._replace(name="1"), A._replace(name="0")]),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, [A, B], [A._replace(name="0")]),
        ({"CUDA_VISIBLE_DEVICES": "0,7,1"}, [A, B], [A._replace(name="0")]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb-2"}, [A, B], [B]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb"}, [A, B], [B]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-none,GPU-bbbb"}, [A, B], []),
        ({"CUDA_VISIBLE_DEVICES": "MIG-x"}, [A, B], [GPU("MIG-x")]),
        # CUDA counts the fastest first, nvidia-smi by address: of two models a number says neither model nor memory.
        ({"CUDA_VISIBLE_DEVICES": "0"}, [OLD, A], [GPU("0")]),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, [OLD, A], [OLD._replace(name="0")]),
    ],
)
def test_visible_gpus_are_those_that_cuda_would_show(
    variables: dict[str, str], all_gpus: list[GPU], found: list[GPU]
) -> None:
    assert visible(variables, all_gpus) == found


def test_gpus_are_listed_by_the_command(tmp_path: Path) -> None:
    printed = "GPU-aaaa-1, NVIDIA H100, 81920\nGPU-cccc-3, NVIDIA GB10, [N/A]"
    assert installed(machine(tmp_path), command(printed)) == [A, GPU("GPU-cccc-3", "NVIDIA GB10", None)]


@pytest.mark.parametrize("query", [NO_COMMAND, command("a, b, 1", code=9), command("No devices were found")])
def test_gpus_are_listed_by_the_driver_where_the_command_fails(tmp_path: Path, query: tuple[str, ...]) -> None:
    """In the order of PCI addresses, which is not that of the device files."""
    assert installed(machine(tmp_path), query) == [GPU("GPU-1", "NVIDIA A1"), GPU("GPU-0", "NVIDIA A0")]


def test_container_has_the_gpus_whose_device_files_it_has(tmp_path: Path) -> None:
    assert installed(machine(tmp_path, files=1), NO_COMMAND) == [GPU("GPU-0", "NVIDIA A0")]


def test_gpu_whose_uuid_is_not_known_is_a_number(tmp_path: Path) -> None:
    found = installed(machine(tmp_path, uuid="GPU-????????-????"), NO_COMMAND)
    assert found == [GPU("0", "NVIDIA A1"), GPU("1", "NVIDIA A0")]


def test_device_files_alone_tell_how_many(tmp_path: Path) -> None:
    assert installed(machine(tmp_path, told=0, files=11), NO_COMMAND) == [GPU(str(n)) for n in range(11)]


def test_machine_without_device_files_is_not_asked(tmp_path: Path) -> None:
    assert installed(tmp_path, command("GPU-aaaa-1, NVIDIA H100, 81920")) == []
    assert not may_exist({}, tmp_path)


def test_command_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "ANSWER_SECONDS", 0.1)
    started = time.monotonic()
    assert installed(machine(tmp_path, told=0, files=1), command("", seconds=60)) == [GPU("0")]
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(("value", "may"), [(None, True), ("0", True), ("MIG-x", True), ("", False), ("-1", False)])
def test_hidden_gpus_do_not_exist(tmp_path: Path, value: str | None, may: bool) -> None:
    variables = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    assert may_exist(variables, machine(tmp_path, files=1, told=0)) is may


def test_wsl_has_a_gpu_without_files_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/dxg").touch()
    assert may_exist({}, tmp_path)
    assert installed(tmp_path, command("GPU-aaaa-1, NVIDIA H100, 81920")) == [A]
    assert installed(tmp_path, NO_COMMAND) == []
