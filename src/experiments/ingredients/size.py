"""How large a network is, known from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import keras

FLOAT_BYTES = 4


class Size(NamedTuple):
    """Numbers that a network is made of: all weights, and what its layers give out for one image."""

    parameters: int
    activations: int

    def training_bytes(self, batch_size: int) -> int:
        """The least memory that one step needs: weights, their gradients, and every layer's output of a batch."""
        return FLOAT_BYTES * (2 * self.parameters + batch_size * self.activations)


def size_of(model: keras.Model) -> Size:
    """The size of a network, which may have been made in `nothing_allocated`."""
    return Size(sum(math.prod(weights.shape) for weights in model.weights), sum(_outputs(model)))


def _outputs(model: keras.Model) -> Iterator[int]:
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _outputs(layer)
        else:
            for output in keras.tree.flatten(getattr(layer, "output", ())):
                yield math.prod(side or 1 for side in output.shape[1:])


@contextmanager
def nothing_allocated() -> Iterator[None]:
    """Variables that are made in the block have a shape and no value, and never get one."""
    import keras
    from keras.src.backend.common import global_state

    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute("uninitialized_variables", [])  # or the next scope would initialise them
