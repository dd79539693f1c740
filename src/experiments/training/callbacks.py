"""Callbacks of the user's own: told of every epoch, and without a say in it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

from experiments import project
from experiments.config import RunConfig, flatten
from experiments.ingredients.registry import CALLBACKS, Epoch
from experiments.results.files import EpochRow

log = logging.getLogger(__name__)


def teller(config: RunConfig, directory: Path) -> Callable[[EpochRow], None]:
    """What calls the callbacks that a config names; what one raises is logged, and training goes on."""
    values = MappingProxyType(flatten(config.model_dump(mode="json")))

    def tell(row: EpochRow) -> None:
        epoch = Epoch(row.epoch, config.training.epochs, MappingProxyType(row.columns()), values, directory)
        for name in config.training.callbacks:
            try:
                CALLBACKS[name](epoch)
            except Exception as error:  # whatever the user's function does
                log.warning("training.callbacks: %s: %s", name, project.describe(error))

    return tell
