"""Trains a network on the same pictures streamed and in memory, epochs alternated, and prints their seconds as JSON.

`python benchmarks/streamed_epochs.py THREADS ROUNDS OVERRIDE …`, in a home that holds the decoded pictures.
"""

from __future__ import annotations

import json
import sys
import time

from experiments.config import compose
from experiments.training import runtime


def main(threads: str, rounds: int, *overrides: str) -> None:
    config = compose(f"training.threads={threads}", f"training.epochs={rounds + 1}", *overrides)
    runtime.prepare(config.training)

    from experiments.training import batches, loop

    data = config.dataset.load()
    trainers = {}
    for name, copied_bytes in (("streamed", 0), ("in memory", sys.maxsize)):
        batches.COPIED_BYTES = copied_bytes
        trainers[name] = loop.build(config, data)
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for epoch in range(1, rounds + 2):
        for name in list(trainers) if epoch % 2 else reversed(trainers):
            trainer = trainers[name]
            started = time.perf_counter()
            trainer.model.fit(trainer.batches.epoch(epoch), verbose=0, shuffle=False)
            seconds[name].append(time.perf_counter() - started)
    print(json.dumps({name: values[1:] for name, values in seconds.items()}))  # the first builds the graph


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
