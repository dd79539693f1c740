"""What is printed on a terminal, and where there is none."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from experiments.console import prose


@pytest.mark.parametrize("width", [20, 40, 80])
def test_sentences_break_between_words_on_a_terminal(width: int) -> None:
    text = "No other of the 3 is better by more than 0.05 points: optimizer.learning_rate=0.001"
    lines = prose(text, Console(file=io.StringIO(), force_terminal=True, width=width))
    assert " ".join(lines) == text
    assert len(lines) > 1
    assert all(len(line) <= width or " " not in line for line in lines)


def test_sentences_are_lines_where_there_is_no_terminal() -> None:
    assert prose("one two three", Console(file=io.StringIO(), width=5)) == ["one two three"]
