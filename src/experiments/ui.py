"""`python -m experiments.ui [--port N]`: the MLflow UI on this project's store."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from experiments.bounded import exists
from experiments.entrance import Parser, exit_with
from experiments.errors import InputError
from experiments.screen import complain, say

HOST, PORT = "127.0.0.1", 5000  # MLflow's own port
ANSWER_SECONDS = 120.0  # how long a slow machine may take to start the server
GRACE_SECONDS = 5.0  # for the server to end by itself
TICK_SECONDS = 0.1
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes, for judges of language models
    "PYTHONWARNINGS": "ignore",
    "PYTHONSAFEPATH": "1",  # no module of the current folder, which may be a run of somebody else's
}
STORE_VARIABLE = "MLFLOW_BACKEND_STORE_URI"  # not an argument: it may hold a password, and arguments are public


def main() -> None:
    """The entrance."""
    exit_with(lambda: serve(_arguments().port))


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m experiments.ui", description=__doc__)
    parser.add_argument(
        "--port",
        type=int,
        default=PORT,
        metavar="N",
        help=f"where to listen on {HOST} (default: {PORT}; 0: any free one)",
    )
    return parser.parse_args()


def serve(port: int) -> int:
    """Starts the server, prints its address once it answers, and ends with it.

    Raises:
        InputError: there is no store, MLflow cannot read it, or the port cannot be had.
    """
    from experiments.results import files, tracking

    home = files.home()
    store = tracking.store_uri(home)
    if store.startswith(("http:", "https:")):
        say(f"MLFLOW_TRACKING_URI is a server with a UI of its own: {store}")
        return 0
    is_given = bool(os.environ.get("MLFLOW_TRACKING_URI"))
    database = Path(store.removeprefix("sqlite:///")) if is_given else home / tracking.STORE
    if store.startswith("sqlite") and not exists(database):
        raise InputError(f"{database}: no such store; `python -m experiments.run` makes one")
    port = _free_port(port)
    say(f"starting MLflow on {store}")
    with tempfile.TemporaryFile() as messages, _server(store, home, port, messages) as server:
        _wait_for(server, port, store, messages)
        say(f"MLflow UI: http://{HOST}:{port}", _start_page(port), "Ctrl-C stops it")
        server.wait()
        complain(f"MLflow ended by itself: {_last_error(messages)}")
        return 1


def _free_port(port: int) -> int:
    """The port, or any free one for 0.

    Raises:
        InputError: it is taken, or not to be had.
    """
    try:
        return _bind(port)
    except OverflowError:
        raise InputError(f"--port: must be from 0 to 65535, received {port}") from None
    except PermissionError:
        raise InputError(f"--port: {port} needs the rights of an administrator; choose one from 1024 on") from None
    except OSError:
        raise InputError(f"--port: {port} is in use by another program; try --port 0") from None


def _bind(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        probe.bind((HOST, port))
        return int(probe.getsockname()[1])


@contextmanager
def _server(store: str, home: Path, port: int, messages: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server in a group of processes of its own, none of which is left."""
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)]
    command += ["--artifacts-destination", (home / "mlartifacts").as_uri()]
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    for number in STOPS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` wants it
            signal.signal(number, signal.default_int_handler)
    server = subprocess.Popen(
        command, env=os.environ | SETTINGS | {STORE_VARIABLE: store}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=messages,
    )  # fmt: skip
    guard = _guard(server.pid)
    try:
        yield server
    finally:
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)
        _end(server)
        guard.kill()
        guard.communicate()


def _guard(group: int) -> subprocess.Popen[bytes]:
    """Ends a group of processes when this one is gone, even if it was killed: then nobody holds the guard's input."""
    script = f"read _; kill -TERM -{group}; sleep {GRACE_SECONDS}; kill -KILL -{group}"
    return subprocess.Popen(
        ["sh", "-c", script], start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _end(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(GRACE_SECONDS)


def _wait_for(server: subprocess.Popen[bytes], port: int, store: str, messages: IO[bytes]) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise InputError(f"{store}: MLflow cannot serve it ({_last_error(messages)})")
        with suppress(OSError, http.client.HTTPException):
            _ask(port, "GET", "/health")
            return
        time.sleep(TICK_SECONDS)
    raise InputError(f"{store}: MLflow does not answer after {ANSWER_SECONDS:.0f} s ({_last_error(messages)})")


def _ask(port: int, method: str, path: str, body: str | None = None) -> bytes:
    """The body of the server's answer. No proxy is asked, whatever the environment says."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"{path}: {answer.status}")
        return answer.read()
    finally:
        connection.close()


def _start_page(port: int) -> str:
    """The address to begin with: the newest sweep's table, or all runs. MLflow itself would open on language models."""
    from experiments.results import captions

    answer = _ask(port, "POST", "/api/2.0/mlflow/experiments/search", json.dumps({"max_results": 1000}))
    experiments: list[dict[str, Any]] = json.loads(answer).get("experiments", [])
    views = {
        tag["key"]: (tag["value"], experiment["experiment_id"])
        for experiment in experiments
        for tag in experiment.get("tags", [])
    }
    newest = captions.sweep_views({key: value for key, (value, _) in views.items()})
    page = f"http://{HOST}:{port}/#/experiments"
    if newest:
        sweep, number = newest[0].removeprefix(captions.VIEW), views[newest[0]][1]
        return f"newest sweep: {page}/{number}/runs?viewStateShareKey={quote(sweep)}&workflowType=machine_learning"
    last = max(experiments, key=lambda experiment: int(experiment["last_update_time"]))
    return f"runs: {page}/{last['experiment_id']}/runs?workflowType=machine_learning"


def _last_error(messages: IO[bytes]) -> str:
    """Of what MLflow has said: the last line that names an error, or else the last."""
    messages.seek(0)
    lines = [line.strip() for line in messages.read().decode(errors="replace").split("\n") if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    return (errors or lines or ["it says nothing"])[-1]


if __name__ == "__main__":
    main()
