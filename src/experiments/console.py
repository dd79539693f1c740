"""Tables and bars on a terminal."""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from experiments.screen import printable, write_nowhere

WIDE = 250  # columns where nobody looks at a screen: nothing is cut off


class Screen(Console):
    """A rich console that replaces control characters and ignores a closed standard output."""

    def __init__(self, **options: Any) -> None:
        # Not by FORCE_COLOR and its like: a live table in a file is noise.
        is_terminal = bool(getattr(sys.stdout, "isatty", bool)())
        super().__init__(force_terminal=is_terminal, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable, their texts printable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def on_broken_pipe(self) -> None:
        """Rich itself would end the process."""
        write_nowhere(self.file.fileno())

    def _write_buffer(self) -> None:
        """Rich's; a full disk is as a reader that is gone."""
        try:
            super()._write_buffer()
        except OSError:
            self.on_broken_pipe()


def open_screen() -> Screen:
    """The console of standard output as it is now; wide where that is no terminal."""
    screen = Screen()
    return screen if screen.is_terminal or screen.is_jupyter else Screen(width=WIDE)


def log_prose(log: logging.Logger, text: str, console: Console) -> None:
    """Tells a sentence to somebody who reads the console.

    Args:
        log: Who tells it, a logger of the package.
        text: The sentence.
        console: Where it is read: its width decides where lines end.
    """
    for line in prose(text, console):
        log.info("%s", line)


def prose(text: str, console: Console) -> list[str]:
    """The lines of a sentence, which break between words; one line where there is no terminal."""
    if not console.is_terminal:
        return [text]
    return textwrap.wrap(text, console.width, break_long_words=False, break_on_hyphens=False)
