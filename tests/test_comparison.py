from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

import commands
from conftest import environment
from experiments.compare import show as show_command
from experiments.comparison.answer import sentences
from experiments.comparison.comparison import Comparison, compare
from experiments.comparison.duels import fight, needed
from experiments.comparison.mistakes import disagreement
from experiments.comparison.settings import label, varying
from experiments.comparison.table import runs_csv, table
from experiments.comparison.terminal import show
from experiments.errors import InputError
from experiments.results import lookup, records
from experiments.results.records import Predictions, Record
from recomputed import Expected
from synthetic_runs import configured, probabilities_of, rows_of, write_run

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
                varied={**settings, "seed": seed},
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
    text = printed(comparison, 60, terminal=False)
    assert expected.check(text, runs_csv(comparison)) > 11 * len(runs) + 15
    wrong = re.sub(r"(?<=cross-entropy of 0\.\d\d\d)\d", lambda digit: str((int(digit[0]) + 1) % 10), text)
    with pytest.raises(AssertionError, match="cross-entropy of"):
        expected.check(wrong, runs_csv(comparison))


def test_duels_of_single_runs_are_mcnemars(sweep: Sweep):
    comparison = compare(sweep(ACCURACY.__getitem__, range(1), optimizer__name=list(ACCURACY)))
    raw_p = []
    for duel in comparison.duels:
        a, b = raw(duel.a)[0][0], raw(duel.b)[0][0]
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        assert (duel.only_a, duel.only_b) == (only_a, only_b)
        raw_p.append(stats.binomtest(only_a, only_a + only_b).pvalue)
        assert duel.accuracy.p_value == pytest.approx(raw_p[-1])
        assert duel.accuracy.value == pytest.approx((only_a - only_b) / IMAGES)
    low, high = sorted(raw_p)
    assert sorted(duel.p_adjusted for duel in comparison.duels) == pytest.approx([2 * low, max(2 * low, high)])
    losses = raw(comparison.duels[0].a)[1][0] - raw(comparison.duels[0].b)[1][0]
    assert comparison.bootstrap.low == pytest.approx(losses.mean() - 1.96 * losses.std() / np.sqrt(IMAGES), rel=0.1)
    assert len(comparison.matrix) == 3


def test_duel_of_unequal_seeds_is_welchs(home: Path, sweep: Sweep):
    runs = sweep(ACCURACY.__getitem__, optimizer__name=["sgd", "adam"])
    (duel,) = compare(runs[:-1]).duels
    assert duel.method.startswith("t-test over 2 and 3 seeds (Welch)")
    assert duel.is_real


def test_runs_over_different_test_sets_are_never_paired(home: Path):
    for name, size in (("a", 600), ("b", 300)):
        labels, digests = LABELS[:size], DIGESTS[:size] + np.uint64(size)
        write_run(
            home / "outputs" / name,
            predictions(0.9, size, labels=labels, digests=digests),
            config=configured(**{"dataset.train_limit": size}),
        )
    comparison = compare([*lookup.find("a", home), *lookup.find("b", home)])
    (duel,) = comparison.duels
    assert duel.method == "unpaired interval, for the test images differ"
    assert (duel.only_a, duel.cross_entropy, needed(duel), comparison.disagreement) == (None, None, None, None)
    assert any("tested on different images" in note for note in comparison.notes)
    assert comparison.contrasts == ()
    counts = [int(raw(c)[0].sum()) for c in comparison.configurations]
    sizes = [raw(c)[0].size for c in comparison.configurations]
    limits = [stats.binomtest(k, n).proportion_ci(method="wilson") for k, n in zip(counts, sizes, strict=True)]
    (a, b), (of_a, of_b) = (k / n for k, n in zip(counts, sizes, strict=True)), limits
    assert duel.accuracy.interval.low == pytest.approx(a - b - np.hypot(a - of_a.low, of_b.high - b))


def test_runs_without_predictions_are_ranked_but_not_tested(home: Path, sweep: Sweep):
    runs = sweep(ACCURACY.__getitem__, range(1), optimizer__name=["sgd", "adam"])
    (runs[0].directory / "predictions.npz").unlink()
    (runs[1].directory / "predictions.npz").write_bytes(b"cut off")
    comparison = compare(runs)
    assert [c.scores for c in comparison.configurations] == [None, None]
    assert comparison.duels[0].method == "unpaired interval, for predictions are missing"
    assert sum("enters no test" in note for note in comparison.notes) == 2
    assert [row[1].text for row in table(comparison).rows] == ["adam (no predictions)", "sgd (no predictions)"]
    assert comparison.best.accuracy_interval.low == comparison.best.records[0].metrics["test/accuracy_low"]
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
    assert comparison.duels[0].method == "unpaired interval, for predictions are missing"


