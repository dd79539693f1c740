"""Names that are too long for the place where they stand, as figures and captions show them."""

from __future__ import annotations

import textwrap
import unicodedata
from collections import Counter
from collections.abc import Sequence

ELLIPSIS = "…"
FILLER = "\ufdd0"  # stands behind a wide character while lines are wrapped; no text may contain it
LEAST_BEGINNING = 3  # letters of its beginning that a cut name keeps


def width(text: str) -> int:
    """Letters that a text is wide: Chinese, Japanese and Korean characters take two, combining marks none."""
    return sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrap(text: str, letters: int) -> list[str]:
    """Lines of at most that many letters, see `width`."""
    padded = "".join(character + FILLER * (_width(character) - 1) for character in text)
    return [line.replace(FILLER, "") for line in textwrap.wrap(padded, letters)]


def shorten(text: str, letters: int) -> str:
    """The text, its middle left out where it is wider: long paths and names differ at their ends."""
    if width(text) <= letters:
        return text
    tail = _ending(text, (letters - 1) // 2)
    return f"{_beginning(text, letters - 1 - width(tail))}{ELLIPSIS}{tail}"


def short_names(names: Sequence[str], letters: int) -> tuple[str, ...]:
    """The names in at most that many letters, different names kept different.

    A long name is cut at its end; where that makes several alike, they keep the part in which they begin to differ;
    where that fails too, they are numbered by their place.
    """
    cut = [_cut(name, letters) for name in names]
    for _ in range(2):  # once more for those of which only some differ where all of them do
        for alike in _alike(names, cut):
            shared = _shared([names[place] for place in alike])
            for place in alike:
                cut[place] = _cut_out(names[place], shared, letters)
    for alike in _alike(names, cut):
        for place in alike:
            number = f"{ELLIPSIS}#{place}"
            cut[place] = _beginning(names[place], letters - len(number)) + number
    return tuple(cut)


def _alike(names: Sequence[str], cut: Sequence[str]) -> list[list[int]]:
    """Places of different names that look the same when they are cut."""
    differing = Counter(short for short, _ in {*zip(cut, names, strict=True)})
    return [[n for n, other in enumerate(cut) if other == short] for short, count in differing.items() if count > 1]


def _shared(names: Sequence[str]) -> int:
    """Letters that all the names begin with."""
    first, last = min(names), max(names)
    return next((n for n, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))


def _cut(name: str, letters: int) -> str:
    return name if width(name) <= letters else _beginning(name, letters - 1) + ELLIPSIS


def _cut_out(name: str, start: int, letters: int) -> str:
    """The beginning and what stands from `start` on, `pre…cat`."""
    rest = _cut(name[start:].lstrip(), letters - 1 - LEAST_BEGINNING)
    room = letters - 1 - width(rest)
    return name if width(name) <= letters else f"{_beginning(name, room)}{ELLIPSIS}{rest}"


def _beginning(text: str, letters: int) -> str:
    end, room = 0, letters
    while end < len(text) and (room := room - _width(text[end])) >= 0:
        end += 1
    return text[:end]


def _ending(text: str, letters: int) -> str:
    start, room = len(text), letters
    while start and (room := room - _width(text[start - 1])) >= 0:
        start -= 1
    return text[start:]
