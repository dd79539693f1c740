from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from experiments.comparison.effects import contrasts, importance, matched_blocks
from experiments.comparison.estimate import (
    accuracy_interval,
    difference_estimate,
    mean_estimate,
    t_interval,
)
from experiments.comparison.statistics import (
    after_choice,
    expected_best_of,
    holm,
    images_needed,
    images_needed_over_seeds,
    mcnemar,
    paired_accuracy_difference,
    paired_bootstrap,
    seeds_needed,
    unpaired_difference,
)
from experiments.results.evaluation import wilson_interval

TRIALS = 2_000


def rounded(interval, digits=4):
    return round(interval.low, digits), round(interval.high, digits)


def covers(interval, truth):
    return interval.low <= truth <= interval.high


# --- one pair of runs


@pytest.mark.parametrize(
    ("only_a", "only_b", "exact", "mid_p"),
    [  # Fagerland, Lydersen, Laake 2013, tables 1 and 2: airway hyper-responsiveness, complete response
        (1, 7, 0.0703, 0.0391),
        (6, 16, 0.0525, 0.0347),
        (0, 0, 1.0, 1.0),
        (5, 5, 1.0, 1.0),
    ],
)
def test_mcnemar_agrees_with_fagerland(only_a, only_b, exact, mid_p):
    assert round(mcnemar(only_a, only_b), 4) == exact
    assert round(mcnemar(only_b, only_a, mid_p=True), 4) == mid_p


def test_mcnemar_is_a_binomial_test():
    # A. Agresti, Categorical Data Analysis, 2002, table 10.1: 150 and 86 changed their mind, z² = 17.36
    assert mcnemar(150, 86) == pytest.approx(stats.binomtest(86, 236).pvalue, rel=1e-6)
    assert mcnemar(150, 86) == pytest.approx(math.erfc(math.sqrt(17.36 / 2)), rel=0.25)


def test_mcnemar_keeps_its_level():
    generator = np.random.default_rng(0)
    only_a, only_b = generator.multinomial(10_000, [0.003, 0.003, 0.994], TRIALS)[:, :2].T
    p_values = np.array([mcnemar(int(a), int(b)) for a, b in zip(only_a, only_b, strict=True)])
    assert 0.02 < np.mean(p_values <= 0.05) <= 0.05


def test_paired_accuracy_difference_agrees_with_fagerland():
    # Fagerland, Lydersen, Laake 2014, airway data: Wald with Bonett-Price Laplace adjustment
    assert rounded(paired_accuracy_difference(1, 7, 21), 3) == (-0.508, -0.013)


def test_paired_accuracy_difference_covers():
    generator = np.random.default_rng(1)
    tables = generator.multinomial(10_000, [0.004, 0.002, 0.994], TRIALS)
    hits = [covers(paired_accuracy_difference(int(a), int(b), 10_000), 0.002) for a, b, _ in tables]
    assert 0.93 <= np.mean(hits) <= 0.97


def test_paired_bootstrap_is_deterministic_and_signed():
    generator = np.random.default_rng(2)
    losses_a, losses_b = generator.exponential(0.05, (2, 3_000))
    first = paired_bootstrap(losses_a, losses_b, seed=1, resamples=500)
    assert first == paired_bootstrap(losses_a, losses_b, seed=1, resamples=500)
    assert first != paired_bootstrap(losses_a, losses_b, seed=2, resamples=500)
    assert first.value == pytest.approx(losses_a.mean() - losses_b.mean())
    assert paired_bootstrap(losses_a + 1, losses_b, resamples=500).p_value == pytest.approx(2 / 501)
    assert paired_bootstrap(losses_a, losses_a, resamples=500).p_value == 1.0


def test_paired_bootstrap_agrees_with_the_normal_theory_of_a_mean():
    generator = np.random.default_rng(3)
    losses = generator.normal(0.02, 1.0, 4_000)
    estimate = paired_bootstrap(losses, np.zeros(4_000), resamples=4_000)
    error = losses.std(ddof=1) / math.sqrt(4_000)
    assert estimate.interval.low == pytest.approx(losses.mean() - 1.96 * error, abs=0.1 * error)
    assert estimate.interval.high == pytest.approx(losses.mean() + 1.96 * error, abs=0.1 * error)
    assert estimate.p_value == pytest.approx(2 * stats.norm.sf(losses.mean() / error), abs=0.03)


