"""Every optimizer against its published rule, worked out here in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from experiments.config import compose
from experiments.ingredients.optimizers import Optimizer

Array = NDArray[np.float64]
START = [1.0, 2.0, 3.0, 4.0]
GRADIENTS = [[0.5, -1.0, 0.25, 2.0], [0.1, -0.2, 0.3, -0.4], [-1.0, 0.5, 0.0, 1.0]]
NAMES = ("sgd", "sgd_momentum", "rmsprop", "adam", "adamw", "nadam", "adagrad", "lion", "muon")
SCHEDULES = ("constant", "cosine", "one_cycle", "exponential", "step", "reduce_on_plateau")
RATE = 0.1


@cache
def composed(group: str, name: str) -> Any:
    return getattr(compose(f"{group}={name}"), group)


def make(name: str, **changes: Any) -> Any:
    """The option as its YAML gives it, without weight decay, at a rate of 0.1."""
    values = composed("optimizer", name).model_dump()
    return TypeAdapter(Optimizer).validate_python(values | {"learning_rate": RATE, "weight_decay": 0.0} | changes)


def rate(factors: Sequence[float], peak: float = RATE) -> Any:
    from experiments.training.loop import Rate

    return Rate(peak, np.array(factors, np.float32))


def steps(option: Any, *, start: Any = START, gradients: Any = GRADIENTS, name: str = "kernel") -> list[Array]:
    """The variable after each of the gradients."""
    import keras

    optimizer = option.build(rate([1.0]))
    variable = keras.Variable(np.array(start, np.float32), name=name)
    optimizer.build([variable])
    values = []
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(np.array(gradient, np.float32))], [variable])
        values.append(np.array(variable.numpy(), np.float64))
    return values


def expect(option: Any, rule: Callable[[Array, list[Array]], Iterator[Array]]) -> None:
    """The option walks as `rule` says, which yields the change of each step."""
    walked, place = steps(option), np.array(START)
    for after, change in zip(walked, rule(place, [np.array(g) for g in GRADIENTS]), strict=True):
        place = place + change
        np.testing.assert_allclose(after, place, rtol=2e-6)


@pytest.fixture(autouse=True)
def started(tensorflow: Any) -> None:
    """Every test here needs TensorFlow."""


def test_sgd_first_step_by_hand() -> None:
    np.testing.assert_allclose(steps(make("sgd"))[0], [0.95, 2.1, 2.975, 3.8], rtol=1e-6)


def test_sgd_walks_along_the_gradients() -> None:
    expect(make("sgd"), lambda _, gradients: (-RATE * g for g in gradients))


def test_momentum_first_two_steps_by_hand() -> None:
    walked = steps(make("sgd_momentum", momentum=0.9, nesterov=False))
    np.testing.assert_allclose(walked[0], [0.95, 2.1, 2.975, 3.8], rtol=1e-6)
    # velocity: 0.9 * [-0.05, 0.1, -0.025, -0.2] - 0.1 * [0.1, -0.2, 0.3, -0.4]
    np.testing.assert_allclose(walked[1], [0.895, 2.21, 2.9225, 3.66], rtol=1e-6)


def test_nesterov_looks_ahead() -> None:
    def rule(_: Array, gradients: list[Array]) -> Iterator[Array]:
        velocity = np.zeros(4)
        for g in gradients:
            velocity = 0.9 * velocity - RATE * g
            yield 0.9 * velocity - RATE * g

    expect(make("sgd_momentum", momentum=0.9, nesterov=True), rule)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_rmsprop_divides_by_the_running_root_mean_square(momentum: float) -> None:
    def rule(_: Array, gradients: list[Array]) -> Iterator[Array]:
        square, velocity = np.zeros(4), np.zeros(4)
        for g in gradients:
            square = 0.9 * square + 0.1 * g**2
            velocity = momentum * velocity + RATE * g / np.sqrt(square + 1e-7)
            yield -velocity

    expect(make("rmsprop", momentum=momentum), rule)


def moments(gradients: list[Array]) -> Iterator[tuple[int, Array, Array]]:
    first, second = np.zeros(4), np.zeros(4)
    for step, g in enumerate(gradients, 1):
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        yield step, first, second


def adam(_: Array, gradients: list[Array]) -> Iterator[Array]:
    for step, first, second in moments(gradients):
        scale = RATE * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)  # Keras' epsilon stands behind this scale
        yield -scale * first / (np.sqrt(second) + 1e-7)


def test_adam_first_step_is_the_rate_along_each_sign() -> None:
    np.testing.assert_allclose(steps(make("adam"))[0], [0.9, 2.1, 2.9, 3.9], rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
def test_adam_follows_its_moments(name: str) -> None:
    """Muon too, on everything that is not a matrix."""
    expect(make(name), adam)


def test_nadam_looks_ahead() -> None:
    def rule(_: Array, gradients: list[Array]) -> Iterator[Array]:
        product = 1.0
        for (step, first, second), g in zip(moments(gradients), gradients, strict=True):
            now, then = 0.9 * (1 - 0.5 * 0.96**step), 0.9 * (1 - 0.5 * 0.96 ** (step + 1))
            product *= now
            mean = then * first / (1 - product * then) + (1 - now) * g / (1 - product)
            yield -RATE * mean / (np.sqrt(second / (1 - 0.999**step)) + 1e-7)

    expect(make("nadam"), rule)


def test_adagrad_divides_by_the_sum_of_squares() -> None:
    def rule(_: Array, gradients: list[Array]) -> Iterator[Array]:
        total = np.full(4, 0.25)
        for g in gradients:
            total = total + g**2
            yield -RATE * g / np.sqrt(total + 1e-7)

    expect(make("adagrad", initial_accumulator=0.25), rule)


def test_lion_steps_by_the_sign() -> None:
    def rule(_: Array, gradients: list[Array]) -> Iterator[Array]:
        momentum = np.zeros(4)
        for g in gradients:
            yield -RATE * np.sign(0.9 * momentum + 0.1 * g)
            momentum = 0.99 * momentum + 0.01 * g

    expect(make("lion"), rule)


def test_muon_orthogonalises_the_step_of_a_matrix() -> None:
    """Newton and Schulz's iteration leaves directions and brings all singular values near 1, whatever they were."""
    generator = np.random.default_rng(0)
    start, gradient = generator.normal(size=(6, 3)), generator.normal(size=(6, 3)) * [1.0, 0.1, 10.0]
    change = (steps(make("muon"), start=start, gradients=[gradient])[0] - start) / -RATE
    scale = 0.2 * np.sqrt(6)  # Liu et al., 2025: an update as large as Adam's
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    values = np.linalg.svd(change / scale, compute_uv=False)
    assert (values > 0.6).all()
    assert (values < 1.3).all()
    np.testing.assert_allclose(
        left.T @ change @ right.T / scale, np.diag(np.diag(left.T @ change @ right.T)) / scale, atol=1e-3
    )


