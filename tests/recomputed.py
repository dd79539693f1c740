"""What `compare` shows, computed again from `predictions.npz` with NumPy and SciPy, calling none of our functions.

Only what no prediction tells comes from the other files of a run: its options and seed from `config.yaml`, its
accuracy on training images from `record.json`.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from scipy import integrate, optimize, special, stats

LEVEL, POWER = 0.05, 0.8
Doubtful = Mapping[int, tuple[int, ...]]


class Run(NamedTuple):
    """One run, straight from its files."""

    options: tuple[str, ...]
    seed: int
    test: np.ndarray
    labels: np.ndarray
    validation: np.ndarray
    validation_labels: np.ndarray
    train_accuracy: float

    @property
    def right(self) -> np.ndarray:
        return np.argmax(self.test, axis=1) == self.labels

    @property
    def losses(self) -> np.ndarray:
        return losses(self.test, self.labels)

    @property
    def validation_accuracy(self) -> float:
        return float((np.argmax(self.validation, axis=1) == self.validation_labels).mean())


class Effect(NamedTuple):
    """A difference, the two parts of its variance, and the degrees of freedom of the first."""

    value: float
    of_seeds: float
    of_images: float
    degrees: float


class Pair(NamedTuple):
    """The best minus another: its interval and adjusted p-value, and images that only one side has right."""

    value: float
    low: float
    high: float
    p: float
    effect: Effect
    losses: Effect
    only_best: int
    only_other: int


def read(directory: Path, options: Sequence[str]) -> Run:
    config = yaml.safe_load((directory / "config.yaml").read_text())
    metrics = json.loads((directory / "record.json").read_text())["metrics"]
    with np.load(directory / "predictions.npz") as file:
        return Run(
            tuple(config[option]["name"] for option in options), config["seed"],
            file["test_probabilities"].astype(float), file["test_labels"],
            file["validation_probabilities"].astype(float), file["validation_labels"], metrics["train/accuracy"],
        )  # fmt: skip


# --- numbers of one run


def losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    of_label = np.array([row[label] for row, label in zip(probabilities, labels, strict=True)])
    return -np.log(np.clip(of_label, np.finfo(np.float32).eps, 1))


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    confidence, right = probabilities.max(axis=1), np.argmax(probabilities, axis=1) == labels
    error = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            error += abs(right[inside].mean() - confidence[inside].mean()) * inside.mean()
    return error


def wilson(right: np.ndarray) -> tuple[float, float]:
    return tuple(stats.binomtest(int(right.sum()), len(right)).proportion_ci(0.95, method="wilson"))


def corrected(run: Run, doubtful: Doubtful) -> float:
    predicted = np.argmax(run.test, axis=1)
    known = [i for i in range(len(predicted)) if doubtful.get(i, (0,))]
    return float(np.mean([predicted[i] in doubtful.get(i, (run.labels[i],)) for i in known]))


def metrics(run: Run, doubtful: Doubtful) -> dict[str, float]:
    numbers = {"generalisation_gap": run.train_accuracy - run.validation_accuracy}
    for split, p, labels in (
        ("test", run.test, run.labels), ("validation", run.validation, run.validation_labels)
    ):  # fmt: skip
        right = np.argmax(p, axis=1) == labels
        low, high = wilson(right)
        numbers |= {
            f"{split}/accuracy": right.mean(), f"{split}/accuracy_low": low, f"{split}/accuracy_high": high,
            f"{split}/cross_entropy": losses(p, labels).mean(),
            f"{split}/calibration_error": calibration_error(p, labels),
        }  # fmt: skip
    return numbers | ({"test/accuracy_corrected": corrected(run, doubtful)} if doubtful else {})


# --- over seeds and images, crossed


class Side(NamedTuple):
    """Scores (seeds, images) of a configuration, and the variance of one seed's mean with its degrees of freedom."""

    y: np.ndarray
    variance: float = 0.0
    degrees: float = 0.0


