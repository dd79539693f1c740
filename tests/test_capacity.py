"""What is known of an architecture before any of it is allocated."""

from __future__ import annotations

import math
import resource
from typing import Any

import pytest

from experiments.config import compose
from experiments.errors import InputError

GREY, BYTES = (28, 28, 1), 10**12
MEGABYTE = 1024  # in the unit of `ru_maxrss`


@pytest.fixture
def capacity(tensorflow: Any) -> Any:
    from experiments.training import capacity

    return capacity


@pytest.mark.parametrize("model", ["cnn", "lenet5", "deep_cnn", "resnet", "mlp", "linear", "layers"])
def test_size_is_that_of_the_network(capacity: Any, model: str) -> None:
    config = compose(f"model={model}")
    built = config.model.build(GREY, 10, config.regularization)
    size = capacity.measure(config, GREY, 10)
    assert size.parameters == built.count_params()
    assert size.activations == sum(math.prod(layer.output.shape[1:]) for layer in built.layers)


def test_training_needs_weights_gradients_and_the_outputs_of_a_batch(capacity: Any) -> None:
    assert capacity.Size(parameters=1000, activations=50).training_bytes(batch_size=8) == 4 * (2 * 1000 + 8 * 50)


def test_network_that_no_memory_holds_is_refused_without_being_allocated(capacity: Any) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = (
        r"^model: 795,000,000,010 parameters and 2,000,002,362 activations an image, at batches of 128, "
        r"need at least 7,384\.0 GB; \d.* GB are free here$"
    )
    with pytest.raises(InputError, match=told):
        capacity.check(compose("model=mlp", "model.units=[1000000000]"), GREY, 10)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * MEGABYTE


def test_memory_is_that_of_one_job(capacity: Any) -> None:
    config = compose("model=cnn")
    size = capacity.check(config, GREY, 10, free_bytes=BYTES)
    with pytest.raises(InputError, match=r"0\.0 GB are free here$"):
        capacity.check(config, GREY, 10, free_bytes=size.training_bytes(config.training.batch_size) - 1)


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ("{layer: ZeroPadding2D, padding: -3}", "non-negative"),
        ("{layer: UpSampling2D, interpolation: foo}", "interpolation"),
        ("{layer: Reshape, target_shape: foo}", "fully-defined"),
        ("{layer: Cropping2D, cropping: 14}", "model"),
    ],
)
def test_free_layer_that_fails_only_when_it_is_called_is_refused(capacity: Any, layer: str, told: str) -> None:
    config = compose("model=layers", f"model.layers=[{layer}]")
    with pytest.raises(InputError, match=r"^model[^\n]*$") as raised:
        capacity.check(config, GREY, 10, free_bytes=BYTES)
    assert told in str(raised.value)


def test_layers_that_would_fill_the_memory_are_refused_before_they_are_called(capacity: Any) -> None:
    config = compose("model=layers", "model.layers=[{layer: UpSampling2D, size: 1000000}]")
    with pytest.raises(InputError, match="need at least"):
        capacity.check(config, GREY, 10)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("model=resnet", "model.blocks=100000"), "must have at most 500 blocks in all, received 300,000"),
        (("model=deep_cnn", "model.convolutions=100000"), "must have at most 500 convolutions in all"),
        (("model=mlp", f"model.units={[8] * 101}"), "at most 100"),
        (("model=layers", f"model.layers={['{layer: ReLU}'] * 501}".replace("'", "")), "at most 500"),
    ],
)
def test_networks_that_take_minutes_to_build_are_refused_by_the_schema(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(InputError, match=told):
        compose(*overrides)
