"""The same jobs under Hydra's own basic launcher: one after another, in one process, each with all cores."""

from __future__ import annotations

import os

import hydra
from omegaconf import DictConfig

from experiments.conf import CONF
from experiments.config import from_hydra
from experiments.runner import run_experiment


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")  # type: ignore[untyped-decorator]
def main(composed: DictConfig) -> None:
    if run_experiment(from_hydra(composed).config).state != "finished":
        raise RuntimeError("a job failed")


if __name__ == "__main__":
    os.chdir(os.environ["EXPERIMENTS_HOME"])
    main()
