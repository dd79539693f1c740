"""A comparison for programs: JSON, a data frame, and a table in LaTeX."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.comparison.comparison import Comparison, compare
from experiments.comparison.comparisons import Difference
from experiments.comparison.course_exports import race_values, search_values
from experiments.comparison.pairs import Pair
from experiments.comparison.report import write
from experiments.comparison.sentences import sentences
from experiments.comparison.settings import show
from experiments.results import files, lookup
from experiments.results.evaluation import Interval
from experiments.results.own_metrics import own_of
from experiments.results.records import Record

if TYPE_CHECKING:
    import pandas

METRICS = (
    "validation/accuracy", "validation/cross_entropy", "test/accuracy", "test/cross_entropy", "generalisation_gap",
)  # fmt: skip
SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "·": r"$\cdot$", "–": "--",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Answer:
    """What `experiments.compare` returns: all that the report shows, in the form that is needed."""

    comparison: Comparison

    def __str__(self) -> str:
        """The sentences of the answer, one a line."""
        return "\n".join(sentence.text for sentence in sentences(self.comparison))

    def as_json(self) -> dict[str, Any]:
        """What `compare --json` prints, as plain values."""
        return as_json(self.comparison)

    def frame(self) -> pandas.DataFrame:
        """A row for each configuration, best validation accuracy first."""
        import pandas

        return pandas.DataFrame([_flat(row) for row in as_json(self.comparison)["configurations"]])

    def latex(self) -> str:
        """What `compare --latex` prints."""
        return latex(self.comparison)

    def write(self, directory: Path | str) -> list[Path]:
        """Writes report.html, report.md and runs.csv."""
        return write(self.comparison, Path(directory))


def answer(*names: str) -> Answer:
    """The comparison of runs and sweeps; of the newest sweep where none is named.

    Raises:
        InputError: no run was found, or none has finished.
    """
    return Answer(compare(find_runs(names, files.home())))


def find_runs(names: Sequence[str], home: Path) -> list[Record]:
    """Every run that is named, once; those of the newest sweep where none is.

    Raises:
        InputError: no run was found.
    """
    if not names:
        return lookup.newest_sweep(home)
    found = [record for name in names for record in lookup.find(name, home)]
    return list({record.directory.resolve(): record for record in found}.values())


def json_text(comparison: Comparison) -> str:
    """The whole answer as JSON; numbers that are not finite are null."""
    return json.dumps(as_json(comparison), indent=1, ensure_ascii=False, allow_nan=False)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The whole answer in plain values."""
    whole = comparison.ensemble
    values: dict[str, Any] = _finite({
        "format": 1,
        "sealed": comparison.sealed,
        "looks": comparison.ledger and [look.model_dump(mode="json") for look in comparison.ledger.looks],
        "sentences": [sentence._asdict() for sentence in sentences(comparison)],
        "options": list(comparison.options),
        "configurations": [_configuration(comparison, place) for place in range(len(comparison.configurations))],
        "unfinished": [
            {"label": u.label, "state": u.state, "reason": u.reason, "runs": [r.name for r in u.records]}
            for u in comparison.unfinished
        ],
        "pairs": [_pair(pair) for pair in comparison.matrix],
        "race": comparison.race and race_values(comparison.race),
        "search": comparison.search and search_values(comparison.search),
        "effects": [
            {"option": e.option, "best": e.best, "other": e.other, **_difference(e.difference, e.interval),
             "p_value": e.p_value, "settings": e.settings}
            for e in comparison.effects
        ],
        "importance": comparison.importance and comparison.importance.shares(),
        "calibration": comparison.calibration and asdict(comparison.calibration),
        "ensemble": whole and asdict(whole) | {"harmful": list(whole.harmful)},
        "selection": asdict(comparison.selection),
        "most_missed": [asdict(mistake) for mistake in comparison.most_missed],
        "notes": list(comparison.notes),
    })  # fmt: skip
    return values


