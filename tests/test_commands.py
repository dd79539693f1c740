"""Commands that are forked are like those that are started: processes of their own, with all that was given them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

import commands
from conftest import environment

pytestmark = pytest.mark.skipif(not commands.may_fork, reason="commands are not forked here")
BOTH = pytest.mark.parametrize("fork", [True, False], ids=["forked", "started"])
FACTS = (
    "import json, os, signal, sys, threading; from pathlib import Path\n"
    "shown = Path('/proc/self/environ').read_bytes().strip(b'\\0').split(b'\\0')\n"
    "print(json.dumps({'argv': sys.argv, 'orig_argv': sys.orig_argv, 'path': sys.path, 'cwd': os.getcwd(),\n"
    "  'variables': dict(os.environ), 'shown': sorted(os.fsdecode(text) for text in shown), 'main': __name__,\n"
    "  'group': os.getpgid(0), 'session': os.getsid(0), 'threads': threading.active_count(),\n"
    "  'open': sorted(os.listdir('/proc/self/fd')), 'input': sys.stdin.read(), 'encoding': sys.stdout.encoding,\n"
    "  'signals': [str(signal.getsignal(n)) for n in (2, 13, 15, 17)],\n"
    "  'masked': len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),\n"
    "  'ours': [module for module in sys.modules if 'experiments' in module]}))"
)


def run(code: str, home: Path, *arguments: str, fork: bool = True, **variables: str) -> Any:
    return commands.run(["-c", code, *arguments], env=environment(home, **variables), cwd=home, fork=fork)


def start(code: str, home: Path, *, fork: bool = True, **streams: Any) -> commands.Process:
    return commands.start(["-c", code], env=environment(home), cwd=home, fork=fork, **streams)


def test_forked_process_is_like_one_that_was_started(home: Path) -> None:
    own = {"TERM": "x", "PYTHONPATH": os.pathsep.join(["relative", str(home / "own")])}
    forked, started = (json.loads(run(FACTS, home, "a", "b c", fork=fork, **own).stdout) for fork in (True, False))
    assert forked["variables"]["EXPERIMENTS_HOME"] == str(home)
    assert forked["ours"] == []
    for facts in (forked, started):
        shown = dict(text.split("=", 1) for text in facts.pop("shown"))
        assert shown == facts["variables"] or shown.items() <= facts["variables"].items()
        facts["open"] = len(facts["open"])
    assert forked == started


def test_nothing_of_one_command_is_left_for_the_next(home: Path) -> None:
    run("import os, sys; os.environ['A'] = '1'; sys.path.append('x'); import keras; keras.a = 1", home)
    found = run("import os, sys, keras; print('A' in os.environ, 'x' in sys.path, hasattr(keras, 'a'))", home)
    assert found.stdout == "False False False\n"


def test_random_numbers_differ_from_command_to_command(home: Path) -> None:
    code = "import numpy, random; print(numpy.random.random(), random.random())"
    assert not {*run(code, home).stdout.split()} & {*run(code, home).stdout.split()}


@BOTH
@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("print('out')", (0, "out\n", "")),
        ("import sys; sys.exit(3)", (3, "", "")),
        ("import sys; sys.exit('told')", (1, "", "told\n")),
        ("import os; os._exit(7)", (7, "", "")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", (-9, "", "")),
        ("import atexit; atexit.register(print, 'last')", (0, "last\n", "")),
        ("import threading, time; threading.Timer(0.2, print, ['thread']).start()", (0, "thread\n", "")),
    ],
)
def test_command_ends_with_its_code_and_its_output(code: str, ending: tuple[Any, ...], fork: bool, home: Path) -> None:
    done = run(code, home, fork=fork)
    assert (done.returncode, done.stdout, done.stderr) == ending


@BOTH
def test_error_is_told_with_its_traceback(fork: bool, home: Path) -> None:
    done = run("def f(): raise ValueError('no')\nf()", home, fork=fork)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ValueError: no\n")


@BOTH
def test_signal_gets_to_the_process(fork: bool, home: Path) -> None:
    code = "import time\ntry: print('up', flush=True); time.sleep(60)\nexcept KeyboardInterrupt: print('stopped')"
    with start(code, home, fork=fork, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "up\n"
        assert process.poll() is None
        assert psutil.pid_exists(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "stopped\n"
        assert process.wait() == process.poll() == 0
    assert not psutil.pid_exists(process.pid)


@BOTH
def test_uncaught_interrupt_ends_it_by_the_signal(fork: bool, home: Path) -> None:
    with start("import time; print(flush=True); time.sleep(60)", home, fork=fork, stdout=subprocess.PIPE,
               stderr=subprocess.DEVNULL) as process:  # fmt: skip
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT


@BOTH
def test_command_on_a_terminal_sees_one(fork: bool, home: Path) -> None:
    ours, theirs = pty.openpty()
    with start("import sys; print([f.isatty() for f in (sys.stdin, sys.stdout, sys.stderr)])", home, fork=fork,
               stdin=theirs, stdout=theirs, stderr=theirs) as process:  # fmt: skip
        os.close(theirs)
        with os.fdopen(ours, closefd=False) as screen:
            assert screen.readline() == "[True, True, True]\n"
        process.wait()
    os.close(ours)


@BOTH
def test_keys_pressed_on_its_terminal_are_signals(fork: bool, home: Path) -> None:
    ours, theirs = pty.openpty()
    with start("import time; print('up', flush=True); time.sleep(60)", home, fork=fork, on_terminal=True,
               stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL) as process:  # fmt: skip
        os.close(theirs)
        assert os.read(ours, 2) == b"up"
        os.write(ours, b"\x03")
        assert process.wait(20) == -signal.SIGINT
    os.close(ours)


def test_command_that_takes_too_long_is_ended(home: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        commands.run(["-c", "import time; time.sleep(60)"], env=environment(home), timeout=0.2)


def test_module_runs_as_main_from_the_folder(home: Path) -> None:
    (home / "some.py").write_text("import sys; print(__name__, __spec__.name, sys.argv, sys.path[0])")
    expected = f"__main__ some ['{home}/some.py', 'x'] {home}\n"
    for fork in (True, False):
        assert commands.run(["-m", "some", "x"], env=environment(home), cwd=home, fork=fork).stdout == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [("TF_ENABLE_ONEDNN_OPTS", "0"), ("ONEDNN_MAX_CPU_ISA", "AVX2"), ("HOME", "/x")],
)
def test_command_with_variables_of_its_own_is_started(name: str, value: str, home: Path) -> None:
    assert commands.can_be_forked(environment(home, TERM="x", MLFLOW_TRACKING_URI="y"))
    assert not commands.can_be_forked(environment(home, **{name: value}))


# The server that a sweep forks its workers from.

WORKERS = (
    "import multiprocessing, os, sys\n"
    "context = multiprocessing.get_context('forkserver')\n"
    "multiprocessing.set_forkserver_preload(['json'])\n"
    "from multiprocessing import forkserver\n"
    "ours, theirs = context.Pipe()\n"
    "process = context.Process(target=os.write, args=(1, b'from a worker'))\n"
    "sys.modules['__main__'] = os\n"
    "process.start(); process.join()\n"
    "from pathlib import Path\n"
    "server = Path(f'/proc/{forkserver._forkserver._forkserver_pid}')\n"
    "print('', process.exitcode, server.joinpath('stat').read_text().split()[3] == str(os.getpid()),\n"
    "      f'EXPERIMENTS_HOME={os.environ[\"EXPERIMENTS_HOME\"]}'.encode() in server.joinpath('environ').read_bytes())"
)


@BOTH
def test_command_has_its_own_fork_server_and_workers(fork: bool, home: Path) -> None:
    done = commands.run(["-c", WORKERS, "-m"], env=environment(home), cwd=home, fork=fork)
    assert (done.stdout, done.stderr) == ("from a worker 0 True True\n", "")


def test_spare_that_was_not_needed_ends_with_the_command(home: Path) -> None:
    code = "import psutil; (spare,) = psutil.Process().children(); print(spare.pid)"
    spare = int(commands.run(["-c", code, "-m"], env=environment(home), cwd=home).stdout)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(spare).wait(20)


def test_servers_end_with_the_tests() -> None:
    code = (
        "import commands; commands.LIBRARIES, commands.PACKAGE = ('numpy',), 'json'; commands.servers()\n"
        "for changed in {}, {'PYTHONPATH': ''}:\n"
        "    print(commands.run(['-c', 'import os; print(os.getppid())'], env=commands.VARIABLES | changed).stdout)"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": folder},
        capture_output=True,
        text=True,
        check=True,
    )
    with_package, with_libraries = map(int, done.stdout.split())
    assert not psutil.pid_exists(with_libraries)
    assert with_package != with_libraries
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(with_package).wait(20)


@pytest.mark.parametrize(
    ("variables", "holds", "imported"),
    [
        ({}, None, True),
        ({"PYTHONPATH": "elsewhere"}, None, False),
        ({}, "experiments", False),
        ({}, "record.json", False),
    ],
)
def test_package_is_imported_beforehand_where_the_command_would_import_the_same(
    variables: dict[str, str], holds: str | None, imported: bool, home: Path
) -> None:
    if holds:
        (home / holds).mkdir()
    done = run(
        "import sys; print('experiments.config' in sys.modules, 'experiments.run' in sys.modules)", home, **variables
    )
    assert done.stdout == f"{imported} False\n"
