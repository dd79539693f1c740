"""The answer in sentences, each true by itself and with its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from experiments.comparison.comparison import Comparison
from experiments.comparison.configurations import Configuration
from experiments.comparison.duels import LEVEL, Duel, needed
from experiments.comparison.effects import Contrast
from experiments.comparison.settings import show
from experiments.results.evaluation import Interval

MOST_CONTRASTS = 4  # in a sentence; the report's table has all


class Sentence(NamedTuple):
    """A topic in a word or two, and what there is to say about it."""

    topic: str
    text: str


def sentences(comparison: Comparison) -> list[Sentence]:
    """The whole answer, the most important first."""
    return [
        Sentence("best", _best(comparison)),
        *_runner_up(comparison),
        *_field(comparison),
        *_options(comparison),
        *_importance(comparison),
        *_overfitting(comparison),
        *_ensemble(comparison),
        Sentence("selection", _selection(comparison)),
        *(Sentence("note", note) for note in comparison.notes),
    ]


def percent(value: float) -> str:
    """`99.12%`."""
    return f"{100 * value:.2f}%"


def percent_interval(interval: Interval) -> str:
    """`[98.91, 99.29]`, in percent."""
    return f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def points(value: float, interval: Interval) -> str:
    """A difference of two shares: `+0.21 points [-0.02, +0.44]`."""
    return f"{signed(100 * value)} points [{signed(100 * interval.low)}, {signed(100 * interval.high)}]"


def signed(value: float) -> str:
    """`+0.21`; what is rounded to zero is `+0.00`."""
    return f"{round(value, 2) + 0.0:+.2f}"


def p_text(p_value: float) -> str:
    """`p = 0.012`, `p < 0.001`."""
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.2g}" if p_value < 0.1 else f"p = {p_value:.2f}"


def overfitting_text(configuration: Configuration) -> str:
    """`no`, `epoch 7`, or `2 of 3 runs`."""
    known = [record.overfitting for record in configuration.records if record.overfitting is not None]
    epochs = [overfitting.epoch for overfitting in known if overfitting.epoch is not None]
    if not known:
        return "–"
    if not epochs:
        return "no"
    return f"epoch {epochs[0]}" if len(configuration.records) == 1 else f"{len(epochs)} of {len(known)} runs"


def _best(comparison: Comparison) -> str:
    best, n = comparison.best, len(comparison.best.records)
    runs = "1 run" if n == 1 else f"{n} seeds"
    alone = "" if comparison.duels else " It is the only configuration, so nothing is compared."
    return (
        f"{best.label} has the best validation accuracy, {percent(best.mean('validation/accuracy'))} "
        f"({runs}). On the test images it has {percent(best.mean('test/accuracy'))} "
        f"{percent_interval(best.accuracy_interval)} and a cross-entropy of "
        f"{best.mean('test/cross_entropy'):.4f}.{alone}"
    )


def _runner_up(comparison: Comparison) -> Iterator[Sentence]:
    if not comparison.duels:
        return
    duel = comparison.duels[0]
    difference = f"best minus second: {points(duel.accuracy.value, duel.accuracy.interval)}, {_p(duel)}"
    if not duel.is_real:
        verdict = f"cannot be told apart from it by test accuracy ({difference}"
    elif duel.accuracy.value > 0:
        verdict = f"is really worse on the test images ({difference}"
    else:
        verdict = f"is really better on the test images, although validation ranks it second ({difference}"
    text = f"{duel.b.label}, second by validation, {verdict}; {duel.method}). {_details(duel, comparison.bootstrap)}"
    yield Sentence("runner-up", text.rstrip())


def _p(duel: Duel) -> str:
    return f"{'corrected ' * (duel.p_adjusted > duel.accuracy.p_value)}{p_text(duel.p_adjusted)}"


def _details(duel: Duel, bootstrap: Interval | None) -> str:
    parts = [_disagreements(duel), _cross_entropy(duel, bootstrap), "" if duel.is_real else _needed(duel)]
    return " ".join(part for part in parts if part)


def _disagreements(duel: Duel) -> str:
    if duel.only_a is None:
        return ""
    by = "" if len(duel.a.records) == len(duel.b.records) == 1 else ", by the majority of seeds"
    return f"Images that only the best has right: {duel.only_a}; only the second: {duel.only_b}{by}."


def _cross_entropy(duel: Duel, bootstrap: Interval | None) -> str:
    if duel.cross_entropy is None:
        return ""
    interval, source = bootstrap or duel.cross_entropy.interval, "bootstrap" if bootstrap else "95% interval"
    real = "" if interval.low <= 0 <= interval.high else ", a real difference"
    return (
        f"Cross-entropy, best minus second: {duel.cross_entropy.value:+.4f} "
        f"[{interval.low:+.4f}, {interval.high:+.4f}] ({source}){real}."
    )


def _needed(duel: Duel) -> str:
    need = needed(duel)
    if need is None:
        return ""
    ways = [f"{need.images:,} test images"] if need.images else []
    ways += [f"{need.seeds} seeds on these test images"] if need.seeds else []
    if not ways:
        return "To show a difference as small as this takes more test images and more seeds, both."
    alike = ", corrected alike," if duel.level < LEVEL else ""
    return f"To show a difference of this size{alike} in 4 of 5 attempts takes about {' or '.join(ways)}."


def _field(comparison: Comparison) -> Iterator[Sentence]:
    """How far the best stands out, for three configurations or more."""
    if len(comparison.duels) < 2:
        return
    rivals = [duel for duel in comparison.duels if not duel.is_real]
    unsure = [duel for duel in rivals if duel.accuracy.p_value <= LEVEL]
    worse = sum(duel.is_real and duel.accuracy.value > 0 for duel in comparison.duels)
    better = [duel.b.label for duel in comparison.duels if duel.is_real and duel.accuracy.value < 0]
    others = len(comparison.duels)
    text = f"Of the other {others} configurations {worse} {_be(worse)} really worse than the best"
    text += f", {len(better)} really better ({_names(better)})" if better else ""
    text += (
        f", and {len(rivals)} cannot be told apart from it ({_names([duel.b.label for duel in rivals])})"
        if rivals
        else ""
    )
    if unsure:
        text += f"; for {len(unsure)} of these a few more seeds would tell, p is at most {LEVEL} uncorrected"
    lucky = any(duel.accuracy.seed_variance is not None for duel in comparison.duels)
    choice = f" and for the choice of the best among {others + 1} over seeds" if lucky else ""
    yield Sentence("field", f"{text}. p-values are corrected for {others} comparisons (Holm){choice}.")


def _names(labels: Sequence[str], most: int = 3) -> str:
    shown = "; ".join(labels[:most])
    return f"{shown}; and {len(labels) - most} more" if len(labels) > most else shown


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _options(comparison: Comparison) -> Iterator[Sentence]:
    both = zip(comparison.contrasts, comparison.p_values, strict=True)
    for option, group in groupby(both, key=lambda pair: pair[0].option):
        members = list(group)
        best = show(members[0][0].best)
        gains = "; ".join(_contrast(contrast, p_adjusted) for contrast, p_adjusted in members[:MOST_CONTRASTS])
        more = f"; {len(members) - MOST_CONTRASTS} more in the report" * (len(members) > MOST_CONTRASTS)
        text = f"{_shown(members)} All else equal, {best}, the best by validation, has test accuracy {gains}{more}."
        yield Sentence(f"effect of {option}", text)


def _shown(members: Sequence[tuple[Contrast, float]]) -> str:
    """What an option's best level is shown to be better than, or worse."""
    real = [contrast for contrast, p_adjusted in members if p_adjusted <= LEVEL]
    better = _names([show(contrast.other) for contrast in real if contrast.effect.value > 0], MOST_CONTRASTS)
    worse = _names([show(contrast.other) for contrast in real if contrast.effect.value < 0], MOST_CONTRASTS)
    parts = [f"better than {better}" if better else "", f"worse than {worse}" if worse else ""]
    if not real:
        return "No value is shown to be better than another."
    return f"{show(real[0].best)} is shown to be {' and '.join(part for part in parts if part)}."


