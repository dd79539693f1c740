"""The scale of an archive's pixels, 0-1 or 0-255: decided once for a whole data set, by many values and not by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.errors import InputError

Scale = Literal["unit", "byte"]
FACTORS: Mapping[Scale, int] = {"unit": 255, "byte": 1}
HALF_BRIGHT = 127  # pixels of 0-255 reach beyond it; those of 4 to 7 bits (0-15 … 0-127) and percentages do not
ODD_SHARE = 1e-5  # of an array's values: as many as this prove nothing, and one value never does
IMAGES_AT_ONCE = 256  # are converted, so that a large archive is never there twice as floats


class _Evidence(NamedTuple):
    """What the values of one array say; they are in 0-255."""

    name: str
    low: float
    high: float
    can_be_unit: bool
    can_be_byte: bool
    surely_unit: bool
    surely_byte: bool


def _weigh(name: str, array: NDArray[Any]) -> _Evidence:
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind != "f":  # whole numbers are 0-255 by their type
        return _Evidence(name, low, high, False, True, False, True)
    odd = max(1.0, ODD_SHARE * array.size)
    inside = int(np.count_nonzero(array > 0) - np.count_nonzero(array >= 1))
    above, bright = int(np.count_nonzero(array > 1)), int(np.count_nonzero(array > HALF_BRIGHT))
    can_be_byte = inside <= above
    return _Evidence(name, low, high, high <= 1, can_be_byte, inside > odd, can_be_byte and bright > odd)


def decide_scale(images: Mapping[str, NDArray[Any]]) -> Scale:
    """The scale of all `images` (name → values in 0-255).

    `unit` if no value is above 1 and some are between 0 and 1; `byte` if values of more than half of 255 are there, and
    in no array most of the values that are not whole lie below 1. One value, or 1 of 100,000, decides nothing.

    Raises:
        InputError: they may be either, or neither, or some one and some the other.
    """
    parts = [_weigh(name, array) for name, array in images.items()]
    if all(part.can_be_unit for part in parts) and any(part.surely_unit for part in parts):
        return "unit"
    if all(part.can_be_byte for part in parts) and any(part.surely_byte for part in parts):
        return "byte"
    received = ", ".join(f"{part.name} from {part.low:.9g} to {part.high:.9g}" for part in parts)
    raise InputError(
        f"dataset.scale: auto cannot tell whether pixels are 0-1 or 0-255, received {received}; "
        f"give dataset.scale=unit (they are multiplied by 255) or dataset.scale=byte"
    )


def to_uint8(array: NDArray[Any], scale: Scale) -> NDArray[np.uint8]:
    """Pixels 0-255, C-contiguous; floats rounded to the nearest, ties to even."""
    factor = FACTORS[scale]
    if array.dtype == np.uint8 and factor == 1:
        return np.ascontiguousarray(array)
    pixels = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), IMAGES_AT_ONCE):
        some = array[start : start + IMAGES_AT_ONCE]
        whole = np.rint(some * factor) if some.dtype.kind == "f" else some.astype(np.uint8) * np.uint8(factor)
        pixels[start : start + IMAGES_AT_ONCE] = whole
    return pixels
