"""The user's own images as a data set."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from experiments.errors import InputError
from experiments.ingredients.option import AsBefore
from experiments.ingredients.splits import DatasetOption, ImageData

if TYPE_CHECKING:
    from experiments.ingredients.images import Content


class Files(DatasetOption):
    """The user's own images: an `.npz` (see `npz.read_archive`) or a folder (see `folders.read_folder`)."""

    name: Literal["files"]
    path: str | None
    class_names: list[str] | None
    scale: Annotated[Literal["auto", "unit", "byte"], AsBefore("auto")]
    background: Annotated[Literal["white", "grey", "black"], AsBefore("white")]

    @property
    def title(self) -> str:
        """The name of the file or folder."""
        return os.path.basename(os.path.realpath(os.path.expanduser(self.path or ""))) or self.name

    def load(self) -> ImageData:
        """Read and split; the training images are put in the order of `images.spread_classes` first.

        Raises:
            InputError: no path, or what is there breaks a rule.
        """
        from experiments.ingredients.images import spread_classes

        if self.path is None:
            raise InputError("dataset.path: must be given, an .npz or a folder with train/ and test/, received null")
        path = Path(os.path.expanduser(self.path))
        content, names = self._read(path)
        arrays = content.arrays
        order = spread_classes(arrays.y_train)
        arrays = arrays._replace(x_train=arrays.x_train[order], y_train=arrays.y_train[order])
        notes = content.notes
        if arrays.y_val is not None:
            notes += (f"validation: the {len(arrays.y_val):,} images that {path.name} has for it",)
        content = content._replace(arrays=arrays, notes=notes)
        return self.split(content, names, self.path)

    def _read(self, path: Path) -> tuple[Content, tuple[str, ...]]:
        from experiments.ingredients.folders import read_folder
        from experiments.ingredients.npz import read_archive

        try:
            is_folder = stat.S_ISDIR(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"dataset.path: no such file or folder, received {self.path}") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"dataset.path: cannot be read ({reason}), received {self.path}") from None
        if not is_folder:
            return self._name_classes(read_archive(path, self.scale))
        if self.class_names is not None:
            raise InputError("dataset.class_names: must be null for a folder, whose classes have names")
        if self.scale == "unit":
            raise InputError("dataset.scale: must be auto or byte for a folder of pictures, received unit")
        content = read_folder(path, self.background)
        return content, content.class_names or ()

    def _name_classes(self, content: Content) -> tuple[Content, tuple[str, ...]]:
        classes = int(content.arrays.y_train.max()) + 1
        names = tuple(map(str, range(classes)) if self.class_names is None else self.class_names)
        if len(names) != classes:
            rule = f"must be as many as the classes in {self.path}, {classes}"
            raise InputError(f"dataset.class_names: {rule}, received {len(names)}")
        return content, names
