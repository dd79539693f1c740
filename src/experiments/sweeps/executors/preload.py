"""What the server that workers are forked from imports once, so that a worker starts in milliseconds.

Everything that a job will need is imported here, lazily loaded parts too: the code of a sweep is the code of its
start, whatever is edited meanwhile. TensorFlow may be imported before a fork as long as it has run nothing.
"""

import atexit
import gc
import importlib
import os
import pkgutil
import sys
from contextlib import suppress

SERVER = "multiprocessing.forkserver"


def leave_the_terminal() -> None:
    """A session of its own: what a terminal sends to its processes goes to the planner alone, with which this one ends.

    TensorFlow prints lines while it is imported that no setting silences.
    """
    os.setsid()
    atexit.register(os._exit, 0)  # at once: TensorFlow takes a second to clean up for nobody
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def import_everything() -> None:
    """TensorFlow, MLflow and all modules of this package; the code's digest is remembered with them."""
    from experiments.results import environment

    environment.gather(threads=1, dataset_digest="")
    for library in ("tensorflow", "keras", "mlflow.keras", "mlflow.models"):
        importlib.import_module(library)
    for module in pkgutil.walk_packages([str(environment.PACKAGE)], "experiments."):
        importlib.import_module(module.name)


if any(SERVER in argument for argument in sys.orig_argv):
    leave_the_terminal()  # before anything is imported that takes its time
    from experiments.training.runtime import without_collection

    with suppress(Exception), without_collection():  # a worker meets it again, and can tell
        import_everything()
    gc.freeze()  # or every worker's first collection would touch, and so copy, all that it shares with the server
