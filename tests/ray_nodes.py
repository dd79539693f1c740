"""A Ray cluster on this machine: a head that carries out nothing, and nodes of one core. `python ray_nodes.py PORT`.

It prints one line of JSON, the address and process ids, and lives until its standard input ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import psutil

NODES = 2
START_SECONDS = 120  # on a busy machine; 9 on a quiet one
STORE_BYTES = 80 * 1024**2
# Ray's own defaults see that a node is dead after half a minute; these after three seconds.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "0", "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000", "RAY_health_check_failure_threshold": "3",
}  # fmt: skip


class Nodes(NamedTuple):
    """A cluster that runs: process ids of the head's two processes and of each node's first one."""

    address: str
    head: list[int]
    nodes: list[int]

    def kill_node(self, number: int) -> None:
        """All of it at once, with the jobs that run there."""
        kill_family(self.nodes[number])

    def kill_head(self) -> None:
        for pid in self.head:
            kill_family(pid)


def kill_family(pid: int) -> None:
    """A process and all that it has started, which cannot start more meanwhile."""
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(pid)
        family = [first, *first.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def running(port: int | None = None) -> Iterator[Nodes]:
    """A cluster for the length of a block; its head listens at `port`."""
    command = [sys.executable, __file__, str(port or free_port())]
    variables = os.environ | HEALTH | {"RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield Nodes(**json.loads(process.stdout.readline()))
        finally:
            left = psutil.Process(process.pid).children(recursive=True)
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            for child in left:
                kill_family(child.pid)
            process.kill()


def serve(port: int) -> None:
    from ray.cluster_utils import Cluster

    words = os.dup(1)
    os.dup2(2, 1)  # Ray prints how it is to be connected
    small = {"object_store_memory": STORE_BYTES}
    head = {"num_cpus": 0, "gcs_server_port": port, "include_dashboard": False, **small}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, wait=False, **small) for _ in range(NODES)]
    cluster.wait_for_nodes(timeout=START_SECONDS)
    of_the_head = [cluster.head_node.all_processes[name][0].process.pid for name in ("gcs_server", "raylet")]
    of_nodes = [node.all_processes["raylet"][0].process.pid for node in nodes]
    found = Nodes(cluster.address, of_the_head, of_nodes)
    os.write(words, f"{json.dumps(found._asdict())}\n".encode())
    sys.stdin.read()
    with contextlib.suppress(Exception):  # what was killed cannot be ended
        cluster.shutdown()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
