"""The errors that a user can cause, and nothing else.

ExperimentsError
├── InputError     bad input: one line per mistake, exit code 2, nothing was started
│   ├── BusyError  another process has what this one needs
│   └── DataError  a data set that cannot be used
├── DivergedError  the loss became NaN or infinite: the run ends in state `diverged`, exit code 1
├── StoppedError   the user or the system asked to stop: state `interrupted`, exit code 130
└── PausedError    the epoch that the run was to reach is done: state `paused`
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST_LIST = 200  # letters of valid choices that a line shows whole
LIKE_IT = 8  # of a longer list as many are shown


class ExperimentsError(Exception):
    """Base of every error that is shown to the user as a message without a traceback."""


class InputError(ExperimentsError):
    """One or more mistakes in what the user gave; each is a line `key: rule, received value; valid choices`."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class BusyError(InputError):
    """Another process is at work on the same run or sweep."""


class DataError(InputError):
    """What `dataset.path` leads to is not usable; each of `faults` is a file or folder and the rule that it breaks."""

    def __init__(self, *faults: str) -> None:
        super().__init__(*(f"dataset.path: {fault}" for fault in faults))
        self.faults = faults


class DivergedError(ExperimentsError):
    """The loss of an epoch is not a finite number."""


class StoppedError(ExperimentsError):
    """The run was asked to stop (Ctrl-C, SIGTERM) and did so at the end of an epoch."""


class PausedError(ExperimentsError):
    """The run has done the epochs that were asked of it, and can be continued to the same bits."""


def nearest(received: str, choices: Iterable[str]) -> str:
    """Half a sentence: the nearest valid choice, by letters, initials or beginning, and then all of them.

    Of many only those that are most like it.
    """
    choices = sorted(choices)
    short = {initials(choice): choice for choice in choices if "_" in choice}
    close = difflib.get_close_matches(received, choices, n=1, cutoff=0.6)
    begun = [choice for choice in choices if received and choice.startswith(received)]
    guess = short.get(received) or next(iter(close + begun), None)
    hint = f"did you mean {guess}? " if guess else ""
    every = ", ".join(choices)
    if len(every) <= LONGEST_LIST:
        return f"{hint}valid: {every}"
    some = difflib.get_close_matches(received, choices, n=LIKE_IT, cutoff=0.0)
    return f"{hint}valid: {', '.join(sorted(some))} and {len(choices) - len(some)} more"


def shorten(names: Iterable[str], most: int = 8) -> str:
    """The first names, and how many more there are: `a, b, c and 29,997 more`."""
    names = list(names)
    if len(names) <= most + 1:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most:,} more"


def initials(name: str) -> str:
    """`learning_rate` → `lr`."""
    return "".join(word[:1] for word in name.split("_"))