def rest(y: np.ndarray) -> float:
    """Mean square of what neither seeds nor images explain, divided by the images."""
    residual = y - y.mean(axis=1, keepdims=True) - y.mean(axis=0, keepdims=True) + y.mean()
    seeds, images = y.shape
    return float(np.square(residual).sum() / ((seeds - 1) * (images - 1)) / images)


def own_variance(y: np.ndarray) -> float:
    """Of one seed's mean, at least what independent flips of images give."""
    return max(float(np.var(y.mean(axis=1), ddof=1)), rest(y))


def moderate(scores: Sequence[np.ndarray]) -> list[Side]:
    """Smyth's empirical Bayes, but nobody's own variance is undercut."""
    repeated = [y for y in scores if len(y) > 1]
    if not repeated:
        return [Side(y) for y in scores]
    d = np.array([len(y) - 1 for y in repeated])
    pooled = float(np.average([own_variance(y) for y in repeated], weights=d))
    z = np.log([max(float(np.var(y.mean(axis=1), ddof=1)), rest(y) / 10) for y in repeated])
    e = z - special.digamma(d / 2) + np.log(d / 2)
    degrees, common = 0.0, 0.0
    if len(repeated) >= 3:
        beyond = e.var(ddof=1) - special.polygamma(1, d / 2).mean()
        degrees, common = math.inf, math.exp(e.mean())
        if beyond > 0.01:
            half = optimize.brentq(lambda x: math.log(special.polygamma(1, x) / beyond), 1e-6, 1e6)
            degrees, common = 2 * half, math.exp(e.mean() + special.digamma(half) - math.log(half))
    return [moderated(y, degrees, common, pooled, int(d.sum())) for y in scores]


def moderated(y: np.ndarray, degrees: float, common: float, pooled: float, total: int) -> Side:
    own, seeds = (own_variance(y) if len(y) > 1 else 0.0), len(y)
    if degrees == 0:
        return Side(y, own or pooled, seeds - 1 or total)
    mixed = common if math.isinf(degrees) else np.average([common, own], weights=[degrees, seeds - 1])
    return Side(y, max(own, mixed), min(degrees + seeds - 1, total))


NODES, WEIGHTS = np.polynomial.legendre.leggauss(100)


def range_tail(q: float, k: int, degrees: float) -> float:
    """P(studentized range > q): an integral over the largest of k normals inside one over chi's quantiles."""
    z, dz = 9 * NODES, 9 * WEIGHTS * stats.norm.pdf(9 * NODES) * k
    share = (NODES + 1) / 2
    s = np.array([1.0]) if math.isinf(degrees) else np.sqrt(stats.chi2.ppf(share, degrees) / degrees)
    inside = (stats.norm.cdf(z) - stats.norm.cdf(z - q * s[:, None])) ** (k - 1) @ dz
    return float(1 - (inside[0] if math.isinf(degrees) else inside @ WEIGHTS / 2))


@cache
def range_quantile(p: float, k: int, degrees: float) -> float:
    return optimize.brentq(lambda log_q: range_tail(math.exp(log_q), k, degrees) - p, -14, 14, xtol=1e-6, rtol=1e-6)


def critical(p: float, k: int, found: Effect) -> float:
    """Cochran's mean of two quantiles, weighted by the parts of the variance."""
    quantiles = [math.exp(range_quantile(p, k, degrees)) for degrees in (found.degrees, math.inf)]
    return float(np.average(quantiles, weights=[found.of_seeds, found.of_images])) / math.sqrt(2)


def p_value(found: Effect, k: int) -> float:
    t = abs(found.value) / math.sqrt(found.of_seeds + found.of_images)

    def lack(p: float) -> float:
        return critical(p, k, found) - t

    if lack(0.0001) < 0:
        return 0.00005  # shown as < 0.001, and corrected for a few options too
    return 1.0 if lack(0.9999) > 0 else optimize.brentq(lack, 0.0001, 0.9999, xtol=1e-6, rtol=5e-4)


def interval(found: Effect, k: int, level: float = LEVEL) -> tuple[float, float]:
    half = critical(level, k, found) * math.sqrt(found.of_seeds + found.of_images)
    return found.value - half, found.value + half


