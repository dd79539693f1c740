"""Inputs that nobody thought of: one line each, no traceback, no wait, no memory, nothing left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import commands
from conftest import environment

HERE = Path(__file__).parent
CASES = {
    "archives": 100,
    "pictures": 130,
    "configs": 170,
    "overrides": 30,
    "runs": 80,
    "models": 10,
}  # half a minute of one core
MANY = 10  # times as many, of other seeds


def faults_of(kind: str, first: int, count: int, home: Path) -> list[str]:
    """What is wrong with the answers to the cases of a kind, judged in a process of their own."""
    ended = commands.run(["-m", "fuzz", kind, str(first), str(count)], env=environment(home), cwd=HERE, timeout=3000)
    last = ended.stdout.splitlines()[-1] if ended.stdout else ""
    assert ended.returncode == 0, f"{last}: hangs, or ended the process\n{ended.stderr}"
    told = json.loads(last)
    assert set(told["codes"]) >= {"0", "2"}, "all are refused, or none is"
    found: list[str] = told["faults"]
    return found


@pytest.mark.slow
@pytest.mark.beside
@pytest.mark.parametrize("kind", CASES)
def test_any_input_is_answered_in_a_line(kind: str, home: Path) -> None:
    assert faults_of(kind, 0, CASES[kind], home) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", CASES)
def test_very_many_inputs_are_answered_in_a_line(kind: str, home: Path) -> None:
    assert faults_of(kind, 1000, MANY * CASES[kind], home) == []
