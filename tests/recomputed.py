"""What `compare` shows, computed again from `predictions.npz` with NumPy and SciPy, calling none of our functions.

Only what no prediction tells comes from the other files of a run: its options and seed from `config.yaml`, its
accuracy on training images from `record.json`.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from scipy import integrate, optimize, stats

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
    """A difference, its interval, its p-value, and the two parts of its variance."""

    value: float
    low: float
    high: float
    p: float
    of_seeds: float | None
    of_images: float


class Duel(NamedTuple):
    """The best against another: in accuracy and in cross-entropy, and the corrected p-value."""

    accuracy: Effect
    losses: Effect
    only_best: int
    only_other: int
    p: float


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


def mean_squares(y: np.ndarray) -> tuple[float, float, float]:
    """Of seeds, of images and of the rest, of the two-way layout y (seeds, images); a tie of seeds counts as rest."""
    seeds, images = y.shape
    rows, columns = y.mean(axis=1, keepdims=True), y.mean(axis=0, keepdims=True)
    rest = np.square(y - rows - columns + y.mean()).sum() / ((seeds - 1) * (images - 1))
    of_seeds = images * np.square(rows - y.mean()).sum() / (seeds - 1)
    of_images = seeds * np.square(columns - y.mean()).sum() / (images - 1)
    return (of_seeds if np.ptp(rows) > 1e-12 else rest), of_images, rest


def parts(y: np.ndarray) -> tuple[float, float]:
    """What seeds and images bring to the variance of the mean."""
    of_seeds, of_images, rest = mean_squares(y)
    return of_seeds / y.size, max(0.0, of_images - rest) / y.size


def quantile(level: float, of_seeds: float, seed_degrees: float, of_images: float, images: int) -> float:
    student = stats.t.isf(level / 2, [seed_degrees, images - 1])
    return float(np.average(student, weights=[of_seeds, of_images]))


def effect(value: float, of_seeds: float, seed_degrees: float, of_images: float, images: int) -> Effect:
    error = math.sqrt(of_seeds + of_images)
    half = quantile(0.05, of_seeds, seed_degrees, of_images, images) * error
    statistic = abs(value) / error

    def beyond(log_p: float) -> float:
        return quantile(10**log_p, of_seeds, seed_degrees, of_images, images) - statistic

    p = 10 ** optimize.brentq(beyond, -200, 0) if statistic else 1.0
    return Effect(value, value - half, value + half, p, of_seeds, of_images)


def mean_effect(y: np.ndarray) -> Effect:
    if len(y) == 1:
        test = stats.ttest_1samp(y[0], 0)
        return Effect(y.mean(), *test.confidence_interval(0.95), test.pvalue, None, y[0].var(ddof=1) / y.size)
    return effect(y.mean(), parts(y)[0], len(y) - 1, parts(y)[1], y.shape[1])


def difference(a: np.ndarray, b: np.ndarray, *, matched: bool) -> Effect:
    a, b = a.astype(float), b.astype(float)
    if matched:
        return mean_effect(a - b)
    (seeds_a, _, rest_a), (seeds_b, _, rest_b) = mean_squares(a), mean_squares(b)
    own = np.array([seeds_a / a.size, seeds_b / b.size])
    degrees = own.sum() ** 2 / (own**2 / [len(a) - 1, len(b) - 1]).sum()
    images = (a.mean(axis=0) - b.mean(axis=0)).var(ddof=1) / a.shape[1] - rest_a / a.size - rest_b / b.size
    return effect(a.mean() - b.mean(), own.sum(), degrees, max(0.0, images), a.shape[1])


def accuracy_interval(right: np.ndarray) -> tuple[float, float]:
    if len(right) == 1:
        return wilson(right[0])
    of_seeds, of_images = parts(right.astype(float))
    share, t = right.mean(), quantile(0.05, of_seeds, len(right) - 1, of_images, right.shape[1])
    images = share * (1 - share) / (of_seeds + of_images)
    # Wilson: the shares that lie t standard errors, of their own, from what was observed.
    low, high = sorted(np.roots([1 + t**2 / images, -(2 * share + t**2 / images), share**2]))
    return float(low), float(high)


def single(a: Run, b: Run) -> Effect:
    """Accuracy of two single runs: exact McNemar test, Bonett and Price's interval."""
    only_a, only_b, images = (a.right & ~b.right).sum(), (b.right & ~a.right).sum(), len(a.right)
    p = stats.binomtest(int(only_a), int(only_a + only_b)).pvalue if only_a + only_b else 1.0
    x, y = (only_a + 1) / (images + 2), (only_b + 1) / (images + 2)
    half = stats.norm.ppf(0.975) * math.sqrt((x + y - (x - y) ** 2) / (images + 2))
    shares = np.array([only_a, only_b]) / images
    variance = (shares.sum() - (shares[0] - shares[1]) ** 2) / images
    return Effect(shares[0] - shares[1], x - y - half, x - y + half, p, None, variance)


