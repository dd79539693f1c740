"""Pictures of any size brought to one, antialiased, in whole numbers: the same bits on every machine."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.ingredients.pictures import COLOURS

Size = tuple[int, int]


class Target(NamedTuple):
    """What all pictures are brought to.

    Attributes:
        size: (height, width); None: as they are.
        fit: `crop` cuts the middle out, `pad` adds borders, `stretch` changes the proportions.
        channels: 1 or 3; None: as they are.
        background: one of `pictures.COLOURS`, under transparent pixels and in borders.
    """

    size: Size | None
    fit: str
    channels: int | None
    background: str


def bring(pixels: NDArray[np.uint8], target: Target) -> NDArray[np.uint8]:
    """(height, width, 1 or 3) → (target height, target width, target channels).

    Triangle filter as wide as the reduction. Pillow rounds its weights to whole numbers of 2^-22 and sums in those.
    Grey is (19595 R + 38470 G + 7471 B + 32768) / 65536, as ITU-R 601-2 has it.
    """
    from PIL import Image

    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if target.channels is not None:
        picture = picture.convert("L" if target.channels == 1 else "RGB")
    if target.size is not None and (picture.height, picture.width) != target.size:
        height, width = target.size
        box = _middle(picture.height, picture.width, target.size) if target.fit == "crop" else None
        inner = _inside(picture.height, picture.width, target.size) if target.fit == "pad" else target.size
        picture = picture.resize(inner[::-1], Image.Resampling.BILINEAR, box)
        if target.fit == "pad":
            colour = COLOURS[target.background]
            whole = Image.new(picture.mode, (width, height), colour if picture.mode == "RGB" else colour[0])
            whole.paste(picture, ((width - inner[1]) // 2, (height - inner[0]) // 2))
            picture = whole
    result = np.asarray(picture)
    return np.ascontiguousarray(result.reshape(*result.shape[:2], -1))


def _middle(height: int, width: int, size: Size) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest part with the proportions of `size`, in the middle."""
    kept_width = min(width, max(1, height * size[1] // size[0]))
    kept_height = min(height, max(1, width * size[0] // size[1]))
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return left, top, left + kept_width, top + kept_height


def _inside(height: int, width: int, size: Size) -> Size:
    """The largest (height, width) of the same proportions inside `size`, to the nearest pixel."""
    if width * size[0] >= height * size[1]:
        return max(1, (height * size[1] + width // 2) // width), size[1]
    return size[0], max(1, (width * size[0] + height // 2) // height)
