"""Two configurations beside each other: by how much they differ, whether that is beyond chance, and by which test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from experiments.comparison.comparisons import (
    LEVEL,
    Difference,
    Scored,
    agreeing,
    count_only,
    difference,
    holm,
    mcnemar,
    step_down,
)
from experiments.comparison.configurations import Configuration
from experiments.comparison.intervals import network_difference
from experiments.comparison.mistakes import missed
from experiments.comparison.scores import Scores
from experiments.comparison.spread import Sample, Spread, sample, spreads
from experiments.results.evaluation import Interval


@dataclass(frozen=True, eq=False)
class Pair:
    """Test accuracy of configuration A minus that of B.

    Attributes:
        a: a configuration.
        b: another one.
        accuracy: the difference and its variance.
        interval: 95 %, together with all comparisons that it was made with.
        p_value: adjusted for them; the same wherever this pair is shown.
        means: how many configurations it was compared among.
        only_a: images that A has right and B has not, by the majority of their seeds; None on different images.
        only_b: the same the other way round.
        reason: the test, in words.
        cross_entropy: test cross-entropy A − B with its 95 % interval, nats; None like `only_a`.
    """

    a: Configuration
    b: Configuration
    accuracy: Difference
    interval: Interval
    p_value: float
    means: int
    only_a: int | None
    only_b: int | None
    reason: str
    cross_entropy: tuple[float, Interval] | None

    @property
    def is_shown(self) -> bool:
        """The difference of accuracies is beyond chance."""
        return self.p_value <= LEVEL

    @property
    def of_networks(self) -> bool:
        """Whether it is about trained networks only, for no configuration has a second seed."""
        return self.accuracy.of_seeds == 0 and len(self.a.records) == len(self.b.records) == 1


class Field:
    """Configurations as they enter comparisons, the first chosen by validation."""

    def __init__(self, configurations: Sequence[Configuration]) -> None:
        self.configurations = configurations
        self.scored = scored(configurations, [c.sample for c in configurations])
        self.degrees = sum(s.sample.degrees for s in self.scored)
        tested = [c for c in configurations if c.scores]
        losses = [sample(c.by_repetition(c.scores.losses)) for c in tested if c.scores]
        self._losses = dict(zip(map(id, tested), scored(tested, losses), strict=True))

    def against_first(self) -> list[Pair]:
        """The first against each other."""
        pairs = [self._pair(0, index) for index in range(1, len(self.configurations))]
        adjusted = self._adjusted(pairs, step_down)
        return [_decided(pair, p) for pair, p in zip(pairs, adjusted, strict=True)]

    def among(self, shown: int, known: Sequence[Pair]) -> list[Pair]:
        """Every pair of the first `shown`; those with the very first are `known`."""
        pairs = [self._pair(a, b) for a, b in combinations(range(1, min(shown, len(self.configurations))), 2)]
        adjusted = self._adjusted([*pairs, *known], lambda all_: [d.p_value(len(self.configurations)) for d in all_])
        others = [_decided(pair, p) for pair, p in zip(pairs, adjusted[: len(pairs)], strict=True)]
        return [*known[: shown - 1], *others]

    def _adjusted(
        self, pairs: Sequence[Pair], over_seeds: Callable[[Sequence[Difference]], list[float]]
    ) -> list[float]:
        if self.degrees:
            return over_seeds([pair.accuracy for pair in pairs])
        return holm([_of_networks(pair) for pair in pairs])

    def _pair(self, first: int, second: int) -> Pair:
        a, b, means = self.configurations[first], self.configurations[second], len(self.configurations)
        found = difference([self.scored[first]], [self.scored[second]], self.degrees)
        only_a = only_b = cross_entropy = None
        interval = found.interval(means) if self.degrees else found.interval(2, LEVEL / (means - 1))
        if a.scores is not None and b.scores is not None and a.scores.test_set is b.scores.test_set:
            only_a, only_b = count_only(~missed(a.scores), ~missed(b.scores))
            of_losses = difference([self._losses[id(a)]], [self._losses[id(b)]], self.degrees)
            cross_entropy = of_losses.value, of_losses.interval()
            if not self.degrees:
                interval = network_difference(only_a, only_b, a.scores.right.shape[1], LEVEL / (means - 1))
        reason = self._reason(found, a, b)
        return Pair(a, b, found, interval, 1.0, means, only_a, only_b, reason, cross_entropy)

    def _reason(self, found: Difference, a: Configuration, b: Configuration) -> str:
        images = _common_images(a, b)
        if not self.degrees:
            return f"exact McNemar test on {images}" if a.scores and b.scores and "same" in images else f"on {images}"
        if found.paired:
            seeds = f"{len(a.repetitions)} matched {_noun(a)}s"
        else:
            seeds = f"{_seeds(a, b)}, whose spread is known with {found.degrees:.0f} degrees of freedom"
        borrowed = (
            f", borrowed by the one with a single {_noun(a)}" if 1 in (len(a.repetitions), len(b.repetitions)) else ""
        )
        return f"studentized range of {len(self.configurations)} means; {seeds}{borrowed}; {images}"


def scored(configurations: Sequence[Configuration], samples: Sequence[Sample]) -> list[Scored]:
    """Configurations with some score of theirs, its spread steadied by the others'."""
    known: Sequence[Spread | None] = spreads(samples) or [None] * len(samples)
    return [
        Scored(s, spread, c.repetitions, c.scores.test_set.key if c.scores else "")
        for c, s, spread in zip(configurations, samples, known, strict=True)
    ]


def _decided(pair: Pair, p_value: float) -> Pair:
    return replace(pair, p_value=p_value, interval=agreeing(pair.interval, pair.accuracy.value, p_value))


def _of_networks(pair: Pair) -> float:
    if pair.only_a is None or pair.only_b is None:
        return pair.accuracy.p_value()
    return mcnemar(pair.only_a, pair.only_b)


def _common_images(a: Configuration, b: Configuration) -> str:
    if a.scores is None or b.scores is None:
        return "test images of which no predictions are known, so unpaired"
    if a.scores.test_set is not b.scores.test_set:
        return "different test images, so unpaired"
    return f"the same {_count(a.scores)} images"


def _count(scores: Scores) -> str:
    return f"{scores.right.shape[1]:,}"


def _seeds(a: Configuration, b: Configuration) -> str:
    if a.repeated == b.repeated:
        return f"{a.repeated} each"
    return " and ".join(c.repeated for c in sorted((a, b), key=lambda c: len(c.repetitions)))


def _noun(c: Configuration) -> str:
    return "seed" if c.repetitions == c.seeds else "data split"
