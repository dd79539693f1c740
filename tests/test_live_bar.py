"""The bar of a training in a notebook; on a terminal see test_loop.py."""

from __future__ import annotations

import io
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from experiments.console import Screen
from experiments.training.progress import live_bar


class Handle:
    def __init__(self, shown: list[str]) -> None:
        self.shown = shown

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.shown.append(data["text/plain"])


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a notebook's cell shows, one after another."""
    lines: list[str] = []

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        assert raw
        assert display_id
        lines.append(data["text/plain"])
        return Handle(lines)

    module = ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return lines


def test_notebook_shows_a_bar_that_is_replaced(shown: list[str]) -> None:
    steps = SimpleNamespace(numpy=lambda: 9)
    model: Any = SimpleNamespace(
        optimizer=SimpleNamespace(iterations=steps), get_metrics_result=lambda: {"loss": 0.5, "accuracy": 0.25}
    )
    file = io.StringIO()
    with live_bar(Screen(file=file, force_jupyter=True), model, steps=12, done=3):
        deadline = time.monotonic() + 30
        while len(shown) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert shown[0] == f"{'━' * 10}{'╌' * 30}  25% "
    assert shown[1] == f"{'━' * 30}{'╌' * 10}  75% loss 0.5000  accuracy 25.00%"
    assert file.getvalue() == ""


def test_file_shows_no_bar(shown: list[str]) -> None:
    with live_bar(Screen(file=io.StringIO()), None, steps=12, done=3):
        pass
    assert shown == []