def test_muon_leaves_convolution_kernels_to_adam() -> None:
    start, gradient = np.ones((2, 2, 1, 1)), np.full((2, 2, 1, 1), 3.0)
    walked = steps(make("muon"), start=start, gradients=[gradient])[0]
    np.testing.assert_allclose(walked, start - RATE, rtol=1e-5)  # Adam's first step is the rate


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_is_decoupled(name: str) -> None:
    """A step without gradient shrinks the weights by rate × decay, and no other optimizer state is changed by it."""
    zeros = [[0.0] * 4] * 2
    walked = steps(make(name, weight_decay=0.5), gradients=zeros)
    np.testing.assert_allclose(walked[0], np.array(START) * (1 - RATE * 0.5), rtol=1e-5)
    np.testing.assert_allclose(walked[1], np.array(START) * (1 - RATE * 0.5) ** 2, rtol=1e-5)
    matrix = steps(make(name, weight_decay=0.5), start=np.ones((2, 2)), gradients=[np.zeros((2, 2))])[0]
    np.testing.assert_allclose(matrix, np.full((2, 2), 0.95), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variable", ["bias", "gamma", "beta"])
def test_weight_decay_spares_biases_and_norms(name: str, variable: str) -> None:
    walked = steps(make(name, weight_decay=0.5), gradients=[[0.0] * 4], name=variable)
    np.testing.assert_array_equal(walked[0], START)


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_in_a_real_model_spares_biases_and_norms(name: str) -> None:
    import keras

    layers = [
        keras.Input((4, 4, 1)),
        keras.layers.Conv2D(2, 2),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
    ]
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    optimizer = make(name, weight_decay=0.5).build(rate([1.0]))
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer.build(model.trainable_variables)
    optimizer.apply([keras.ops.zeros_like(v) for v in model.trainable_variables], model.trainable_variables)
    shrunk = {v.name for v in model.trainable_variables if not np.allclose(v.numpy(), 1)}
    assert shrunk == {"kernel"}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_follows_every_schedule(name: str, schedule: str) -> None:
    import keras

    option, factors = composed("optimizer", name), composed("schedule", schedule).factors(5)
    optimizer = option.build(rate(factors.tolist(), option.learning_rate))

    variable = keras.Variable(np.array(START, np.float32), name="kernel")
    optimizer.build([variable])
    followed = []
    for _ in range(5):
        followed.append(float(optimizer.learning_rate))
        optimizer.apply([keras.ops.ones(4)], [variable])
    np.testing.assert_allclose(followed, option.learning_rate * factors, rtol=1e-6)
    assert np.isfinite(variable.numpy()).all()


def test_rate_stays_at_its_last_value_beyond_the_run() -> None:
    course = rate([1.0, 0.5])
    assert [float(course(step)) for step in (0, 1, 2, 99)] == pytest.approx([0.1, 0.05, 0.05, 0.05])


def test_scale_multiplies_every_rate() -> None:
    course = rate([1.0, 0.5])
    course.scale.assign(0.25)
    assert float(course(1)) == pytest.approx(0.0125)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), "1e-3", True])
def test_impossible_rates_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        make(name, learning_rate=value)
