from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

import commands
import experiments
from conftest import environment
from experiments.compare import show as show_command
from experiments.comparison import exports
from experiments.comparison.calibration import brier, error_if_perfect, fit_temperature, reliability
from experiments.comparison.comparison import Comparison, compare
from experiments.comparison.details import MARGIN
from experiments.comparison.mistakes import disagreement
from experiments.comparison.sentences import headlines, sentences
from experiments.comparison.settings import asked, independent, label, varying
from experiments.comparison.table import runs_csv, table
from experiments.comparison.terminal import show
from experiments.errors import InputError
from experiments.results import lookup, records
from experiments.results.evaluation import calibration_error
from experiments.results.records import DatasetSummary, Predictions, Record
from recomputed import Expected
from synthetic_runs import configured, probabilities_of, rows_of, write_run

WRITTEN = {"report.html", "report.md", "runs.csv", "suspects.csv"}

IMAGES, VALIDATION = 600, 200
LABELS = np.arange(IMAGES) % 10
DIGESTS = np.arange(IMAGES, dtype=np.uint64) * np.uint64(2**40 + 1)


def predictions(
    accuracy: float,
    seed: int,
    *,
    labels: np.ndarray = LABELS,
    digests: np.ndarray = DIGESTS,
    validation_accuracy: float | None = None,
) -> Predictions:
    """A model that gets easy images right; which others, depends on its seed."""
    generator = np.random.default_rng(seed)
    ease = np.random.default_rng(99).random(len(labels))
    right = 0.8 * ease + 0.2 * generator.random(len(labels)) > np.quantile(ease, 1 - accuracy)
    confidence = generator.uniform(0.5, 0.99, len(labels))
    of_validation = generator.random(VALIDATION) < (validation_accuracy or accuracy)
    validation_labels = np.arange(VALIDATION) % 10
    validation = probabilities_of(validation_labels, of_validation, generator.uniform(0.5, 0.99, VALIDATION))
    return Predictions(probabilities_of(labels, right, confidence), labels, digests, validation, validation_labels)


def short(key: str) -> str:
    """`optimizer.name` → `optimizer`, `model.width` → `width`, as a sweep calls what it varies."""
    return key.removesuffix(".name").rpartition(".")[2]


ACCURACY = {"sgd": 0.70, "rmsprop": 0.88, "adam": 0.90}
Sweep = Callable[..., list[Record]]


@pytest.fixture
def sweep(home: Path) -> Sweep:
    """Writes `home/multirun/<name>` from a model of accuracy by settings, and loads it."""

    def write(
        accuracy: Callable[..., float], seeds: Iterator[int] | range = range(3), name: str = "s", **grid: list
    ) -> list[Record]:
        for number, (*values, seed) in enumerate(product(*grid.values(), seeds)):
            settings = {key.replace("__", "."): value for key, value in zip(grid, values, strict=True)}
            write_run(
                home / "multirun" / name / str(number),
                predictions(accuracy(*values), seed=number),
                config=configured(**settings, seed=seed),
                sweep=name,
                varied={short(key): value for key, value in settings.items()} | {"seed": seed},
            )
        return lookup.find(name, home)

    return write


@pytest.fixture
def three(sweep: Sweep) -> Comparison:
    """Three optimizers, three seeds each."""
    return compare(sweep(ACCURACY.__getitem__, optimizer__name=list(ACCURACY)))


def raw(configuration) -> tuple[np.ndarray, np.ndarray]:
    """Right (runs, n) and cross-entropy (runs, n), straight from the files."""
    right, losses = [], []
    for record in configuration.records:
        with np.load(record.directory / "predictions.npz") as arrays:
            probabilities, labels = arrays["test_probabilities"], arrays["test_labels"]
            right.append(np.argmax(probabilities, axis=1) == labels)
            losses.append([-np.log(row[label]) for row, label in zip(probabilities, labels, strict=True)])
    return np.array(right), np.array(losses)


# --- what varies


def test_varying_keeps_what_differs_under_short_names():
    configs = [
        configured(**{"optimizer.name": name, "model.width": width, "seed": seed})
        for name, width, seed in (("sgd", 16, 0), ("adam", 16, 1), ("adam", 32, 0))
    ]
    assert varying(configs) == [
        {"width": 16, "optimizer": "sgd"},
        {"width": 16, "optimizer": "adam"},
        {"width": 32, "optimizer": "adam"},
    ]


def test_varying_hides_what_only_follows_from_the_name():
    follows = [
        configured(**{"optimizer.name": "sgd", "optimizer.learning_rate": 0.03}),
        configured(**{"optimizer.name": "adam", "optimizer.learning_rate": 0.001}),
    ]
    assert varying(follows) == [{"optimizer": "sgd"}, {"optimizer": "adam"}]
    chosen = [*follows, configured(**{"optimizer.name": "adam", "optimizer.learning_rate": 0.01})]
    assert [settings["learning_rate"] for settings in varying(chosen)] == [0.03, 0.001, 0.01]


def test_varying_ignores_what_cannot_change_a_result():
    configs = [configured(), configured(**{"training.threads": 4, "sweep.workers": 8, "seed": 3})]
    assert varying(configs) == [{}, {}]


def test_varying_keeps_long_names_where_short_ones_collide():
    a = {"model": {"name": "cnn", "rate": 1}, "schedule": {"name": "step", "rate": 2, "at": [1, 2]}}
    b = {"model": {"name": "cnn", "rate": 2}, "schedule": {"name": "step", "rate": 3, "at": [1, 3]}}
    assert varying([a, b])[0] == {"model.rate": 1, "schedule.rate": 2, "at": "[1, 2]"}