def mean_effect(side: Side) -> Effect:
    """The mean itself."""
    seeds, images = side.y.shape
    of_images = side.y.mean(axis=0).var(ddof=1) / images
    if seeds == 1:
        return Effect(float(side.y.mean()), 0.0, of_images, math.inf)
    return Effect(float(side.y.mean()), side.variance / seeds, max(0.0, of_images - rest(side.y) / seeds), side.degrees)


def difference(first: Sequence[Side], second: Sequence[Side], total: int, typical: float) -> Effect:
    """Mean of the first sides minus mean of the second, fewer than ten seeds: unpaired."""
    both, size = [*first, *second], len(first) ** 2
    a, b = (np.mean([side.y.mean(axis=0) for side in sides], axis=0) for sides in (first, second))
    of_images = float((a - b).var(ddof=1)) / len(a)
    value = float(a.mean() - b.mean())
    if not total:
        return Effect(value, 0.0, of_images, math.inf)
    flips = sum((rest(side.y) if len(side.y) > 1 else typical) / len(side.y) for side in both) / size
    parts = np.array([side.variance / len(side.y) / size for side in both])
    degrees = min(total, parts.sum() ** 2 / np.sum(parts**2 / [side.degrees for side in both]))
    return Effect(value, float(parts.sum()), max(0.0, of_images - flips), float(degrees))


def step_down(found: Sequence[Effect]) -> list[float]:
    """The j-th largest statistic among k − j + 1 means; never below an earlier one."""
    k, result, largest = len(found) + 1, [1.0] * len(found), 0.0
    strength = [abs(e.value) / (critical(0.5, k, e) * math.sqrt(e.of_seeds + e.of_images)) for e in found]
    if len({round(e.degrees, 1) for e in found}) > 1:
        strength = [-p_value(e, k) for e in found]
    for step, index in enumerate(sorted(range(len(found)), key=lambda index: -strength[index])):
        largest = max(largest, p_value(found[index], k - step))
        result[index] = largest
    return result


def agreeing(low: float, high: float, value: float, p: float) -> tuple[float, float]:
    if p > LEVEL:
        return min(low, 0.0), max(high, 0.0)
    return (max(low, 0.0), high) if value > 0 else (low, min(high, 0.0))


def accuracy_interval(side: Side) -> tuple[float, float]:
    if len(side.y) == 1:
        return wilson(side.y[0] > 0.5)
    found = mean_effect(side)
    share, t = found.value, critical(LEVEL, 2, found)
    images = share * (1 - share) / (found.of_seeds + found.of_images)
    # Wilson: the shares that lie t standard errors, of their own, from what was observed.
    low, high = sorted(np.roots([1 + t**2 / images, -(2 * share + t**2 / images), share**2]))
    return float(low), float(high)


def networks(a: Run, b: Run, level: float) -> tuple[float, float, float]:
    """Two single runs: exact McNemar test, Bonett and Price's interval."""
    only_a, only_b, images = (a.right & ~b.right).sum(), (b.right & ~a.right).sum(), len(a.right)
    p = stats.binomtest(int(only_a), int(only_a + only_b)).pvalue if only_a + only_b else 1.0
    x, y = (only_a + 1) / (images + 2), (only_b + 1) / (images + 2)
    half = stats.norm.isf(level / 2) * math.sqrt((x + y - (x - y) ** 2) / (images + 2))
    return p, x - y - half, x - y + half


# --- many comparisons, and what more would show