# --- many comparisons, and what more would show


def holm(p: Sequence[float]) -> list[float]:
    adjusted, largest = [0.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        largest = max(largest, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = largest
    return adjusted


def after_choice(found: Effect, candidates: int) -> float:
    return found.p if found.of_seeds is None else min(1.0, found.p * candidates / 2)


def needs(duel: Duel, images: int, seeds: int, level: float) -> list[int]:
    """Test images, then seeds, as far as any number of them would do."""
    found = duel.accuracy
    if found.of_seeds is None:
        gap, either = abs(duel.only_best - duel.only_other) / images, (duel.only_best + duel.only_other) / images
        both = stats.norm.isf([level / 2, 1 - POWER]) @ np.sqrt([either, either - gap**2])
        return [math.ceil((both / gap) ** 2)] if gap else []

    def power(of_seeds: float, of_images: float, seeds: int) -> float:
        variance = of_seeds + of_images
        parts = [stats.t.isf(level / 2, seeds - 1), stats.norm.isf(level / 2)]
        critical, shift = np.average(parts, weights=[of_seeds, of_images]), abs(found.value) / math.sqrt(variance)
        return float(stats.nct.sf(critical, min(1e6, (variance / of_seeds) ** 2 * (seeds - 1)), shift))

    def lack(log_images: float) -> float:
        return POWER - power(found.of_seeds, found.of_images * images / math.exp(log_images), seeds)

    some = found.of_images > 0 and lack(math.log(1e9)) <= 0
    enough = [n for n in range(2, 1001) if power(found.of_seeds * seeds / n, found.of_images, n) >= POWER]
    return ([math.ceil(math.exp(optimize.brentq(lack, 0, math.log(1e9))))] if some else []) + enough[:1]


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
        self.images = len(self.runs[0].labels)
        self.duels = self._duels()

    def check(self, printed: str, runs_csv: str) -> int:
        """Asserts that table, sentences and runs.csv show just this; returns how many numbers were compared."""
        table, *texts = printed.split("\n\n")
        head, *lines = (re.split(" {2,}", line.strip()) for line in table.splitlines())
        rows = [dict(zip(head, line, strict=True)) for line in lines]
        sentences = dict(text.split("  ", 1) for text in texts if not text.startswith(("report (", "Not compared")))
        return self._check_table(rows) + self._check_sentences(sentences) + self._check_runs(runs_csv)

    def _rank(self, group: list[Run]) -> tuple[float, float, str]:
        cross_entropy = np.mean([losses(run.validation, run.validation_labels).mean() for run in group])
        return -np.mean([run.validation_accuracy for run in group]), float(cross_entropy), " · ".join(group[0].options)

    def _duels(self) -> list[Duel]:
        best, *others = self.groups
        found = [self._duel(best, other) for other in others]
        adjusted = holm([after_choice(duel.accuracy, len(self.groups)) for duel in found])
        return [duel._replace(p=p) for duel, p in zip(found, adjusted, strict=True)]

    def _duel(self, a: list[Run], b: list[Run]) -> Duel:
        matched = [run.seed for run in a] == [run.seed for run in b]
        accuracy = difference(rights(a), rights(b), matched=matched) if len(a) + len(b) > 2 else single(a[0], b[0])
        missed_a, missed_b = (2 * rights(group).sum(axis=0) < len(group) for group in (a, b))
        of_losses = difference(all_losses(a), all_losses(b), matched=matched)
        return Duel(accuracy, of_losses, (missed_b & ~missed_a).sum(), (missed_a & ~missed_b).sum(), 1.0)

    def _check_table(self, rows: Sequence[Mapping[str, str]]) -> int:
        count = 0
        for rank, (group, row) in enumerate(zip(self.groups, rows, strict=True)):
            numbers = [metrics(run, {}) for run in group]
            mean = {name: float(np.mean([of_run[name] for of_run in numbers])) for name in numbers[0]}
            low, high = accuracy_interval(rights(group))
            assert tuple(row[option] for option in self.options) == group[0].options
            count += agree(row["#"], [rank + 1]) + agree(row["seeds"], [len(group)])
            count += agree(row["validation %"], [100 * mean["validation/accuracy"]])
            count += agree(row["test %"], [100 * mean["test/accuracy"]])
            count += agree(row["95% interval"], [100 * low, 100 * high])
            count += agree(row["cross-entropy"], [mean["test/cross_entropy"]])
            count += agree(row["calibration"], [mean["test/calibration_error"]])
            count += agree(row["gap"], [100 * mean["generalisation_gap"]])
            count += self._check_against_best(row["against best"], rank)
        return count

    def _check_against_best(self, text: str, rank: int) -> int:
        if rank == 0:
            assert text == "best"
            return 0
        duel = self.duels[rank - 1]
        word = "?" if duel.p > LEVEL else "worse" if duel.accuracy.value > 0 else "better"
        assert text.split()[0] == word
        return agree(text, [-100 * duel.accuracy.value])

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
            "best": self._best(), "runner-up": self._runner_up(texts), "field": self._field(),
            **self._effects(), "importance": self._importance(), "ensemble": self._ensemble(texts),
            "selection": self._selection(),
        }  # fmt: skip
        expected = {topic: numbers for topic, numbers in expected.items() if numbers is not None}
        assert texts.keys() == expected.keys()
        return sum(agree(texts[topic], numbers) for topic, numbers in expected.items())

    def _best(self) -> list[float]:
        group = self.groups[0]
        mean = {name: np.mean([metrics(run, {})[name] for run in group]) for name in metrics(group[0], {})}
        low, high = accuracy_interval(rights(group))
        shares = [100 * mean["test/accuracy"], 100 * low, 100 * high]
        return [100 * mean["validation/accuracy"], len(group), *shares, mean["test/cross_entropy"]]

    def _runner_up(self, texts: Mapping[str, str]) -> list[Any]:
        duel, (a, b, *_) = self.duels[0], self.groups
        accuracy, of_losses, text = duel.accuracy, duel.losses, texts["runner-up"]
        assert ("cannot be told apart" in text) == (duel.p > LEVEL)
        assert ("is really better" in text) == (duel.p <= LEVEL and accuracy.value < 0)
        assert ("corrected p" in text) == (duel.p > accuracy.p)
        matched = [run.seed for run in a] == [run.seed for run in b]
        seeds = [] if len(a) + len(b) == 2 else [len(a)] if matched else [len(a), len(b)]
        ends, method = [of_losses.low, of_losses.high], [95]
        if not seeds:
            bootstrap = stats.bootstrap((a[0].losses - b[0].losses,), np.mean, method="percentile", rng=7)
            slack = 0.15 * bootstrap.standard_error  # two bootstraps differ by chance
            ends, method = [Near(end, slack) for end in bootstrap.confidence_interval], []
        candidates = 1 if accuracy.of_seeds is None else len(self.groups) / 2
        level = LEVEL / len(self.duels) / candidates
        more = needs(duel, self.images, min(len(a), len(b)), level) if duel.p > LEVEL else []
        return [
            100 * accuracy.value, 100 * accuracy.low, 100 * accuracy.high, Probability(duel.p), *seeds, self.images,
            duel.only_best, duel.only_other, of_losses.value, *ends, *method, *([4, 5] if more else []), *more,
        ]  # fmt: skip

    def _field(self) -> list[Any] | None:
        if len(self.duels) < 2:
            return None
        real = [duel for duel in self.duels if duel.p <= LEVEL]
        better = sum(duel.accuracy.value < 0 for duel in real)
        rivals = [duel for duel in self.duels if duel.p > LEVEL]
        unsure = sum(duel.accuracy.p <= LEVEL for duel in rivals)
        chosen = [len(self.groups)] if any(duel.accuracy.of_seeds is not None for duel in self.duels) else []
        return [
            len(self.duels), len(real) - better, *([better] if better else []), *named(better),
            *([len(rivals)] if rivals else []), *named(len(rivals)), *([unsure, 0.05] if unsure else []),
            len(self.duels), *chosen,
        ]  # fmt: skip

    def _effects(self) -> dict[str, list[Any]]:
        found = [(option, *self._contrasts(place)) for place, option in enumerate(self.options)]
        raw = [after_choice(value, levels) for _, levels, effects in found for _, value in effects]
        adjusted = iter(holm(raw))
        result = {}
        for option, _, effects in found:
            numbers = [
                [100 * e.value, 100 * e.low, 100 * e.high, pairs, Probability(next(adjusted))] for pairs, e in effects
            ]
            rest = [len(numbers) - 4] if len(numbers) > 4 else []
            result[f"effect of {option}"] = [n for one in numbers[:4] for n in one] + rest
        return result

    def _contrasts(self, place: int) -> tuple[int, list[tuple[int, Effect]]]:
        """Number of levels; for each but the best by validation the pairs of runs, and what the best has more."""
        blocks: dict[Any, dict[str, Run]] = {}
        for run in self.runs:
            key = (run.seed, run.options[:place] + run.options[place + 1 :])
            blocks.setdefault(key, {})[run.options[place]] = run
        levels = list(dict.fromkeys(run.options[place] for run in self.runs))

        def gain(level: str) -> float:
            inside = [{name: run.validation_accuracy for name, run in b.items()} for b in blocks.values() if level in b]
            return float(np.mean([block[level] - np.mean(list(block.values())) for block in inside]))

        best, effects = max(levels, key=gain), []
        for level in levels:
            pairs = [(block[best], block[level]) for block in blocks.values() if best in block and level in block]
            if level != best and pairs:
                apart = np.array([a.right * 1.0 - b.right for a, b in pairs])
                effects.append((len(pairs), single(*pairs[0]) if len(pairs) == 1 else mean_effect(apart)))
        return len(levels), sorted(effects, key=lambda pair: -pair[1].value)

    def _importance(self) -> list[float] | None:
        """Sums of squares of a complete grid."""
        if len(self.options) < 3:
            return None
        y = np.array([run.right.mean() for run in self.runs])
        total = np.square(y - y.mean()).sum()

        def between(keys: Sequence[Any]) -> float:
            of_level = {key: y[[other == key for other in keys]] for key in set(keys)}
            return sum(len(v) * (v.mean() - y.mean()) ** 2 for v in of_level.values()) / total

        alone = [between([run.options[place] for run in self.runs]) for place in range(len(self.options))]
        cells = between([run.options for run in self.runs])
        left = [1 - cells] if len(self.runs) > len(self.groups) else []
        return [100 * share for share in [*sorted(alone, reverse=True), cells - sum(alone), *left]]

    def _ensemble(self, texts: Mapping[str, str]) -> list[Any]:
        members = sorted((run for group in self.groups for run in group), key=lambda run: -run.validation_accuracy)
        labels, of_validation = members[0].labels, members[0].validation_labels
        right = np.argmax(np.mean([run.test for run in members], axis=0), axis=1) == labels
        low, high = wilson(right)
        gained, lost = int((right & ~members[0].right).sum()), int((members[0].right & ~right).sum())
        p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert ("no proven gain" in texts["ensemble"]) == (p > LEVEL)
        together = np.array([run.validation for run in members])
        whole = losses(together.mean(axis=0), of_validation).mean()
        idle = [
            run
            for place, run in enumerate(members)
            if losses(np.delete(together, place, axis=0).mean(axis=0), of_validation).mean() <= whole
        ]
        seeds = [run.seed for run in idle[:3]] if len(self.runs) > len(self.groups) else []
        shares = [100 * right.mean(), 100 * low, 100 * high, 100 * members[0].right.mean()]
        return [len(members), *shares, Probability(p), *seeds, *named(len(idle))]

    def _selection(self) -> list[float]:
        rivals = [duel.accuracy for duel in self.duels if duel.p > LEVEL]
        if not rivals:
            return [len(self.groups)]
        error = math.sqrt(np.median([(r.of_seeds or 0) + r.of_images for r in rivals]) / 2)
        return [len(self.groups), len(rivals) + 1, 100 * error * largest_of(len(rivals) + 1)]


def rights(group: Sequence[Run]) -> np.ndarray:
    return np.array([run.right for run in group])


def all_losses(group: Sequence[Run]) -> np.ndarray:
    return np.array([run.losses for run in group])


def named(count: int) -> list[int]:
    """Three names, `and 4 more`."""
    return [count - 3] if count > 3 else []


# --- texts


class Probability(float):
    """Shown with two digits, or as `< 0.001`."""


class Near(float):
    """A number that may be off by some slack."""

    slack: float

    def __new__(cls, value: float, slack: float) -> Near:
        near = super().__new__(cls, value)
        near.slack = slack
        return near


NUMBER = re.compile(r"(?<![\w.])(?:< )?[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w.]*\w)")


def agree(text: str, expected: Sequence[float]) -> int:
    """Asserts that the numbers of a text are these, in their order, rounded as they are shown; returns how many."""
    shown = NUMBER.findall(text)
    assert len(shown) == len(expected), (text, shown, expected)
    for number, value in zip(shown, expected, strict=True):
        if number.startswith("< "):
            assert isinstance(value, Probability)
            assert value < float(number[2:]), (text, number, value)
            continue
        if isinstance(value, Probability):
            assert value >= 0.001, (text, number, value)
        digits = len(number.partition(".")[2])
        slack = 0.5001 * 10**-digits + getattr(value, "slack", 0.0) + 1e-7
        assert abs(float(number.replace(",", "")) - value) <= slack, (text, number, value)
    return len(shown)
