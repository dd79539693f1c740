"""The only process of a sweep that talks to Ray: it hands tasks on and tells how they end.

It is apart from the planner because Ray ends the process that is connected when the head of the cluster is gone for a
minute, and because much is printed. Both speak in lines of JSON: the planner by standard input (`submit`, `stop`,
`kill`), this one by standard output (`nodes`, `ended`, `refused`).
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from experiments.config import available_cores
from experiments.results.process import end_process, end_with
from experiments.sweeps.executors import ray_task

OWN = "local"  # address of a Ray that is started for this sweep
OWN_STORE_BYTES = 80 * 1024**2  # of shared memory; tasks return one number. Ray's least is 75 MB
POLL_SECONDS = 0.1
NODES_SECONDS = 5.0  # between looks at the nodes that have come and gone
MOST_AT_ONCE = 1000  # ended tasks that are told before the planner is listened to again


class Driver:
    """Tasks of a Ray that is connected, by the numbers that the planner gives them."""

    def __init__(self, ray: Any, answers: int) -> None:
        self._ray, self._answers = ray, answers
        self._refs: dict[Any, int] = {}
        # A fresh process for each; what is lost is submitted again by the planner, which sees how far it has come.
        self._carry_out = ray.remote(max_calls=1, max_retries=0)(ray_task.carry_out)
        self._nodes: list[dict[str, float]] | None = None
        self._next_look = 0.0

    def tell(self, **message: Any) -> None:
        """Sends a line to the planner; without one this process ends."""
        tell(self._answers, **message)

    def obey(self, order: Mapping[str, Any]) -> None:
        """Carries out one line of the planner's."""
        if "submit" in order:
            self._refs[self._carry_out.options(**order["needs"]).remote(order["task"])] = order["submit"]
        for ref in [ref for ref, number in self._refs.items() if number == order.get("stop", order.get("kill"))]:
            self._ray.cancel(ref, force="kill" in order)

    def look(self) -> None:
        """Tells what has ended since the last call, and what the nodes have, where that has changed."""
        if self._refs:
            done, _ = self._ray.wait(list(self._refs), num_returns=min(len(self._refs), MOST_AT_ONCE), timeout=0)
            for ref in done:
                self.tell(ended=self._refs.pop(ref), **self._ending(ref))
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + NODES_SECONDS
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            if nodes != self._nodes:
                self._nodes = nodes
                self.tell(nodes=nodes)

    def _ending(self, ref: Any) -> dict[str, Any]:
        errors = self._ray.exceptions
        try:
            return {"code": self._ray.get(ref)}
        except errors.TaskCancelledError:
            return {"cancelled": True}
        except errors.RayTaskError as error:  # of `carry_out` itself: the next try would not do better
            return {"failed": f"{type(error.cause).__name__}: {error.cause}"}
        except errors.RayError as error:
            return {"lost": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}


def tell(answers: int, **message: Any) -> None:
    """Writes a message as one line."""
    try:
        os.write(answers, f"{json.dumps(message)}\n".encode())
    except OSError:
        end_process(1)


def connect(address: str) -> Any:
    """Ray, connected to a cluster, or to one of this machine alone that ends with this process.

    Raises:
        Exception: Ray's own, of many kinds: no cluster is there, or it has other versions.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    own: dict[str, Any] = {}
    if address == OWN:
        own = {"num_cpus": available_cores(), "object_store_memory": OWN_STORE_BYTES, "include_dashboard": False}
    ray.init(address, log_to_driver=False, logging_level="ERROR", **own)
    return ray


def listen(orders: queue.Queue[str]) -> None:
    """Puts the planner's lines into a queue; "" is their end."""
    while line := sys.stdin.readline():
        orders.put(line)
    orders.put("")


def main(address: str, parent: str) -> int:
    """Connects, and obeys until the planner, the process `parent`, closes standard input or is gone."""
    end_with(int(parent))
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever Ray prints goes where errors go
    try:
        ray = connect(address)
    except Exception as error:
        tell(answers, refused=f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    driver = Driver(ray, answers)
    orders: queue.Queue[str] = queue.Queue()
    threading.Thread(target=listen, args=(orders,), daemon=True, name="planner").start()
    while True:
        driver.look()
        with suppress(queue.Empty):
            if not (line := orders.get(timeout=POLL_SECONDS)):
                ray.shutdown()
                return 0
            driver.obey(json.loads(line))


if __name__ == "__main__":
    end_process(main(*sys.argv[1:]))
