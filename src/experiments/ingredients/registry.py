"""What a user's own modules add by name: options of a config's groups, metrics and callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import InputError, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from experiments.ingredients.option import Option

    Metric = Callable[[NDArray[np.float32], NDArray[np.int64]], Mapping[str, float]]

OPTIONS: dict[tuple[str, str], type[Option]] = {}  # by group and name
METRICS: dict[str, Metric] = {}
CALLBACKS: dict[str, Callable[[Epoch], object]] = {}


@dataclass(frozen=True)
class Epoch:
    """What a callback is told at the end of an epoch, all of it read-only.

    Attributes:
        number: of the epoch, from 1.
        epochs: how many the run has at most.
        values: the epoch's row of `history.csv`, as `validation/accuracy`.
        config: every value of the run by its dotted key, as `optimizer.learning_rate`.
        directory: of the run.
    """

    number: int
    epochs: int
    values: Mapping[str, float | str]
    config: Mapping[str, Any]
    directory: Path


def require_names(known: Mapping[str, Any], received: list[str], what: str) -> list[str]:
    """Names that are registered, each once.

    Args:
        known: what is registered, by name.
        received: what a config names.
        what: `metric` or `callback`, for the message.

    Raises:
        ValueError: one is not registered, or stands there twice.
    """
    for number, name in enumerate(received):
        if name not in known:
            choices = nearest(name, known) if known else "none is, see README.md, Your own code"
            raise ValueError(f"no {what} {name!r} is registered; {choices}")
        if name in received[:number]:
            raise ValueError(f"must name each {what} once, received {name!r} twice")
    return received


def require_new(name: str, thing: Any, known: Mapping[str, Any]) -> None:
    """Refuses a name that another class or function has; the same one may be defined again.

    Args:
        name: that is asked for.
        thing: what is to have it.
        known: what is registered, by name.

    Raises:
        InputError: it has.
    """
    there = known.get(name)
    if there is not None and place_of(there) != place_of(thing):
        raise InputError(f"{place_of(thing)}: the name {name!r} is taken by {place_of(there)}")


def place_of(thing: Any) -> str:
    """`mylab.models.Tiny`."""
    return f"{thing.__module__}.{thing.__qualname__}"


def chosen(values: Mapping[str, Any]) -> Iterator[Any]:
    """The registered classes and functions that a config, as plain mappings, names."""
    for group, part in values.items():
        if isinstance(part, Mapping) and (option := OPTIONS.get((group, str(part.get("name"))))):
            yield option
    training = values.get("training")
    for key, known in (("metrics", METRICS), ("callbacks", CALLBACKS)):
        names = training.get(key) if isinstance(training, Mapping) else None
        yield from (known[name] for name in names or () if isinstance(name, str) and name in known)