def test_options_that_follow_from_another_are_dropped():
    settings = [
        {"regularization": "none", "dropout": 0.0, "rotation": 0.0, "width": 16},
        {"regularization": "dropout", "dropout": 0.5, "rotation": 0.0, "width": 16},
        {"regularization": "augmentation", "dropout": 0.0, "rotation": 10.0, "width": 32},
        {"regularization": "none", "dropout": 0.0, "rotation": 0.0, "width": 32},
    ]
    assert [list(run) for run in independent(settings)] == [["regularization", "width"]] * 4
    rates = [
        {"optimizer": "sgd", "rate": 0.03},
        {"optimizer": "adam", "rate": 0.001},
        {"optimizer": "adam", "rate": 0.01},
    ]
    assert independent(rates) == rates
    assert independent([]) == []


def write_jobs(home: Path, varied: list[dict], planned: list[dict] | None = None) -> list[Record]:
    """Runs of a sweep over regularization, which implies two other values, and its plan."""
    implied = {"none": (0.0, 0.0), "dropout": (0.5, 0.0), "augmentation": (0.0, 10.0)}
    runs = []
    for number, asked_for in enumerate(varied):
        dropout, rotation = implied[asked_for.get("regularization", "none")]
        config = configured(**{
            "regularization.name": asked_for.get("regularization", "none"), "regularization.dropout": dropout,
            "regularization.rotation": rotation, "seed": asked_for["seed"],
        })  # fmt: skip
        path = home / "multirun" / "s" / str(number)
        runs.append(write_run(path, predictions(0.9, number), config=config, sweep="s", varied=asked_for))
    if planned is not None:
        jobs = [{"run_key": run.run_key, "varied": v} for run, v in zip(runs, planned, strict=True)]
        (home / "multirun" / "s" / "plan.json").write_text(json.dumps({"jobs": jobs}))
    return lookup.find("s", home)


REGULARIZATIONS = [{"regularization": r, "seed": s} for r in ("none", "dropout", "augmentation") for s in range(2)]


def test_asked_is_what_the_sweep_varied_not_what_follows_from_it(home: Path):
    comparison = compare(write_jobs(home, REGULARIZATIONS))
    assert comparison.options == ("regularization",)
    assert {c.label for c in comparison.configurations} == {"none", "dropout", "augmentation"}
    assert len(comparison.pairs) == 2


def test_asked_is_what_the_plan_says_of_a_job_that_was_made_elsewhere(home: Path):
    runs = write_jobs(home, [{"seed": v["seed"], "regularization": v["regularization"]} for v in REGULARIZATIONS], None)
    other = [{"penalty": v["regularization"], "seed": v["seed"]} for v in REGULARIZATIONS]
    jobs = [{"run_key": run.run_key, "varied": v} for run, v in zip(runs, other, strict=True)]
    linked = home / "multirun" / "linked"
    linked.mkdir()
    for run in runs:
        (linked / run.directory.name).symlink_to(run.directory)
    (linked / "plan.json").write_text(json.dumps({"jobs": jobs}))
    assert compare(lookup.find("linked", home)).options == ("penalty",)
    assert compare(runs).options == ("regularization",)


@pytest.mark.parametrize("plan", ["", "[" * 100_000, '{"jobs": [{"varied": 3, "run_key": "x"}]}', '{"jobs": 5}'])
def test_asked_does_without_a_plan_that_cannot_be_read(home: Path, plan: str):
    write_jobs(home, REGULARIZATIONS)
    (home / "multirun" / "s" / "plan.json").write_text(plan)
    assert compare(lookup.find("s", home)).options == ("regularization",)


def test_asked_of_hand_picked_runs_is_what_is_independent(home: Path):
    first, *_, last = write_jobs(home, REGULARIZATIONS)
    changes = {"model.width": 64, "regularization.name": "none", "regularization.dropout": 0.0}
    changes["regularization.rotation"] = 0.0
    alone = write_run(home / "outputs" / "a", predictions(0.9, 50), config=configured(**changes))
    settings = asked([first, last, records.load(alone.directory)])
    assert [list(run) for run in settings] == [["width", "regularization"]] * 3


def test_label_names_numbers_but_not_choices():
    assert label({"optimizer": "adam", "learning_rate": 0.01, "momentum": None}) == "adam · learning_rate 0.01"


# --- folding


def test_compare_folds_seeds_and_ranks_by_validation(three: Comparison):
    assert [c.seeds for c in three.configurations] == [(0, 1, 2)] * 3
    means = [np.mean([r.metrics["validation/accuracy"] for r in c.records]) for c in three.configurations]
    assert means == sorted(means, reverse=True)
    assert three.options == ("optimizer",)
    assert three.configurations[-1].label == "sgd"


def test_compare_counts_a_repeated_run_once(home: Path, sweep: Sweep):
    sweep(lambda: 0.9, range(2))
    repeat = write_run(home / "outputs" / "again", predictions(0.9, 7), config=configured(seed=0), reproduces="s/0")
    repeat.write(started_at=repeat.started_at.replace(year=2027))
    comparison = compare([*lookup.find("s", home), records.load(repeat.directory)])
    assert [r.name for r in comparison.best.records] == ["again", "s/1"]
    assert "1 of the runs repeat others with the same run key, which count once." in comparison.notes


def test_compare_says_when_code_or_versions_differ(home: Path, sweep: Sweep):
    first, second = sweep(lambda _: 0.9, range(1), model__width=[16, 32])
    second.write(code_digest="e" * 64, versions={"keras": "4"})
    notes = compare([first, records.load(second.directory)]).notes
    assert any("different versions of the code" in note for note in notes)
    assert any("different versions of TensorFlow" in note for note in notes)


def test_compare_keeps_unfinished_runs_apart(home: Path, sweep: Sweep):
    sweep(lambda _: 0.9, range(2), model__width=[16, 32])
    for number, state in (("7", "failed"), ("8", "interrupted"), ("9", "diverged")):
        write_run(home / "multirun" / "s" / number, None, sweep="s", state=state, config=configured(seed=9))
    comparison = compare(lookup.find("s", home))
    assert [record.state for record in comparison.apart] == ["failed", "interrupted", "diverged"]
    assert sum(len(c.records) for c in comparison.configurations) == 4