def test_paired_bootstrap_covers():
    generator = np.random.default_rng(4)
    differences = generator.gamma(0.5, 1.0, (TRIALS, 300)) - 0.5  # skewed like a cross-entropy
    hits = [
        covers(paired_bootstrap(row, np.zeros(300), seed=trial, resamples=400).interval, 0.0)
        for trial, row in enumerate(differences)
    ]
    assert 0.93 <= np.mean(hits) <= 0.97


# --- over seeds and images


def test_t_interval_of_students_sleep_data():
    # W. Gosset, The Probable Error of a Mean, 1908, as in R's t.test(extra ~ group, sleep, paired = TRUE)
    gained = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert rounded(t_interval(gained), 4) == (0.7001, 2.4599)
    assert t_interval([0.5]).high == math.inf


def test_mean_estimate_of_one_seed_is_the_t_test_over_images():
    values = np.random.default_rng(5).exponential(1.0, (1, 50))
    expected = stats.ttest_1samp(values[0], 0.0)
    estimate = mean_estimate(values)
    assert estimate.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    assert estimate.interval.low == pytest.approx(expected.confidence_interval().low)
    assert estimate.seed_variance is None


def test_mean_estimate_of_identical_images_is_the_t_test_over_seeds():
    seeds = np.array([0.2, 0.5, 0.9, 0.4])
    expected = stats.ttest_1samp(seeds, 0.0)
    estimate = mean_estimate(np.repeat(seeds[:, None], 30, axis=1))
    assert estimate.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    assert estimate.interval.high == pytest.approx(expected.confidence_interval().high)
    assert estimate.test_variance == 0


def test_mean_estimate_splits_the_variance_like_the_mean_squares_by_hand():
    values = np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    # row means 3/4, 2/4, 4/4; column means 1, 1/3, 2/3, 1; grand mean 3/4
    mean_square_seed = 4 * (0 + 1 / 16 + 1 / 16) / 2
    mean_square_image = 3 * (1 / 16 + 25 / 144 + 1 / 144 + 1 / 16) / 3
    total = 9 * (1 / 4) ** 2 + 3 * (3 / 4) ** 2
    mean_square_rest = (total - 2 * mean_square_seed - 3 * mean_square_image) / 6
    estimate = mean_estimate(values)
    assert estimate.value == 0.75
    assert estimate.seed_variance == pytest.approx(mean_square_seed / 12)
    assert estimate.test_variance == pytest.approx((mean_square_image - mean_square_rest) / 12)


def test_seeds_that_tie_by_chance_are_not_certain():
    """Both have two of eight wrong, but not the same two."""
    right = np.ones((2, 8))
    right[[0, 0, 1, 1], [0, 1, 1, 2]] = 0
    estimate = mean_estimate(right)
    # Deviations from both means: row 0 has -1/2 on image 0 and +1/2 on image 2, row 1 the reverse.
    assert estimate.seed_variance == pytest.approx(4 * (1 / 2) ** 2 / 7 / 16)
    assert estimate.interval.high - estimate.value > 0.7  # 12.7 standard errors: two seeds say little


@pytest.mark.parametrize("seeds", range(2, 9))
@pytest.mark.parametrize("wrong", [1, 7, 8, 9, 10])
def test_any_number_of_seeds_may_tie(seeds, wrong):
    """Each has as many of 180 images wrong, none the same; some of these means have a variance of 1e-34 in floats."""
    right = np.ones((seeds, 180))
    for seed in range(seeds):
        right[seed, seed * wrong : (seed + 1) * wrong] = 0
    interval = accuracy_interval(right)
    assert interval.high - interval.low > 2 * 1.9 * np.sqrt(wrong / 180 * (1 - wrong / 180) / 180 / seeds)


def test_mean_estimate_test_variance_does_not_shrink_with_seeds():
    generator = np.random.default_rng(6)
    image = generator.normal(size=2_000)
    few, many = (mean_estimate(image + generator.normal(size=(s, 2_000))) for s in (2, 40))
    assert few.test_variance == pytest.approx(1 / 2_000, rel=0.15)
    assert many.test_variance == pytest.approx(1 / 2_000, rel=0.15)
    assert many.seed_variance == pytest.approx(1 / 40 / 2_000, rel=0.6)


