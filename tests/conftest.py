"""What many tests share: a home of their own, TensorFlow started once, and whole commands as child processes."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import IO, Any, Generic, NamedTuple, TypeVar

import pytest

import commands
import distribution
from experiments.config import RunConfig, available_cores, compose
from experiments.errors import StoppedError
from experiments.ingredients import kernels
from experiments.ingredients.datasets import ImageData
from experiments.results.files import EpochRow
from experiments.results.records import DatasetSummary, Process, Record, load
from experiments.training import runtime

gc.set_threshold(100_000)  # what thousands of tests are collected from is kept; to look through it takes its time
MEMORY = Path("/dev/shm")  # a file system where no epoch and no metric waits for a disk until it is safe
ROOM_BYTES = 8 * 10**9  # many times what all tests write
MANY_FILES = 4  # from which on they run side by side
# The smallest run that is still a run: 64 of the bundled digits, one thread.
SMALL = (
    "dataset=digits", "dataset.train_limit=64", "training.batch_size=16", "training.threads=1", "figures=false",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-fork", action="store_true", help="start every command as a process that imports everything")
    parser.addoption(
        "--processes",
        type=int,
        help="how many run tests side by side; by default one for each core, if files are many",
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    commands.may_fork &= not config.getoption("no_fork")
    # Some tests' modules import TensorFlow before any test prepares it.
    os.environ.update(kernels.variables_of_import())
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = (
        "true"  # or MLflow, once imported, reports and gives every command a variable
    )
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
            config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]


def pytest_unconfigure() -> None:
    """What is kept for libraries that were imported quietly is not forgotten open when Python ends."""
    runtime._stderr_of_its_own().close()


def pytest_sessionstart(session: pytest.Session) -> None:
    """What a shell ignores for a command in the background, its children would ignore too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if session.config.args_source == pytest.Config.ArgsSource.TESTPATHS and not session.config.option.collectonly:
        commands.servers()  # all tests are wanted: it imports its libraries while they are collected


def pytest_collection_finish(session: pytest.Session) -> None:
    """Starts TensorFlow before any test can do so with other threads."""
    if session.config.option.collectonly:
        return
    if any("tensorflow" in getattr(item, "fixturenames", ()) for item in session.items):
        with runtime.quiet():  # TensorFlow's lines about this machine
            runtime.prepare(compose("training.threads=1").training)


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Runs tests of several files side by side, but where they are debugged or their coverage is measured."""
    config, option = session.config, session.config.option
    many = len({item.path for item in session.items}) >= MANY_FILES
    processes = option.processes or (available_cores() if many and commands.may_fork else 1)
    if processes == 1 or option.collectonly or option.usepdb or config.pluginmanager.hasplugin("_cov"):
        return None
    commands.servers()
    config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    distribution.run(session, processes)
    return True


@pytest.fixture(scope="session", autouse=True)
def _no_variable_is_left() -> Iterator[None]:
    """What a test leaves in the environment would keep every command after it from being forked."""
    yield
    assert commands.changed(os.environ) == []


@pytest.fixture(scope="session")
def stores() -> None:
    """Stores of MLflow that are made in this process get copies of the first one's tables."""
    from mlflow_tables import copy_tables

    copy_tables()


@pytest.fixture(scope="session")
def tensorflow(stores: None) -> Any:
    """TensorFlow as a run starts it: one thread, deterministic operations."""
    return pytest.importorskip("tensorflow")


T = TypeVar("T")


class Ending(Generic[T]):
    """What a scenario returns; it runs when it is asked for first."""

    def __init__(self, scenario: Callable[[Path], T], home: Path) -> None:
        self._scenario, self._home = scenario, home

    @cached_property
    def _returned(self) -> T:
        self._home.mkdir()
        return self._scenario(self._home)

    def result(self) -> T:
        return self._returned


