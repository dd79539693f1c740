"""`python -m experiments.run`: one run, or with `-m` a sweep. argv in, exit code out."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any

EXIT_CODES = {"finished": 0, "failed": 1, "diverged": 1, "interrupted": 130}


def main() -> None:
    """The entrance; exit codes as in the README."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands its errors on instead of printing them
    from hydra.errors import HydraException

    from experiments.errors import ExperimentsError

    _show_messages()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends a run in order, as Ctrl-C does
    try:
        _hydra_main()()
    except HydraException as error:
        from experiments.config import explain_composition

        _refuse(explain_composition(error))
    except ExperimentsError as error:
        _refuse(error)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def _hydra_main() -> Any:
    import hydra
    from hydra.conf import HydraConf, RunDir
    from hydra.core.config_store import ConfigStore

    from experiments.config import CONF
    # Stored here and not in conf/config.yaml, so that a saved config used with --config-path behaves alike: this
    # package makes the directories and logs by itself, after validation, and Hydra leaves nothing behind.
    defaults = HydraConf(run=RunDir("."), output_subdir=None)
    ours = {"hydra_logging": "none", "job_logging": "none", "launcher": "local", "sweeper": "local"}
    defaults.defaults = [{key: ours.get(key, value)} for entry in defaults.defaults for key, value in entry.items()]
    ConfigStore.instance().store(group="hydra", name="config", node=defaults, provider="experiments")
    return hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_run_one)


def _run_one(composed: Any) -> None:
    from experiments.errors import ExperimentsError

    try:
        sys.exit(_train_one(composed))
    except ExperimentsError as error:
        _refuse(error)  # here, because Hydra would print a line of its own about an error that leaves this function


def _train_one(composed: Any) -> int:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from experiments.config import from_hydra

    config = from_hydra(composed)
    from experiments.runner import Origin, run_experiment

    hydra = HydraConfig.get()
    files = {
        "config.yaml": OmegaConf.to_yaml(composed),
        "hydra.yaml": OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})),
        "overrides.yaml": OmegaConf.to_yaml(hydra.overrides.task),
    }
    record = run_experiment(config, origin=Origin(hydra=files))
    print(_summary(record))
    print(record.directory)
    return EXIT_CODES[record.state]


def _summary(record: Any) -> str:
    metrics = record.metrics
    if record.state != "finished":
        return f"{record.state}; log: {record.directory / 'run.log'}"
    return (
        f"test accuracy {metrics['test/accuracy']:.2%} "
        f"(95 % interval {metrics['test/accuracy_low']:.2%} to {metrics['test/accuracy_high']:.2%})\n"
        f"{record.overfitting.verdict}\n"
        "next: python -m experiments.ui, or a sweep: python -m experiments.run -m optimizer=sgd,rmsprop,adam"
    )


def _show_messages() -> None:
    """What the package logs goes to standard output, as plain sentences."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    package = logging.getLogger("experiments")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False


def _refuse(error: Exception) -> None:
    print(error, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
