"""The saved model: opened only where it is made of the pieces that a config can name, so that it can run no code."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from experiments.archives import open_archive
from experiments.bounded import open_file, parse_json, require_memory, size
from experiments.errors import InputError
from experiments.ingredients.layers import LayerName, condense
from experiments.ingredients.registry import OPTIONS
from experiments.ingredients.size import FLOAT_BYTES, nothing_allocated, size_of

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBERS = {CONFIG, WEIGHTS, "metadata.json"}  # of the archive; assets are files of layers that no config can name
CONFIG_BYTES = 4_000_000  # a layer takes about 1 kB, and 500 are the most
# Beside those of a free list: what networks of the user's own and `keras.applications` are made of.
FURTHER_LAYERS = {
    "Add", "AdditiveAttention", "Attention", "Average", "AveragePooling1D", "AveragePooling3D", "Concatenate", "Conv1D",
    "Conv3D", "Dot", "EinsumDense", "Embedding", "GlobalAveragePooling1D", "GroupQueryAttention", "Identity",
    "InputLayer", "MaxPooling1D", "MaxPooling3D", "Maximum", "Minimum", "MultiHeadAttention", "Multiply",
    "Normalization", "Permute", "RMSNormalization", "RepeatVector", "Rescaling", "Resizing", "Softmax", "Subtract",
    "UnitNormalization",
}  # fmt: skip
ARITHMETIC = {"Add", "Concatenate", "Divide", "Mean", "Multiply", "Reshape", "Subtract", "Transpose", "TrueDivide"}
# Where Keras looks for a class → those that may stand there; none takes a function, a file or an address.
PIECES = {
    "keras.layers": {*get_args(LayerName), *FURTHER_LAYERS},
    "keras.src.ops.numpy": ARITHMETIC,
    "keras.src.models.functional": {"Functional"},
    "keras": {"DTypePolicy"},
    "keras.initializers": None,
    "keras.regularizers": None,
    "keras.constraints": None,
    None: {"__keras_tensor__"},
}


def open_model(path: Path) -> Any:
    """The Keras model in a `model.keras`.

    Raises:
        InputError: it cannot be read, holds a piece that no config can name, as a `Lambda` layer is, or takes more
            memory than its file has weights for, or than is free.
    """
    with open_file(path) as file, open_archive(file, str(path), "a Keras model") as archive:
        config, weights_bytes = _read(archive, path)
    for module, name in _pieces(config):
        allowed = PIECES.get(module, set())
        if allowed is not None and name not in allowed:
            raise InputError(f"{path}: holds {module}.{name}, which no config can name; it is not opened")
    import keras

    try:
        with nothing_allocated():
            told = size_of(keras.saving.deserialize_keras_object(config))
        if FLOAT_BYTES * told.parameters > weights_bytes:
            raise InputError(f"{path}: has {told.parameters:,} parameters, and {size(weights_bytes)} of weights")
        require_memory(told.training_bytes(batch_size=1), str(path))
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except InputError:
        raise
    except Exception as error:  # Keras has no common base for what it makes of bad values
        raise InputError(f"{path}: must be readable as a Keras model, received {condense(error)}") from None


def _read(archive: zipfile.ZipFile, path: Path) -> tuple[Any, int]:
    """The config of a model, and the size of its weights, uncompressed.

    Raises:
        ValueError: something is missing, is there beside what Keras writes, or is too large; others as `zipfile` has.
    """
    if others := set(archive.namelist()) ^ MEMBERS:
        raise ValueError(f"an archive that lacks, or holds beside {', '.join(sorted(MEMBERS))}: {min(others)}")
    sizes = {member.filename: member.file_size for member in archive.infolist()}
    if any(sizes[name] > CONFIG_BYTES for name in MEMBERS - {WEIGHTS}):
        raise ValueError(f"a description of more than {size(CONFIG_BYTES)}")
    require_memory(sizes[WEIGHTS], str(path))
    return parse_json(archive.read(CONFIG), f"{path}: {CONFIG}"), sizes[WEIGHTS]


def _is_own(module: Any, name: Any) -> bool:
    """Whether it is a layer of the packages that the user has listed, and imported by them already."""
    import keras

    own = {option.__module__.partition(".")[0] for option in OPTIONS.values()}
    found = getattr(sys.modules.get(str(module)), str(name), None)
    return str(module).partition(".")[0] in own and isinstance(found, type) and issubclass(found, keras.Layer)


def _pieces(node: Any) -> Iterator[tuple[str | None, str]]:
    """Module and name of everything that Keras would make, but layers of the user's own."""
    if isinstance(node, dict):
        if "class_name" in node and not _is_own(node.get("module"), node["class_name"]):
            module, name = node.get("module"), str(node["class_name"])
            yield None if module is None else str(module), name
            if node.get("registered_name") not in (None, name):
                yield "registered", str(node["registered_name"])
        for value in node.values():
            yield from _pieces(value)
    elif isinstance(node, list):
        for value in node:
            yield from _pieces(value)
