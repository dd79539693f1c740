"""`python -m experiments.figures RUN|SWEEP ...`: draw the figures of finished runs again, from their directories."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.entrance import Parser, exit_with
from experiments.screen import say

if TYPE_CHECKING:
    from experiments.results.drawing import Drawn
    from experiments.results.records import Record
    from experiments.results.test_images import TestImages

DESCRIPTION = """\
Draws the figures of finished runs again: curves and class figures from what a run's directory holds, galleries from its
test images too, where these are on this machine and are still the same. Nothing is trained, and no TensorFlow is
started.
"""


def main() -> None:
    """The entrance; exit code 1 where a figure could not be drawn."""
    exit_with(lambda: redraw(_arguments().names))


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m experiments.figures", description=DESCRIPTION)
    help_text = "a run's directory, name or MLflow run id (a unique prefix), or a sweep"
    parser.add_argument("names", nargs="+", metavar="RUN|SWEEP", help=help_text)
    return parser.parse_args()


def redraw(names: Sequence[str]) -> int:
    """Draws the figures of every named run that has finished, and tells which.

    Raises:
        InputError: no such run, or none of them has finished.
    """
    from experiments.errors import InputError
    from experiments.results import drawing, files, lookup
    from experiments.results.states import RunState

    home = files.home()
    found = {record.directory.resolve(): record for name in names for record in lookup.find(name, home)}
    finished = [record for record in found.values() if record.state == RunState.FINISHED]
    unfinished = [
        f"{r.name}: is {r.state}; only a finished run has figures" for r in found.values() if r not in finished
    ]
    if not finished:
        raise InputError(*unfinished)
    for line in unfinished:
        say(line)
    failed, loaded = False, _Loaded()
    for record in finished:
        drawn = drawing.draw(record, loaded.images_of(record))
        record.__dict__.pop("predictions", None)  # a sweep's would not all have room
        say(*_summary(record, drawn))
        failed = failed or bool(drawn.failed)
    if mirrored := [record for record in finished if record.mlflow.run_id]:
        say(f"in MLflow they are replaced by: python -m experiments.sync {' '.join(r.name for r in mirrored[:3])}")
    return 1 if failed else 0


def _summary(record: Record, drawn: Drawn) -> list[str]:
    from experiments.results import files

    count = f"{len(drawn.stems)} figure{'' if len(drawn.stems) == 1 else 's'}"
    return [f"{record.name}: {count} in {record.directory / files.FIGURES}", *(f"  {why}" for why in drawn.left_out)]


class _Loaded:
    """The test images of runs, loaded once for runs that share them."""

    def __init__(self) -> None:
        self._images: dict[tuple[str, bytes, str], TestImages] = {}

    def images_of(self, record: Record) -> TestImages:
        """Those of a run, or why there are none."""
        from experiments.errors import InputError
        from experiments.results import test_images

        if record.sealed:
            return test_images.without("the test set is sealed")
        try:
            dataset, digests = record.config.get("dataset"), record.predictions.test_image_digests
        except InputError as error:
            return test_images.without(str(error))
        key = json.dumps(dataset, default=str), digests.tobytes(), record.dataset.digest
        if key not in self._images:  # of one data set at a time
            self._images = {key: test_images.load_test_images(dataset, digests, record.dataset.digest)}
        return self._images[key]


if __name__ == "__main__":
    main()