def _configuration(comparison: Comparison, place: int) -> dict[str, Any]:
    c, interval = comparison.configurations[place], comparison.intervals[place]
    confident, seeds = comparison.overconfidence[place], comparison.overfitting[place]
    return {
        "rank": place + 1,
        "label": c.label,
        "settings": dict(c.settings),
        "seeds": list(c.seeds),
        **{
            name: math.nan if comparison.sealed and name.startswith("test/") else c.mean(name)
            for name in (*METRICS, *own_of(c.records[0].metrics))
        },
        "test/accuracy_low": interval.low,
        "test/accuracy_high": interval.high,
        "may_be_best": None if comparison.of_networks else comparison.may_be_best[place],
        "overconfidence": confident.value if confident else None,
        "overfits": seeds.verdict,
        "overfitting_seeds": seeds.overfit,
        "parameters": c.records[0].parameters,
        "runs": [_run(record, comparison) for record in c.records],
    }


def _run(record: Record, comparison: Comparison) -> dict[str, Any]:
    metrics = {k: v for k, v in record.metrics.items() if not (comparison.sealed and k.startswith("test/"))}
    return {"name": record.name, "seed": record.seed, "run_key": record.run_key, "metrics": metrics}


def _pair(pair: Pair) -> dict[str, Any]:
    found: dict[str, Any] = {"a": pair.a.label, "b": pair.b.label, **_difference(pair.accuracy, pair.interval)}
    found |= {"p_value": pair.p_value, "shown": pair.is_shown, "of_networks": pair.of_networks, "reason": pair.reason}
    return found | {"only_a": pair.only_a, "only_b": pair.only_b}


def _difference(difference: Difference, interval: Interval) -> dict[str, float]:
    return {"difference": difference.value, "low": interval.low, "high": interval.high, "error": difference.error}


def _finite(value: Any) -> Any:
    """The same without what JSON has no word for."""
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    settings, seeds = row["settings"], row["seeds"]
    rest = {key: value for key, value in row.items() if key not in ("settings", "seeds", "runs")}
    return {**settings, **rest, "seeds": len(seeds)}


def latex(comparison: Comparison) -> str:
    """The ranking as a `tabular` for a paper (package booktabs)."""
    options = comparison.options or ("configuration",)
    head = [*options, "seeds", "validation", "test", r"95\,\% interval", "difference", "$p$"]
    lines = [rf"\begin{{tabular}}{{{'l' * len(options)}{'r' * (len(head) - len(options))}}}", r"\toprule"]
    lines += [" & ".join([*map(_escaped, options), *head[len(options) :]]) + r" \\", r"\midrule"]
    for place, c in enumerate(comparison.configurations):
        interval, pair = (
            comparison.intervals[place],
            comparison.pairs[place - 1] if place and comparison.pairs else None,
        )
        cells = [show(c.settings[option]) for option in comparison.options] or [c.label]
        numbers = [f"{100 * c.mean('validation/accuracy'):.2f}"]
        numbers += ["--" if comparison.sealed else f"{100 * c.mean('test/accuracy'):.2f}"]
        ends = f"{100 * interval.low:.2f}--{100 * interval.high:.2f}" if math.isfinite(interval.high) else "--"
        rest = [f"${-100 * pair.accuracy.value:+.2f}$", _p(pair.p_value)] if pair else ["--", "--"]
        lines.append(" & ".join([*map(_escaped, cells), str(len(c.records)), *numbers, ends, *rest]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", f"% {_caption(comparison)}"])


def _caption(comparison: Comparison) -> str:
    about = "of trained networks, one seed each" if comparison.of_networks else "of means over seeds"
    return f"Accuracies in percent {about}; difference to the first in points, p adjusted for all comparisons with it."


def _p(p_value: float) -> str:
    return "$<0.001$" if p_value < 0.001 else f"{p_value:.3f}"


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(letter, letter) for letter in text.replace("\n", " "))
