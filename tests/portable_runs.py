"""Small portable runs in a process of their own: prints what `test_portable.py` compares, as JSON.

`portable_runs.py NAME …`: of each of `RUNS` the digests; of `GRAPHS`, where it is named, what its training steps do.
"""

from __future__ import annotations

import hashlib
import json
import sys

from experiments.config import compose
from experiments.results.evaluation import predictions_digest
from experiments.training import runtime
from experiments.training.checkpoint import State

SMALL = (
    "dataset=digits", "dataset.train_limit=64", "training.batch_size=16", "training.epochs=2",
    "training.determinism=portable",
)  # fmt: skip
RUNS = {
    "convolutions": ("model=cnn", "optimizer=adam", "regularization=dropout"),
    "batch normalisation": (
        "model=resnet", "optimizer=sgd_momentum", "regularization=augmentation", "schedule=one_cycle",
    ),
    "dense": ("model=mlp", "model.units=[64, 32]", "optimizer=muon", "regularization=full"),
    "average pooling": (
        "model=lenet5", "model.activation=relu", "optimizer=rmsprop", "regularization=label_smoothing",
        "schedule=exponential",
    ),
    "linear": ("model=linear", "optimizer=lion", "regularization=l2", "schedule=step"),
}  # fmt: skip
GRAPHS = "graphs"
NORMALISING = (
    ("model=resnet", "optimizer=rmsprop"),
    ("model=layers", "model.layers=[{layer: LayerNormalization},{layer: GroupNormalization, groups: 1}]"),
)


def digests(*overrides: str) -> dict[str, str]:
    """Digests of the final weights, the test predictions, and all that the history says."""
    from experiments.training import loop

    config = compose(*SMALL, *overrides)
    data = config.dataset.load()
    trainer = loop.build(config, data)
    rows = loop.train(trainer, data.validation, State([], None), on_epoch=lambda _: None, stop_requested=lambda: False)
    history = json.dumps([row.columns() | {"seconds": 0} for row in rows])
    return {
        "weights": trainer.weights_digest()[:16],
        "predictions": predictions_digest(trainer.predict(data.test.images))[:16],
        "history": hashlib.sha256(history.encode()).hexdigest()[:16],
    }


def graphs() -> tuple[list[list[str]], dict[str, bool]]:
    """The types of operations in the training step of each of `NORMALISING`, and the options of Grappler."""
    import tensorflow as tf

    return [_operations(*overrides) for overrides in NORMALISING], tf.config.optimizer.get_experimental_options()


def _operations(*overrides: str) -> list[str]:
    import tensorflow as tf

    from experiments.training import loop

    config = compose(*SMALL, *overrides)
    trainer = loop.build(config, config.dataset.load())
    images, labels = next(iter(trainer.batches.epoch(1)))
    step = tf.function(lambda: trainer.model.train_step((images, labels)))
    return sorted({operation.type for operation in step.get_concrete_function().graph.get_operations()})


if __name__ == "__main__":
    runtime.prepare(compose(*SMALL, "training.threads=1").training)
    print(json.dumps({name: graphs() if name == GRAPHS else digests(*RUNS[name]) for name in sys.argv[1:]}))
