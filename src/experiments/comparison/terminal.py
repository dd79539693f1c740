"""The comparison on a terminal, or as plain text where there is none."""

from __future__ import annotations

from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from experiments.comparison.answer import sentences
from experiments.comparison.comparison import Comparison
from experiments.comparison.table import Column, Table, table

UNBOUNDED = 10_000  # columns, to measure what a table would like to have
MOST_ROWS = 30  # a screen; runs.csv and the report have all
# What a narrow terminal goes without, the least important first.
DISPENSABLE = (
    "seconds", "parameters", "calibration", "gap", "overfits", "cross-entropy", "95% interval", "seeds",
)  # fmt: skip


def show(comparison: Comparison, console: Console) -> None:
    """Prints the table, the runs that are not in it, and the answer."""
    ranked = table(comparison)
    if console.is_terminal:
        console.print(_rich(ranked, console))
    else:
        console.print(_plain(ranked), soft_wrap=True, highlight=False, markup=False)
    if (hidden := len(ranked.rows) - MOST_ROWS) > 0:
        console.print(f"… and {hidden} more configurations in the report", markup=False)
    _show_apart(comparison, console)
    for sentence in sentences(comparison):
        line = Text.assemble("\n", (sentence.topic, "bold"), "  ", sentence.text)
        console.print(line, soft_wrap=not console.is_terminal, highlight=False)


def _rich(ranked: Table, console: Console) -> RichTable:
    for hidden in range(len(DISPENSABLE) + 1):
        drawn = _draw(ranked, DISPENSABLE[:hidden])
        if console.measure(drawn, options=console.options.update(width=UNBOUNDED)).maximum <= console.width:
            break
    return drawn


def _draw(ranked: Table, hidden: tuple[str, ...]) -> RichTable:
    kept = [index for index, column in enumerate(ranked.columns) if column.title not in hidden]
    title = f"columns not shown: {', '.join(hidden)}" if hidden else None
    drawn = RichTable(
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        caption=title,
        caption_justify="left",
        header_style="bold",
        row_styles=("", "dim"),
    )
    for index in kept:
        column = ranked.columns[index]
        drawn.add_column(Text(column.title), justify=_side(column), no_wrap=True)
    for rank, row in enumerate(ranked.rows[:MOST_ROWS]):
        drawn.add_row(*(Text(row[index].text) for index in kept), style="bold" if rank == 0 else None)
    return drawn


def _side(column: Column) -> Literal["left", "right"]:
    return "right" if column.numeric else "left"


def _plain(ranked: Table) -> str:
    """Aligned columns, nothing cut off, two spaces between."""
    lines = [[column.title for column in ranked.columns]]
    lines += [[cell.text for cell in row] for row in ranked.rows[:MOST_ROWS]]
    widths = [max(len(line[index]) for line in lines) for index in range(len(ranked.columns))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column.numeric else text.ljust(width)
            for text, width, column in zip(line, widths, ranked.columns, strict=True)
        ).rstrip()
        for line in lines
    )


def _show_apart(comparison: Comparison, console: Console) -> None:
    if comparison.apart:
        console.print(f"\nNot compared, for not finished: {len(comparison.apart)} runs", markup=False)
    for record in comparison.apart[:MOST_ROWS]:
        error = f": {record.error.type}: {record.error.message}" if record.error else ""
        console.print(f"  {record.name} {record.state}{error}", markup=False, highlight=False, soft_wrap=True)