def _contrast(contrast: Contrast, p_adjusted: float) -> str:
    pairs = "1 matched pair" if contrast.pairs == 1 else f"{contrast.pairs} matched pairs"
    verdict = "" if p_adjusted <= LEVEL else ", not distinguishable"
    value = points(contrast.effect.value, contrast.effect.interval)
    return f"{value} against {show(contrast.other)} ({pairs}, {p_text(p_adjusted)}{verdict})"


def _importance(comparison: Comparison) -> Iterator[Sentence]:
    shares = comparison.importance
    if shares is None:
        return
    ranked = sorted(shares.options.items(), key=lambda item: -item[1])
    text = ", ".join(f"{name} {100 * share:.0f}%" for name, share in ranked)
    combined, between = f"{100 * shares.interactions:.0f}%", f"{100 * shares.repetitions:.0f}%"
    rest = f"{combined} by their combinations, {between} is left between seeds"
    if all(len(configuration.records) == 1 for configuration in comparison.configurations):
        rest = f"{combined} is left to their combinations and to chance, which one seed each cannot separate"
    yield Sentence(
        "importance",
        f"Of the variance of test accuracy between runs, {text} is explained by each option alone, {rest}.",
    )


def _overfitting(comparison: Comparison) -> Iterator[Sentence]:
    runs = [record for c in comparison.configurations for record in c.records if record.overfitting]
    if not runs:
        return
    epochs = sorted(r.overfitting.epoch for r in runs if r.overfitting and r.overfitting.epoch is not None)
    of_best = next((r.overfitting.verdict for r in comparison.best.records if r.overfitting), "")
    count = f"{len(epochs)} of {len(runs)} runs overfit{'s' * (len(epochs) == 1)}" if epochs else "No run overfits"
    when = f", the first from epoch {epochs[0]}" if epochs else ""
    first = f" (seed {comparison.best.records[0].seed})" if len(comparison.best.records) > 1 else ""
    yield Sentence("overfitting", f"{count}{when}. The best{first}: {of_best}")


