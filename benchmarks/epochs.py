"""Trains the default network in variants whose epochs alternate in one process, and prints their seconds as JSON.

`python benchmarks/epochs.py THREADS ROUNDS NAME OVERRIDE[,OVERRIDE…] …`: a name and its overrides for each variant; the
names `checkpoint` and `measured` stand for what follows each epoch of the first variant: the saving of its state, and
the measuring of training images.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from experiments.config import compose
from experiments.training import runtime


def main(threads: str, rounds: int, *variants: str) -> None:
    shared = ("dataset=mnist", f"training.threads={threads}", f"training.epochs={rounds + 1}")
    named = dict(zip(variants[::2], variants[1::2], strict=True))
    configs = {name: compose(*shared, *filter(None, text.split(","))) for name, text in named.items()}
    runtime.prepare(next(iter(configs.values())).training)

    from experiments.results.evaluation import evaluate
    from experiments.training import loop
    from experiments.training.checkpoint import Checkpoints, State

    data = next(iter(configs.values())).dataset.load()
    trainers = {name: loop.build(config, data) for name, config in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in (*configs, "checkpoint", "measured")}
    measured = loop.measured_images(data.train)
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(1, rounds + 2):
            for name, trainer in trainers.items():
                started = time.perf_counter()
                trainer.model.fit(trainer.batches.epoch(epoch), verbose=0, shuffle=False)
                seconds[name].append(time.perf_counter() - started)
            first = next(iter(trainers.values()))
            started = time.perf_counter()
            Checkpoints(Path(folder)).save(first.model, State(rows=[], best=None))
            seconds["checkpoint"].append(time.perf_counter() - started)
            started = time.perf_counter()
            evaluate(first.predict(measured.images), measured.labels)
            seconds["measured"].append(time.perf_counter() - started)
    print(json.dumps({name: values[1:] for name, values in seconds.items()}))  # the first builds the graph


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
