"""A race or a search as plain values, for programs: what `compare --json` has of it beside the sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from experiments.comparison.races import RaceResult, gaps
from experiments.comparison.searches import SearchResult


def race_values(race: RaceResult) -> dict[str, Any]:
    """Verdict, every configuration and the cost; differences and bounds in points, of accuracy or of a nat."""
    setting, last, cost = race.setting, race.last, race.cost
    return {
        "sweep": race.sweep,
        "metric": setting.metric,
        "confidence": setting.confidence,
        "margin": setting.margin,
        "seeds": list(setting.seeds),
        "rounds": len(race.rounds),
        "verdict": last.verdict if last else "open",
        "leader": race.label(last.leader) if last else None,
        "bound": last.bound if last else None,
        "configurations": list(_configurations(race)),
        "cost": {"counted": cost.counted, "ahead": cost.ahead, "reused": cost.reused, "epochs": cost.epochs,
                 "seconds": cost.seconds},
    }  # fmt: skip


def _configurations(race: RaceResult) -> Iterator[dict[str, Any]]:
    """Each as it stood in the last round that it entered; `behind` is null for the leader and before a round."""
    known = {c: (gap, made) for made in race.rounds for c, gap in gaps(made).items()}
    for c, entry in enumerate(race.setting.configurations):
        found = known.get(c) if not (race.last and c == race.last.leader) else None
        state = "no claim" if c in race.failed else "worse" if c in race.out else "in"
        yield {
            "label": entry.label,
            "state": state,
            "seeds": race.seeds_of.get(c, 0),
            "behind": race.label(found[0].behind) if found else None,
            "difference": found[0].value if found else None,
            "low": found[0].low if found else None,
            "high": found[0].high if found else None,
        }


def search_values(search: SearchResult) -> dict[str, Any]:
    """The ranges and every configuration that has run: how far it went and its validation accuracy there."""
    trials = [
        {"job": t.job, "settings": dict(t.settings), "epochs": len(t.accuracies), "validation/accuracy": t.score,
         "stage": search.stage_of(t)}
        for t in search.trials
    ]  # fmt: skip
    return {"ranges": dict(search.ranges), "epochs": search.epochs, "stages": list(search.stages), "trials": trials}
