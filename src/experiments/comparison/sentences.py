"""The answer in sentences, each true by itself and with its numbers; the first is one that can be repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from experiments.comparison import machines, race_sentences, search_sentences
from experiments.comparison.comparison import Comparison, title
from experiments.comparison.details import (
    calibration,
    effects,
    ensemble,
    importance,
    looks,
    overfitting,
    second,
    selection,
)
from experiments.comparison.formats import be, count, names, p_text, percent, percent_interval, points
from experiments.comparison.pairs import Pair
from experiments.comparison.settings import part_of

FEW = 2  # names that a headline can hold


class Sentence(NamedTuple):
    """A topic in a word or two, and what there is to say about it."""

    topic: str
    text: str


def sentences(comparison: Comparison) -> list[Sentence]:
    """The whole answer, the most important first."""
    return [
        *headlines(comparison),
        *(_told("all seeds", _answer(comparison)) if _tells_the_race(comparison) else _of_race(comparison, "race")),
        *_of_search(comparison),
        Sentence("best", _best(comparison)),
        *_told("second", second(comparison)),
        *_told("field", _field(comparison)),
        *(Sentence(f"effect of {option}", text) for option, text in effects(comparison)),
        *_told("importance", importance(comparison)),
        *_told("overfitting", overfitting(comparison)),
        *_told("calibration", calibration(comparison)),
        *_told("ensemble", ensemble(comparison)),
        Sentence("selection", selection(comparison)),
        *_told("looks", looks(comparison)),
        *(Sentence("note", note) for note in comparison.notes),
    ]


def headlines(comparison: Comparison) -> list[Sentence]:
    """What failed, what was found, and what it covers: all that somebody in a hurry must know."""
    return [
        *_told("no result", _failed(comparison)),
        *_answers(comparison),
        *(_told("scope", _scope(comparison)) if not comparison.search else ()),
        *_told("machines", machines.sentence(comparison.configurations)),
    ]


def _answers(comparison: Comparison) -> Iterator[Sentence]:
    if comparison.search:
        yield Sentence("answer", search_sentences.answer(comparison.search))
        yield Sentence("worth", search_sentences.scope())
    elif _tells_the_race(comparison):
        yield from _of_race(comparison, "answer")
    else:
        yield Sentence("answer", _answer(comparison))


def _of_search(comparison: Comparison) -> Iterator[Sentence]:
    if comparison.search:
        yield Sentence("cost", search_sentences.cost(comparison.search))
        yield Sentence("finished runs", _answer(comparison))
        yield from _told("scope", _scope(comparison))


def _tells_the_race(comparison: Comparison) -> bool:
    """Whether the runs are those of a race: not where all of its jobs have been run, as in a grid."""
    return comparison.race is not None and not comparison.race.is_whole


def _of_race(comparison: Comparison, topic: str) -> Iterator[Sentence]:
    race = comparison.race
    if race is None:
        return
    yield Sentence(topic, race_sentences.answer(race))
    winner = comparison.raced.get(race.last.leader) if race.last else None
    if winner:
        interval = comparison.intervals[comparison.configurations.index(winner)]
        told = race_sentences.certificate(race, comparison.certificates, winner.mean("test/accuracy"), interval)
        yield from _told("certificate", told)
    yield Sentence("cost", f"Cost: {race_sentences.cost(race)}")


def _told(topic: str, text: str) -> list[Sentence]:
    return [Sentence(topic, text)] if text else []


def _failed(comparison: Comparison) -> str:
    if not comparison.apart:
        return ""
    runs = len(comparison.apart) + sum(len(c.records) for c in comparison.configurations)
    groups = [
        f"{group.label} {group.state}" + (f" ({count(len(group.records), 'run')})" if len(group.records) > 1 else "")
        for group in comparison.unfinished
    ]
    tried, finished = comparison.selection.tried, len(comparison.configurations)
    return (
        f"{len(comparison.apart)} of {count(runs, 'run')} {be(len(comparison.apart))} without a result: "
        f"{names(groups)}. "
        f"{count(tried, 'configuration')} {'was' if tried == 1 else 'were'} tried, {finished} can be compared."
    )


def _answer(comparison: Comparison) -> str:
    best = comparison.best
    if comparison.sealed:
        second = comparison.configurations[1:2]
        after = "".join(f", before {c.label} with {percent(c.mean('validation/accuracy'))}" for c in second)
        return f"{best.label} has the highest validation accuracy, {percent(best.mean('validation/accuracy'))}{after}."
    if not comparison.pairs:
        what = "the trained network" if comparison.of_networks else f"the mean of {best.repeated}"
        accuracy = f"{percent(best.mean('test/accuracy'))} ({percent_interval(comparison.intervals[0])})"
        return f"{best.label} has a test accuracy of {accuracy}, {what}; there is nothing to compare it with."
    if comparison.of_networks:
        return _of_networks(comparison)
    return _of_two(comparison.pairs[0]) if len(comparison.pairs) == 1 else _of_many(comparison)


def _of_two(pair: Pair) -> str:
    """Of the second against the best by validation."""
    if not pair.is_shown:
        return f"{pair.b.label} is not shown to differ from {pair.a.label}: {_bounds(pair)}."
    word = "worse" if pair.accuracy.value > 0 else "better"
    return f"{pair.b.label} is {word} than {pair.a.label} ({_numbers(pair, 'adjusted ')})."


def _of_networks(comparison: Comparison) -> str:
    if len(comparison.pairs) == 1:
        (pair,) = comparison.pairs
        a, b = f"the trained {pair.a.label} network", f"The trained {pair.b.label} network"
        if not pair.is_shown:
            return f"{b} is not shown to differ from {a}: {_bounds(pair)}."
        word = "worse" if pair.accuracy.value > 0 else "better"
        return f"{b} is {word} than {a} on these test images ({_numbers(pair, '')}; {pair.reason})."
    worse, better, open_ = (_labels(pairs) for pairs in _split(comparison.pairs))
    others = len(comparison.pairs)
    best = f"the trained {comparison.best.label} network"
    parts = [f"{_networks(worse, others)} worse than {best}"] if worse else []
    parts += [f"{_networks(better, others)} better than {best}"] if better else []
    parts += [f"{_networks(open_, others)} not shown to differ from {'it' if parts else best}"] if open_ else []
    return f"On these test images {'; '.join(parts)}."


def _networks(labels: Sequence[str], others: int) -> str:
    """`the trained sgd network is`, `5 of 8 other networks are`."""
    if len(labels) <= FEW:
        return f"the trained {' and '.join(labels)} network{'s' * (len(labels) > 1)} {be(len(labels))}"
    return f"{len(labels)} of {others} other networks are"


def _of_many(comparison: Comparison) -> str:
    worse, better, open_ = (_labels(pairs) for pairs in _split(comparison.pairs))
    best, others = comparison.best.label, len(comparison.pairs)
    may_be = f"{_subject(open_, others)} may be as good"
    if better:
        text = (
            f"{_subject(better, others)} {be(len(better))} better than {best} by more than chance, although validation "
        )
        return text + f"ranks {best} first" + (f"; {may_be}." if open_ else ".")
    if not worse:
        return f"None of the {others} others is shown to differ from {best}, which validation ranks first."
    if not open_:
        return f"{best} is the best: all {others} others are worse by more than chance."
    return f"{_subject(worse, others)} {be(len(worse))} worse than {best}, the best by validation; {may_be}."


def _labels(pairs: Sequence[Pair]) -> list[str]:
    return [pair.b.label for pair in pairs]


def _subject(labels: Sequence[str], others: int) -> str:
    """Their names where they are few: `sgd and lion`, `5 of 8 others`."""
    return " and ".join(labels) if len(labels) <= FEW else f"{len(labels)} of {others} others"


def _split(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Worse than the first, better, and not shown to differ."""
    return (
        [pair for pair in pairs if pair.is_shown and pair.accuracy.value > 0],
        [pair for pair in pairs if pair.is_shown and pair.accuracy.value < 0],
        [pair for pair in pairs if not pair.is_shown],
    )


