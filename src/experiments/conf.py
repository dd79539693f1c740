"""Where the folder `conf/` is."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# Beside src/ in a checkout; in the package where it was installed from a wheel.
CONF = next(folder for folder in (_PACKAGE.parents[1] / "conf", _PACKAGE / "conf") if folder.is_dir())
