"""What Hydra reads: `conf/` and the folders that the user gives, never a directory of results.

Hydra calls what its own part of a config names before any code of ours is asked, and results may be somebody else's.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException
from yaml.constructor import SafeConstructor
from yaml.cyaml import CParser
from yaml.resolver import Resolver

from experiments.errors import InputError
from experiments.plain_yaml import read_yaml_text

# What a run or a sweep leaves in its directory, one of which is enough; and what marks the folders below it too.
RESULTS = ("record.json", "sweep.json", "plan.json", "history.csv", "environment.json", "predictions.npz")
RESULTS_AROUND = RESULTS[:2]


class _Reader(CParser, get_yaml_loader()):  # type: ignore[misc]
    """OmegaConf's reader of YAML, which knows 1e-3 for a number and refuses a key twice, on the quick parser."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)


class Folder(FileConfigSource):  # type: ignore[misc]
    """Hydra's reader of a folder, for options by their plain names; hidden files, as editors leave them, are none."""

    path: str

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self.path = os.path.abspath(self.path)
        if not os.path.isdir(self.path):
            raise InputError(f"{self.path}: no such folder, or one that is closed; it must hold options, as conf/ does")
        refuse_results(Path(self.path))

    def load_config(self, config_path: str) -> ConfigResult:
        """The content of a file.

        Raises:
            InputError: it cannot be read, is no plain YAML, or belongs to results.
        """
        path = Path(str(self.path), f"{config_path}.yaml")
        refuse_results(path.parent)
        text = read_yaml_text(path)
        try:
            values = yaml.load(text, Loader=_Reader)  # noqa: S506 - builds plain values, as a SafeLoader
            config = OmegaConf.create({} if values is None else values)
            header = ConfigSource._get_header_dict(text)
        except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
            raise InputError(f"{path}: is no config ({' '.join(str(error).split())})") from None
        return ConfigResult(config=config, path=self.full_path(), provider=self.provider, header=header)

    def is_group(self, config_path: str) -> bool:
        """Whether it is a folder of options."""
        return config_path == "" or (_is_plain(config_path) and os.path.isdir(os.path.join(self.path, config_path)))

    def is_config(self, config_path: str) -> bool:
        """Whether it is an option, named without `.yaml`."""
        return _is_plain(config_path) and os.path.isfile(os.path.join(self.path, f"{config_path}.yaml"))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The names of groups and options in a folder.

        Raises:
            InputError: the folder cannot be listed: it is missing, no folder, or closed to this user.
        """
        try:
            names = sorted(os.listdir(os.path.join(self.path, config_path)))
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None
        inside = f"{config_path}/" if config_path else ""
        groups = [name for name in names if name != "__pycache__" and self.is_group(inside + name)]
        stems = [name.removesuffix(".yaml") for name in names if name.endswith(".yaml")]
        configs = [stem for stem in stems if self.is_config(inside + stem)]
        return [
            *(groups if results_filter != ObjectType.CONFIG else ()),
            *(configs if results_filter != ObjectType.GROUP else ()),
        ]


def _is_plain(name: str) -> bool:
    return not name.endswith(".yaml") and not any(part == "" or part.startswith(".") for part in name.split("/"))


class Package(ImportlibResourcesConfigSource):  # type: ignore[misc]
    """Config source `pkg://`, for Hydra and its plugins only: reading a package imports it, which runs code."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        if self.path.partition(".")[0] not in ("hydra", "hydra_plugins"):
            raise InputError(
                f"{path}: would run the package's code to find its configs; give the folder that they are in"
            )

    def is_group(self, config_path: str) -> bool:
        """Whether it is a folder of options; what is too long for a name is none."""
        with suppress(OSError, ValueError):
            return bool(super().is_group(config_path))
        return False

    def is_config(self, config_path: str) -> bool:
        """Whether it is an option; what is too long for a name is none."""
        with suppress(OSError, ValueError):
            return bool(super().is_config(config_path))
        return False


def refuse_results(path: Path) -> None:
    """Refuses to let Hydra read in a directory of results.

    Raises:
        InputError: `path` is, or lies in, one.
    """
    if (place := lies_in_results(path)) is not None:
        raise InputError(
            f"{path}: belongs to the results in {place}, which configure nothing; --config-path RUN starts a run from "
            "RUN's values, python -m experiments.reproduce RUN repeats it"
        )


def lies_in_results(path: Path) -> Path | None:
    """The directory of a run or a sweep, which may be somebody else's, that a path leads to or through."""
    for start in (path.absolute(), path.resolve()):
        for place in (start, *start.parents):
            names = RESULTS if place == start else RESULTS_AROUND
            if any(os.path.lexists(place / name) for name in names):
                return place
    return None
