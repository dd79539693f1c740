from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from experiments.ingredients.schedules import ReduceOnPlateau, Schedule

OPTIONS: dict[str, dict[str, Any]] = {
    "constant": {},
    "cosine": {"final_fraction": 0.1},
    "one_cycle": {"peak_at": 0.3, "initial_fraction": 0.04, "final_fraction": 0.01},
    "exponential": {"final_fraction": 0.01},
    "step": {"factor": 0.1, "drops_at": [0.5, 0.75]},
    "reduce_on_plateau": {"factor": 0.5, "patience_epochs": 2, "min_delta": 0.01, "min_fraction": 0.2},
}


def make(name: str, **changes: Any) -> Any:
    return TypeAdapter(Schedule).validate_python({"name": name, "warmup_fraction": 0.0, **OPTIONS[name], **changes})


def plateau(**changes: Any) -> ReduceOnPlateau:
    schedule = make("reduce_on_plateau", **changes)
    assert isinstance(schedule, ReduceOnPlateau)
    return schedule


def test_constant_is_one_throughout() -> None:
    np.testing.assert_array_equal(make("constant").factors(7), np.ones(7, np.float32))


def test_cosine_is_half_a_cosine() -> None:
    expected = [0.1 + 0.9 * (1 + np.cos(np.pi * i / 200)) / 2 for i in range(200)]
    np.testing.assert_allclose(make("cosine").factors(200), expected, rtol=1e-6)


def test_cosine_at_its_half_is_the_mean_of_its_ends() -> None:
    assert make("cosine").factors(100)[50] == pytest.approx((1 + 0.1) / 2, abs=1e-6)


def test_exponential_loses_the_same_share_at_every_step() -> None:
    factors = make("exponential").factors(300).astype(np.float64)
    np.testing.assert_allclose(factors[1:] / factors[:-1], 0.01 ** (1 / 300), rtol=1e-5)
    assert factors[0] == 1
    assert factors[150] == pytest.approx(0.1)  # the geometric mean of 1 and 0.01


def test_step_drops_at_its_shares_of_the_run() -> None:
    np.testing.assert_allclose(make("step").factors(8), [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_step_may_give_its_drops_in_any_order() -> None:
    swapped = make("step", drops_at=[0.75, 0.5])
    np.testing.assert_array_equal(swapped.factors(40), make("step").factors(40))


def test_one_cycle_rises_to_the_peak_and_falls() -> None:
    factors = make("one_cycle").factors(1000)
    assert factors[0] == pytest.approx(0.04)
    assert np.argmax(factors) == 300
    assert factors[300] == 1
    assert factors[150] == pytest.approx((0.04 + 1) / 2, rel=1e-5)
    assert factors[650] == pytest.approx((0.01 + 1) / 2, rel=1e-5)
    assert (np.diff(factors[:301]) > 0).all()
    assert (np.diff(factors[300:]) < 0).all()
    assert factors[-1] == pytest.approx(0.01, abs=1e-4)


def test_one_cycle_matches_its_formula_everywhere() -> None:
    progress = np.arange(50) / 50
    rise = 0.04 + 0.96 * (1 - np.cos(np.pi * progress / 0.3)) / 2
    fall = 0.01 + 0.99 * (1 + np.cos(np.pi * (progress - 0.3) / 0.7)) / 2
    np.testing.assert_allclose(make("one_cycle").factors(50), np.where(progress < 0.3, rise, fall), rtol=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_warmup_is_a_straight_line_to_the_start_of_the_curve(name: str) -> None:
    schedule = make(name, warmup_fraction=0.2)
    factors, curve = schedule.factors(50), make(name).factors(40)
    np.testing.assert_allclose(factors[10:], curve, rtol=1e-6)
    np.testing.assert_allclose(factors[:10], curve[0] * np.arange(1, 11) / 11, rtol=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 1000])
def test_every_length_has_a_factor_for_each_step(name: str, warmup: float, steps: int) -> None:
    factors = make(name, warmup_fraction=warmup).factors(steps)
    assert factors.shape == (steps,)
    assert factors.dtype == np.float32
    assert (factors > 0).all()
    assert (factors <= 1).all()


@pytest.mark.parametrize("name", ["constant", "cosine", "exponential", "step"])
def test_one_step_is_at_the_peak(name: str) -> None:
    assert make(name, warmup_fraction=0.9).factors(1) == [1.0]


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - {"reduce_on_plateau"}))
def test_only_a_plateau_schedule_looks_at_the_losses(name: str) -> None:
    assert make(name).scale([1.0, 2.0, 3.0, 4.0, 5.0]) == 1.0


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([], 1.0),
        ([1.0], 1.0),
        ([1.0, 1.0], 1.0),  # one epoch without improvement: patience is 2
        ([1.0, 1.0, 1.0], 0.5),
        ([1.0, 1.0, 0.9, 0.9], 1.0),  # an improvement begins the waiting anew
        ([1.0, 1.0, 0.9, 0.9, 0.9], 0.5),
        ([1.0, 0.995, 0.991], 0.5),  # falls by less than min_delta are none
        ([1.0, 0.995, 0.989], 1.0),  # but they add up
        ([1.0, 1.0, 1.0, 1.0], 0.5),  # after a reduction the waiting begins anew
        ([1.0, 1.0, 1.0, 1.0, 1.0], 0.25),
        ([1.0] * 7, 0.2),  # 0.125 would be below min_fraction
        ([1.0] * 99, 0.2),
        ([1.0, float("nan"), float("nan")], 0.5),
    ],
)  # fmt: skip
def test_plateau_halves_the_rate_after_two_epochs_without_improvement(losses: list[float], scale: float) -> None:
    assert plateau().scale(losses) == pytest.approx(scale)


def test_plateau_agrees_with_keras(tensorflow: Any) -> None:
    """Against `keras.callbacks.ReduceLROnPlateau` on a random walk of losses."""
    import keras

    losses = np.abs(1 + np.cumsum(np.random.default_rng(5).normal(-0.01, 0.05, 60))).tolist()
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    callback = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=2, min_delta=0.01, min_lr=0.01)
    callback.set_model(model)
    callback.on_train_begin()
    schedule = plateau(min_fraction=0.01)
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"loss": loss})
        assert schedule.scale(losses[: epoch + 1]) == pytest.approx(float(model.optimizer.learning_rate))
    assert schedule.scale(losses) < 0.2  # the walk had plateaus


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("constant", {"warmup_fraction": 1.0}),
        ("constant", {"warmup_fraction": -0.1}),
        ("cosine", {"final_fraction": 1.1}),
        ("exponential", {"final_fraction": 0.0}),
        ("step", {"drops_at": []}),
        ("step", {"drops_at": [0.5, 1.0]}),
        ("step", {"factor": 1.0}),
        ("one_cycle", {"peak_at": 0.0}),
        ("reduce_on_plateau", {"patience_epochs": 0}),
        ("reduce_on_plateau", {"patience_epochs": 1.5}),
    ],
)
def test_values_outside_their_ranges_are_refused(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(name, **changes)