def test_compare_refuses_nothing_and_nothing_finished(home: Path):
    with pytest.raises(InputError, match="no run was given"):
        compare([])
    write_run(home / "outputs" / "a", None, state="failed")
    with pytest.raises(InputError, match=r"none of the 1 runs has finished \(a failed\)"):
        compare(lookup.find("a", home))


# --- every number again, from the files alone


OPTIMIZERS = ["sgd", "rmsprop", "adam", "adamw", "nadam", "lion", "muon"]
GRID = {"optimizer__name": ["sgd", "adam"], "schedule__name": ["cosine", "step"], "model__name": ["cnn", "mlp"]}


@pytest.mark.parametrize(
    ("grid", "seeds", "left_out"),
    [
        ({"optimizer__name": list(ACCURACY)}, 3, None),
        ({"optimizer__name": list(ACCURACY)}, 1, None),
        ({"optimizer__name": ["rmsprop", "adam"]}, 4, 7),  # one seed less: they no longer match
        ({"optimizer__name": OPTIMIZERS}, 2, None),
        ({"optimizer__name": OPTIMIZERS}, 1, None),
        (GRID, 2, None),
        (GRID, 1, None),
    ],
)
def test_every_number_that_is_shown_is_recomputed(sweep: Sweep, grid: dict, seeds: int, left_out: int | None):
    accuracy = ACCURACY | {"cosine": 0.02, "cnn": 0.01}
    runs = sweep(
        lambda first, *rest: accuracy.get(first, 0.89) + sum(accuracy.get(r, 0) for r in rest), range(seeds), **grid
    )
    runs = [run for run in runs if run.job != left_out]
    comparison, options = compare(runs), [name.removesuffix("__name") for name in grid]
    expected = Expected([run.directory for run in runs], options)
    text = printed(comparison, 60, terminal=False, long=True)
    assert expected.check(text, runs_csv(comparison)) > 11 * len(runs) + 15
    wrong = re.sub(
        r"(?<=cross-entropy 0\.\d\d\d)\d(?=\.$)", lambda digit: str((int(digit[0]) + 1) % 10), text, flags=re.M
    )
    with pytest.raises(AssertionError, match="cross-entropy 0"):
        expected.check(wrong, runs_csv(comparison))


def test_pairs_of_single_runs_are_mcnemars(sweep: Sweep):
    comparison = compare(sweep(ACCURACY.__getitem__, range(1), optimizer__name=list(ACCURACY)))
    raw_p = []
    for pair in comparison.pairs:
        a, b = raw(pair.a)[0][0], raw(pair.b)[0][0]
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        assert (pair.only_a, pair.only_b) == (only_a, only_b)
        raw_p.append(stats.binomtest(only_a, only_a + only_b).pvalue)
        assert pair.accuracy.value == pytest.approx((only_a - only_b) / IMAGES)
        assert pair.of_networks
    low, high = sorted(raw_p)
    assert sorted(pair.p_value for pair in comparison.pairs) == pytest.approx([2 * low, max(2 * low, high)])
    assert len(comparison.matrix) == 3
    assert not any(comparison.may_be_best)


def test_unequal_seeds_are_compared_by_welchs_test(home: Path, sweep: Sweep):
    runs = sweep(ACCURACY.__getitem__, optimizer__name=["sgd", "adam"])
    (pair,) = compare(runs[:-1]).pairs
    assert "2 seeds and 3 seeds" in pair.reason
    assert 1 <= pair.accuracy.degrees <= 3
    assert pair.is_shown


def test_single_seed_borrows_the_spread_and_says_so(sweep: Sweep):
    runs = sweep(ACCURACY.__getitem__, range(3), optimizer__name=["sgd", "rmsprop", "adam"])
    comparison = compare([run for run in runs if run.seed == 0 or run.varied["optimizer"] != "adam"])
    pair = next(pair for pair in comparison.pairs if "adam" in (pair.a.label, pair.b.label))
    assert "borrowed by the one with a single seed" in pair.reason
    assert pair.accuracy.of_seeds > 0
    assert not pair.of_networks
    assert "To show" not in text_of(comparison)


def test_runs_over_different_test_sets_are_never_paired(home: Path):
    for name, size in (("a", 600), ("b", 300)):
        labels, digests = LABELS[:size], DIGESTS[:size] + np.uint64(size)
        write_run(
            home / "outputs" / name,
            predictions(0.9, size, labels=labels, digests=digests),
            config=configured(**{"dataset.train_limit": size}),
        )
    comparison = compare([*lookup.find("a", home), *lookup.find("b", home)])
    (pair,) = comparison.pairs
    assert pair.reason == "on different test images, so unpaired"
    assert (pair.only_a, pair.cross_entropy, comparison.disagreement) == (None, None, None)
    assert any("tested on different images" in note for note in comparison.notes)
    assert comparison.effects == ()
    counts = [int(raw(c)[0].sum()) for c in comparison.configurations]
    sizes = [raw(c)[0].size for c in comparison.configurations]
    (a, b), (m, n) = (k / n for k, n in zip(counts, sizes, strict=True)), sizes
    error = np.sqrt(a * (1 - a) / m + b * (1 - b) / n)
    assert pair.accuracy.error == pytest.approx(error)
    assert pair.p_value == pytest.approx(2 * stats.norm.sf(abs(a - b) / error), abs=1e-3)


