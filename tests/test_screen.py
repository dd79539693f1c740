"""Nothing in a message commands a terminal, and no message ends a command that has done its work."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from conftest import environment
from experiments import screen
from experiments.console import Screen
from experiments.screen import PlainFormatter, one_line, printable, say, without_login

COMMANDS = [
    "\x1b]0;title\x07",
    "\x1b[31mred",
    "a\rb",
    "\x9b31m",
    "\u202etxt.exe",
    "\u2028line",
    "\udcff",
    "\x7f",
    "\x00",
]


@pytest.mark.parametrize("text", COMMANDS, ids=ascii)
def test_text_commands_no_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (printable(text), one_line(text)):
        assert shown.isprintable()
        assert "\ufffd" in shown
    say(text)
    assert capsys.readouterr().out == f"{one_line(text)}\n"


def test_words_of_any_language_stay() -> None:
    text = "Größe → łódź 数字 🙂 ✓ a\tb"
    assert printable(text) == text


def test_name_cannot_look_like_a_message_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    say("theirs\nrun: finished", Path("a\nb"))
    assert capsys.readouterr().out == "theirs run: finished\na b\n"


def test_table_commands_no_terminal() -> None:
    file = io.StringIO()
    screen = Screen(file=file, width=80)
    table = Table("\x1b[2Jname")
    table.add_row(Text("\x1b]0;title\x07", style="red"))
    table.add_row("\x9b31m[b]")
    screen.print(table, "\x1b[31m", markup=False)
    assert not set(file.getvalue()) & set("\x1b\x07\x9b")


def test_log_commands_no_terminal_and_keeps_its_traceback() -> None:
    try:
        raise ValueError("\x1b[31m http://anna:secret@host")
    except ValueError:
        record = logging.LogRecord("a", logging.INFO, "", 0, "first\nsecond %s", ("\x1b",), sys.exc_info())
    first, *trace = PlainFormatter("%(message)s").format(record).split("\n")
    assert first == "first second \ufffd"
    assert trace[-1] == "ValueError: \ufffd[31m http://***@host"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "API request to http://anna:pass@host:5000/api/2.0 failed",
            "API request to http://***@host:5000/api/2.0 failed",
        ),
        ("postgresql+psycopg2://anna:p/a@ss@host/db", "postgresql+psycopg2://***@host/db"),
        ("https://token@host/x", "https://***@host/x"),
        ("'mysql://a:b@c'", "'mysql://***@c'"),
        ("http://127.0.0.1:5000/#/experiments/1", "http://127.0.0.1:5000/#/experiments/1"),
        ("sqlite:////home/anna@work/mlflow.db", "sqlite:////home/anna@work/mlflow.db"),
        ("mail anna@example.org", "mail anna@example.org"),
    ],
)
def test_login_in_an_address_is_hidden(text: str, shown: str) -> None:
    assert without_login(text) == shown


def spoken(home: Path, body: str, redirection: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """A command that does `body` between what all entrances share, its streams as a shell is told."""
    (home / "command.py").write_text(
        "import logging, sys\n"
        "from experiments.entrance import exit_with\n"
        "from experiments.screen import say\n"
        f"def command():\n    {body}\n    open('done', 'w').close()\n    return 0\n"
        "exit_with(command)\n"
    )
    return subprocess.run(
        ["bash", "-c", f'"$0" -m command {redirection}', sys.executable],
        cwd=home, env=environment(home, **variables), capture_output=True, check=False,
    )  # fmt: skip


SAY_ALL = "say('a → ł'); logging.getLogger('experiments').info('b → ł'); print('c → ł', file=sys.stderr)"


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "ascii", "utf-8"])
def test_stream_that_cannot_encode_a_sign_gets_another(encoding: str, home: Path) -> None:
    done = spoken(home, SAY_ALL, "", PYTHONIOENCODING=encoding)
    expected = "a → ł\nb → ł\n".encode(encoding, errors="replace")
    assert (done.returncode, done.stdout, (home / "done").exists()) == (0, expected, True)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-", "<&- >&- 2>&-", "2>&-", "> /dev/full"])
def test_stream_that_is_closed_or_full_ends_nothing(redirection: str, home: Path) -> None:
    done = spoken(home, SAY_ALL, redirection)
    assert (done.returncode, (home / "done").exists()) == (0, True)


def test_reader_that_is_gone_ends_nothing(home: Path) -> None:
    body = "[say('x' * 1000) for _ in range(1000)]"
    done = spoken(home, body, '| head -1; exit "${PIPESTATUS[0]}"')
    assert (done.returncode, done.stderr, (home / "done").exists()) == (0, b"", True)
    assert done.stdout == b"x" * 1000 + b"\n"


def test_colours_are_not_forced_into_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.setenv(variable, "1")
    screen = Screen()
    screen.print(Text("red", style="red"))
    assert (screen.is_terminal, capsys.readouterr().out) == (False, "red\n")


def test_reader_of_a_table_that_is_gone_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as file:
        screen = Screen(file=file)
        screen.print("a")
        screen.print("b")


def test_very_long_message_keeps_its_beginning_and_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    screen.complain(f"model: {'x' * 5000}: no such option; valid: cnn")
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) == screen.LONGEST_LINE + 3
    assert line.startswith("model: xxx")
    assert line.endswith("xxx: no such option; valid: cnn")
