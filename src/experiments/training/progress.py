"""What the user sees of one training: a live bar on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.results.files import EpochRow

log = logging.getLogger(__name__)
REFRESH_SECONDS = 0.25
BAR_WIDTH = 40
Update = Callable[[int, str], None]  # is told the steps done and the running metrics


def describe(row: EpochRow, epochs: int) -> str:
    """One epoch in one line."""
    return (
        f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}  "
        f"train loss {row.train_loss:.4f}  accuracy {row.train_accuracy:7.2%}   "
        f"validation loss {row.validation_loss:.4f}  accuracy {row.validation_accuracy:7.2%}   {row.seconds:.1f} s"
    )


@contextmanager
def live_bar(console: Console, model: Any, *, steps: int, done: int) -> Iterator[None]:
    """A bar over all `steps` of a run, `done` of them done before, for the length of a block.

    On a terminal and in a notebook; elsewhere nothing. It reads the optimizer's step counter and the running metrics
    from a thread of its own: a batch callback would make Keras wait for every step.

    Args:
        console: where the bar is drawn.
        model: a compiled Keras model with an optimizer.
        steps: batches of the whole run, all epochs together, 1 or more.
        done: batches of earlier starts, in [0, steps].
    """
    shown = _terminal_bar if console.is_terminal else _notebook_bar if console.is_jupyter else None
    if shown is None:
        yield
        return
    with shown(console, steps, done) as update, _followed(model, update):
        yield


@contextmanager
def _terminal_bar(console: Console, steps: int, done: int) -> Iterator[Update]:
    columns = (
        BarColumn(BAR_WIDTH),
        TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=steps, completed=done)
        yield lambda completed, metrics: progress.update(task, completed=completed, description=metrics)


@contextmanager
def _notebook_bar(console: Console, steps: int, done: int) -> Iterator[Update]:
    """A line that is replaced; rich itself would need ipywidgets for that."""
    del console
    from IPython.display import display

    def line(completed: int, metrics: str) -> dict[str, str]:
        full = min(BAR_WIDTH, BAR_WIDTH * completed // steps)
        return {"text/plain": f"{'━' * full}{'╌' * (BAR_WIDTH - full)} {completed / steps:4.0%} {metrics}"}

    handle = display(line(done, ""), raw=True, display_id=True)
    yield lambda completed, metrics: handle.update(line(completed, metrics), raw=True)


@contextmanager
def _followed(model: Any, update: Update) -> Iterator[None]:
    finished = threading.Event()

    def follow() -> None:
        while not finished.wait(REFRESH_SECONDS):
            with suppress(Exception):  # a metric that is being reset just now: shown with the next refresh
                update(_steps_done(model), _running_metrics(model))

    thread = threading.Thread(target=follow, daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _steps_done(model: Any) -> int:
    return int(model.optimizer.iterations.numpy())


def _running_metrics(model: Any) -> str:
    values = model.get_metrics_result()
    return f"loss {values['loss']:.4f}  accuracy {values['accuracy']:.2%}"
