"""What the server that workers are forked from imports once, so that a worker starts in milliseconds.

Everything that a job will need is imported here, lazily loaded parts too: the code of a sweep is the code of its
start, whatever is edited meanwhile. TensorFlow may be imported before a fork as long as it has run nothing.
"""

import atexit
import ctypes
import gc
import importlib
import os
import pkgutil
import re
import select
import signal
import sys
from contextlib import suppress

SERVER = "multiprocessing.forkserver"
ALIVE = r"main\(\d+, (\d+)"  # of its command line: the pipe whose other end the planner holds
PR_SET_PDEATHSIG = 1  # of prctl(2)


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


def end_with_the_planner() -> None:
    """Has the system end this process with its parent, also while it is still importing and looks at nothing."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    alive = re.search(ALIVE, " ".join(sys.orig_argv))
    if alive and select.select([int(alive[1])], [], [], 0)[0]:  # the planner was gone before the line above
        os._exit(0)


def import_everything() -> None:
    """TensorFlow, MLflow, all modules of this package and the user's; the code's digests are remembered with them."""
    from experiments import project
    from experiments.results import environment, own_code
    from experiments.sweeps.executors.late_imports import MLFLOW

    environment.gather(threads=1, dataset_digest="")
    for library in ("tensorflow", "keras", *MLFLOW):
        importlib.import_module(library)
    # MLflow lists the modules of all installed packages when it logs a first model: once, instead of in every worker.
    sys.modules["mlflow.utils.requirements_utils"]._init_modules_to_packages_map()
    for module in pkgutil.walk_packages([str(environment.PACKAGE)], "experiments."):
        importlib.import_module(module.name)
    project.load()
    own_code.remember()


if any(SERVER in argument for argument in sys.orig_argv):
    end_with_the_planner()
    leave_the_terminal()  # before anything is imported that takes its time
    from experiments.training.runtime import without_collection

    with suppress(Exception), without_collection():  # a worker meets it again, and can tell
        import_everything()
    gc.freeze()  # or every worker's first collection would touch, and so copy, all that it shares with the server
