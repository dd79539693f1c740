"""Arrays in the IDX format of MNIST's own files, compressed: `*-images-idx3-ubyte.gz`.

Four bytes, 0, 0, type and dimensions, then the sizes and the values, all big-endian.
Source: LeCun, Cortes, Burges, The MNIST Database, 1998.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.archives import UNREADABLE
from experiments.bounded import open_file, require_memory
from experiments.errors import InputError

TYPES: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint8), 12: np.dtype(">i4")}  # those that digits come in
MOST_DIMENSIONS = 3


def read_idx(path: Path) -> NDArray[Any]:
    """The array in a compressed IDX file; no more is unpacked than its header says.

    Raises:
        InputError: it cannot be read, is cut off or too long, or does not fit into memory.
    """
    with open_file(path) as packed:
        try:
            with gzip.GzipFile(fileobj=packed) as file:
                zeros, code, dimensions = struct.unpack(">HBB", file.read(4))
                if zeros or code not in TYPES or not 1 <= dimensions <= MOST_DIMENSIONS:
                    raise ValueError("another header")
                shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
                size = math.prod(shape) * TYPES[code].itemsize
                require_memory(size, str(path))
                values = file.read(size)
                if len(values) != size or file.read(1):
                    raise ValueError(f"another number of values than {shape}")
        except (*UNREADABLE, struct.error) as error:
            raise InputError(f"{path}: must be a whole IDX file in gzip, received {error}") from None
    return np.frombuffer(values, TYPES[code]).reshape(shape)
