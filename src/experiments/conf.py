"""The folder `conf/`, what Hydra is told about it, and the numbers in it that are not what they look like."""

from __future__ import annotations

import re
from pathlib import Path

from experiments.errors import InputError

_PACKAGE = Path(__file__).resolve().parent
# Beside src/ in a checkout; in the package where it was installed from a wheel.
CONF = next(folder for folder in (_PACKAGE.parents[1] / "conf", _PACKAGE / "conf") if folder.is_dir())

HELP = """\
One run:   python -m experiments.run [OPTION=VALUE ...]
A sweep:   python -m experiments.run -m optimizer=sgd,rmsprop,adam 'seed=range(0,3)'
The rest:  python -m experiments.run resume=RUN

Choose from these (group=option); each is a file conf/<group>/<option>.yaml with all its values:

$APP_CONFIG_GROUPS
Change any value (key=value); these are the defaults:

$CONFIG
See also: python -m experiments.{reproduce,compare,figures,ui,sync} --help, and --hydra-help for Hydra's own flags.
"""

OCTAL = re.compile(r"[+-]?0[0-7_]+")
SEXAGESIMAL = re.compile(r"[+-]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
VALUE = re.compile(r"^\s*(?:-\s+)?(?:([\w.]+):\s+)?(.*?)\s*(?:#.*)?$")


def configure_hydra() -> None:
    """Hydra's own settings, for any primary config.

    They are stored here and not in conf/config.yaml, so that a saved config used with --config-path behaves alike: this
    package makes directories and logs by itself, after validation, and Hydra leaves nothing behind.
    """
    from hydra.conf import HydraConf, RunDir
    from hydra.core.config_store import ConfigStore

    help_node = {"app_name": "experiments", "header": "", "footer": "", "template": HELP}
    settings = HydraConf(run=RunDir("."), output_subdir=None)
    ours = {
        "hydra_logging": "none",
        "job_logging": "none",
        "launcher": "local",
        "sweeper": "local",
        "help": "experiments",
    }
    settings.defaults = [{key: ours.get(key, value)} for entry in settings.defaults for key, value in entry.items()]
    ConfigStore.instance().store(group="hydra/help", name="experiments", node=help_node, provider="experiments")
    ConfigStore.instance().store(group="hydra", name="config", node=settings, provider="experiments")


def refuse_number_traps(folder: Path) -> None:
    """Looks through the YAML files of a `conf/` folder for numbers that are read as other ones.

    YAML 1.1 reads `010` as 8 and `1:30` as 90. Both are valid numbers afterwards, which no range and no type refuses.

    Raises:
        InputError: with a line for each value that is written like a number and read as another one.
    """
    mistakes: list[str] = []
    for path in sorted(folder.rglob("*.yaml")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            mistakes += [f"{path}:{number}: {mistake}" for mistake in _mistakes(line)]
    if mistakes:
        raise InputError(*mistakes)


def _mistakes(line: str) -> list[str]:
    matched = VALUE.match(line)
    if matched is None or line.lstrip().startswith("#"):
        return []
    key, values = matched.groups()
    name = f"{key}: " if key else ""
    return [f"{name}{value} would be read as {read}; {advice}" for value, read, advice in _trapped(values)]


def _trapped(values: str) -> list[tuple[str, int | float, str]]:
    found: list[tuple[str, int | float, str]] = []
    for value in re.split(r"[\[\],\s]+", values):
        if OCTAL.fullmatch(value):
            found.append((value, int(value.replace("_", ""), 8), "write a number without a leading 0"))
        elif SEXAGESIMAL.fullmatch(value):
            parts = [float(part) for part in value.replace("_", "").split(":")]
            read = sum(part * 60**power for power, part in enumerate(reversed(parts)))
            found.append((value, int(read), "write it without colons"))
    return found
