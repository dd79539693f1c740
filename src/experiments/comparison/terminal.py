"""The comparison on a terminal, or as plain text where there is none."""

from __future__ import annotations

from typing import Literal

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from experiments.comparison.comparison import Comparison
from experiments.comparison.formats import count
from experiments.comparison.sentences import Sentence, headlines, sentences
from experiments.comparison.table import Column, Table, table
from experiments.console import prose

UNBOUNDED = 10_000  # columns, to measure what a table would like to have
MOST_ROWS = 30  # a screen; runs.csv and the report have all
MOST_LINES = 12  # of the short answer, the report's address among them
# What a narrow terminal goes without, the least important first.
DISPENSABLE = (
    "seconds", "parameters", "overconfident", "gap", "overfits", "cross-entropy", "seeds", "runs", "95% interval",
    "validation %",
)  # fmt: skip


def show(comparison: Comparison, console: Console, *, long: bool = False) -> None:
    """Prints the answer in at most twelve lines with the report's address, or all that there is to say.

    Args:
        comparison: what is told.
        console: where it is printed; one that is no terminal gets plain lines without a break.
        long: whether to print everything, with up to 30 rows of the table.
    """
    ranked = table(comparison)
    told = sentences(comparison) if long else headlines(comparison)
    lines = [line for sentence in told for line in _wrapped(sentence, console, named=long)]
    room = MOST_ROWS if long else max(1, MOST_LINES - len(lines) - 3)  # headings, what is left out, the address
    if long:
        _show_table(ranked, console, room)
        _show_apart(comparison, console)
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    if not long:
        _show_table(ranked, console, room)
    hidden = max(0, len(ranked.rows) - room)
    left_out = [f"{count(hidden, 'more configuration')}"] if hidden else []
    left_out += [] if long else ["why, by how much: --long, or the report"]
    for part in prose("; ".join(left_out), console) if left_out else []:
        console.print(part, style="dim", markup=False, highlight=False, soft_wrap=True)


def _wrapped(sentence: Sentence, console: Console, *, named: bool) -> list[Text]:
    """Lines that break between words; a line for each sentence where there is no terminal."""
    text = f"{sentence.topic}: {sentence.text}" if named else sentence.text
    styled = [Text(line) for line in prose(text, console)]
    if named:
        styled[0].stylize("bold", 0, len(sentence.topic) + 1)
        return [Text(""), *styled]
    if sentence.topic == "answer":
        for line in styled:
            line.stylize("bold")
    return styled


def _show_table(ranked: Table, console: Console, rows: int) -> None:
    if console.is_terminal:
        console.print(_rich(ranked, console, rows))
    else:
        console.print(_plain(ranked, rows), soft_wrap=True, highlight=False, markup=False)


def _rich(ranked: Table, console: Console, rows: int) -> RichTable:
    for hidden in range(len(DISPENSABLE) + 1):
        drawn = _draw(ranked, DISPENSABLE[:hidden], rows)
        if console.measure(drawn, options=console.options.update(width=UNBOUNDED)).maximum <= console.width:
            break
    return drawn


def _draw(ranked: Table, hidden: tuple[str, ...], rows: int) -> RichTable:
    kept = [index for index, column in enumerate(ranked.columns) if column.title not in hidden]
    drawn = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index in kept:
        column = ranked.columns[index]
        drawn.add_column(Text(column.title), justify=_side(column), no_wrap=True)
    for rank, row in enumerate(ranked.rows[:rows]):
        drawn.add_row(*(Text(row[index].text) for index in kept), style="bold" if rank == 0 else None)
    return drawn


def _side(column: Column) -> Literal["left", "right"]:
    return "right" if column.numeric else "left"


def _plain(ranked: Table, rows: int) -> str:
    """Aligned columns, nothing cut off, two spaces between."""
    lines = [[column.title for column in ranked.columns]]
    lines += [[cell.text for cell in row] for row in ranked.rows[:rows]]
    widths = [max(len(line[index]) for line in lines) for index in range(len(ranked.columns))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column.numeric else text.ljust(width)
            for text, width, column in zip(line, widths, ranked.columns, strict=True)
        ).rstrip()
        for line in lines
    )


def _show_apart(comparison: Comparison, console: Console) -> None:
    for record in comparison.apart[:MOST_ROWS]:
        error = f": {record.error.type}: {record.error.message}" if record.error else ""
        told = f"no result: {record.name} {record.state}{error}"
        console.print(told, markup=False, highlight=False, soft_wrap=True)