def _ensemble(comparison: Comparison) -> Iterator[Sentence]:
    whole = comparison.ensemble
    if whole is None:
        return
    members = f"{len(whole.members)} runs"
    if whole.candidates > len(whole.members):
        members = f"best {len(whole.members)} of {whole.candidates} runs"
    verdict = "a real gain" if whole.accuracy > whole.single_accuracy else "a real loss"
    verdict = verdict if whole.p_value <= LEVEL else "no proven gain"
    text = (
        f"The mean probabilities of the {members} have a test accuracy of "
        f"{percent(whole.accuracy)} {percent_interval(whole.accuracy_interval)}, {verdict} against "
        f"{percent(whole.single_accuracy)} of the best single run ({p_text(whole.p_value)}, McNemar)."
    )
    if whole.idle:
        text += f" By validation, leaving one of these out does no harm: {_names(whole.idle)}."
    yield Sentence("ensemble", text)


def _selection(comparison: Comparison) -> str:
    guard = comparison.selection
    text = "The ranking is by validation; the test images choose nothing."
    if guard.tried == 1:
        return text
    text += f" {guard.tried} configurations were tried."
    if guard.contenders == 1:
        return text + " No other is within chance of the best, so luck would have chosen nothing."
    return (
        f"{text} Picking the best test score among the {guard.contenders} that cannot be told apart would "
        f"have overstated it by about {100 * guard.overstated:.2f} points: the luckiest of equals looks best."
    )
