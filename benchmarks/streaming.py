"""Claim: pictures that do not fit in memory are read while the step computes, and the workers share what was read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

from benchmarks.measurement import HERE, Row, compare, run, state
from benchmarks.memory import workers
from experiments.config import available_cores

PICTURES, SIDE, CLASSES = 50_000, 96, 10  # 1.4 GB of pixels
LIMIT_MB, LIMIT, ROUNDS, EVERY_SECONDS = 400, 1.10, 5, 0.2
# The least computation there is, so the least time to read ahead in.
NETWORK = "model=linear"


def measure() -> list[Row]:
    """A sweep on made-up pictures, and then epochs of one process with its images streamed or in memory, alternated."""
    with tempfile.TemporaryDirectory() as folder:
        pictures, home = Path(folder, "pictures"), Path(folder, "home")
        write_pictures(pictures)
        peaks = _watch(_options(pictures), home)
        printed = run(
            [str(HERE / "streamed_epochs.py"), str(available_cores()), str(ROUNDS), *_options(pictures)], home
        )
    seconds = json.loads(printed.splitlines()[-1])
    what = f"{PICTURES:,} pictures of {SIDE}×{SIDE}×3"
    claim = f"an epoch of {what}, streamed ÷ in memory, {available_cores()} threads, {NETWORK}"
    return [
        state(f"peak memory of a worker on {what} beyond what is shared", peaks, " MB", f"≤ {LIMIT_MB} MB", digits=0),
        compare(claim, seconds["streamed"], seconds["in memory"], LIMIT),
    ]


def _options(pictures: Path) -> list[str]:
    return ["dataset=files", f"dataset.path={pictures}", NETWORK, "figures=false", "tracking=none"]


def write_pictures(folder: Path) -> None:
    """`<class>/<number>.bmp` of random pixels, each class a little brighter than the one before."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
        for number in range(PICTURES // CLASSES):
            pixels = generator.integers(0, 156 + 10 * label, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / str(label) / f"{number}.bmp")


def _watch(options: list[str], home: Path) -> list[float]:
    """The peak memory of each worker of a sweep with as many jobs as cores, MB, without the mapped pictures."""
    peaks: Counter[int] = Counter()
    command = [sys.executable, "-m", "experiments.run", "-m", *options, "training.epochs=2"]
    command.append(f"seed={','.join(map(str, range(available_cores())))}")
    with subprocess.Popen(
        command, env=os.environ | {"EXPERIMENTS_HOME": str(home)}, stdout=subprocess.DEVNULL
    ) as process:
        planner = psutil.Process(process.pid)
        while process.poll() is None:
            for worker in workers(planner):
                peaks[worker.pid] = max(peaks[worker.pid], private_bytes(worker))
            time.sleep(EVERY_SECONDS)
    if process.returncode:
        raise RuntimeError(f"the sweep ended with exit code {process.returncode}")
    return sorted((peak / 1e6 for peak in peaks.values()), reverse=True)[: available_cores()]


def private_bytes(process: psutil.Process) -> int:
    """Bytes of memory that a process shares with no other, the pages of its mapped arrays left out; 0 if it is gone."""
    try:
        maps = process.memory_maps(grouped=True)
    except psutil.NoSuchProcess:
        return 0
    return sum(each.private_clean + each.private_dirty for each in maps if not each.path.endswith(".npy"))
