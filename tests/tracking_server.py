"""A small MLflow server in memory, which can be slow, refuse, fail, lose its answers, and come back."""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
MISSING = 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not there"}
BROKEN = 500, {"error_code": "INTERNAL_ERROR", "message": "the database is gone"}
Answer = tuple[int, dict[str, Any]]


class Server:
    """What the server has, and how it behaves.

    Attributes:
        calls: the names of all calls, as `runs/log-batch`.
        fails: whether a call, by its name, is answered with 500 and not carried out.
        forgets: whether a call is carried out, and the connection is closed without an answer.
        may_answer: no call is answered while this is not set.
    """

    def __init__(self) -> None:
        self.port = 0
        self.runs: dict[str, dict[str, Any]] = {}
        self.metrics: dict[str, set[tuple[str, int, float, int]]] = {}  # key, step, value, time: once each
        self.artifacts: set[str] = set()
        self.experiments: list[str] = []
        self.calls: list[str] = []
        self.logins: set[str | None] = set()
        self.fails: Callable[[str], bool] = lambda call: False
        self.forgets: Callable[[str], bool] = lambda call: False
        self.seconds = 0.0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def curve(self, key: str) -> list[int]:
        """The steps of a metric, of all runs together."""
        return sorted(step for kept in self.metrics.values() for name, step, *_ in kept if name == key)

    @contextmanager
    def up(self) -> Iterator[None]:
        """Listens for the length of a block, always at the same port."""
        handler = type("Handler", (_Handler,), {"server_of_runs": self})
        with ThreadingHTTPServer(("127.0.0.1", self.port), handler) as listening:
            self.port = listening.server_address[1]
            thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                self.may_answer.set()
                listening.shutdown()
                thread.join()
                for connection in self._connections:  # clients keep them open
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
                self._connections.clear()

    def answer(self, call: str, given: dict[str, Any]) -> Answer:
        name = call.replace("/", "_").replace("-", "_")
        with self._lock:
            return getattr(self, name, lambda given: MISSING)(given)

    def experiments_get_by_name(self, given: dict[str, Any]) -> Answer:
        name = given["experiment_name"]
        if name not in self.experiments:
            return MISSING
        return 200, {"experiment": {"experiment_id": str(self.experiments.index(name)), "name": name}}

    def experiments_create(self, given: dict[str, Any]) -> Answer:
        self.experiments.append(given["name"])
        return 200, {"experiment_id": str(len(self.experiments) - 1)}

    def experiments_get(self, given: dict[str, Any]) -> Answer:
        name = self.experiments[int(given["experiment_id"])]
        return 200, {"experiment": {"experiment_id": given["experiment_id"], "name": name}}

    def experiments_set_experiment_tag(self, given: dict[str, Any]) -> Answer:
        return 200, {}

    def runs_create(self, given: dict[str, Any]) -> Answer:
        run_id = secrets.token_hex(16)
        info = {"run_id": run_id, "run_uuid": run_id, "status": "RUNNING", "lifecycle_stage": "active"}
        info |= {"artifact_uri": f"mlflow-artifacts:/{run_id}", "experiment_id": given["experiment_id"]}
        info |= {"run_name": given.get("run_name", ""), "start_time": given.get("start_time", 0)}
        self.runs[run_id] = {"info": info, "params": {}, "tags": {tag["key"]: tag["value"] for tag in given["tags"]}}
        self.metrics[run_id] = set()
        return self.runs_get({"run_id": run_id})

    def runs_get(self, given: dict[str, Any]) -> Answer:
        if given["run_id"] not in self.runs:
            return MISSING
        run = self.runs[given["run_id"]]
        data = {name: [{"key": k, "value": v} for k, v in run[name].items()] for name in ("params", "tags")}
        newest: dict[str, tuple[int, int, float]] = {}
        for key, step, value, at in self.metrics[given["run_id"]]:
            newest[key] = max(newest.get(key, (-1, -1, 0.0)), (step, at, value))
        metrics = [{"key": k, "step": s, "timestamp": t, "value": v} for k, (s, t, v) in newest.items()]
        return 200, {"run": {"info": run["info"], "data": data | {"metrics": metrics}, "inputs": {}}}

    def runs_update(self, given: dict[str, Any]) -> Answer:
        info = self.runs[given["run_id"]]["info"]
        info |= {key: given[key] for key in ("status", "end_time") if key in given}
        return 200, {"run_info": info}

    def runs_search(self, given: dict[str, Any]) -> Answer:
        wanted = given["filter"].split("'")[1]
        found = [run_id for run_id, run in self.runs.items() if wanted in run["tags"].values()]
        return 200, {"runs": [self.runs_get({"run_id": run_id})[1]["run"] for run_id in found]}

    def runs_log_batch(self, given: dict[str, Any]) -> Answer:
        run = self.runs[given["run_id"]]
        for name in ("params", "tags"):
            run[name] |= {item["key"]: item["value"] for item in given.get(name, [])}
        for metric in given.get("metrics", []):
            step, value, at = int(metric.get("step", 0)), float(metric["value"]), int(metric["timestamp"])
            self.metrics[given["run_id"]].add((metric["key"], step, value, at))
        return 200, {}

    def runs_set_tag(self, given: dict[str, Any]) -> Answer:
        self.runs[given["run_id"]]["tags"][given["key"]] = given["value"]
        return 200, {}

    def runs_delete_tag(self, given: dict[str, Any]) -> Answer:
        found = self.runs[given["run_id"]]["tags"].pop(given["key"], None)
        return MISSING if found is None else (200, {})

    def runs_log_inputs(self, given: dict[str, Any]) -> Answer:
        return 200, {}

    def metrics_get_history(self, given: dict[str, Any]) -> Answer:
        kept = sorted(self.metrics[given["run_id"]], key=lambda metric: metric[1])
        wanted = [{"key": k, "step": s, "value": v, "timestamp": t} for k, s, v, t in kept if k == given["metric_key"]]
        return 200, {"metrics": wanted}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of_runs: Server

    def setup(self) -> None:
        super().setup()
        self.server_of_runs._connections.append(self.connection)

    def log_message(self, *arguments: Any) -> None: ...

    def _answer(self) -> None:
        server, url = self.server_of_runs, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call = url.path.removeprefix(API) if url.path.startswith(API) else "artifacts"
        server.calls.append(call)
        server.logins.add(self.headers.get("Authorization"))
        time.sleep(server.seconds)
        server.may_answer.wait(60)
        if server.fails(call):
            status, told = BROKEN
        elif call == "artifacts":
            server.artifacts.add(url.path.removeprefix(ARTIFACTS).partition("/")[2])
            status, told = 200, {}
        else:
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            status, told = server.answer(call, query | (json.loads(body) if body else {}))
        if server.forgets(call):
            self.close_connection = True
            return
        text = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815
