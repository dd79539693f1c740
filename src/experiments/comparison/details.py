"""What else there is to say: the second, importance, overfitting, calibration, ensemble, selection."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from experiments.comparison.comparison import Comparison
from experiments.comparison.comparisons import LEVEL
from experiments.comparison.effects import Effect
from experiments.comparison.formats import count, names, p_text, percent, percent_interval, points, signed
from experiments.comparison.pairs import Pair
from experiments.comparison.planning import needed
from experiments.comparison.settings import show

MARGIN = 0.002  # accuracies that differ by less are equivalent for most uses
MOST_CONTRASTS = 4  # in a sentence; the report's table has all
CLOSE = 3  # configurations whose overfitting is named


def second(comparison: Comparison) -> str:
    """The best by validation beside the second."""
    if not comparison.pairs:
        return ""
    pair = comparison.pairs[0]
    together = f", for all {pair.means - 1} comparisons" if pair.means > 2 else ""
    parts = [
        f"{pair.a.label} minus {pair.b.label}, second by validation: {points(pair.accuracy.value, pair.interval)} "
        f"(95%{together}; {p_text(pair.p_value)}; {pair.reason}).",
        _equivalence(pair),
        _disagreements(pair),
        _cross_entropy(pair),
        "" if pair.is_shown else _needed(pair),
    ]
    return " ".join(part for part in parts if part)


def _equivalence(pair: Pair) -> str:
    bound = max(-pair.interval.low, pair.interval.high)
    if pair.is_shown or pair.of_networks or not bound < 1:
        return ""
    within = f": equivalent within {100 * MARGIN:.1f}" if bound <= MARGIN else ""
    return f"They differ by at most {100 * bound:.2f} points (95%){within}."


def _disagreements(pair: Pair) -> str:
    if pair.only_a is None:
        return ""
    by = "" if len(pair.a.records) == len(pair.b.records) == 1 else ", by the majority of seeds"
    return f"Images that only {pair.a.label} has right: {pair.only_a}; only {pair.b.label}: {pair.only_b}{by}."


def _cross_entropy(pair: Pair) -> str:
    if pair.cross_entropy is None:
        return ""
    value, interval = pair.cross_entropy
    about = " of these two networks" if pair.of_networks else ""
    return f"Cross-entropy{about}: {value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})."


def _needed(pair: Pair) -> str:
    seeds = min(len(pair.a.repetitions), len(pair.b.repetitions))
    if (
        pair.a.repetitions != pair.a.seeds  # there are no more folds
        or seeds < 2
        or pair.a.scores is None
        or pair.only_a is None
    ):  # the other's seeds tell too little of what more would
        return ""
    need = needed(pair.accuracy, seeds, pair.a.scores.right.shape[1], pair.means)
    ways = [f"{need.seeds} seeds each"] if need.seeds else []
    ways += [f"{need.images:,} test images"] if need.images else []
    if not ways:
        return "To show a difference as small as this takes more test images and more seeds, both."
    return f"To show a difference of this size in 4 of 5 attempts takes about {' or '.join(ways)}."


def importance(comparison: Comparison) -> str:
    """Shares of the variance, which sum to 100."""
    if comparison.importance is None:
        return ""
    shares = comparison.importance.shares()
    combined, between = shares.pop("combinations"), shares.pop("seeds")
    ranked = ", ".join(
        f"{name} {100 * share:.0f}%" for name, share in sorted(shares.items(), key=lambda item: -item[1])
    )
    return (
        f"Of the variance of test accuracy between runs (ω²), {ranked} is explained by each option alone, "
        f"{100 * combined:.0f}% by their combinations, {100 * between:.0f}% is left between seeds."
    )


def overfitting(comparison: Comparison) -> str:
    """Of each configuration, over its seeds."""
    judged = [(c, found) for c, found in zip(comparison.configurations, comparison.overfitting, strict=True)
              if found.judged]  # fmt: skip
    first, found = comparison.best.records[0], comparison.overfitting[0]
    if not judged:
        return first.overfitting.verdict if first.overfitting else ""
    some = [f"{c.label}: {found}" for c, found in judged if found.overfit or found.verdict]
    verdicts = [c.label for c, found in judged if found.verdict]
    if not some:
        text = "No run overfits."
    else:
        of = f"{len(verdicts)} of {count(len(judged), 'configuration')} overfit{'s' * (len(verdicts) == 1)}"
        text = f"{of}. Runs that do: {names(some, CLOSE)}."
    if len(comparison.best.records) > 1 or first.overfitting is None:
        return text
    if first.overfitting.epoch is not None and not found.overfit:
        return f"{text} A rise of {comparison.best.label} is within two standard errors of its last validation losses."
    return f"{text} {comparison.best.label}: {first.overfitting.verdict}"


def calibration(comparison: Comparison) -> str:
    """Of the best."""
    found = comparison.calibration
    if found is None:
        return ""
    low, high = 100 * found.interval.low, 100 * found.interval.high
    text = (
        f"Confidence minus accuracy of {comparison.best.label}: {signed(100 * found.overconfidence)} points "
        f"({signed(low)} to {signed(high)}); Brier score {found.brier:.4f}; expected calibration error "
        f"{found.error:.4f}, where a perfectly calibrated model would have {found.error_if_perfect:.4f}."
    )
    if found.temperature is None or found.cross_entropy_after is None:
        return text
    return (
        f"{text} With a temperature of {found.temperature:.2f}, fitted on validation, cross-entropy goes from "
        f"{found.cross_entropy:.4f} to {found.cross_entropy_after:.4f}."
    )


def ensemble(comparison: Comparison) -> str:
    """All runs together."""
    whole = comparison.ensemble
    if whole is None:
        return ""
    members = count(len(whole.members), "run")
    if whole.candidates > len(whole.members):
        members = f"best {len(whole.members)} of {whole.candidates} runs"
    word = "gain" if whole.accuracy > whole.single_accuracy else "loss"
    verdict = f"a {word} beyond chance" if whole.p_value <= LEVEL else "not shown to differ"
    text = (
        f"The mean probabilities of the {members} have a test accuracy of {percent(whole.accuracy)} "
        f"({percent_interval(whole.accuracy_interval)}), {verdict} for these networks on these images against "
        f"{percent(whole.single_accuracy)} of the best single run ({p_text(whole.p_value)}, McNemar)."
    )
    if whole.harmful:
        text += f" By validation the others are better without: {names(whole.harmful)}."
    return text


def selection(comparison: Comparison) -> str:
    """What the test images were used for."""
    guard = comparison.selection
    text = "The ranking is by validation; the test images choose nothing."
    if guard.tried == 1:
        return text
    text += f" {guard.tried} configurations were tried."
    if guard.contenders == 1 or not comparison.pairs:
        return text
    return (
        f"{text} Picking the best test score among the {guard.contenders} that are not shown to differ could have "
        f"overstated it by up to {100 * guard.overstated:.2f} points."
    )


def looks(comparison: Comparison) -> str:
    """How often the test images were looked at, which is what makes a best score believable."""
    if comparison.ledger is None:
        return "The ledger of looks at test images cannot be read."
    found, unreadable = comparison.ledger
    if not found:
        return ""
    text = f"The test images of this data set were looked at {count(len(found), 'time')} since {found[0].at:%Y-%m-%d}."
    if unsealed := [look for look in found if look.purpose == "unseal"]:
        last = unsealed[-1]
        text += (
            f" {len(unsealed)} of these broke a seal, last {last.by} on {last.at:%Y-%m-%d %H:%M} UTC, commit "
            f"{last.commit[:12]}, after {count(last.before or 0, 'look')}."
        )
    return text + (f" {count(unreadable, 'line')} of the ledger cannot be read." if unreadable else "")


def effects(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """What each option contributes: its name, and how its best setting compares with the others."""
    for option, group in groupby(comparison.effects, key=lambda effect: effect.option):
        members = list(group)
        best, averaged = show(members[0].best), members[0].settings
        gains = "; ".join(_effect(effect) for effect in members[:MOST_CONTRASTS])
        more = f"; {len(members) - MOST_CONTRASTS} more in the report" * (len(members) > MOST_CONTRASTS)
        setting = "setting" if averaged == 1 else "settings"
        yield (
            option,
            f"{best}, the best by validation, averaged over the {averaged} {setting} tried here: {gains}{more}.",
        )


def _effect(effect: Effect) -> str:
    if effect.p_value > LEVEL:
        verdict = "not shown to differ from"
    else:
        verdict = "better than" if effect.difference.value > 0 else "worse than"
    value = points(effect.difference.value, effect.interval)
    return f"{verdict} {show(effect.other)} ({value}, {p_text(effect.p_value)})"
