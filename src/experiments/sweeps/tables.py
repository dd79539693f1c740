"""The tables of a sweep: what would be run, and how it ended."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.config import as_text
from experiments.results.own_metrics import own_of
from experiments.results.records import Record
from experiments.sweeps.jobs import Plan, count
from experiments.sweeps.status import JobState, Status, count_states, folded, numbers

STYLES = {
    "done": "green",
    "failed": "red",
    "diverged": "red",
    "interrupted": "yellow",
    "paused": "blue",
    "running": "cyan",
    "finishing": "cyan",
    "to epoch": "cyan",
    "finalist": "green",
}
RIGHT = ("n", "validation", "test", "gap", "epochs", "epoch", "seconds", "parameters", "left", "job", "rung", "rank")
KEPT_WHOLE = (*RIGHT, "jobs", "seeds", "state", "key")  # what varies may be broken into lines where there is no room
# What a narrow terminal goes without, in this order.
DISPENSABLE = ("rung", "rank", "seconds", "epochs", "gap", "key", "left")
OWN = "test/"  # the beginning of a column of the user's own metric
WIDEST = 1000  # columns, to see how wide a table would be
METRICS = ("validation/accuracy", "validation/cross_entropy", "test/accuracy", "test/cross_entropy")

Row = dict[str, str]  # column → text; `state` is coloured by its first known word


def describe(plan: Plan, statuses: Sequence[Status]) -> str:
    """`12 jobs: 7 done, 1 interrupted, 4 new; 4 workers × 1 thread`."""
    states = count_states(status.before for status in statuses)
    return f"{count(len(statuses), 'job')}: {states}; {plan.resources}"


def draw(rows: Sequence[Row], console: Console, widths: Mapping[str, int] | None = None) -> Table:
    """A table of at least one row; what does not fit is left out, the least important first.

    `widths` are the least ones of columns.

    Args:
        rows: one or more; the first one's keys are the columns.
        console: says how many characters are there for a line.
        widths: column → characters; None: no column has a least width.
    """
    dispensable = [*DISPENSABLE, *(name for name in rows[0] if name.startswith(OWN))]
    for hidden in range(len(dispensable) + 1):
        table = _draw([{k: v for k, v in row.items() if k not in dispensable[:hidden]} for row in rows], widths or {})
        if console.measure(table, options=console.options.update(max_width=WIDEST)).maximum <= console.width:
            break
    return table


def _draw(rows: Sequence[Row], widths: Mapping[str, int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name in rows[0]:
        side: Literal["right", "left"] = "right" if name in RIGHT or name.startswith(OWN) else "left"
        table.add_column(name, justify=side, no_wrap=name in KEPT_WHOLE, min_width=widths.get(name))
    for row in rows:
        state = row.get("state", "")
        style = next((STYLES[word] for word in STYLES if word in state), "")
        cells = (Text(value, style if name == "state" else "") for name, value in row.items())
        table.add_row(*cells, style="dim" if state == "waiting" else None)
    return table


def planned(plan: Plan, statuses: Sequence[Status]) -> list[Row]:
    """What would be run, repetitions folded."""
    return [
        {
            "jobs": numbers([status.job.number for status in group]),
            **_setting(plan, group[0]),
            "seeds": numbers([status.job.config.seed for status in group]),
            "state": _states([status.before for status in group]),
            "parameters": _parameters(group),
            "key": group[0].job.run_key[:12],
        }
        for group in folded(statuses)
    ]


def _parameters(group: Sequence[Status]) -> str:
    known = [status.record.parameters if status.record else status.parameters for status in group]
    return next((f"{number:,}" for number in known if number), "")


def ended(plan: Plan, statuses: Sequence[Status]) -> list[Row]:
    """How it ended, repetitions folded into their means, best validation accuracy first."""
    splits = ("validation",) if _is_sealed(statuses) else ("validation", "test")
    own = _own_metrics(statuses)
    return [_ended(plan, group, splits, own) for group in sorted(folded(statuses), key=_mean_validation, reverse=True)]


def _is_sealed(statuses: Sequence[Status]) -> bool:
    """Whether the test images of one of the jobs are sealed: then no test number is told of any."""
    return any(record.sealed for record in _finished(statuses))


def _own_metrics(statuses: Sequence[Status]) -> list[str]:
    return own_of(dict.fromkeys(name for record in _finished(statuses) for name in record.metrics))


def _ended(plan: Plan, group: Sequence[Status], splits: Sequence[str], own: Sequence[str]) -> Row:
    finished = _finished(group)
    epochs = [record.epochs_run for record in finished]
    return {
        "jobs": numbers([status.job.number for status in group]),
        **_setting(plan, group[0]),
        "n": str(len(finished)),
        **{name: _percent(finished, f"{name}/accuracy") for name in splits},
        **{name: _mean(finished, name) for name in own},
        "gap": f"{mean(_values(finished, 'generalisation_gap')):.2%}" if finished else "",
        "epochs": "-".join(str(number) for number in sorted({*epochs[:1], min(epochs), max(epochs)})) if epochs else "",
        "seconds": f"{mean(record.seconds for record in finished):.0f}" if finished else "",
        "state": _states([status.state for status in group]),
    }


def _setting(plan: Plan, status: Status) -> Row:
    return {name: value_text(status.job.varied.get(name)) for name in plan.varied if name != "seed"}


def value_text(value: Any) -> str:
    """A value as it is given; – where an option does not have it."""
    return "–" if value is None else as_text(value)


def _states(states: Sequence[str]) -> str:
    return states[0] if len(set(states)) == 1 else count_states(states)


def _finished(group: Sequence[Status]) -> list[Record]:
    return [status.record for status in group if status.state == JobState.DONE and status.record]


def _values(finished: Sequence[Record], metric: str) -> list[float]:
    return [record.metrics[metric] for record in finished if metric in record.metrics]


def _mean_validation(group: Sequence[Status]) -> float:
    values = _values(_finished(group), "validation/accuracy")
    return mean(values) if values else -1.0


def _percent(finished: Sequence[Record], metric: str) -> str:
    """The mean, and the standard deviation over the seeds."""
    values = _values(finished, metric)
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2%}{spread}" if values else ""


def _mean(finished: Sequence[Record], metric: str) -> str:
    """The mean to four digits, and the standard deviation over the seeds."""
    values = _values(finished, metric)
    spread = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
    return f"{mean(values):.4g}{spread}" if values else ""


def summary(plan: Plan, statuses: Sequence[Status]) -> str:
    """All jobs as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    metrics = [*METRICS, *_own_metrics(statuses)]
    writer.writerow(["job", *plan.varied, "state", "run_key", *metrics, "epochs", "seconds", "mlflow_run_id", "error"])
    told = [name for name in metrics if not (name.startswith("test/") and _is_sealed(statuses))]
    for status in statuses:
        record = status.record if status.state == JobState.DONE else None
        numbers = [record.metrics.get(name, "") if record and name in told else "" for name in metrics]
        length = [record.epochs_run, record.seconds, record.mlflow.run_id] if record else ["", "", ""]
        job = status.job
        writer.writerow(
            [
                job.number,
                *map(job.varied.get, plan.varied),
                status.state,
                job.run_key,
                *numbers,
                *length,
                status.message,
            ]
        )
    return text.getvalue()
