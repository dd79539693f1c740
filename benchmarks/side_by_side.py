"""Bare scripts side by side, a process for each core, one thread each: `side_by_side.py FOLDER EPOCHS JOBS RIVAL`.

RIVAL is `joblib`, which calls the scripts from a pool of workers, or `xargs`, which is `xargs -P`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from experiments.config import available_cores

SCRIPT = Path(__file__).with_name("bare.py")
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}


def with_joblib(folders: list[str], epochs: str) -> None:
    from joblib import Parallel, delayed

    commands = [[sys.executable, str(SCRIPT), folder, epochs] for folder in folders]
    Parallel(n_jobs=available_cores())(delayed(subprocess.run)(command, check=True) for command in commands)


def with_xargs(folders: list[str], epochs: str) -> None:
    command = ["xargs", "-P", str(available_cores()), "-I", "{}", sys.executable, str(SCRIPT), "{}", epochs]
    subprocess.run(command, input="\n".join(folders), text=True, check=True)


if __name__ == "__main__":
    folder, epochs, jobs, rival = sys.argv[1:]
    os.environ.update(ONE_THREAD)
    {"joblib": with_joblib, "xargs": with_xargs}[rival]([f"{folder}/{job}" for job in range(int(jobs))], epochs)