def _bounds(pair: Pair) -> str:
    others = pair.means - 1
    together = f", for all {others} comparisons" if others > 1 else ""
    low, high = (100 * end for end in (-pair.interval.high, -pair.interval.low))
    return f"the difference lies between {low:+.2f} and {high:+.2f} points (95%{together})"


def _numbers(pair: Pair, adjusted: str) -> str:
    """Of the second minus the first."""
    flipped = type(pair.interval)(-pair.interval.high, -pair.interval.low)
    return f"{points(-pair.accuracy.value, flipped)}, {adjusted}{p_text(pair.p_value)}"


def _scope(comparison: Comparison) -> str:
    if comparison.sealed:
        return (
            "The test set is sealed, so no difference is judged. For one look at it, when nothing is left to choose: "
            f"python -m experiments.unseal {title(comparison) or 'RUN|SWEEP'}"
        )
    if not comparison.pairs:
        return ""
    if comparison.of_networks:
        asked = " and ".join(comparison.options) or "the configurations"
        return (
            f"One seed each: this is about {len(comparison.configurations)} networks, not about {asked}; another seed "
            f"may turn it round. For {asked}: seed=0,1,2."
        )
    if len({*comparison.best.splits}) > 1:
        return (
            f"All of this is about {comparison.best.repeated} of the training images and one set of test images; data "
            "splits share most of their images, so new data would scatter more."
        )
    try_others = "; dataset.split_seed tries others" if _has_splits(comparison) else ""
    return f"All of this is about one split of the data into training, validation and test{try_others}."


def _has_splits(comparison: Comparison) -> bool:
    return "split_seed" in part_of(comparison.best.records[0].config, "dataset")


def _best(comparison: Comparison) -> str:
    best, n = comparison.best, len(comparison.best.records)
    if comparison.sealed:
        return f"{best.label}: validation accuracy {percent(best.mean('validation/accuracy'))}, the highest."
    about = "of this network; another seed is not in it" if n == 1 else f"over {best.repeated} and the test images"
    return (
        f"{best.label}: validation accuracy {percent(best.mean('validation/accuracy'))}, the highest; test accuracy "
        f"{percent(best.mean('test/accuracy'))} (95%: {percent_interval(comparison.intervals[0])}, {about}), "
        f"cross-entropy {best.mean('test/cross_entropy'):.4f}."
    )


def _field(comparison: Comparison) -> str:
    """Who may still be the best, for three configurations or more."""
    if len(comparison.pairs) < 2 or comparison.of_networks:
        return ""
    able = [c.label for c, able in zip(comparison.configurations, comparison.may_be_best, strict=True) if able]
    worse, better, open_ = _split(comparison.pairs)
    parts = [f"{len(worse)} {be(len(worse))} worse by more than chance"] if worse else []
    parts += [f"{len(better)} {be(len(better))} better by more than chance"] if better else []
    parts += [f"{len(open_)} may be as good"] if open_ else []
    among = f"With 95% confidence the best is among: {names(able, 6)}."
    return f"Beside {comparison.best.label}, {', '.join(parts)}. {among}"