def test_difference_estimate_of_identical_images_is_welchs_test():
    a, b = np.array([0.2, 0.5, 0.9, 0.4]), np.array([0.1, 0.15, 0.2])
    expected = stats.ttest_ind(a, b, equal_var=False)
    rows = (np.repeat(seeds[:, None], 20, axis=1) for seeds in (a, b))
    estimate = difference_estimate(*rows, matched=False)
    assert estimate.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    assert estimate.interval.low == pytest.approx(expected.confidence_interval().low)


def test_difference_estimate_of_equal_models_is_certain():
    right = np.random.default_rng(7).random((3, 100)) < 0.9
    for matched in (True, False):
        estimate = difference_estimate(right, right, matched=matched)
        assert (estimate.value, estimate.test_variance) == (0.0, 0.0)
        assert estimate.p_value == pytest.approx(1.0)


def simulate(generator, *, seeds, images, seed_deviation, hard=0.1):
    """Right or wrong (seeds, images): hard images 60 %, others 97 %; each seed shifts all of them."""
    chance = np.where(generator.random(images) < hard, 0.6, 0.97)
    return generator.random((seeds, images)) < chance + seed_deviation * generator.standard_normal((seeds, 1))


TRUE_ACCURACY = 0.1 * 0.6 + 0.9 * 0.97


@pytest.mark.parametrize("seed_deviation", [0.0, 0.004, 0.008])
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_over_seeds_cover(seeds, seed_deviation):
    generator = np.random.default_rng(8)
    runs = [simulate(generator, seeds=seeds, images=400, seed_deviation=seed_deviation) for _ in range(TRIALS)]
    assert 0.93 <= np.mean([covers(mean_estimate(right).interval, TRUE_ACCURACY) for right in runs]) <= 0.97
    assert 0.93 <= np.mean([covers(accuracy_interval(right), TRUE_ACCURACY) for right in runs]) <= 0.97


@pytest.mark.parametrize(("seeds_a", "seeds_b", "matched"), [(3, 3, True), (5, 5, True), (5, 5, False), (3, 6, False)])
def test_differences_over_seeds_cover_and_keep_their_level(seeds_a, seeds_b, matched):
    generator = np.random.default_rng(9)
    hits, false_positives = [], []
    for _ in range(TRIALS):
        chance = np.where(generator.random(400) < 0.1, 0.6, 0.97)
        specific = np.where(generator.random((2, 1, 400)) < 0.1, -0.3, 0.0)  # each has its own hard images
        a, b = (
            generator.random((seeds, 400)) < chance + own + 0.006 * generator.standard_normal((seeds, 1))
            for seeds, own in zip((seeds_a, seeds_b), specific, strict=True)
        )
        estimate = difference_estimate(a, b, matched=matched)
        hits.append(covers(estimate.interval, 0.0))
        false_positives.append(estimate.p_value <= 0.05)
    assert 0.93 <= np.mean(hits) <= 0.97
    assert np.mean(false_positives) == pytest.approx(1 - np.mean(hits), abs=0.001)


@pytest.mark.parametrize(("accuracy", "images"), [(0.97, 1_000), (0.9922, 10_000), (0.9, 200)])
def test_wilson_interval_covers(accuracy, images):
    right = np.random.default_rng(0).binomial(images, accuracy, TRIALS)
    assert 0.93 <= np.mean([covers(wilson_interval(int(count), images), accuracy) for count in right]) <= 0.97


def test_accuracy_interval_of_one_seed_is_wilsons():
    right = np.arange(100)[None] < 97
    assert accuracy_interval(right) == wilson_interval(97, 100)
    assert accuracy_interval(np.ones((3, 50), bool)) == wilson_interval(50, 50)


# --- many comparisons, different test sets, planning


def test_holm_agrees_with_r():
    # R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm"); p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_positive():
    generator = np.random.default_rng(10)
    right = generator.random((TRIALS, 6, 1_000)) < 0.95  # six equally good configurations, 15 comparisons
    first, second = np.triu_indices(6, 1)
    only_first = (right[:, first] & ~right[:, second]).sum(axis=2)
    only_second = (~right[:, first] & right[:, second]).sum(axis=2)
    table = {(a, b): mcnemar(a, b) for a in range(110) for b in range(110)}
    wrong = 0
    for a, b in zip(only_first.tolist(), only_second.tolist(), strict=True):
        wrong += min(holm([table[pair] for pair in zip(a, b, strict=True)])) <= 0.05
    assert wrong / TRIALS <= 0.05


