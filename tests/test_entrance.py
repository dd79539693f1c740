"""How every command ends."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import environment
from experiments.config import available_cores

# As dataclasses and many libraries run what they have written themselves; beside a thread that no signal spares.
INSIDE_EXEC = (
    "import threading, time; threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); "
    "exec('import os, signal\\nos.kill(os.getpid(), signal.SIGINT)')"
)
# What a library makes of it that turns every end of its own into an error.
LIBRARYS_OWN = "\n    try: raise KeyboardInterrupt\n    except KeyboardInterrupt: raise ValueError('half a config')"
COMMANDS = {
    "return 0": (0, ""),
    "raise InputError('optimizer: no such option', 'seed: must be')": (2, "optimizer: no such option\nseed: must be\n"),
    "raise DivergedError('the loss is not finite')": (2, "the loss is not finite\n"),
    "raise KeyboardInterrupt": (130, "stopped\n"),
    LIBRARYS_OWN: (130, "stopped\n"),
    INSIDE_EXEC: (130, "stopped\n"),
}


@pytest.mark.parametrize("body", COMMANDS)
def test_command_ends_with_its_exit_code_and_a_plain_message(home: Path, body: str) -> None:
    (home / "command.py").write_text(
        "from experiments.entrance import exit_with\n"
        "from experiments.errors import DivergedError, InputError\n"
        f"def command():\n    {body}\n"
        "exit_with(command)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "command"], cwd=home, env=environment(home), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (*COMMANDS[body], "")


@pytest.mark.parametrize("variables", [{}, {"OPENBLAS_NUM_THREADS": "2"}])
def test_numpy_has_no_idle_threads_but_those_that_are_asked_for(home: Path, variables: dict[str, str]) -> None:
    code = (
        "import os\nfrom experiments.entrance import exit_with\n"
        "def command():\n    import numpy, scipy.linalg\n    print(len(os.listdir('/proc/self/task')))\n    return 0\n"
        "exit_with(command)"
    )
    kept = {name: value for name, value in environment(home).items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert (int(done.stdout) > 1) == (bool(variables) and available_cores() > 1)


def test_end_at_once_leaves_the_terminal_with_its_cursor() -> None:
    ours, theirs = pty.openpty()
    code = "from experiments.training.interruption import exit_now; exit_now()"
    ended = subprocess.run([sys.executable, "-c", code], stdout=theirs, check=False)
    shown = os.read(ours, 100)
    os.close(theirs)
    os.close(ours)
    assert (ended.returncode, shown) == (130, b"\x1b[?25h")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).stdout == b""


@pytest.mark.parametrize("command", ["reproduce", "compare", "figures", "ui", "status", "sync", "unseal"])
def test_argument_that_is_none_is_told_in_a_line(command: str, home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{command}", "--no\x1b[31m-such", "x" * 5000],
        env=environment(home), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("unrecognized arguments: --no\ufffd[31m-such")
