"""One picture file → pixels: turned as its camera was held, transparent parts on a background, 8 bits a channel."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.archives import UNREADABLE
from experiments.bounded import PICTURE_BYTES, open_file, require_pixels
from experiments.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

# Formats that Pillow decodes itself; it would hand others, such as EPS, to programs outside.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")
BITS_PER_SAMPLE = 258  # the TIFF tag
ORIENTATION = 0x0112  # the EXIF tag
PNG_DEPTH_AT = 24  # the byte of a PNG file that holds its bits a channel
COLOURS = {"black": (0, 0, 0), "grey": (128, 128, 128), "white": (255, 255, 255)}
PLAIN = {"1": "L", "L": "L", "RGB": "RGB", "P": "RGB"}  # mode → what it is converted to, without transparency
CLEAR = {"1": "LA", "L": "LA", "LA": "LA", "La": "LA"}  # the same with it; all others become RGBA
GREY = tuple(CLEAR)
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange height and width
READABLE = (*PLAIN, "LA", "La", "PA", "RGBA", "RGBa", "RGBX")


def read_picture(file: Path, background: str) -> NDArray[np.uint8]:
    """The first picture of a file, (height, width, 1 or 3): grey where the file is.

    Args:
        file: a picture in one of `FORMATS`, whatever its name ends with.
        background: one of `COLOURS`, under transparent and half-transparent pixels.

    Raises:
        InputError: it cannot be read, is too large, has more than 8 bits a channel, or is neither grey nor RGB.
    """
    with _opened(file) as picture:
        pixels = _flatten(picture, background)
        return np.ascontiguousarray(_turn(pixels, picture.getexif().get(ORIENTATION, 1)))


def read_shape(file: Path) -> tuple[int, int, int]:
    """The (height, width, channels) that `read_picture` will return, from the header where that says it.

    Raises:
        InputError: as `read_picture`, but for what only the pixels show.
    """
    with _opened(file) as picture:
        height, width = picture.height, picture.width
        if picture.format == "TIFF" or (picture.format == "PNG" and "exif" not in picture.info):
            turned = False  # Pillow has turned the one, and would unpack the other to look for what it hardly has
        else:
            turned = picture.getexif().get(ORIENTATION, 1) in SIDEWAYS
        channels = 1 if picture.mode in GREY else 3
    return (width, height, channels) if turned else (height, width, channels)


@contextmanager
def _opened(file: Path) -> Iterator[Image]:
    """A picture that may be read, by its header; whatever shows later is told in one line too."""
    from PIL import Image

    with open_file(file, PICTURE_BYTES) as opened:
        try:
            start = opened.read(PNG_DEPTH_AT + 1)
            if not start:
                raise ValueError("an empty file")
            opened.seek(0)
            with Image.open(opened, formats=FORMATS) as picture:
                require_pixels(*picture.size, str(file))
                _require_bytes(picture, start, file)
                yield picture
        except (*UNREADABLE, struct.error, KeyError, TypeError, AttributeError, Image.DecompressionBombError) as error:
            reason = " ".join(str(error).split()).replace(f" {opened!r}", "") or type(error).__name__
            raise InputError(f"{file}: must be a readable image, received {reason}") from None


def _require_bytes(picture: Image, start: bytes, file: Path) -> None:
    """Refuses modes that Pillow cannot bring to 8-bit grey or RGB without loss, 16-bit colour among them."""
    bits: Any = (8,)
    if picture.format == "PNG":
        bits = start[PNG_DEPTH_AT:]  # Pillow would cut 16-bit colour to its high bytes
    elif picture.format == "TIFF":
        bits = picture.tag_v2.get(BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]
    if picture.mode not in READABLE or max(bits) > 8:
        depth = f" with {max(bits)} bits a channel" if max(bits) > 8 else ""
        rule = "images must be grey, colour or have a palette, with 8 bits a channel"
        raise InputError(f"{file}: {rule}, received mode {picture.mode}{depth}")


def _flatten(picture: Image, background: str) -> NDArray[np.uint8]:
    """(height, width, 1 or 3), transparent parts composited: (colour · alpha + background · (255 - alpha)) / 255."""
    if not ("transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBA", "RGBa")):
        pixels = np.asarray(picture.convert(PLAIN.get(picture.mode, "RGB")))
        return pixels.reshape(*pixels.shape[:2], -1)
    layers = np.asarray(picture.convert(CLEAR.get(picture.mode, "RGBA"))).astype(np.uint32)
    colour, alpha = layers[..., :-1], layers[..., -1:]
    under = np.array(COLOURS[background], np.uint32)[: colour.shape[2]]
    return ((colour * alpha + under * (255 - alpha) + 127) // 255).astype(np.uint8)


def _turn(pixels: NDArray[np.uint8], orientation: Any) -> NDArray[np.uint8]:
    """Undoes how the camera was held. Source: Exif 2.32, tag 0x0112; 1 is upright, as is anything unknown."""
    if orientation in SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def describe(shape: tuple[int, ...]) -> str:
    """`28×28 grey`, of (height, width, channels)."""
    height, width, channels = shape
    return f"{width}×{height} {'grey' if channels == 1 else 'colour'}"