def test_runs_without_predictions_are_ranked_but_not_tested(home: Path, sweep: Sweep):
    runs = sweep(ACCURACY.__getitem__, range(1), optimizer__name=["sgd", "adam"])
    (runs[0].directory / "predictions.npz").unlink()
    (runs[1].directory / "predictions.npz").write_bytes(b"cut off")
    comparison = compare(runs)
    assert [c.scores for c in comparison.configurations] == [None, None]
    assert comparison.pairs[0].reason == "on test images of which no predictions are known, so unpaired"
    error = np.sqrt(sum(a * (1 - a) / IMAGES for c in comparison.configurations for a in c.accuracies))
    assert comparison.pairs[0].accuracy.error == pytest.approx(error)
    assert sum("enters no test" in note for note in comparison.notes) == 2
    assert [row[1].text for row in table(comparison).rows] == ["adam (no predictions)", "sgd (no predictions)"]
    assert comparison.intervals[0].low == pytest.approx(comparison.best.records[0].metrics["test/accuracy_low"])
    assert comparison.calibration is None
    assert (comparison.ensemble, comparison.most_missed) == (None, ())


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("test_probabilities", lambda p: p[:, ::-1], "was changed after the run (test/accuracy 0"),
        ("test_probabilities", lambda p: p**2, "was changed after the run (its digest is not the one in record.json)"),
        ("test_probabilities", lambda p: p[1:], "holds no labels and probabilities that belong together"),
        ("test_labels", lambda labels: labels[::-1], "was changed after the run (test/accuracy 0"),
        ("test_labels", lambda labels: labels + 90, "holds no labels and probabilities that belong together"),
        ("test_image_digests", lambda digests: digests[1:], "holds no labels and probabilities that belong together"),
        ("validation_labels", lambda labels: labels * 0, "was changed after the run (validation/accuracy 0"),
    ],
)
def test_changed_predictions_enter_no_test(home: Path, sweep: Sweep, name: str, change: Callable, told: str):
    runs = sweep(ACCURACY.__getitem__, range(1), optimizer__name=["sgd", "adam"])
    path = runs[0].directory / "predictions.npz"
    arrays = vars(runs[0].predictions)
    np.savez(path, **(arrays | {name: change(arrays[name])}))
    comparison = compare(lookup.find("s", home))
    (note,) = comparison.notes
    assert note.startswith(f"s/0 enters no test and no gallery: {path}: {told}")
    assert comparison.pairs[0].reason == "on test images of which no predictions are known, so unpaired"


# --- options


def test_effects_and_importance_of_a_grid(sweep: Sweep):
    gain = {"sgd": 0.0, "adam": 0.1}
    runs = sweep(
        lambda optimizer, width, epochs: 0.7 + gain[optimizer] + width / 1_000,
        range(2),
        optimizer__name=["sgd", "adam"], model__width=[16, 64], training__epochs=[4, 8],
    )  # fmt: skip
    comparison = compare(runs)
    accuracy = {r.name: np.mean(raw(c)[0][i]) for c in comparison.configurations for i, r in enumerate(c.records)}
    (optimizer,) = (effect for effect in comparison.effects if effect.option == "optimizer")
    assert (optimizer.best, optimizer.other, optimizer.settings) == ("adam", "sgd", 4)
    by_name = {name: [a for r in runs for a in [accuracy[r.name]] if r.varied["optimizer"] == name] for name in gain}
    difference = np.mean(by_name["adam"]) - np.mean(by_name["sgd"])
    assert optimizer.difference.value == pytest.approx(difference, abs=1e-6)
    shares = comparison.importance.shares()
    assert max(shares, key=shares.get) == "optimizer"
    assert sum(shares.values()) == pytest.approx(1)
    told = re.findall(r"(\d+)%", dict(sentences(comparison))["importance"])
    assert sum(map(int, told)) == pytest.approx(100, abs=2)  # rounded each by itself


def test_an_option_by_itself_has_no_second_p_value(three: Comparison):
    assert three.effects == ()
    assert three.importance is None
    shown = {(pair.a.label, pair.b.label): pair.p_value for pair in three.matrix}
    assert all(shown[pair.a.label, pair.b.label] == pair.p_value for pair in three.pairs)