def holm(p: Sequence[float]) -> list[float]:
    adjusted, largest = [0.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        largest = max(largest, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = largest
    return adjusted


def needs(found: Effect, images: int, seeds: int, k: int) -> list[int]:
    """Seeds, then test images, as far as any number of them would do."""

    def power(of_seeds: float, of_images: float, degrees: float) -> float:
        changed = Effect(found.value, of_seeds, of_images, degrees)
        variance = of_seeds + of_images
        both = min(1e6, (variance / of_seeds) ** 2 * degrees)
        return float(stats.nct.sf(critical(LEVEL, k, changed), both, abs(found.value) / math.sqrt(variance)))

    def with_seeds(n: int) -> float:
        return power(found.of_seeds * seeds / n, found.of_images, found.degrees * (n - 1) / (seeds - 1))

    def with_images(n: int) -> float:
        return power(found.of_seeds, found.of_images * images / n, found.degrees)

    return [fewest(way, most) for way, most in ((with_seeds, 1000), (with_images, 10**9)) if way(most) >= POWER]


def fewest(power_of: Callable[[int], float], most: int) -> Near:
    low, high = 2, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= POWER else (middle + 1, high)
    return Near(high, 0.02 * high + 1)  # quantiles come from tables


def largest_of(count: int) -> float:
    """Expected maximum of standard normal numbers."""
    return integrate.quad(lambda x: x * count * stats.norm.cdf(x) ** (count - 1) * stats.norm.pdf(x), -9, 9)[0]


# --- everything that is shown


class Expected:
    """All that a comparison of finished runs over the same test images must show."""

    def __init__(self, directories: Sequence[Path], options: Sequence[str], doubtful: Doubtful | None = None) -> None:
        self.options, self.doubtful = tuple(options), doubtful or {}
        self.runs = sorted((read(directory, options) for directory in directories), key=lambda run: run.seed)
        groups: dict[tuple[str, ...], list[Run]] = {}
        for run in self.runs:
            groups.setdefault(run.options, []).append(run)
        self.groups = sorted(groups.values(), key=self._rank)
        self.images, self.total = len(self.runs[0].labels), len(self.runs) - len(groups)
        self.sides = moderate([rights(group) * 1.0 for group in self.groups])
        self.losses = moderate([all_losses(group) for group in self.groups])
        self.pairs = self._pairs()

    def check(self, printed: str, runs_csv: str) -> int:
        """Asserts that table, sentences and runs.csv show just this; returns how many numbers were compared."""
        table, *texts = printed.split("\n\n")
        head, *lines = (re.split(" {2,}", line.strip()) for line in table.splitlines())
        rows = [dict(zip(head, line, strict=True)) for line in lines]
        sentences = dict(text.split(": ", 1) for text in texts)
        return self._check_table(rows) + self._check_sentences(sentences) + self._check_runs(runs_csv)

    def _rank(self, group: list[Run]) -> tuple[float, float, str]:
        cross_entropy = np.mean([losses(run.validation, run.validation_labels).mean() for run in group])
        return -np.mean([run.validation_accuracy for run in group]), float(cross_entropy), " · ".join(group[0].options)

    def _difference(self, first: Sequence[int], second: Sequence[int], sides: Sequence[Side]) -> Effect:
        known = [rest(sides[index].y) for index in (*first, *second) if len(sides[index].y) > 1]
        return difference(
            [sides[i] for i in first], [sides[i] for i in second], self.total, float(np.mean(known)) if known else 0.0
        )

    def _pairs(self) -> list[Pair]:
        k = len(self.groups)
        others = range(1, k)
        found = [self._difference([0], [index], self.sides) for index in others]
        of_losses = [self._difference([0], [index], self.losses) for index in others]
        if self.total:
            adjusted = step_down(found)
            limits = [interval(effect, k) for effect in found]
        else:
            tests = [networks(self.groups[0][0], self.groups[index][0], LEVEL / (k - 1)) for index in others]
            adjusted, limits = holm([p for p, _, _ in tests]), [test[1:] for test in tests]
        return [
            Pair(e.value, *agreeing(*end, e.value, p), p, e, of, *self._only(index))
            for e, end, p, of, index in zip(found, limits, adjusted, of_losses, others, strict=True)
        ]

    def _only(self, index: int) -> tuple[int, int]:
        a, b = (2 * rights(group).sum(axis=0) < len(group) for group in (self.groups[0], self.groups[index]))
        return int((b & ~a).sum()), int((a & ~b).sum())

    def _check_table(self, rows: Sequence[Mapping[str, str]]) -> int:
        count = 0
        for rank, (group, row) in enumerate(zip(self.groups, rows, strict=True)):
            numbers = [metrics(run, {}) for run in group]
            mean = {name: float(np.mean([of_run[name] for of_run in numbers])) for name in numbers[0]}
            low, high = accuracy_interval(self.sides[rank])
            confident = np.mean([run.test.max(axis=1).mean() - run.right.mean() for run in group])
            assert tuple(row[option] for option in self.options) == group[0].options
            count += agree(row["#"], [rank + 1]) + agree(row["seeds"], [len(group)])
            count += agree(row["validation %"], [100 * mean["validation/accuracy"]])
            count += agree(row["test %"], [100 * mean["test/accuracy"]])
            count += agree(row["95% interval"], ends(100 * low, 100 * high))
            count += agree(row["cross-entropy"], [mean["test/cross_entropy"]])
            count += agree(row["overconfident"], [100 * confident])
            count += agree(row["gap"], [100 * mean["generalisation_gap"]])
            count += self._check_against_best(row["against best"], rank)
        return count

    def _check_against_best(self, text: str, rank: int) -> int:
        if rank == 0:
            assert text == "first"
            return 0
        pair = self.pairs[rank - 1]
        word = "not shown" if pair.p > LEVEL else "worse" if pair.value > 0 else "better"
        assert text.rpartition(" ")[0] == word
        return agree(text, [-100 * pair.value])

    def _check_runs(self, text: str) -> int:
        rows = list(csv.DictReader(text.splitlines()))
        ranked = [(rank, run) for rank, group in enumerate(self.groups, 1) for run in group]
        count = 0
        for row, (rank, run) in zip(rows, ranked, strict=True):
            assert (int(row["rank"]), int(row["seed"])) == (rank, run.seed)
            assert tuple(row[option] for option in self.options) == run.options
            numbers = metrics(run, self.doubtful)
            assert {name for name in row if "/" in name and "train/" not in name} == set(numbers) - {
                "generalisation_gap"
            }
            for name, value in numbers.items():
                assert math.isclose(float(row[name]), value, rel_tol=1e-6, abs_tol=1e-7), (name, row[name], value)
                count += 1
        return count

    def _check_sentences(self, sentences: Mapping[str, str]) -> int:
        """Every number of every sentence but those on overfitting, which no prediction tells."""
        texts = {topic: text.strip() for topic, text in sentences.items() if topic != "overfitting"}
        expected = {
            "answer": self._answer(texts), "scope": [] if self.total else [len(self.groups), 0, 1, 2],
            "best": self._best(), "second": self._second(texts), "field": self._field(texts),
            **self._effects(), "importance": self._importance(), "calibration": self._calibration(),
            "ensemble": self._ensemble(texts), "selection": self._selection(),
        }  # fmt: skip
        expected = {topic: numbers for topic, numbers in expected.items() if numbers is not None}
        assert texts.keys() == expected.keys()
        return sum(agree(texts[topic], numbers) for topic, numbers in expected.items())

    def _answer(self, texts: Mapping[str, str]) -> list[Any]:
        worse, better, open_ = self._split()
        text = texts["answer"]
        if len(self.pairs) == 1:
            (pair,) = self.pairs
            assert ("not shown to differ" in text) == bool(open_)
            if open_:
                return [*ends(-100 * pair.high, -100 * pair.low), 95]
            reason = [] if self.total else [self.images]
            return [-100 * pair.value, *ends(-100 * pair.high, -100 * pair.low), Probability(pair.p), *reason]
        assert (" worse than " in text) == bool(worse and (open_ or not self.total))
        assert (" better than " in text) == bool(better)
        parts = [worse, better, open_]
        if self.total:
            if not (worse or better) or not (open_ or better):
                return [len(self.pairs)]
            parts = [better or worse, open_]
        return [n for part in parts if len(part) > 2 for n in (len(part), len(self.pairs))]

    def _split(self) -> tuple[list[int], list[int], list[int]]:
        real = [index for index, pair in enumerate(self.pairs, 1) if pair.p <= LEVEL]
        worse = [index for index in real if self.pairs[index - 1].value > 0]
        return worse, [i for i in real if i not in worse], [i for i in range(1, len(self.groups)) if i not in real]

    def _best(self) -> list[float]:
        group = self.groups[0]
        mean = {name: np.mean([metrics(run, {})[name] for run in group]) for name in metrics(group[0], {})}
        low, high = accuracy_interval(self.sides[0])
        seeds = [len(group)] if len(group) > 1 else []
        return [
            100 * mean["validation/accuracy"], 100 * mean["test/accuracy"], 95, *ends(100 * low, 100 * high), *seeds,
            mean["test/cross_entropy"],
        ]  # fmt: skip

    def _second(self, texts: Mapping[str, str]) -> list[Any]:
        pair, (a, b, *_), k = self.pairs[0], self.groups, len(self.groups)
        together = [k - 1] if k > 2 else []
        counts = sorted({len(a), len(b)})
        reason = [k, *counts, Near(pair.effect.degrees, 0.5), self.images] if self.total else [self.images]
        bound = max(-pair.low, pair.high)
        equal = (
            [Near(100 * bound, 0.2 * bound), 95, *([0.2] if bound <= 0.002 else [])]
            if self.total and pair.p > LEVEL
            else []
        )
        more = needs(pair.effect, self.images, counts[0], k) if self.total and pair.p > LEVEL else []
        assert ("equivalent within" in texts["second"]) == (bool(equal) and bound <= 0.002)
        of = pair.losses
        return [
            100 * pair.value, *ends(100 * pair.low, 100 * pair.high), 95, *together, Probability(pair.p), *reason,
            *equal, pair.only_best, pair.only_other, of.value, *ends(*interval(of, 2)), *([4, 5] if more else []),
            *more,
        ]  # fmt: skip

    def _field(self, texts: Mapping[str, str]) -> list[Any] | None:
        if len(self.pairs) < 2 or not self.total:
            return None
        worse, better, open_ = self._split()
        able = [index for index in range(len(self.groups)) if not self._is_beaten(index)]
        listed = texts["field"].partition("among: ")[2].rstrip(".").split("; ")
        assert listed[:6] == [" · ".join(self.groups[index][0].options) for index in able[:6]]
        counts = [len(part) for part in (worse, better, open_) if part]
        return [*counts, 95, *([len(able) - 6] if len(able) > 6 else [])]

    def _is_beaten(self, index: int) -> bool:
        """Hsu: by any other, more than Dunnett's one-sided critical value."""
        others = [other for other in range(len(self.groups)) if other != index]
        found = [self._difference([other], [index], self.sides) for other in others]
        return any(
            e.value > 0 and e.value / math.sqrt(e.of_seeds + e.of_images) > dunnett(len(self.groups), e) for e in found
        )

    def _effects(self) -> dict[str, list[Any]]:
        if len(self.options) < 2 or not self.total:
            return {}
        families = [self._contrasts(place) for place in range(len(self.options))]
        adjusted = [step_down([effect for _, effect in family]) for family in families]
        order = sorted(range(len(families)), key=lambda place: min(adjusted[place]))
        largest = 0.0
        for step, place in enumerate(order):
            adjusted[place] = [min(1.0, max(largest, p * (len(order) - step))) for p in adjusted[place]]
            largest = min(adjusted[place])
        result = {}
        for option, family, p_values in zip(self.options, families, adjusted, strict=True):
            numbers: list[Any] = [family[0][0]]
            for (_, effect), p in sorted(zip(family, p_values, strict=True), key=lambda both: -both[0][1].value)[:4]:
                low_high = agreeing(*interval(effect, len(family) + 1, LEVEL / len(families)), effect.value, p)
                numbers += [100 * effect.value, *ends(100 * low_high[0], 100 * low_high[1]), Probability(p)]
            result[f"effect of {option}"] = numbers + ([len(family) - 4] if len(family) > 4 else [])
        return result

    def _contrasts(self, place: int) -> list[tuple[int, Effect]]:
        """For each level but the best by validation the number of settings of all else, and what the best has more."""
        blocks: dict[Any, dict[str, int]] = {}
        for index, group in enumerate(self.groups):
            options = group[0].options
            blocks.setdefault(options[:place] + options[place + 1 :], {})[options[place]] = index

        def validation(index: int) -> float:
            return float(np.mean([run.validation_accuracy for run in self.groups[index]]))

        def gain(level: str) -> float:
            inside = [block for block in blocks.values() if level in block]
            return float(np.mean([validation(b[level]) - np.mean([validation(i) for i in b.values()]) for b in inside]))

        levels = list(dict.fromkeys(group[0].options[place] for group in self.groups))
        best, found = max(levels, key=gain), []
        for level in levels:
            both = [block for block in blocks.values() if best in block and level in block]
            if level != best and both:
                sides = [b[best] for b in both], [b[level] for b in both]
                found.append((len(both), self._difference(*sides, self.sides)))
        return found

    def _importance(self) -> list[Any] | None:
        """Sums of squares of a complete grid, less what the seeds' mean square explains by chance."""
        if len(self.options) < 2 or not self.total:
            return None
        y = np.array([run.right.mean() for run in self.runs])
        total = np.square(y - y.mean()).sum()

        def between(keys: Sequence[Any]) -> tuple[float, int]:
            of_level = {key: y[[other == key for other in keys]] for key in set(keys)}
            return sum(len(v) * (v.mean() - y.mean()) ** 2 for v in of_level.values()), len(of_level) - 1

        cells, freedom = between([run.options for run in self.runs])
        square = (total - cells) / self.total
        terms = [between([run.options[place] for run in self.runs]) for place in range(len(self.options))]
        alone = [(found - parameters * square) / (total + square) for found, parameters in terms]
        together = (cells - freedom * square) / (total + square)
        shares = np.maximum([*sorted(alone, reverse=True), together - sum(alone), 1 - together], 0)
        return list(100 * shares / shares.sum())

    def _calibration(self) -> list[Any]:
        group = self.groups[0]
        confident = moderate([np.array([r.test.max(axis=1) - r.right for r in g]) for g in self.groups])[0]
        found = mean_effect(confident)
        low, high = interval(found, 2)
        one_hot = np.eye(group[0].test.shape[1])[group[0].labels]
        brier = np.mean([np.square(run.test - one_hot).sum(axis=1).mean() for run in group])
        error = np.mean([calibration_error(run.test, run.labels) for run in group])
        perfect = [
            calibration_error(*drawn(group[0], np.random.default_rng(seed))) for seed in range(400)
        ]  # fmt: skip
        slack = 5 * np.std(perfect) / math.sqrt(200)
        values = [100 * found.value, *ends(100 * low, 100 * high), brier, error, Near(float(np.mean(perfect)), slack)]
        return [*values, *self._temperature()] if len(group[0].validation) >= 1_000 else values

    def _temperature(self) -> list[Any]:
        group = self.groups[0]

        def loss(inverse: float, p: np.ndarray, labels: np.ndarray) -> float:
            powered = np.clip(p, np.finfo(np.float32).eps, None) ** inverse
            return float(losses(powered / powered.sum(axis=1, keepdims=True), labels).mean())

        best = [
            optimize.minimize_scalar(
                loss, bounds=(0.05, 20), args=(r.validation, r.validation_labels), method="bounded",
                options={"xatol": 1e-6},
            ).x
            for r in group
        ]  # fmt: skip
        before = np.mean([r.losses.mean() for r in group])
        after = np.mean([loss(inverse, r.test, r.labels) for inverse, r in zip(best, group, strict=True)])
        return [np.mean(1 / np.array(best)), before, after]

    def _ensemble(self, texts: Mapping[str, str]) -> list[Any]:
        members = sorted((run for group in self.groups for run in group), key=lambda run: -run.validation_accuracy)
        labels, of_validation = members[0].labels, members[0].validation_labels
        right = np.argmax(np.mean([run.test for run in members], axis=0), axis=1) == labels
        low, high = wilson(right)
        gained, lost = int((right & ~members[0].right).sum()), int((members[0].right & ~right).sum())
        p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert ("not shown to differ" in texts["ensemble"]) == (p > LEVEL)
        together = np.array([run.validation for run in members])
        whole, harmful = losses(together.mean(axis=0), of_validation), []
        for place, run in enumerate(members):
            cost = losses(np.delete(together, place, axis=0).mean(axis=0), of_validation) - whole
            if cost.mean() < -2 * cost.std() / math.sqrt(len(cost)):
                harmful.append(run)
        seeds = [run.seed for run in harmful[:3] if self.total]
        shares = [100 * right.mean(), 100 * low, 100 * high, 100 * members[0].right.mean()]
        return [len(members), *shares, Probability(p), *seeds, *named(len(harmful))]

    def _selection(self) -> list[float]:
        rivals = [pair.effect for pair in self.pairs if pair.p > LEVEL]
        if not rivals:
            return [len(self.groups)]
        error = math.sqrt(np.median([r.of_seeds + r.of_images for r in rivals]) / 2)
        return [len(self.groups), len(rivals) + 1, 100 * error * largest_of(len(rivals) + 1)]


def dunnett(k: int, found: Effect) -> float:
    """One-sided critical value at 95 % of k − 1 means against one, Cochran's mean like `critical`."""

    def tail(q: float, degrees: float) -> float:
        z, dz = 9 * NODES, 9 * WEIGHTS * stats.norm.pdf(9 * NODES)
        share = (NODES + 1) / 2
        s = np.array([1.0]) if math.isinf(degrees) else np.sqrt(stats.chi2.ppf(share, degrees) / degrees)
        inside = stats.norm.cdf(z + q * s[:, None]) ** (k - 1) @ dz
        return float(1 - (inside[0] if math.isinf(degrees) else inside @ WEIGHTS / 2))

    quantiles = [
        optimize.brentq(lambda q, degrees=degrees: tail(q, degrees) - LEVEL, 0.01, 100)
        for degrees in (found.degrees, math.inf)
    ]
    return float(np.average(quantiles, weights=[found.of_seeds, found.of_images])) / math.sqrt(2)


def drawn(run: Run, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of a model as confident as this run that is right just as often."""
    top = np.argmax(run.test, axis=1)
    is_right = generator.random(len(top)) < run.test.max(axis=1)
    return run.test, np.where(is_right, top, (top + 1) % run.test.shape[1])


def rights(group: Sequence[Run]) -> np.ndarray:
    return np.array([run.right for run in group])


def all_losses(group: Sequence[Run]) -> np.ndarray:
    return np.array([run.losses for run in group])


def named(count: int) -> list[int]:
    """Three names, `and 4 more`."""
    return [count - 3] if count > 3 else []


# --- texts


class Probability(float):
    """Shown with two digits, or as `< 0.001`; from a table, which moves it by less than 1 %."""

    @property
    def slack(self) -> float:
        return 0.01 * self


class Near(float):
    """A number that may be off by some slack."""

    slack: float

    def __new__(cls, value: float, slack: float) -> Near:
        near = super().__new__(cls, value)
        near.slack = slack
        return near


def ends(low: float, high: float) -> list[Near]:
    """Of an interval whose quantile comes from a table, which moves it by less than 0.1 % of its width."""
    return [Near(end, 0.001 * (high - low)) for end in (low, high)]


NUMBER = re.compile(r"(?<![\w.])(?:< )?[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w.]*\w)")


def agree(text: str, expected: Sequence[float]) -> int:
    """Asserts that the numbers of a text are these, in their order, rounded as they are shown; returns how many."""
    shown = NUMBER.findall(text)
    assert len(shown) == len(expected), (text, shown, expected)
    for number, value in zip(shown, expected, strict=True):
        if number.startswith("< "):
            assert isinstance(value, Probability)
            assert value < 1.01 * float(number[2:]), (text, number, value)
            continue
        if isinstance(value, Probability):
            assert value >= 0.00098, (text, number, value)
        digits = len(number.partition(".")[2])
        slack = 0.5001 * 10**-digits + getattr(value, "slack", 0.0) + 1e-7
        assert abs(float(number.replace(",", "")) - value) <= slack, (text, number, value)
    return len(shown)