def test_needed_images_would_give_the_power(sweep: Sweep):
    runs = sweep(ACCURACY.__getitem__, range(1), optimizer__name=["rmsprop", "adam"])
    (duel,) = compare(runs).duels
    only_a, only_b, images = duel.only_a / IMAGES, duel.only_b / IMAGES, needed(duel).images
    drawn = np.random.default_rng(0).multinomial(images, [only_a, only_b, 1 - only_a - only_b], 2_000)
    difference, discordant = drawn[:, 0] - drawn[:, 1], drawn[:, 0] + drawn[:, 1]
    assert np.mean(np.abs(difference) > 1.96 * np.sqrt(discordant)) == pytest.approx(0.8, abs=0.03)


def test_needed_seeds_are_more_than_there_are(sweep: Sweep):
    runs = sweep(ACCURACY.__getitem__, range(4), optimizer__name=["rmsprop", "adam"])
    (duel,) = compare(runs).duels
    if not duel.is_real:
        need = needed(duel)
        assert need.seeds is None or need.seeds > 4
        assert need.images is None or need.images > IMAGES


def test_one_seed_against_several_needs_what_nobody_can_say(sweep: Sweep):
    runs = sweep(ACCURACY.__getitem__, range(3), optimizer__name=["rmsprop", "adam"])
    (duel,) = compare([run for run in runs if run.seed == 0 or run.varied["optimizer.name"] == "adam"]).duels
    assert {len(side.records) for side in (duel.a, duel.b)} == {1, 3}
    assert duel.accuracy.seed_variance is not None
    assert needed(duel) is None


# --- options


def test_contrasts_and_importance_of_a_grid(sweep: Sweep):
    gain = {"sgd": 0.0, "adam": 0.1}
    runs = sweep(
        lambda optimizer, width, epochs: 0.7 + gain[optimizer] + width / 1_000,
        range(2),
        optimizer__name=["sgd", "adam"], model__width=[16, 64], training__epochs=[4, 8],
    )  # fmt: skip
    comparison = compare(runs)
    accuracy = {r.name: np.mean(raw(c)[0][i]) for c in comparison.configurations for i, r in enumerate(c.records)}
    (optimizer,) = (c for c in comparison.contrasts if c.option == "optimizer")
    assert (optimizer.best, optimizer.other, optimizer.pairs) == ("adam", "sgd", 8)
    by_name = {
        name: [a for r in runs for a in [accuracy[r.name]] if r.varied["optimizer.name"] == name] for name in gain
    }
    assert optimizer.effect.value == pytest.approx(np.mean(by_name["adam"]) - np.mean(by_name["sgd"]), abs=1e-6)
    shares = comparison.importance
    between = sum(8 * (np.mean(values) - np.mean(list(accuracy.values()))) ** 2 for values in by_name.values())
    total = np.sum(np.square(np.array(list(accuracy.values())) - np.mean(list(accuracy.values()))))
    assert shares.options["optimizer"] == pytest.approx(between / total)
    assert max(shares.options, key=shares.options.get) == "optimizer"
    assert sum(shares.options.values()) + shares.interactions + shares.repetitions == pytest.approx(1)