def test_importance_is_left_out_where_it_means_nothing(sweep: Sweep):
    runs = [
        record
        for number in range(4)
        for record in sweep(
            lambda *_: 0.9, range(2), f"r{number}",
            model__width=[number], training__epochs=[number // 2], optimizer__learning_rate=[0.1 * number],
        )
    ]  # fmt: skip
    assert compare(runs).importance is None


# --- images


def test_disagreement_is_recomputed(three: Comparison):
    a, b = (raw(c)[0].sum(axis=0) < 1.5 for c in three.configurations[:2])
    found = three.disagreement
    assert sorted(m.index for m in found.fixed) == np.flatnonzero(b & ~a).tolist()
    assert sorted(m.index for m in found.broken) == np.flatnonzero(a & ~b).tolist()
    assert sorted(m.index for m in found.both) == np.flatnonzero(a & b).tolist()
    losses = raw(three.configurations[1])[1].mean(axis=0)
    assert [m.index for m in found.fixed] == sorted((m.index for m in found.fixed), key=lambda i: -losses[i])
    mirrored = disagreement(three.configurations[1], three.best)
    assert {m.index for m in mirrored.fixed} == {m.index for m in found.broken}


def test_most_missed_images_are_recomputed(three: Comparison):
    right = np.concatenate([raw(c)[0] for c in three.configurations])
    votes = (~right).sum(axis=0)
    assert {m.index: m.votes for m in three.most_missed} == {i: votes[i] for i in np.flatnonzero(votes > 4.5)}
    assert [m.votes for m in three.most_missed] == sorted((m.votes for m in three.most_missed), reverse=True)
    first = three.most_missed[0]
    assert first.runs == 9
    assert first.label == LABELS[first.index]
    assert first.answer == (first.label + 1) % 10
    assert int(first.digest, 16) == DIGESTS[first.index]


# --- together


def test_ensemble_is_recomputed(three: Comparison):
    runs = [r for c in three.configurations for r in c.records]
    test = np.mean([r.predictions.test_probabilities for r in runs], axis=0)
    whole = three.ensemble
    assert whole.accuracy == np.mean(test.argmax(axis=1) == LABELS)
    assert whole.cross_entropy == pytest.approx(-np.log(test[np.arange(IMAGES), LABELS]).mean(), rel=1e-5)
    best = max(runs, key=lambda r: r.metrics["validation/accuracy"])
    assert whole.single_accuracy == pytest.approx(best.metrics["test/accuracy"])
    validation = np.array([r.predictions.validation_probabilities for r in runs])
    labels = runs[0].predictions.validation_labels

    def loss(members: list[int]) -> float:
        return -np.log(validation[members].mean(axis=0)[np.arange(VALIDATION), labels]).mean()

    everyone = list(range(9))
    costs = sorted(loss([m for m in everyone if m != left]) - loss(everyone) for left in everyone)
    assert sorted(member.cost_of_leaving for member in whole.members) == pytest.approx(costs, abs=1e-5)
    assert all(m.cost_of_leaving < -2 * m.error for m in whole.members if m.name in whole.harmful)
    assert len(whole.harmful) <= sum(cost < 0 for cost in costs)


def test_selection_counts_contenders(sweep: Sweep):
    equals = compare(sweep(lambda _: 0.9, range(1), "equal", model__width=[1, 2, 3, 4])).selection
    assert (equals.tried, equals.contenders) == (4, 4)
    assert 0 < equals.overstated < 0.03
    alone = compare(sweep(lambda width: 0.6 + width / 10, range(1), "far", model__width=[1, 3])).selection
    assert (alone.tried, alone.contenders, alone.overstated) == (2, 1, 0.0)


def test_one_p_value_for_a_pair_and_an_interval_that_agrees(sweep: Sweep):
    comparison = compare(sweep(ACCURACY.__getitem__, range(3), optimizer__name=list(ACCURACY)))
    assert {id(pair) for pair in comparison.pairs} <= {id(pair) for pair in comparison.matrix}
    for pair in comparison.matrix:
        assert pair.is_shown == (not pair.interval.low <= 0 <= pair.interval.high) or 0 in (
            pair.interval.low, pair.interval.high,
        )  # fmt: skip


# --- words


def text_of(comparison: Comparison) -> str:
    return "\n".join(f"{topic}: {text}" for topic, text in sentences(comparison))


def test_sentences_answer_the_question(three: Comparison):
    text = text_of(three)
    best, second = three.configurations[:2]
    assert f"best: {best.label}: validation accuracy" in text
    assert f"second: {best.label} minus {second.label}, second by validation: " in text
    assert ("may be as good" in text) == any(not pair.is_shown for pair in three.pairs)
    assert "With 95% confidence the best is among: " in text
    assert "selection: The ranking is by validation; the test images choose nothing. 3 configurations were" in text
    assert "studentized range of 3 means; 3 seeds each" in text


def test_nothing_vague_and_no_second_word_for_not_shown(three: Comparison, sweep: Sweep):
    grid = compare(sweep(lambda *_: 0.9, range(2), "g", **GRID))
    for comparison in (three, grid):
        text = text_of(comparison)
        for word in ("really", "real ", "told apart", "distinguishable", "may be chance", "a few more seeds"):
            assert word not in text


@pytest.mark.parametrize("names", [["sgd", "adam"], ["rmsprop", "adam"], OPTIMIZERS[:5]])
def test_single_seeds_say_nothing_of_options(sweep: Sweep, names: list[str]):
    comparison = compare(sweep(lambda name: ACCURACY.get(name, 0.89), range(1), optimizer__name=names))
    assert (comparison.effects, comparison.importance) == ((), None)
    for topic, text in sentences(comparison):
        for clause in re.split(r"[;:.]", text):
            if topic != "ensemble" and re.search(r"\b(better|worse)\b", clause):
                assert "network" in clause, clause
    first, scope = headlines(comparison)
    assert first.topic == "answer"
    assert scope.text.startswith(f"One seed each: this is about {len(names)} networks, not about optimizer;")
    assert "seed=0,1,2" in scope.text


def test_a_dummy_option_changes_nothing(sweep: Sweep):
    claimed = [
        pair.is_shown
        for batch in range(10)
        for pair in compare(
            sweep(lambda _: 0.9, range(10 * batch, 10 * batch + 3), f"d{batch}", model__width=[1, 2])
        ).pairs
    ]
    assert sum(claimed) <= 1


def test_what_failed_comes_first_and_counts_as_tried(home: Path, sweep: Sweep):
    sweep(ACCURACY.__getitem__, range(2), optimizer__name=["sgd", "adam"])
    for number, (seed, state) in enumerate(((0, "diverged"), (1, "diverged"), (0, "failed")), 20):
        name = "lion" if state == "diverged" else "muon"
        config = configured(**{"optimizer.name": name, "seed": seed})
        varied = {"optimizer": name, "seed": seed}
        write_run(home / "multirun" / "s" / str(number), None, sweep="s", state=state, config=config, varied=varied)
    comparison = compare(lookup.find("s", home))
    first = sentences(comparison)[0]
    assert first.text == (
        "3 of 7 runs are without a result: lion diverged (2 runs); muon failed. 4 configurations were tried, 2 can be "
        "compared."
    )
    assert comparison.selection.tried == 4


def test_equivalence_is_claimed_by_the_interval_alone(sweep: Sweep):
    comparison = compare(sweep(ACCURACY.__getitem__, range(4), optimizer__name=["rmsprop", "adam"]))
    (pair,), text = comparison.pairs, text_of(comparison)
    bound = max(-pair.interval.low, pair.interval.high)
    assert (f"They differ by at most {100 * bound:.2f} points (95%)" in text) == (not pair.is_shown)
    assert ("equivalent within" in text) == (not pair.is_shown and bound <= MARGIN)


def test_sentences_of_one_run(home: Path):
    write_run(home / "outputs" / "only", predictions(0.9, 0))
    text = text_of(compare(lookup.find("only", home)))
    assert "answer: cnn · adam has a test accuracy of " in text
    assert "there is nothing to compare it with." in text
    assert "second:" not in text
    assert "ensemble" not in text


def test_sentences_say_when_the_second_is_better_on_the_test_images(home: Path):
    for name, width, accuracy, validation in (("a", 1, 0.7, 0.99), ("b", 2, 0.9, 0.9)):
        given = predictions(accuracy, width, validation_accuracy=validation)
        write_run(home / "outputs" / name, given, config=configured(**{"model.width": width}))
    comparison = compare([*lookup.find("a", home), *lookup.find("b", home)])
    assert "The trained width 2 network is better than the trained width 1 network on these" in text_of(comparison)
    assert "; exact McNemar test on the same 600 images)" in text_of(comparison)


def test_sentences_count_overfitted_runs(home: Path):
    rows = rows_of([0.5, 0.3, 0.2, 0.1, 0.05], [0.4, 0.25, 0.3, 0.4, 0.5], [0.9, 0.95, 0.96, 0.97, 0.98])
    write_run(home / "outputs" / "a", predictions(0.9, 0), rows=rows)
    comparison = compare(lookup.find("a", home))
    text = text_of(comparison)
    assert "overfitting: 1 of 1 configuration overfits. Runs that do: cnn · adam: epoch 3. cnn · adam: Overfits" in text
    assert next(cell.text for cell in table(comparison).rows[0] if "epoch" in cell.text) == "epoch 3"


# --- on the screen


def printed(comparison: Comparison, width: int, *, terminal: bool, long: bool = False) -> str:
    console = Console(width=width, force_terminal=terminal, color_system=None)
    with console.capture() as capture:
        show(comparison, console, long=long)
    return capture.get()


def test_show_is_plain_and_complete_where_there_is_no_terminal(three: Comparison):
    text = printed(three, 60, terminal=False, long=True)
    head, *rows = text.splitlines()[:4]
    expected = (
        "# optimizer seeds validation % test % 95% interval against best cross-entropy overconfident gap overfits"
    )
    assert head.split() == [*expected.split(), "parameters", "seconds"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert not any(line.startswith((" ─", "─")) for line in text.splitlines())


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("long", [False, True])
def test_show_fits_the_terminal_and_breaks_between_words(three: Comparison, width: int, long: bool):
    text = printed(three, width, terminal=True, long=long)
    assert max(map(len, text.splitlines())) <= width
    for name in ("sgd", "rmsprop", "adam"):
        assert name in text
    told = {word for sentence in sentences(three) for word in sentence.text.split()}
    heads = {word for column in table(three).columns for word in column.title.split()}
    cells = {word for row in table(three).rows for cell in row for word in cell.text.split()}
    topics = {word for sentence in sentences(three) for word in f"{sentence.topic}:".split()}
    extra = topics | {"why,", "by", "how", "much:", "--long,", "or", "the", "report"}
    assert set(text.split()) <= told | heads | cells | extra


@pytest.mark.parametrize("failed", [0, 3])
@pytest.mark.parametrize("width", [80, 120])
def test_show_takes_at_most_twelve_lines(home: Path, sweep: Sweep, failed: int, width: int):
    sweep(lambda *_: 0.9, range(2), optimizer__name=OPTIMIZERS, model__width=[16, 32, 64])
    for number in range(failed):
        varied = {"optimizer": "adagrad", "width": number, "seed": 0}
        config = configured(**{"optimizer.name": "adagrad", "model.width": number})
        write_run(
            home / "multirun" / "s" / str(90 + number), None, sweep="s", state="failed", config=config, varied=varied
        )
    lines = printed(compare(lookup.find("s", home)), width, terminal=True).splitlines()
    assert len(lines) <= 11  # and the report's address
    assert lines[0] == lines[0].strip() != ""
    assert any("more configurations" in line and "--long" in line for line in lines)


def test_show_lists_unfinished_runs(home: Path, sweep: Sweep):
    sweep(lambda: 0.9, range(1))
    write_run(home / "multirun" / "s" / "5", None, sweep="s", state="failed", config=configured(seed=5))
    text = printed(compare(lookup.find("s", home)), 100, terminal=False, long=True)
    assert "1 of 2 runs is without a result: s/5 failed." in text
    assert "no result: s/5 failed: ValueError: loss is not finite" in text


def test_runs_csv_has_every_run_and_full_precision(home: Path, sweep: Sweep):
    sweep(ACCURACY.__getitem__, optimizer__name=["sgd", "adam"])
    varied = {"optimizer": "lion", "seed": 9}
    write_run(home / "multirun" / "s" / "9", None, sweep="s", state="failed", config=configured(seed=9), varied=varied)
    lines = list(csv.DictReader(runs_csv(compare(lookup.find("s", home))).splitlines()))
    assert len(lines) == 7
    assert {line["optimizer"] for line in lines[:6]} == {"sgd", "adam"}
    for line in lines[:6]:
        record = records.load(line["directory"])
        assert float(line["test/accuracy"]) == record.metrics["test/accuracy"]
        assert line["run_key"] == record.run_key
    assert (lines[6]["state"], lines[6]["error"]) == ("failed", "ValueError: loss is not finite")
    assert lines[6]["optimizer"] == "lion"


# --- for programs


def test_json_has_the_whole_answer(three: Comparison):
    told = json.loads(exports.json_text(three))
    assert [s["text"] for s in told["sentences"]] == [s.text for s in sentences(three)]
    assert [c["label"] for c in told["configurations"]] == [c.label for c in three.configurations]
    assert len(told["pairs"]) == 3
    first = told["configurations"][0]
    assert first["test/accuracy_low"] == three.intervals[0].low
    assert (first["rank"], first["seeds"], len(first["runs"])) == (1, [0, 1, 2], 3)
    assert {pair["p_value"] for pair in told["pairs"]} == {pair.p_value for pair in three.matrix}
    assert told["calibration"]["overconfidence"] == three.calibration.overconfidence
    assert told["ensemble"]["accuracy"] == three.ensemble.accuracy


def test_json_of_missing_numbers_is_still_json(sweep: Sweep):
    runs = sweep(ACCURACY.__getitem__, range(1), optimizer__name=["sgd", "adam"])
    for run in runs:
        (run.directory / "predictions.npz").unlink()
        run.write(metrics={})
    told = json.loads(exports.json_text(compare(lookup.find("s", runs[0].directory.parents[2]))))
    assert told["configurations"][0]["test/accuracy"] is None


def test_latex_is_a_table_that_escapes(home: Path):
    for number, name in enumerate(("a_b & 5%", "c\\d{e}")):
        write_run(home / "outputs" / str(number), predictions(0.8, number), config=configured(**{"model.name": name}))
    text = exports.latex(compare([*lookup.find("0", home), *lookup.find("1", home)]))
    assert r"a\_b \& 5\%" in text
    assert r"c\textbackslash{}d\{e\}" in text
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrrrr}"
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 3
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {6}


def test_compare_from_python_is_the_same(home: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    sweep(ACCURACY.__getitem__, optimizer__name=["sgd", "adam"])
    monkeypatch.setenv("EXPERIMENTS_HOME", str(home))
    answer = experiments.compare("s")  # callable although the module of that name has been imported
    frame = answer.frame()
    assert list(frame["optimizer"]) == [c.label for c in answer.comparison.configurations]
    assert frame["test/accuracy"].iloc[0] == answer.comparison.best.mean("test/accuracy")
    assert answer.as_json() == json.loads(json.dumps(answer.as_json()))
    assert str(answer).splitlines()[0] == headlines(answer.comparison)[0].text
    assert answer.latex().startswith(r"\begin{tabular}")
    assert {path.name for path in answer.write(tmp_path)} == WRITTEN


# --- calibration


def calibrated(generator: np.random.Generator, images: int, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a model whose true ones are these to some power, normalised."""
    logits = generator.normal(size=(images, 10)) * 2
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([generator.choice(10, p=row) for row in true])
    said = true**power
    return said / said.sum(axis=1, keepdims=True), labels


def test_temperature_is_found_again():
    probabilities, labels = calibrated(np.random.default_rng(0), 6_000, 2.0)
    assert fit_temperature(probabilities, labels) == pytest.approx(2.0, rel=0.06)
    assert fit_temperature(probabilities[:999], labels[:999]) is None
    sure = np.eye(10)[labels]
    assert fit_temperature(sure, labels) > 0


def test_reliability_has_equal_bins_with_wilsons_bars():
    probabilities, labels = calibrated(np.random.default_rng(1), 3_001, 1.0)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = reliability(confidence, right)
    assert [b.images for b in bins] == [201] + [200] * 14
    assert sum(b.images * b.accuracy for b in bins) / 3_001 == pytest.approx(right.mean())
    assert [b.confidence for b in bins] == sorted(b.confidence for b in bins)
    assert sum(b.interval.low <= b.confidence <= b.interval.high for b in bins) >= 12
    assert len(reliability(confidence[:4], right[:4])) == 4


def test_error_if_perfect_is_what_perfect_models_have():
    generator = np.random.default_rng(2)
    probabilities, _ = calibrated(generator, 2_000, 1.0)
    labels = [[generator.choice(10, p=row) for row in probabilities] for _ in range(5)]
    seen = np.mean([calibration_error(probabilities, np.array(found)) for found in labels])
    assert error_if_perfect(probabilities.max(axis=1)) == pytest.approx(seen, rel=0.25)


def test_brier_score_by_hand():
    assert brier(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]), np.array([0, 1])) == pytest.approx(
        (0.09 + 0.04 + 0.01 + 0.01 + 0.81 + 0.64) / 2
    )


def test_calibration_of_small_validation_sets_fits_nothing(three: Comparison):
    assert three.calibration.temperature is None
    assert "temperature" not in text_of(three)
    assert "Confidence minus accuracy of " in text_of(three)


# --- overfitting


def test_overfitting_is_counted_over_seeds(home: Path):
    rising = rows_of([0.5, 0.3, 0.2, 0.1, 0.05], [0.4, 0.25, 0.5, 0.9, 1.5], [0.9, 0.95, 0.96, 0.97, 0.98])
    falling = rows_of([0.5, 0.3, 0.2, 0.1, 0.05], [0.4, 0.3, 0.25, 0.2, 0.18], [0.9, 0.95, 0.96, 0.97, 0.98])
    for seed, rows in enumerate((rising, rising, falling, rising, rising, rising)):
        config, directory = configured(seed=seed), home / "multirun" / "s" / str(seed)
        write_run(directory, predictions(0.9, seed), rows=rows, config=config, sweep="s")
        if seed == 2:
            (found,) = compare(lookup.find("s", home)).overfitting
            assert (found.judged, found.overfit, found.first) == (3, 2, (3, 3))
            assert str(found) == "2 of 3 seeds, epoch 3"
    (found,) = compare(lookup.find("s", home)).overfitting
    assert (found.overfit, found.verdict) == (5, True)


def test_a_rise_within_the_error_of_validation_images_is_none(home: Path):
    rows = rows_of([0.5, 0.3, 0.2, 0.1, 0.05], [0.4, 0.25, 0.256, 0.257, 0.258], [0.9, 0.95, 0.96, 0.97, 0.98])
    record = write_run(home / "outputs" / "a", predictions(0.9, 0), rows=rows)
    assert record.overfitting.epoch is not None
    (found,) = compare(lookup.find("a", home)).overfitting
    assert (found.overfit, str(found)) == (0, "no")
    few = replace(record.overfitting, verdict="Overfitting cannot be judged by 24 validation images; …", epoch=None)
    record.write(overfitting=few)
    compared = compare(lookup.find("a", home))
    assert (compared.overfitting[0].judged, str(compared.overfitting[0])) == (0, "–")
    assert "Overfitting cannot be judged by 24 validation images" in text_of(compared)


# --- folds


def test_folds_are_repetitions_and_their_seeds_are_averaged(home: Path):
    saved = experiments.compose("dataset=digits", "dataset.folds=4", "dataset.fold=0").to_saved()
    for number, (rate, fold, seed) in enumerate(product((0.003, 0.3), range(4), range(2))):
        config = {**saved, "optimizer": {**saved["optimizer"], "learning_rate": rate}, "seed": seed}
        config["dataset"] = {**saved["dataset"], "fold": fold}
        accuracy = (0.95 if rate < 0.1 else 0.9) + fold / 200
        write_run(
            home / "multirun" / "s" / str(number), predictions(accuracy, number), config=config, sweep="s",
            varied={"learning_rate": rate, "fold": fold, "seed": seed},
            dataset=DatasetSummary(name="digits", digest="d" * 64, source="a test", notes=["validation: a fold"]),
        )  # fmt: skip
    compared = compare(lookup.find("s", home))
    assert [c.label for c in compared.configurations] == ["learning_rate 0.003", "learning_rate 0.3"]
    best = compared.best
    assert (best.repeated, len(best.records), best.sample.seeds) == ("4 folds × 2 seeds", 8, 4)
    right = best.scores.right
    folds = [record.config["dataset"]["fold"] for record in best.records]
    of_folds = [right[[fold == each for fold in folds]].mean() for each in range(4)]
    np.testing.assert_allclose(best.sample.seed_means, of_folds)
    assert compared.pairs[0].accuracy.degrees <= 6  # 3 of each, not 7
    assert "4 folds × 2 seeds each" in compared.pairs[0].reason
    told = text_of(compared)
    assert "All of this is about 4 folds × 2 seeds of the training images and one set of test images" in told
    assert [column.title for column in table(compared).columns[:3]] == ["#", "learning_rate", "runs"]


# --- the command


@pytest.mark.parametrize(("form", "lines"), [("latex", 9), ("json", 50)])
def test_forms_for_programs_keep_their_lines(form: str, lines: int, three: Comparison, home: Path, capsys: Any):
    assert show_command([], home / "report", form) == 0
    assert len(capsys.readouterr().out.splitlines()) >= lines
    assert not (home / "report").exists()


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.run(["-m", "experiments.compare", *arguments], env=environment(home), cwd=home)


def test_command_compares_the_newest_sweep_and_names_the_report(home: Path, sweep: Sweep):
    sweep(ACCURACY.__getitem__, name="old", optimizer__name=["sgd", "adam"])
    sweep(ACCURACY.__getitem__, name="new", optimizer__name=["rmsprop", "adam"])
    done = command(home)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rmsprop" in done.stdout
    report = Path(done.stdout.splitlines()[-1])
    assert report == home / "multirun" / "new" / "report.html"
    assert {path.name for path in report.parent.iterdir() if path.is_file()} == WRITTEN


def test_command_compares_what_is_named(home: Path, sweep: Sweep, tmp_path: Path):
    sweep(ACCURACY.__getitem__, optimizer__name=["sgd", "adam"])
    done = command(home, "s/0", "s/3", "s/0", "--output", str(tmp_path / "elsewhere"))
    assert done.stdout.splitlines()[-1] == str(tmp_path / "elsewhere" / "report.html")
    assert "trained" in done.stdout
    part = command(home, "s/0", "s/3").stdout.splitlines()[-1]
    assert part.startswith(str(home / "outputs" / "comparison-"))
    assert command(home, "s/3", "s/0").stdout.splitlines()[-1] == part


def test_command_writes_into_a_sweep_whose_jobs_are_links(home: Path, sweep: Sweep):
    sweep(ACCURACY.__getitem__, range(1), name="made", optimizer__name=["sgd", "adam"])
    (home / "multirun" / "linked").mkdir()
    for job in "01":
        (home / "multirun" / "linked" / job).symlink_to(home / "multirun" / "made" / job)
    show_command(["linked"], None)
    assert (home / "multirun" / "linked" / "report.html").is_file()
    assert not (home / "multirun" / "made" / "report.html").exists()
    for name in ("a", "b"):
        write_run(home / "outputs" / name, predictions(0.9, 0))
    show_command(["a", "b"], None)  # all that `outputs` holds, but that is no sweep
    assert not (home / "outputs" / "report.html").exists()


def test_command_finds_a_run_by_mlflow_id_and_a_moved_one_by_path(home: Path, tmp_path: Path):
    record = write_run(home / "outputs" / "a", predictions(0.9, 0))
    record.write(mlflow=records.MLflowState(run_id="abc123"))
    assert command(home, "abc1").returncode == 0
    moved = record.directory.rename(tmp_path / "moved")
    assert command(home, str(moved)).stdout.splitlines()[-1] == str(moved / "report.html")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no sweep"),
        (["nothing"], "nothing: no such run or sweep"),
        (["2026"], "2026: matches 2 runs"),
        (["2026a", "nothing"], "nothing: no such run or sweep"),
        (["failed"], "none of the 1 runs has finished"),
    ],
)
def test_command_refuses_bad_input_in_one_line(home: Path, capsys, names: list[str], message: str):
    for name in ("2026a", "2026b"):
        write_run(home / "outputs" / name, predictions(0.9, 0))
    write_run(home / "outputs" / "failed", None, state="failed")
    with pytest.raises(InputError, match=message) as caught:
        show_command(names, None)
    assert len(caught.value.mistakes) == 1
    assert capsys.readouterr().out == ""


def test_command_refuses_a_place_that_cannot_be_written(home: Path, capsys):
    record = write_run(home / "outputs" / "a", predictions(0.9, 0))
    with pytest.raises(InputError, match="cannot be written"):
        show_command(["a"], record.directory / "record.json")


def test_command_ends_with_2_after_bad_input(home: Path):
    done = command(home, "nothing")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_command_starts_none_of_the_big_libraries(home: Path, sweep: Sweep):
    sweep(ACCURACY.__getitem__, optimizer__name=["sgd", "adam"])
    code = (
        "import sys; from experiments.compare import show; show(['s'], None);"
        "print([name for name in ('tensorflow', 'keras', 'mlflow', 'hydra', 'omegaconf', 'matplotlib', 'pandas',"
        " 'scipy.stats') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(home), cwd=home, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
