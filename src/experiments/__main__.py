"""`python -m experiments`: which commands there are."""

from __future__ import annotations

import sys

from experiments.screen import complain, prepare_streams

COMMANDS = {
    "run": "one run, or with -m a sweep",
    "status": "where the jobs of a sweep stand, from any host",
    "compare": "which is better, and is it real?",
    "reproduce": "repeat a run, and check it",
    "unseal": "look at the test images of sealed runs, once",
    "figures": "draw the figures of finished runs again",
    "ui": "the MLflow UI on the runs of this folder",
    "init": "a small project for code of your own",
    "sync": "mirror to MLflow what could not be mirrored at the time",
}


def main() -> None:
    """Tells the commands; exit code 2, because none was given."""
    prepare_streams()
    complain(*(f"python -m experiments.{name:<10} {purpose}; see its --help" for name, purpose in COMMANDS.items()))
    sys.exit(2)


if __name__ == "__main__":
    main()
