"""Texts that a font can draw: which families have their characters, and what stands in for those that none has.

Names of classes and paths are the user's: no character of them is mathematics, and each may be in any script.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from matplotlib import get_data_path
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

BASE: Final = "DejaVu Sans"  # comes with matplotlib: figures look the same on every machine
BASE_FILE: Final = Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
PLACEHOLDERS: Final = ("last resort", "lastresort", "blank")  # fonts that have a glyph for everything and draw nothing
UNKNOWN: Final = "�"
REGULAR: Final = (400, "normal", "regular", "book")


def finish(figure: Figure) -> Figure:
    """The same figure, its texts taken literally and drawn in fonts that have their characters."""
    texts = figure.findobj(Text)
    lacking = _lacking(BASE_FILE, frozenset("".join(text.get_text() for text in texts)))
    families = (BASE, *choose_families(lacking))
    for text in texts:
        text.set_parse_math(False)  # `$` and `_` are letters
        text.set_fontfamily(BASE if lacking.isdisjoint(text.get_text()) else families)
    return figure


def drawable(text: str, instead: str = "?") -> str:
    """The text in one line, with `instead` for what no font here can draw."""
    plain = "".join(map(_plain, text))
    missing = without_glyph(plain)
    return "".join(instead if character in missing else character for character in plain)


def drawable_names(names: Sequence[str]) -> list[str]:
    """Names of classes; those that cannot be drawn give way to their number, `class 3`, and what is left of them."""
    return [_name(name, number) for number, name in enumerate(names)]


def _name(name: str, number: int) -> str:
    if not without_glyph("".join(map(_plain, name))):
        return drawable(name)
    left = drawable(name, "").strip()
    return f"class {number} {left}" if any(map(str.isalnum, left)) else f"class {number}"


def without_glyph(text: str) -> frozenset[str]:
    """Its characters that no font here has."""
    missing = _lacking(BASE_FILE, frozenset(text))
    for family in choose_families(missing):
        missing = _lacking(Path(fontManager.findfont(family)), missing)
    return missing


def _plain(character: str) -> str:
    """A space for line ends and the like, nothing for what is invisible, � for what is no character."""
    category = unicodedata.category(character)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    return "" if category == "Cf" else UNKNOWN if category in ("Cs", "Co", "Cn") else character


@cache
def choose_families(characters: frozenset[str]) -> tuple[str, ...]:
    """Families that have what the base font lacks, the fewest that are found; none where nothing is lacking."""
    missing = _lacking(BASE_FILE, characters)
    if not missing:
        return ()
    left = {entry: _lacking(Path(entry.fname), missing) for entry in _candidates()}
    chosen: list[str] = []
    while missing and left:
        best = min(left, key=lambda entry: len(missing & left[entry]))
        remaining = missing & left[best]
        if remaining == missing:
            break
        chosen.append(best.name)
        missing = remaining
    return tuple(chosen)


def _candidates() -> Iterable[FontEntry]:
    """Regular fonts, those without serifs first, in an order that is the same wherever the same fonts are."""
    regular = [e for e in fontManager.ttflist if e.style == "normal" and e.weight in REGULAR and e.name != BASE]
    known = [entry for entry in regular if not any(word in entry.name.lower() for word in PLACEHOLDERS)]
    return sorted(known, key=lambda entry: ("sans" not in entry.name.lower(), entry.name, entry.fname))


@cache
def _lacking(path: Path, characters: frozenset[str]) -> frozenset[str]:
    """Those of the characters that a font file has no outline of."""
    try:
        font = FT2Font(str(path))
    except (OSError, RuntimeError):  # gone, or of a kind that matplotlib cannot read
        return characters
    if not font.scalable:
        return characters
    return frozenset(character for character in characters if not font.get_char_index(ord(character)))
