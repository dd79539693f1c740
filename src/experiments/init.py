"""`experiments init PATH`, or `python -m experiments.init PATH`: a small project of one's own that runs at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.entrance import Parser, exit_with
from experiments.errors import InputError
from experiments.screen import say

TEMPLATE = Path(__file__).resolve().parent / "template"  # files of a project, each with `.txt` at the end of its name
HIDDEN = {"gitignore": ".gitignore"}


def main(arguments: Sequence[str] | None = None) -> None:
    """The entrance; exit codes: 0 done, 2 bad input.

    `arguments` are those of the process where none are given.
    """
    exit_with(lambda: _init(sys.argv[1:] if arguments is None else arguments))


def _init(arguments: Sequence[str]) -> int:
    parser = Parser(prog="experiments init", description=__doc__)
    parser.add_argument("path", metavar="PATH", help="a new folder, or an empty one")
    path = Path(parser.parse_args(arguments).path)
    create(path)
    say(f"{path}: a project with a model (conv_mixer) and an optimizer (adamax) of its own")
    say(f"next: cd {path} && make test && make run")
    return 0


def create(path: Path) -> None:
    """Writes the project into a folder that is new or empty.

    Raises:
        InputError: it is neither, or cannot be written.
    """
    try:
        if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path}: must be a new folder or an empty one; what is in it is left alone")
        for source in sorted(TEMPLATE.rglob("*.txt")):
            name = source.relative_to(TEMPLATE).with_suffix("")
            target = path / name.with_name(HIDDEN.get(name.name, name.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text(encoding="utf-8")
            target.write_text(text.format(name=path.resolve().name, python=sys.executable), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot be written ({error.strerror})") from None


if __name__ == "__main__":
    main()
