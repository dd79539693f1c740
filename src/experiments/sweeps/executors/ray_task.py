"""What runs on a node of a Ray cluster for one job: the job's own process, and its signals.

Ray's worker imports this module by its name, so nothing here needs more than the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TypedDict

POLL_SECONDS = 0.25  # also between two signals, which would be taken for one otherwise
# Ray sets the first for its workers; numbers may depend on it, and jobs have the planner's.
OF_THE_PLANNER = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Task(TypedDict):
    """One job: plain values, which are sent to the node.

    Attributes:
        arguments: of Python on the node; the id of the process that starts it is added.
        folder: where it starts, the planner's.
        output: file to whose end all that it prints goes.
        variables: of the environment, in place of the node's own.
    """

    arguments: Sequence[str]
    folder: str
    output: str
    variables: Mapping[str, str]


def carry_out(task: Task) -> int:
    """Runs a job's process; returns its exit code, or the negative number of the signal that ended it.

    Ray's `cancel` interrupts the main thread; the process is then asked to stop, by SIGTERM, as often as that happens.

    Raises:
        OSError: the folder or the file for its output is not there: the node does not share the disk.
    """
    asked: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    command = [sys.executable, *task["arguments"], str(os.getpid())]
    with open(task["output"], "ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=task["folder"],
            env=environment(task["variables"]),
            start_new_session=True,
        )
    passed_on = 0
    while (code := _wait(process)) is None:
        if passed_on < len(asked):
            passed_on += 1
            process.terminate()
    return code


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The node's environment with the planner's variables, and without the threads that Ray sets."""
    kept = {name: value for name, value in os.environ.items() if name not in OF_THE_PLANNER}
    return kept | dict(variables)


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None
