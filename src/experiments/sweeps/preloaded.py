"""What the server that workers are forked from imports once, so that a worker starts in milliseconds.

Everything that a job will need is imported here, lazily loaded parts too: the code of a sweep is the code of its
start, whatever is edited meanwhile. TensorFlow may be imported before a fork as long as it has run nothing.
"""

import atexit
import importlib
import os
import pkgutil
from contextlib import suppress

os.setsid()  # what a terminal sends to its processes goes to the planner alone; the server ends when the planner does
atexit.register(os._exit, 0)  # at once: TensorFlow takes a second to clean up for nobody
_nowhere = os.open(os.devnull, os.O_WRONLY)
for _descriptor in (1, 2):  # TensorFlow prints lines while it is imported that no setting silences
    os.dup2(_nowhere, _descriptor)
os.close(_nowhere)

with suppress(Exception):  # a worker meets it again, and can tell
    from experiments.results import environment

    environment.gather(threads=1, dataset_digest="")  # reads the code and remembers its digest

    import keras  # noqa: F401
    import mlflow.keras
    import mlflow.models  # noqa: F401
    import tensorflow  # noqa: F401

    _package = importlib.import_module(__name__.partition(".")[0])
    for _module in pkgutil.walk_packages(_package.__path__, f"{_package.__name__}."):
        if _module.name != __name__:
            importlib.import_module(_module.name)
