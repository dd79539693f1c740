"""The user's own images as a data set."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from experiments.errors import InputError
from experiments.ingredients.option import AsBefore, CountOrZero
from experiments.ingredients.splits import DatasetOption, ImageData

if TYPE_CHECKING:
    from experiments.ingredients.images import Content

Share = Annotated[float, Field(gt=0, lt=1)]
Side = Annotated[int, Field(ge=1, le=4096)]


class Files(DatasetOption):
    """The user's own images: an `.npz` (see `npz.read_archive`) or a folder (see `folders.read_folder`)."""

    name: Literal["files"]
    path: str | None
    class_names: list[str] | None
    scale: Annotated[Literal["auto", "unit", "byte"], AsBefore("auto")]
    test_fraction: Annotated[Share, AsBefore(0.2)]
    test_seed: Annotated[CountOrZero, AsBefore(0)]
    group_by: Annotated[str | None, AsBefore(None)]
    image_size: Annotated[Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None, AsBefore(None)]
    fit: Annotated[Literal["crop", "pad", "stretch"], AsBefore("crop")]
    channels: Annotated[Literal[1, 3] | None, AsBefore(None)]
    background: Annotated[Literal["white", "grey", "black"], AsBefore("white")]
    bad_images: Annotated[Literal["refuse", "skip"], AsBefore("refuse")]

    @property
    def title(self) -> str:
        """The name of the file or folder."""
        return os.path.basename(os.path.realpath(os.path.expanduser(self.path or ""))) or self.name

    def load(self) -> ImageData:
        """Read and split; the training images are in the order of `images.spread_classes`.

        Raises:
            InputError: no path, or what is there breaks a rule.
        """
        if self.path is None:
            raise InputError("dataset.path: must be given, an .npz or a folder with train/ and test/, received null")
        path = Path(os.path.expanduser(self.path))
        content, names = self._read(path)
        return self.split(content, names, self.path)

    def _read(self, path: Path) -> tuple[Content, tuple[str, ...]]:
        from experiments.ingredients.folders import HoldOut, read_folder
        from experiments.ingredients.resizing import Target

        try:
            is_folder = stat.S_ISDIR(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"dataset.path: no such file or folder, received {self.path}") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"dataset.path: cannot be read ({reason}), received {self.path}") from None
        if not is_folder:
            return self._read_archive(path)
        if self.class_names is not None:
            raise InputError("dataset.class_names: must be null for a folder, whose classes have names")
        if self.scale == "unit":
            raise InputError("dataset.scale: must be auto or byte for a folder of pictures, received unit")
        side = self.image_size
        height, width = side if isinstance(side, list) else (side, side)
        size = None if height is None or width is None else (height, width)
        target = Target(size, self.fit, self.channels, self.background)
        holding = HoldOut(self.test_fraction, self.test_seed, self.group_by, self.validation_fraction)
        content = read_folder(path, target, holding, skip_bad=self.bad_images == "skip")
        return content, content.class_names or ()

    def _read_archive(self, path: Path) -> tuple[Content, tuple[str, ...]]:
        from experiments.ingredients.images import spread_classes
        from experiments.ingredients.npz import read_archive

        for key in ("group_by", "image_size", "channels"):
            if (value := getattr(self, key)) is not None:
                raise InputError(f"dataset.{key}: must be null for an .npz, it is for folders, received {value}")
        content = read_archive(path, self.scale)
        arrays = content.arrays
        order = spread_classes(arrays.y_train)
        content = content._replace(arrays=arrays._replace(x_train=arrays.x_train[order], y_train=arrays.y_train[order]))
        classes = int(content.arrays.y_train.max()) + 1
        names = tuple(map(str, range(classes)) if self.class_names is None else self.class_names)
        if len(names) != classes:
            rule = f"must be as many as the classes in {self.path}, {classes}"
            raise InputError(f"dataset.class_names: {rule}, received {len(names)}")
        return content, names
