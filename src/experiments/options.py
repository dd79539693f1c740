"""The surface for code of one's own: the base classes of the groups, the types of fields, and what registers.

A module that `pyproject.toml` ([tool.experiments] modules) or `EXPERIMENTS_MODULES` lists defines what it adds:

    @register
    class Tiny(ModelOption):
        name: Literal["tiny"]
        width: Count

        def stack(self, x, regularization): ...

and a file `conf/model/tiny.yaml` of the project gives all its values. See README.md, Your own code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from experiments.config import admit
from experiments.errors import InputError
from experiments.ingredients import registry
from experiments.ingredients.layers import Activation, ImageShape, Normalisation, Regularization
from experiments.ingredients.layers import convolve as convolve
from experiments.ingredients.layers import drop as drop
from experiments.ingredients.layers import flatten as flatten
from experiments.ingredients.layers import normalise as normalise
from experiments.ingredients.layers import penalty as penalty
from experiments.ingredients.layers import require_side as require_side
from experiments.ingredients.network import ModelOption
from experiments.ingredients.optimizers import OptimizerOption
from experiments.ingredients.option import (
    AsBefore,
    Count,
    CountOrZero,
    Fraction,
    FractionBelowOne,
    NonNegative,
    Option,
    Positive,
    names_of,
)
from experiments.ingredients.registry import Epoch, place_of
from experiments.ingredients.schedules import ScheduleOption
from experiments.ingredients.splits import DatasetOption, ImageData

if TYPE_CHECKING:
    from experiments.ingredients.registry import Metric

__all__ = [
    "Activation",
    "AsBefore",
    "Count",
    "CountOrZero",
    "DatasetOption",
    "Epoch",
    "Fraction",
    "FractionBelowOne",
    "ImageData",
    "ImageShape",
    "InputError",
    "ModelOption",
    "NonNegative",
    "Normalisation",
    "OptimizerOption",
    "Option",
    "Positive",
    "Regularization",
    "ScheduleOption",
    "callback",
    "convolve",
    "drop",
    "flatten",
    "metric",
    "normalise",
    "penalty",
    "register",
    "require_side",
]  # fmt: skip
# The base class of each group, and the methods of which an option of one's own has at least one.
Base = type[DatasetOption | ModelOption | OptimizerOption | ScheduleOption]
BASES: dict[Base, tuple[str, ...]] = {
    DatasetOption: ("load",),
    ModelOption: ("stack", "build"),
    OptimizerOption: ("create", "build"),
    ScheduleOption: ("at", "factors"),
}
Registered = TypeVar("Registered", bound=Option)
Callback = TypeVar("Callback", bound=Callable[[Epoch], object])
Measure = TypeVar("Measure", bound="Metric")


def register(option: type[Registered]) -> type[Registered]:
    """Makes a class an option of its base's group, under its `name`; used as a decorator.

    Raises:
        InputError: it has no base of a group, no name or none of the methods that make it one, cannot be found again by
            its module, or its name is taken.
    """
    place = place_of(option)
    base = next((base for base in BASES if issubclass(option, base)), None)
    if base is None:
        raise InputError(f"{place}: must be derived from one of {', '.join(base.__name__ for base in BASES)}")
    if all(getattr(option, method) is getattr(base, method) for method in BASES[base]):
        raise InputError(f"{place}: must have a method {' or '.join(BASES[base])}, see {base.__name__}")
    _require_importable(option)
    names = [name for name in names_of(option) if isinstance(name, str)]
    if not names:
        raise InputError(f'{place}: must have a name, as in name: Literal["{option.__name__.lower()}"]')
    for name in names:
        registry.require_new(
            name, option, {known: o for (group, known), o in registry.OPTIONS.items() if group == base.group}
        )
    admit(base.group, option)
    registry.OPTIONS.update({(base.group, name): option for name in names})
    return option


def metric(function: Measure) -> Measure:
    """Makes a function a metric that `training.metrics` can name; used as a decorator.

    It is given probabilities (n, classes) float32 and labels (n,) int64, and returns name → number, finite. The numbers
    are kept as `test/<name>` and `validation/<name>`.

    Raises:
        InputError: it cannot be found again by its module, or its name is taken.
    """
    _require_importable(function)
    registry.require_new(function.__name__, function, registry.METRICS)
    registry.METRICS[function.__name__] = function
    return function


def callback(function: Callback) -> Callback:
    """Makes a function one that `training.callbacks` can name; used as a decorator.

    It is called at the end of every epoch with an `Epoch`, and changes nothing of the run: what it raises is a warning.

    Raises:
        InputError: it cannot be found again by its module, or its name is taken.
    """
    _require_importable(function)
    registry.require_new(function.__name__, function, registry.CALLBACKS)
    registry.CALLBACKS[function.__name__] = function
    return function


def _require_importable(thing: type | Callable[..., object]) -> None:
    """A sweep's workers and every later command find it by its module."""
    if not (inspect.isclass(thing) or inspect.isfunction(thing)) or "<locals>" in thing.__qualname__:
        raise InputError(f"{thing!r}: must be a class or a function of a module, not of a function")
    if thing.__module__ == "__main__":
        raise InputError(f"{place_of(thing)}: must be defined in a module that can be imported, not in a script")