@pytest.mark.parametrize("seed_deviation", [0.0, 0.04])
def test_choosing_the_best_over_seeds_keeps_the_chance_of_any_false_positive(seed_deviation):
    generator = np.random.default_rng(14)
    settings = [{"optimizer": name, "seed": seed} for name in range(5) for seed in range(3)]
    wrong = 0
    for _ in range(TRIALS):  # five equally good configurations; what makes a seed lucky does so on all images
        luck = seed_deviation * generator.standard_normal((15, 1))
        right = generator.random((15, 300)) < 0.93 + luck
        validation = (generator.random((15, 200)) < 0.93 + luck).mean(axis=1)
        found = contrasts(right, validation.tolist(), settings, "optimizer")
        wrong += min(holm([after_choice(contrast.effect, contrast.levels) for contrast in found])) <= 0.05
    assert wrong / TRIALS <= 0.05


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [  # R. Newcombe, Interval Estimation for the Difference, 1998, table II, method 10
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((6, 7, 2, 7), 0.0582, 0.8062),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((0, 10, 0, 20), -0.1611, 0.2775),
        ((0, 10, 0, 10), -0.2775, 0.2775),
        ((10, 10, 0, 20), 0.6791, 1.0000),
        ((10, 10, 0, 10), 0.6075, 1.0000),
    ],
)
def test_unpaired_difference_agrees_with_newcombe(counts, low, high):
    assert rounded(unpaired_difference(*counts)) == (low, high)


def test_unpaired_difference_covers():
    generator = np.random.default_rng(11)
    a, b = generator.binomial(2_000, 0.98, TRIALS), generator.binomial(1_000, 0.97, TRIALS)
    hits = [covers(unpaired_difference(int(x), 2_000, int(y), 1_000), 0.01) for x, y in zip(a, b, strict=True)]
    assert 0.93 <= np.mean(hits) <= 0.97


def test_images_needed_agrees_with_connor():
    # Connor's formula as computed by powerandsamplesize.com (0.45, 0.05 → 23) and others (0.30, 0.15 → 155)
    assert images_needed(0.45, 0.05) == 23
    assert images_needed(0.15, 0.30) == 155
    assert images_needed(0.01, 0.01) is None


def test_images_needed_gives_the_power():
    images = images_needed(0.004, 0.002)
    only_a, only_b = np.random.default_rng(12).multinomial(images, [0.004, 0.002, 0.994], TRIALS)[:, :2].T
    found = [mcnemar(int(a), int(b), mid_p=True) <= 0.05 for a, b in zip(only_a, only_b, strict=True)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_images_needed_over_seeds_is_the_sample_size_of_a_normal_mean_where_seeds_do_not_differ():
    assert images_needed_over_seeds(0.5, 1.0, 0.0, 3) == 32  # ((1.960 + 0.842) / 0.5)² = 31.4
    assert images_needed_over_seeds(0.5, 1.0, 0.0, 3, level=0.005) == 54  # ((2.807 + 0.842) / 0.5)² = 53.2
    assert images_needed_over_seeds(0.1, 1.0, 0.01, 3) is None


def test_images_needed_over_seeds_gives_the_power():
    images = images_needed_over_seeds(0.2, 1.0, 0.001, 4)
    generator = np.random.default_rng(15)
    found = []
    for _ in range(TRIALS):  # a pair of seeds differs by 0.063 = √(4 · 0.001) more or less from the next
        luck = math.sqrt(0.004) * generator.standard_normal((4, 1))
        difference = 0.2 + luck + generator.standard_normal(images) + np.zeros((4, 1))
        found.append(mean_estimate(difference).p_value <= 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_needed_agrees_with_gpower(effect, pairs):
    # G*Power 3.1, t tests, means: difference between two dependent means, two tails, α = 0.05, power = 0.80
    assert seeds_needed(effect, 1.0) == pairs


def test_seeds_needed_cannot_overcome_a_small_test_set():
    assert seeds_needed(0.5, 1.0, 0.02) > 34
    assert seeds_needed(0.5, 1.0, 0.04) is None  # 0.5 < (1.96 + 0.84) · 0.2
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.1, 0.0) == 2


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, 0.0), (2, 0.56419), (3, 0.84628), (5, 1.16296), (10, 1.53875), (20, 1.86748), (100, 2.50759)],
)
def test_expected_best_of_agrees_with_tippett(n, expected):
    assert expected_best_of(n, 1.0) == pytest.approx(expected, abs=1e-5)
    assert expected_best_of(n, 0.25) == pytest.approx(expected / 4, abs=1e-5)


