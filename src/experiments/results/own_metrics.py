"""Metrics of the user's own: tried on made-up predictions before the training, then measured on the real ones."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from experiments import project
from experiments.errors import InputError
from experiments.ingredients.registry import METRICS

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
OURS = {  # under `test/` and `validation/`
    "accuracy", "accuracy_low", "accuracy_high", "accuracy_corrected", "accuracy_one_view", "balanced_accuracy",
    "calibration_error", "cross_entropy", "loss", "macro_f1",
}  # fmt: skip
TRIED_IMAGES = 4  # of each class


def measure(
    names: Sequence[str], probabilities: NDArray[np.float32], labels: NDArray[np.int64], split: str
) -> dict[str, float]:
    """What the registered metrics `names` say of a split's predictions, under `<split>/<name>`.

    Args:
        names: of registered functions.
        probabilities: (n, classes), rows sum to 1; a function cannot change them.
        labels: (n,) in [0, classes).
        split: `test` or `validation`.

    Raises:
        InputError: one raises, or returns something else than new names with finite numbers.
    """
    found: dict[str, float] = {}
    for name in names:
        for key, value in _ask(name, probabilities, labels).items():
            if key in found:
                raise InputError(f"training.metrics: {name}: returns {key!r}, as another one does")
            found[key] = value
    return {f"{split}/{key}": value for key, value in found.items()}


def require_usable(names: Sequence[str], classes: int) -> None:
    """Tries the metrics on made-up predictions, so that a mistake is told before the training and not after it.

    Raises:
        InputError: as `measure`.
    """
    labels = np.repeat(np.arange(classes), TRIED_IMAGES)
    scores = np.random.default_rng(0).random((len(labels), classes))
    measure(names, (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32), labels, "test")


def own_of(metrics: Iterable[str]) -> list[str]:
    """Those of a record's metrics that are the user's own and about the test images, as `test/top_2`."""
    own = (name for name in metrics if name.startswith("test/"))
    return [name for name in own if name.removeprefix("test/") not in OURS]


def _ask(name: str, probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    given, known = probabilities.view(), labels.view()
    given.flags.writeable = known.flags.writeable = False
    try:
        returned = METRICS[name](given, known)
    except Exception as error:  # whatever the user's function does
        raise InputError(f"training.metrics: {name}: {project.describe(error)}") from error
    if not isinstance(returned, Mapping):
        raise InputError(f"training.metrics: {name}: must return a mapping of names to numbers, received {returned!r}")
    return {_checked_name(name, key): _checked_number(name, key, value) for key, value in returned.items()}


def _checked_name(metric: str, key: object) -> str:
    if not isinstance(key, str) or not NAME.fullmatch(key):
        raise InputError(f"training.metrics: {metric}: a name must be letters, digits and _, received {key!r}")
    if key in OURS:
        raise InputError(f"training.metrics: {metric}: the name {key!r} is taken; choose another")
    return key


def _checked_number(metric: str, key: object, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"training.metrics: {metric}: {key} must be a finite number, received {value!r}")
    return number