@pytest.fixture(scope="session")
def endings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ending[Any]]:
    """The whole commands that several tests ask about, by name."""
    modules = {item.module for item in request.session.items}  # type: ignore[attr-defined]
    wanted = [scenario for module in modules for scenario in getattr(module, "SCENARIOS", ())]
    return {
        scenario.__name__: Ending(scenario, tmp_path_factory.mktemp(scenario.__name__) / "home")
        for scenario in dict.fromkeys(wanted)
    }


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `EXPERIMENTS_HOME`; nothing is ever written to the user's own."""
    monkeypatch.setenv("EXPERIMENTS_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def small() -> Callable[..., RunConfig]:
    """Composes the config of a small run; overrides may be added. Nobody can change what is kept here."""
    return cache(lambda *overrides: compose(*SMALL, *overrides))


@pytest.fixture(scope="session")
def small_data(small: Callable[..., RunConfig]) -> ImageData:
    return small().dataset.load()


class Trained(NamedTuple):
    """A training that has ended, or stopped where it was asked to: then `rows` are those so far."""

    trainer: Any
    rows: list[EpochRow]


def train(
    config: RunConfig,
    data: ImageData,
    *,
    checkpoints: Path | None = None,
    stop_after: int | None = None,
    measured: Any = None,
) -> Trained:
    """Trains in this process, from the checkpoints in a directory where there are any."""
    from experiments.training import loop
    from experiments.training.checkpoint import Checkpoints, State

    trainer = loop.build(config, data)
    kept = Checkpoints(checkpoints) if checkpoints else None
    states = [kept.restore(trainer.model) if kept else State(rows=[], best=None)]

    def on_epoch(state: State) -> None:
        states.append(state)
        if kept:
            kept.save(trainer.model, state)

    with contextlib.suppress(StoppedError):
        loop.train(
            trainer,
            data.validation,
            states[0],
            measured=measured,
            on_epoch=on_epoch,
            stop_requested=lambda: len(states[-1].rows) == stop_after,
        )
    return Trained(trainer, states[-1].rows)


def environment(home: Path, **variables: str) -> dict[str, str]:
    """The variables of a child process: this process's, without what would change where it writes."""
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return kept | {"EXPERIMENTS_HOME": str(home)} | variables


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str
    home: Path

    @property
    def record(self) -> Record:
        """The record of the run whose directory stands in the last line."""
        return load(Path(self.out.splitlines()[-1]))


class Command:
    """A process whose standard output can be waited for, line by line."""

    def __init__(self, process: commands.Process, errors: IO[str], home: Path) -> None:
        self.process, self._errors, self._home, self._read = process, errors, home, ""

    def wait_for(self, text: str) -> None:
        """Reads up to and with the line that begins with `text`."""
        assert self.process.stdout
        for line in iter(self.process.stdout.readline, ""):
            self._read += line
            if line.startswith(text):
                return
        pytest.fail(f"no line begins with {text!r}: {self.finish()}")

    def finish(self) -> Ended:
        assert self.process.stdout
        self._read += self.process.stdout.read()
        code = self.process.wait()
        self._errors.seek(0)
        return Ended(code, self._read, self._errors.read(), self._home)


@contextlib.contextmanager
def started(home: Path, *arguments: str, fork: bool = True, **variables: str) -> Iterator[Command]:
    """`python -m experiments.run <arguments>` in `home`'s parent with `home` as its home; gone after the block."""
    with (
        tempfile.TemporaryFile("w+") as errors,
        commands.start(
            ["-m", "experiments.run", *arguments],
            env=environment(home, **variables),
            cwd=home.parent,
            stdout=subprocess.PIPE,
            stderr=errors,
            fork=fork,
        ) as process,
        killed_at_the_end(process),
    ):
        yield Command(process, errors, home)


@contextlib.contextmanager
def killed_at_the_end(process: commands.Process) -> Iterator[None]:
    """Whatever the block does, and however long: its process is killed after five minutes at the latest."""
    too_long = threading.Timer(300, process.kill)
    too_long.start()
    try:
        yield
    finally:
        too_long.cancel()
        process.kill()


def write_record(directory: Path, **fields: Any) -> Record:
    """The record of a run that has just begun in `directory`, with `fields` changed."""
    values: dict[str, Any] = {
        "name": directory.name,
        "run_key": "a" * 64,
        "config_key": "b" * 64,
        "seed": 0,
        "started_at": datetime(2026, 11, 22, 8, 15, 30, tzinfo=UTC),
        "process": Process.current(),
        "parameters": 7850,
        "dataset": DatasetSummary(name="digits", digest="d" * 64, source="a test"),
        "code_digest": "c" * 64,
        "versions": {"numpy": "2.4.6"},
    }
    record = Record(**values | fields)
    record.create(directory)
    return record


def messages_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the package has logged, and no library."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("experiments")]


def epoch_row(epoch: int, loss: float = 0.5) -> EpochRow:
    return EpochRow(epoch, loss, loss / 2, 0.8, loss * 1.5, loss, 0.75, 0.001, 1.234, f"{epoch:064x}", loss / 3, 0.85)
