"""What the server that workers are forked from imports once, so that a worker starts in milliseconds.

Everything that a run will need is imported here, lazily loaded parts too: the code of a sweep is the code of its
start, whatever is edited meanwhile. TensorFlow may be imported before a fork as long as it has run nothing.
"""

import os

_screen = os.dup(2)
_nowhere = os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)  # TensorFlow prints lines while it is imported that no setting silences
try:
    import keras  # noqa: F401
    import mlflow.keras
    import mlflow.models  # noqa: F401
    import tensorflow  # noqa: F401

    import experiments.results.plots
    import experiments.runner
    import experiments.sweeps.workers
    import experiments.training.loop  # noqa: F401
finally:
    os.dup2(_screen, 2)
    os.close(_screen)
    os.close(_nowhere)
