from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from experiments.config import compose
from experiments.ingredients.regularization import Augmentation, EarlyStopping

PARTS = {  # of each, what is changed in `none`
    "dropout": "regularization.dropout=0.1",
    "l2": "regularization.l2=0.1",
    "label_smoothing": "regularization.label_smoothing=0.1",
    "augmentation": "regularization.augmentation.shear_fraction=0.1",
    "early_stopping": "regularization.early_stopping.patience_epochs=1",
}
NAMES = ("none", "dropout", "l2", "label_smoothing", "augmentation", "early_stopping", "full")


def stopping(patience: int = 2, min_delta: float = 0.0) -> EarlyStopping:
    return EarlyStopping(patience_epochs=patience, min_delta=min_delta, restore_best=True)


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([], False),
        ([1.0], False),
        ([1.0, 0.9, 0.8, 0.7], False),
        ([1.0, 1.1], False),
        ([1.0, 1.1, 1.05], True),
        ([1.0, 1.0, 1.0], True),  # staying equal is no improvement
        ([1.0, 1.1, 0.9, 1.0], False),
        ([1.0, 1.1, 0.9, 1.0, 0.9], True),
        ([1.0, float("nan"), float("nan")], True),
    ],
)
def test_early_stopping_waits_two_epochs(losses: list[float], stops: bool) -> None:
    assert stopping().should_stop(losses) is stops


def test_early_stopping_ignores_falls_below_min_delta() -> None:
    assert stopping(min_delta=0.1).should_stop([1.0, 0.95, 0.91])
    assert not stopping(min_delta=0.1).should_stop([1.0, 0.95, 0.89])


def test_patience_zero_never_stops() -> None:
    assert not stopping(patience=0).should_stop([1.0] * 50)


def test_early_stopping_agrees_with_keras(tensorflow: Any) -> None:
    """Against `keras.callbacks.EarlyStopping` on random walks of losses."""
    import keras

    generator = np.random.default_rng(3)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    for _ in range(20):
        losses = np.abs(1 + np.cumsum(generator.normal(-0.02, 0.05, 40))).tolist()
        callback = keras.callbacks.EarlyStopping("loss", min_delta=0.01, patience=3)
        callback.set_model(model)
        callback.on_train_begin()
        model.stop_training = False
        for epoch, loss in enumerate(losses):
            callback.on_epoch_end(epoch, {"loss": loss})
            assert stopping(3, 0.01).should_stop(losses[: epoch + 1]) is model.stop_training
            if model.stop_training:
                break


OTHERS: dict[str, Any] = {"test_views": 1, "flip": "none", "crop": 1.0, "fill": "black"}
CHANGES = [name for name in Augmentation.model_fields if name not in OTHERS]
NO_AUGMENTATION: dict[str, Any] = dict.fromkeys(CHANGES, 0.0) | OTHERS


def test_augmentation_is_active_where_any_value_is() -> None:
    assert not Augmentation(**NO_AUGMENTATION).active
    for key in CHANGES:
        assert Augmentation(**NO_AUGMENTATION | {key: 0.1}).active
    assert Augmentation(**NO_AUGMENTATION | {"flip": "vertical"}).active
    assert Augmentation(**NO_AUGMENTATION | {"crop": 0.9}).active
    assert not Augmentation(**NO_AUGMENTATION | {"fill": "edge"}).active


def test_views_need_something_that_changes_them() -> None:
    assert Augmentation(**NO_AUGMENTATION | {"test_views": 16, "shift_fraction": 0.1}).test_views == 16
    for still in ({}, {"flip": "horizontal", "brightness": 0.1}):
        with pytest.raises(ValidationError, match="test_views must be 1 where no image is turned or shifted, received"):
            Augmentation(**NO_AUGMENTATION | {"test_views": 16} | still)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rotation_degrees", 181.0),
        ("shift_fraction", 1.0),
        ("zoom_fraction", 1.0),
        ("zoom_fraction", -0.1),
        ("shear_fraction", 1.0),
        ("stretch_fraction", -0.1),
        ("test_views", 0),
        ("crop", 0.0),
        ("crop", 1.1),
        ("cutout", 1.0),
        ("mixup", -0.1),
        ("saturation", 1.1),
    ],
)
def test_augmentation_outside_its_range_is_refused(key: str, value: float) -> None:
    with pytest.raises(ValidationError):
        Augmentation(**NO_AUGMENTATION | {key: value})


@pytest.mark.parametrize("name", NAMES)
def test_every_option_switches_on_what_its_name_says(name: str) -> None:
    chosen = compose(f"regularization={name}").regularization
    active = {
        "dropout": chosen.dropout > 0,
        "l2": chosen.l2 > 0,
        "label_smoothing": chosen.label_smoothing > 0,
        "augmentation": chosen.augmentation.active,
        "early_stopping": chosen.early_stopping.patience_epochs > 0,
    }
    expected = active.keys() if name == "full" else {name} & active.keys()
    assert {key for key, on in active.items() if on} == set(expected)


def test_photographs_are_augmentation() -> None:
    chosen = compose("regularization=photographs").regularization
    assert (chosen.label, chosen.augmentation.flip) == ("augmentation", "horizontal")


@pytest.mark.parametrize("name", NAMES)
def test_label_of_a_preset_is_its_name(name: str) -> None:
    assert compose(f"regularization={name}").regularization.label == name


@pytest.mark.parametrize("part", PARTS)
def test_label_follows_from_the_values(part: str) -> None:
    assert compose("regularization=none", PARTS[part]).regularization.label == part
    others = [change for other, change in PARTS.items() if other != part]
    assert compose("regularization=none", PARTS[part], others[0]).regularization.label == "full"