def test_expected_best_of_refuses_none():
    with pytest.raises(ValueError, match="received n=0"):
        expected_best_of(0, 1.0)


# --- options

# D. Montgomery, Design and Analysis of Experiments, table 5.1: life of a battery by material and temperature
BATTERY = {
    (1, 15): [130, 155, 74, 180], (1, 70): [34, 40, 80, 75], (1, 125): [20, 70, 82, 58],
    (2, 15): [150, 188, 159, 126], (2, 70): [136, 122, 106, 115], (2, 125): [25, 70, 58, 45],
    (3, 15): [138, 110, 168, 160], (3, 70): [174, 120, 150, 139], (3, 125): [96, 104, 82, 60],
}  # fmt: skip


def battery():
    settings = [{"material": m, "degrees": d, "seed": s} for (m, d) in BATTERY for s in range(4)]
    return list(itertools.chain(*BATTERY.values())), settings


def test_importance_agrees_with_montgomerys_analysis_of_variance():
    scores, settings = battery()
    shares = importance(scores, settings, ["material", "degrees"])
    total = 77_646.97
    assert shares.options["material"] == pytest.approx(10_683.72 / total, abs=1e-6)
    assert shares.options["degrees"] == pytest.approx(39_118.72 / total, abs=1e-6)
    assert shares.interactions == pytest.approx(9_613.78 / total, abs=1e-6)
    assert shares.repetitions == pytest.approx(18_230.75 / total, abs=1e-6)


def test_importance_of_an_incomplete_grid_credits_nobody_twice():
    scores, settings = battery()
    kept = [index for index, run in enumerate(settings) if (run["material"], run["degrees"]) != (1, 15)]
    shares = importance([scores[i] for i in kept], [settings[i] for i in kept], ["material", "degrees"])
    assert sum(shares.options.values()) + shares.interactions + shares.repetitions <= 1


def test_importance_of_equal_scores_is_zero():
    _, settings = battery()
    shares = importance([1.0] * 36, settings, ["material", "degrees"])
    assert shares.options == {"material": 0.0, "degrees": 0.0}


def test_matched_blocks_differ_in_one_option_alone():
    settings = [
        {"optimizer": "adam", "rate": 0.1, "seed": 0},
        {"optimizer": "sgd", "rate": 0.1, "seed": 0},
        {"optimizer": "adam", "rate": 0.1, "seed": 1},
        {"optimizer": "sgd", "rate": 0.2, "seed": 1},
    ]
    assert matched_blocks(settings, "optimizer") == [{"adam": 0, "sgd": 1}]
    assert matched_blocks(settings, "rate") == []


def test_contrasts_recover_a_known_effect():
    generator = np.random.default_rng(13)
    settings = [
        {"optimizer": optimizer, "depth": depth, "seed": seed}
        for optimizer in ("sgd", "adam", "lion")
        for depth in (1, 2)
        for seed in range(5)
    ]
    gain = {"sgd": 0.0, "adam": 0.05, "lion": 0.02}
    image = generator.random(2_000)
    right = np.array([image < 0.85 + gain[run["optimizer"]] + 0.03 * run["depth"] for run in settings])
    right ^= generator.random(right.shape) < 0.02
    found = contrasts(right, right.mean(axis=1), settings, "optimizer")
    assert [(c.best, c.other, c.pairs) for c in found] == [("adam", "sgd", 10), ("adam", "lion", 10)]
    for contrast, truth in zip(found, (0.05, 0.03), strict=True):
        assert covers(contrast.effect.interval, truth * 0.96)
        assert contrast.effect.p_value < 1e-4
    (depth,) = contrasts(right, right.mean(axis=1), settings, "depth")
    assert (depth.best, depth.other, depth.pairs) == (2, 1, 15)


def test_contrasts_without_matched_pairs_are_empty():
    settings = [{"rate": 0.1 * run, "depth": run, "seed": 0} for run in range(4)]
    assert contrasts(np.eye(4, dtype=bool), [0.0] * 4, settings, "rate") == []
