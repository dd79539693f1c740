"""Runs tests in several forked processes side by side and brings their reports together in this one.

All processes have collected the same tests and imported the same libraries, because they are forked after that.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest

Group = list[pytest.Item]  # tests that run in one process, in their order


def group(items: Sequence[pytest.Item]) -> list[Group]:
    """The tests of each file, or of files that ask about the same commands; those marked `beside` alone.

    What takes longest comes first, so that no process is left alone with it.
    """
    alone = [[item] for item in items if item.get_closest_marker("beside")]
    files: list[tuple[set[Any], Group]] = []
    for _, found in groupby((item for item in items if not item.get_closest_marker("beside")), _path):
        tests = list(found)
        scenarios = set(getattr(tests[0].module, "SCENARIOS", ()))  # type: ignore[attr-defined]
        same = next((known for known in files if known[0] & scenarios), None)
        if same:
            same[0].update(scenarios)
            same[1].extend(tests)
        else:
            files.append((scenarios, tests))
    files.sort(key=lambda known: (len(known[0]), _slow(known[1])), reverse=True)
    longest = [tests for scenarios, tests in files if scenarios or _slow(tests)]
    return [*longest, *alone, *(tests for scenarios, tests in files if not scenarios and not _slow(tests))]


def _path(item: pytest.Item) -> Path:
    return item.path


def _slow(tests: Group) -> int:
    return sum(item.get_closest_marker("slow") is not None for item in tests)


def run(session: pytest.Session, processes: int) -> None:
    """Runs all tests of a session; each process asks for the next group when it begins its last test.

    Args:
        session: whose tests have been collected.
        processes: how many are forked.

    Raises:
        session.Failed, session.Interrupted: as without processes.
    """
    groups = group(session.items)
    gc.freeze()  # or the first collection of each process would touch, and so copy, all that they share
    waiting = iter(range(len(groups)))
    workers: dict[Connection, int] = {}
    for _ in range(min(processes, len(groups))):
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            _be_worker(session, groups, theirs)
        theirs.close()
        workers[ours] = pid
    running: dict[Connection, str] = {}
    try:
        while workers:
            for connection in wait(list(workers)):
                assert isinstance(connection, Connection)
                try:
                    kind, content = connection.recv()
                except EOFError:
                    _ended(workers.pop(connection), running.get(connection))
                    continue
                if kind == "next":
                    connection.send(next(waiting, None))
                elif kind == "start":
                    running[connection] = content
                else:
                    report = session.config.hook.pytest_report_from_serializable(config=session.config, data=content)
                    session.config.hook.pytest_runtest_logreport(report=report)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
    finally:
        for connection, pid in workers.items():
            connection.close()  # ends it at its next report
            os.waitpid(pid, 0)


def _ended(pid: int, test: str | None) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        pytest.exit(f"the process that ran {test} ended with {code}", returncode=3)


def _be_worker(session: pytest.Session, groups: list[Group], connection: Connection) -> None:
    """Runs groups until there is none left; never returns."""
    code = 1
    try:
        manager = session.config.pluginmanager
        manager.unregister(name="terminalreporter")
        capture = manager.getplugin("capturemanager")
        capture.stop_global_capturing()  # its files are the parent's too
        capture.start_global_capturing()
        manager.register(_Reporter(session.config, connection))
        tests = _tests(groups, connection)
        test = next(tests, None)
        while test is not None:
            connection.send(("start", test.nodeid))
            following = next(tests, None)
            session.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
            test = following
        code = 0
    except (BrokenPipeError, ConnectionResetError):  # the parent wants no more
        code = 0
    finally:
        os._exit(code)


def _tests(groups: list[Group], connection: Connection) -> Iterator[pytest.Item]:
    while True:
        connection.send(("next", None))
        number = connection.recv()
        if number is None:
            return
        yield from groups[number]


class _Reporter:
    def __init__(self, config: pytest.Config, connection: Connection) -> None:
        self._config, self._connection = config, connection

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        content = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._connection.send(("report", content))
