"""Where the files of MNIST and Fashion-MNIST are found on this machine, and how they get here."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from experiments.errors import InputError

ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
PROBE_SECONDS = 4  # the longest that a machine without network waits
PROBE = """
import sys, urllib.request
try:
    urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=3).close()
except Exception as error:
    sys.exit(str(getattr(error, "reason", error)) or type(error).__name__)
"""
# A process of its own: TensorFlow must not start here before its threads and seeds are set, and Keras'
# progress bar stays away. Keras leaves Fashion-MNIST as four files; they become one beside mnist.npz.
DOWNLOAD = """
import os, socket, sys
socket.setdefaulttimeout(10)
import keras, numpy
name, target = sys.argv[1:]
(x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
if not os.path.exists(target):
    part = f"{target}.{os.getpid()}.npz"
    numpy.savez_compressed(part, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    os.replace(part, target)
"""
# Data sets that Keras downloads → how the files begin that it keeps of them, if those are not the archive itself.
KERAS_FILES = {
    "mnist": "", "fashion_mnist": "fashion-mnist", "cifar10": "cifar-10-batches", "cifar100": "cifar-100-python",
}  # fmt: skip
FETCH = """
import os, socket, sys, urllib.request
socket.setdefaulttimeout(10)
url, target = sys.argv[1:]
part = f"{target}.{os.getpid()}"
os.makedirs(os.path.dirname(target), exist_ok=True)
try:
    urllib.request.urlretrieve(url, part)
    os.replace(part, target)
finally:
    if os.path.exists(part):
        os.remove(part)
"""

logger = logging.getLogger(__name__)


class Located(NamedTuple):
    """A file, and how to speak of it."""

    path: Path
    source: str


def locate(name: str, path: str | None) -> Located:
    """Finds `<name>.npz`: at `path` if given, else in $EXPERIMENTS_DATA, Keras' cache, or by a download of Keras.

    Raises:
        InputError: it is in none of these places and cannot be downloaded.
    """
    if path is not None:
        given = os.path.expanduser(path)
        if not os.path.exists(given):
            raise InputError(f"dataset.path: no such file, received {path}; null looks in the usual places")
        return Located(Path(given), path)
    places = usual_places(f"{name}.npz")
    for place in places:
        if os.path.isfile(place.path):
            return place
    if failure := _download(name, places[-1].path):
        looked = " or ".join(str(place.path) for place in places)
        raise InputError(
            f"dataset={name}: not found as {looked}, and not downloaded ({failure}); "
            f"put {name}.npz into a folder and set EXPERIMENTS_DATA to it, or choose dataset=digits"
        )
    return places[-1]


def locate_file(name: str, origin: str, cache: str = "datasets") -> Located:
    """Finds a file in $EXPERIMENTS_DATA or Keras' cache, or downloads it from the folder `origin` into the latter.

    Args:
        name: of the file.
        origin: address of the folder that it lies in.
        cache: the folder of Keras' cache, `datasets` or `models`.

    Raises:
        InputError: it is in neither and cannot be downloaded.
    """
    places = usual_places(name, cache)
    for place in places:
        if os.path.isfile(place.path):
            return place
    url = f"{origin}/{name}"
    failure = _probe(url)
    if not failure:
        logger.info("downloading %s into %s", name, places[-1].path.parent)
        failure = _run_python(FETCH, url, str(places[-1].path))
    if failure:
        looked = " or ".join(str(place.path) for place in places)
        rule = f"put {name} into a folder and set EXPERIMENTS_DATA to it"
        raise InputError(f"{name}: not found as {looked}, and not downloaded from {url} ({failure}); {rule}")
    return places[-1]


def usual_places(file: str, cache: str = "datasets") -> list[Located]:
    """$EXPERIMENTS_DATA, if set, then the folder `cache` of Keras' cache."""
    home = Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"))
    places = [Located(home / cache / file, f"Keras' cache/{file}")]
    if folder := os.environ.get("EXPERIMENTS_DATA"):
        places.insert(0, Located(Path(os.path.expanduser(folder)) / file, f"EXPERIMENTS_DATA/{file}"))
    return places


def _download(name: str, target: Path) -> str:
    """Lets Keras download; returns why it failed, or nothing."""
    if name not in KERAS_FILES:
        return "it is none of Keras' data sets"
    at_hand = bool(KERAS_FILES[name]) and any(target.parent.glob(f"{KERAS_FILES[name]}*"))
    if not at_hand and (failure := _probe(ORIGIN)):
        return failure
    logger.info("downloading %s into %s", name, target.parent)
    failure = _run_python(DOWNLOAD, name, str(target))
    return failure if failure or target.is_file() else f"Keras left no {target}"


@functools.cache
def _probe(url: str) -> str:
    """Why `url` cannot be reached, or nothing. Bounded, because looking up a name may hang for a minute."""
    try:
        return _run_python(PROBE, url, timeout_seconds=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer from the network in {PROBE_SECONDS} s"


def _run_python(code: str, *arguments: str, timeout_seconds: float | None = None) -> str:
    """Runs `code` silently; returns the last line of its error, or nothing."""
    command = [sys.executable, "-P", "-c", code, *arguments]  # -P: no module of the current folder
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
