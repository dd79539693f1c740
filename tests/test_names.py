from __future__ import annotations

import pytest

from experiments.results.names import short_names, shorten, width, wrap


@pytest.mark.parametrize(("text", "letters"), [("", 0), ("cat", 3), ("猫", 2), ("e\u0301", 1), ("ｶ", 1)])
def test_width_counts_wide_characters_twice_and_marks_not_at_all(text: str, letters: int) -> None:
    assert width(text) == letters


def test_lines_are_wrapped_by_width() -> None:
    assert wrap("two words", 5) == ["two", "words"]
    assert wrap("猫" * 7, 6) == ["猫猫猫", "猫猫猫", "猫"]


@pytest.mark.parametrize(
    ("text", "letters", "short"),
    [
        ("cats", 4, "cats"),
        ("/home/me/data/cats", 11, "/home…/cats"),
        ("猫猫猫猫猫", 7, "猫猫…猫"),
        ("abcdef", 2, "a…"),
    ],
)
def test_a_text_is_shortened_in_its_middle(text: str, letters: int, short: str) -> None:
    assert shorten(text, letters) == short
    assert width(short) <= letters


def test_names_are_cut_at_their_end_where_that_keeps_them_apart() -> None:
    assert short_names(["a remarkably long name", "Ankle boot"], 11) == ("a remarkab…", "Ankle boot")


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["photographs of cats", "photographs of dogs"], ("photog…cats", "photog…dogs")),
        (["photographs of", "photographs of dogs"], ("photograph…", "photog…dogs")),
        (["a" * 30 + "1" + "b" * 30, "a" * 30 + "2" + "b" * 30], ("aaa…1bbbbb…", "aaa…2bbbbb…")),
        (["photographs on paper", "photographs of cats", "photographs of dogs"], None),
        (["x" * 20 + y + "z" * 20 + w + "z" * 20 for y in "12" for w in "34"], None),
        (["same name, which is long"] * 2, ("same name,…", "same name,…")),
    ],
)
def test_long_names_with_one_beginning_stay_different(names: list[str], short: tuple[str, ...] | None) -> None:
    made = short_names(names, 11)

    assert all(width(name) <= 11 for name in made)
    assert len(set(made)) == len(set(names))
    assert short is None or made == short


def test_names_that_nothing_keeps_apart_are_numbered() -> None:
    names = ["b" * 30 + "1" * n for n in range(1, 15)]

    made = short_names(names, 8)

    assert len(set(made)) == 14
    assert all(width(name) <= 8 for name in made)
