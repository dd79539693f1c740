"""What a search says in sentences: the best so far, what that is worth, and the cost."""

from __future__ import annotations

import math

from experiments.comparison.formats import count, percent
from experiments.comparison.searches import SearchResult
from experiments.comparison.settings import label


def answer(search: SearchResult) -> str:
    """The best of those that have run furthest."""
    number, stage = len(search.trials), search.stages[-1]
    furthest = [t for t in search.trials if len(t.accuracies) >= stage and math.isfinite(t.score)]
    if not furthest:
        return f"The search is open: {count(number, 'configuration')} tried, none with a result."
    best = max(furthest, key=lambda trial: (trial.score, -trial.job))
    return (
        f"The best of {count(number, 'configuration')} so far is {label(best.settings)}: {percent(best.score)} "
        f"validation accuracy after {count(len(best.accuracies), 'epoch')}."
    )


def scope() -> str:
    """What the answer is worth."""
    return (
        "It was chosen by this number, from one run of each, so the number is too high. "
        "The race of the finalists over fresh seeds says which is better."
    )


def cost(search: SearchResult) -> str:
    """Epochs, and what runs to the end would have taken."""
    whole = sum(int(t.record.config["training"]["epochs"]) for t in search.trials if t.record)
    return f"{count(len(search.trials), 'run')}, {search.epochs:,} of {whole:,} epochs; what was paused can go on."
