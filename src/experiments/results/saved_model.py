"""The saved model: opened only where it is made of the pieces that a config can name, so that it can run no code."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from experiments.errors import InputError
from experiments.ingredients.layers import LayerName
from experiments.ingredients.registry import OPTIONS

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
        InputError: it cannot be read, or holds a piece that no config can name, as a `Lambda` layer is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as a Keras model ({type(error).__name__}: {error})") from None
    for module, name in _pieces(config):
        allowed = PIECES.get(module, set())
        if allowed is not None and name not in allowed:
            raise InputError(f"{path}: holds {module}.{name}, which no config can name; it is not opened")
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _is_own(module: Any, name: Any) -> bool:
    """Whether it is a layer of the packages that the user has listed, and imported by them already."""
    import keras

    own = {option.__module__.partition(".")[0] for option in OPTIONS.values()}
    found = getattr(sys.modules.get(str(module)), str(name), None)
    return str(module).partition(".")[0] in own and isinstance(found, type) and issubclass(found, keras.Layer)


def _pieces(node: Any) -> Iterator[tuple[Any, Any]]:
    """Module and name of everything that Keras would make, but layers of the user's own."""
    if isinstance(node, dict):
        if "class_name" in node and not _is_own(node.get("module"), node["class_name"]):
            yield node.get("module"), node["class_name"]
            if node.get("registered_name") not in (None, node["class_name"]):
                yield "registered", node["registered_name"]
        for value in node.values():
            yield from _pieces(value)
    elif isinstance(node, list):
        for value in node:
            yield from _pieces(value)
