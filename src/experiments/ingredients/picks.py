"""Some images of a file, in an order of their own, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Picked:
    """Images of a memory-mapped array by their indices: what training and scoring ask of an array, and no copy.

    A slice of it is one, too; images at an array of indices are gathered into memory.

    Args:
        images: (n, height, width, channels) uint8.
        indices: (k,) of the images, in their order here.
    """

    def __init__(self, images: NDArray[np.uint8], indices: NDArray[np.int64]) -> None:
        self._images, self._indices = images, indices
        self.dtype = images.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(k, height, width, channels)."""
        return (len(self), *self._images.shape[1:])

    @property
    def nbytes(self) -> int:
        """What a copy would take."""
        return len(self) * self._images[:1].nbytes

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._indices)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """One image after another."""
        return (self._images[index] for index in self._indices)

    @overload
    def __getitem__(self, chosen: slice) -> Picked: ...
    @overload
    def __getitem__(self, chosen: int | NDArray[np.int64]) -> NDArray[np.uint8]: ...
    def __getitem__(self, chosen: Any) -> Any:
        """Fewer of them for a slice; the pixels for an index, or for an array of some."""
        if isinstance(chosen, slice):
            return Picked(self._images, self._indices[chosen])
        return np.asarray(self._images[self._indices[chosen]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        """A copy of all of them, (k, height, width, channels)."""
        del copy
        return np.asarray(self._images[self._indices], dtype)


def pick(images: NDArray[np.uint8], chosen: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
    """The chosen images: a view where they are a slice, a copy where they are in memory, else `Picked`."""
    if isinstance(chosen, slice) or not isinstance(images, np.memmap):
        return images[chosen]
    return Picked(images, chosen)  # type: ignore[return-value]