def test_importance_is_left_out_where_it_means_nothing(three: Comparison, sweep: Sweep):
    assert three.importance is None
    runs = [
        record
        for number in range(4)
        for record in sweep(
            lambda *_: 0.9, range(1), f"r{number}",
            model__width=[number], training__epochs=[number], optimizer__learning_rate=[0.1 * number],
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
    assert len(whole.idle) == sum(cost <= 0 for cost in costs)


def test_selection_counts_contenders(sweep: Sweep):
    equals = compare(sweep(lambda _: 0.9, range(1), "equal", model__width=[1, 2, 3, 4])).selection
    assert (equals.tried, equals.contenders) == (4, 4)
    assert 0 < equals.overstated < 0.03
    alone = compare(sweep(lambda width: 0.6 + width / 10, range(1), "far", model__width=[1, 3])).selection
    assert (alone.tried, alone.contenders, alone.overstated) == (2, 1, 0.0)


def test_fight_corrects_for_all_pairs(three: Comparison):
    duels = fight(list(combinations(three.configurations, 2)))
    assert all(duel.p_adjusted >= duel.accuracy.p_value for duel in duels)
    assert [duel.p_adjusted for duel in duels] == [duel.p_adjusted for duel in three.matrix]


# --- words


def text_of(comparison: Comparison) -> str:
    return "\n".join(f"{topic}: {text}" for topic, text in sentences(comparison))


def test_sentences_answer_the_question(three: Comparison):
    text = text_of(three)
    best, second = three.configurations[:2]
    assert f"best: {best.label} has the best validation accuracy" in text
    assert f"runner-up: {second.label}, second by validation, " in text
    assert ("cannot be told apart" in text) == any(not duel.is_real for duel in three.duels)
    assert "effect of optimizer: " in text
    assert (
        "selection: The ranking is by validation; the test images choose nothing. 3 configurations were tried." in text
    )
    assert "9 matched" not in text
    assert "3 matched pairs" in text


def test_sentences_of_one_run(home: Path):
    write_run(home / "outputs" / "only", predictions(0.9, 0))
    text = text_of(compare(lookup.find("only", home)))
    assert "cnn · adam has the best validation accuracy" in text
    assert "It is the only configuration, so nothing is compared." in text
    assert "runner-up" not in text
    assert "ensemble" not in text


def test_sentences_say_when_the_second_is_better_on_the_test_images(home: Path):
    for name, width, accuracy, validation in (("a", 1, 0.7, 0.99), ("b", 2, 0.9, 0.9)):
        given = predictions(accuracy, width, validation_accuracy=validation)
        write_run(home / "outputs" / name, given, config=configured(**{"model.width": width}))
    comparison = compare([*lookup.find("a", home), *lookup.find("b", home)])
    assert "width 2, second by validation, is really better on the test images, although" in text_of(comparison)
    assert "; exact McNemar test on the same 600 images)" in text_of(comparison)


def test_sentences_count_overfitted_runs(home: Path):
    rows = rows_of([0.5, 0.3, 0.2, 0.1, 0.05], [0.4, 0.25, 0.3, 0.4, 0.5], [0.9, 0.95, 0.96, 0.97, 0.98])
    write_run(home / "outputs" / "a", predictions(0.9, 0), rows=rows)
    comparison = compare(lookup.find("a", home))
    assert "overfitting: 1 of 1 runs overfits, the first from epoch 3. The best: Overfits from epoch 3" in text_of(
        comparison
    )
    assert next(cell.text for cell in table(comparison).rows[0] if "epoch" in cell.text) == "epoch 3"


# --- on the screen


def printed(comparison: Comparison, width: int, *, terminal: bool) -> str:
    console = Console(width=width, force_terminal=terminal, color_system=None)
    with console.capture() as capture:
        show(comparison, console)
    return capture.get()


def test_show_is_plain_and_complete_where_there_is_no_terminal(three: Comparison):
    text = printed(three, 60, terminal=False)
    head, *rows = text.splitlines()[:4]
    expected = "# optimizer seeds validation % test % 95% interval against best cross-entropy calibration gap overfits"
    assert head.split() == [*expected.split(), "parameters", "seconds"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert not any(line.startswith((" ─", "─")) for line in text.splitlines())


@pytest.mark.parametrize("width", [60, 80, 140])
def test_show_fits_the_terminal(three: Comparison, width: int):
    text = printed(three, width, terminal=True)
    assert max(map(len, text.splitlines())) <= width
    for name in ("sgd", "rmsprop", "adam"):
        assert name in text
    assert ("columns not shown" in text) == (width < 130)
    assert "…" not in text.split("\n\n")[0]


def test_show_lists_unfinished_runs(home: Path, sweep: Sweep):
    sweep(lambda: 0.9, range(1))
    write_run(home / "multirun" / "s" / "5", None, sweep="s", state="failed", config=configured(seed=5))
    text = printed(compare(lookup.find("s", home)), 100, terminal=False)
    assert "Not compared, for not finished: 1 run" in text
    assert "s/5 failed: ValueError: loss is not finite" in text


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


# --- the command


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
    assert {path.name for path in report.parent.iterdir() if path.is_file()} == {"report.html", "report.md", "runs.csv"}


def test_command_compares_what_is_named(home: Path, sweep: Sweep, tmp_path: Path):
    sweep(ACCURACY.__getitem__, optimizer__name=["sgd", "adam"])
    done = command(home, "s/0", "s/3", "s/0", "--output", str(tmp_path / "elsewhere"))
    assert done.stdout.splitlines()[-1] == str(tmp_path / "elsewhere" / "report.html")
    assert "exact McNemar test" in done.stdout
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
        "print([name for name in ('tensorflow', 'keras', 'mlflow', 'hydra', 'omegaconf', 'matplotlib', 'pandas')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(home), cwd=home, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
