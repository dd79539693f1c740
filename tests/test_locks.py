"""What is left of locks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from experiments.sweeps import locks


def leave_behind(path: Path) -> None:
    """A lock whose holder was killed."""
    code = (
        "import os, sys; from pathlib import Path; from experiments.sweeps.locks import held\n"
        "with held(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)


def test_what_killed_holders_have_left_is_removed_and_what_is_held_stays(tmp_path: Path) -> None:
    folder, left, others, mine = tmp_path / ".locks", "a" * 64, "b" * 64, "c" * 64
    for name in (left, others):
        leave_behind(folder / name)
    with locks.held(folder / mine) as held:
        assert held
        before = {path.name for path in folder.iterdir() if left not in path.name}
        locks.clear(folder, {left, mine, "d" * 64})
        assert {path.name for path in folder.iterdir()} == before
        assert locks.is_held(folder / mine)
    assert [path.name for path in folder.iterdir() if others not in path.name] == []


def test_folder_that_is_not_there_has_nothing_left(tmp_path: Path) -> None:
    locks.clear(tmp_path / ".locks", {"a" * 64})
    assert list(tmp_path.iterdir()) == []
