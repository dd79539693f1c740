from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from experiments.comparison import comparisons
from experiments.comparison.comparisons import (
    Difference,
    agreeing,
    difference,
    holm,
    holm_over_families,
    may_be_best,
    mcnemar,
    mean_of,
    step_down,
)
from experiments.comparison.effects import importance, matched_settings
from experiments.comparison.intervals import accuracy_interval, images_behind, network_difference
from experiments.comparison.overfitting import mean_curve_rises
from experiments.comparison.planning import needed, power
from experiments.comparison.selection import expected_best_of
from experiments.comparison.spread import prior, sample, sample_of_means, spreads
from experiments.comparison.studentized_range import X, log_tail, quantiles, tail
from experiments.results.evaluation import Interval, wilson_interval
from fields import Shares, as_scored, fields, image_fields, normal_field, of_known_images, uneven

TRIALS = 2_000
FEW, MANY, MANY_IMAGES = 250, 4_000, 1_000  # simulated fields


def rounded(interval, digits=4):
    return round(interval.low, digits), round(interval.high, digits)


def covers(interval, truth):
    return interval.low <= truth <= interval.high


def means(*rows):
    return [sample_of_means(row, 10**12) for row in rows]


# --- one pair of runs


@pytest.mark.parametrize(
    ("only_a", "only_b", "exact"),
    [  # Fagerland, Lydersen, Laake 2013, tables 1 and 2: airway hyper-responsiveness, complete response
        (1, 7, 0.0703),
        (6, 16, 0.0525),
        (0, 0, 1.0),
        (5, 5, 1.0),
    ],
)
def test_mcnemar_agrees_with_fagerland(only_a, only_b, exact):
    assert round(mcnemar(only_a, only_b), 4) == round(mcnemar(only_b, only_a), 4) == exact


def test_mcnemar_is_a_binomial_test():
    # A. Agresti, Categorical Data Analysis, 2002, table 10.1: 150 and 86 changed their mind, z² = 17.36
    assert mcnemar(150, 86) == pytest.approx(stats.binomtest(86, 236).pvalue, rel=1e-6)
    assert mcnemar(150, 86) == pytest.approx(math.erfc(math.sqrt(17.36 / 2)), rel=0.25)


def test_mcnemar_keeps_its_level():
    generator = np.random.default_rng(0)
    only_a, only_b = generator.multinomial(10_000, [0.003, 0.003, 0.994], TRIALS)[:, :2].T
    p_values = np.array([mcnemar(int(a), int(b)) for a, b in zip(only_a, only_b, strict=True)])
    assert 0.02 < np.mean(p_values <= 0.05) <= 0.05


def test_network_difference_agrees_with_fagerland():
    # Fagerland, Lydersen, Laake 2014, airway data: Wald with Bonett-Price Laplace adjustment
    assert rounded(network_difference(1, 7, 21), 3) == (-0.508, -0.013)


def test_network_difference_covers():
    generator = np.random.default_rng(1)
    tables = generator.multinomial(10_000, [0.004, 0.002, 0.994], TRIALS)
    hits = [covers(network_difference(int(a), int(b), 10_000), 0.002) for a, b, _ in tables]
    assert 0.93 <= np.mean(hits) <= 0.97


def test_network_difference_widens_with_its_level():
    narrow, wide = network_difference(40, 20, 10_000), network_difference(40, 20, 10_000, 0.05 / 8)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(stats.norm.isf(0.05 / 16) / 1.96, 1e-3)


@pytest.mark.parametrize(("right", "images"), [(9_914, 10_000), (360, 360), (180, 360), (0, 50), (7, 9)])
def test_images_behind_a_wilson_interval_are_found_again(right, images):
    assert images_behind(right / images, wilson_interval(right, images)) == images


def test_images_behind_no_interval_are_unknown():
    assert images_behind(0.9, Interval(math.nan, math.nan)) == 0
    assert images_behind(0.9, Interval(0.9, 0.9)) == 0


# --- the studentized range


@pytest.mark.parametrize("degrees", [1, 2, 4, 18, 60, math.inf])
@pytest.mark.parametrize("count", [2, 3, 9, 30])
def test_studentized_range_agrees_with_scipy(count, degrees):
    q = [0.3, 1, 2, 3, 3.7, 4.5, 6, 9, 20]
    expected = stats.studentized_range.sf(q, count, min(degrees, 1e5))
    assert [tail(value, count, degrees) for value in q] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("count", "degrees"), [(2, 4), (3, 3), (9, 18), (30, 60)])
def test_quantiles_of_the_studentized_range_agree_with_scipy(count, degrees):
    x = np.interp(-math.log(0.05), -log_tail(count), X)
    assert np.interp(x, X, quantiles(count, degrees)) == pytest.approx(
        stats.studentized_range.isf(0.05, count, degrees), rel=2e-3
    )


@pytest.mark.parametrize(
    ("count", "degrees", "critical"),
    [  # C. Dunnett, A Multiple Comparison Procedure, 1955, table 1a: one-sided, 95 %, k − 1 treatments
        (2, 10, 1.81), (4, 20, 2.19), (4, math.inf, 2.06), (10, math.inf, 2.42),
    ],
)  # fmt: skip
def test_one_sided_quantiles_agree_with_dunnett(count, degrees, critical):
    of_seeds = 1.0 if degrees < math.inf else 0.0
    found = Difference(1.0, of_seeds, 1.0 - of_seeds, degrees).critical(count, kind="one_sided")
    assert found == pytest.approx(critical, abs=0.005)


def test_far_tails_are_neither_zero_nor_negative():
    assert 0 < tail(14.0, 9, math.inf) < 1e-20
    assert log_tail(300).max() <= 0
    assert np.all(np.diff(log_tail(300)) <= 0)


# --- the spread of seeds


def test_sample_splits_the_variance_like_the_mean_squares_by_hand():
    values = np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    # row means 3/4, 2/4, 4/4; column means 1, 1/3, 2/3, 1; grand mean 3/4
    mean_square_seed = 4 * (0 + 1 / 16 + 1 / 16) / 2
    mean_square_image = 3 * (1 / 16 + 25 / 144 + 1 / 144 + 1 / 16) / 3
    mean_square_rest = (9 * (1 / 4) ** 2 + 3 * (3 / 4) ** 2 - 2 * mean_square_seed - 3 * mean_square_image) / 6
    found = sample(values)
    assert (found.mean, found.seeds, found.degrees, found.images) == (0.75, 3, 2, 4)
    assert found.of_seeds == pytest.approx(mean_square_seed / 4)
    assert found.of_flips == pytest.approx(mean_square_rest / 4)
    assert sample(values > 0.5).of_flips == pytest.approx(found.of_flips)


def test_prior_recovers_how_variances_scatter():
    generator = np.random.default_rng(3)
    true = 4.0 * 10 / generator.chisquare(10, 4_000)  # scaled inverse chi-square: s0² = 4, d0 = 10
    rows = generator.normal(size=(4_000, 5)) * np.sqrt(true)[:, None]
    found = prior(means(*rows))
    assert found.variance == pytest.approx(4.0, rel=0.05)
    assert found.degrees == pytest.approx(10, rel=0.2)


def test_prior_of_equal_variances_is_their_common_one():
    rows = np.random.default_rng(4).normal(size=(6_000, 4)) * 3
    found = prior(means(*rows))
    assert found.degrees > 50
    assert found.variance == pytest.approx(9, rel=0.05)
    assert prior(means([1, 2], [1, 3])) is None


def test_spread_never_undercuts_what_a_configuration_shows_itself():
    calm, wild = [1.0, 1.1, 1.2], [0.0, 5.0, 10.0]
    found = spreads(means(calm, calm, calm, calm, wild))
    assert found[-1].variance >= 25
    assert all(spread.variance >= 0.01 for spread in found)


def test_spread_is_at_least_that_of_independent_flips():
    right = np.ones((2, 8))
    right[[0, 0, 1, 1], [0, 1, 1, 2]] = 0  # both have two of eight wrong, but not the same two: their means tie
    (found,) = spreads([sample(right)])
    # Deviations from both means: row 0 has -1/2 on image 0 and +1/2 on image 2, row 1 the reverse.
    assert sample(right).of_seeds == 0
    assert found.variance == pytest.approx(4 * (1 / 2) ** 2 / 7 / 8)


def test_single_seed_borrows_the_spread_of_the_others():
    rows = [[1.0, 1.2, 0.8], [2.0, 2.1, 1.8], [3.0, 3.3, 3.1], [1.0]]
    found = spreads(means(*rows))
    common = prior(means(*rows))
    assert found[-1].variance == pytest.approx(common.variance)
    assert found[-1].degrees == min(common.degrees, 6)
    alone = spreads(means([1.0, 1.2, 0.8], [2.0]))
    assert alone[1] == pytest.approx((0.04, 2))
    assert spreads(means([1.0], [2.0])) is None


# --- differences


@pytest.mark.parametrize(
    "rows",
    [
        ([0.2, 0.5, 0.9, 0.4], [0.1, 0.15, 0.2]),
        ([24.5, 23.5, 26.4, 27.1, 29.9], [28.4, 34.2, 29.5, 32.2, 30.1], [26.1, 28.3, 24.3, 26.2, 27.8]),
    ],
)
def test_differences_without_a_prior_are_those_of_games_and_howell(rows, monkeypatch):
    monkeypatch.setattr("experiments.comparison.spread.FEWEST", 99)
    scored, degrees = as_scored(means(*rows))
    expected = stats.tukey_hsd(*rows, equal_var=False)
    for a, b in itertools.combinations(range(len(rows)), 2):
        found = difference([scored[a]], [scored[b]], degrees)
        assert found.p_value(len(rows)) == pytest.approx(expected.pvalue[a, b], abs=1e-3)
        low, high = (end[a, b] for end in expected.confidence_interval())
        assert rounded(found.interval(len(rows)), 2) == pytest.approx((low, high), abs=0.02)


def test_two_configurations_are_compared_by_welchs_test():
    rows = [0.2, 0.5, 0.9, 0.4], [0.1, 0.15, 0.2]
    scored, degrees = as_scored(means(*rows))
    found, expected = difference([scored[0]], [scored[1]], degrees), stats.ttest_ind(*rows, equal_var=False)
    assert found.p_value() == pytest.approx(expected.pvalue, abs=5e-4)
    assert found.interval().low == pytest.approx(expected.confidence_interval().low, abs=2e-3)


def test_images_in_common_cancel_and_do_not_shrink_with_seeds():
    generator = np.random.default_rng(6)
    hard, own = generator.normal(size=2_000), generator.normal(size=2_000) * 0.5
    for seeds in (2, 8):
        a = sample(hard + generator.normal(size=(seeds, 2_000)))
        b = sample(hard + own + generator.normal(size=(seeds, 2_000)))
        scored, degrees = as_scored([a, b], "same")
        assert difference(*([one] for one in scored), degrees).of_images == pytest.approx(0.25 / 2_000, rel=0.25)
        assert mean_of(a, scored[0].spread).of_images == pytest.approx(1 / 2_000, rel=0.15)


def test_images_not_in_common_count_for_both_sides():
    a, b = (sample(np.random.default_rng(seed).random((3, 1_000)) < 0.9) for seed in (0, 1))
    scored, degrees = as_scored([a, b])
    found = difference([scored[0]], [replace(scored[1], test_set="another")], degrees)
    assert found.of_images == pytest.approx(sum(s.mean * (1 - s.mean) / 1_000 for s in (a, b)))


def test_ten_matched_seeds_are_paired_and_nine_are_not():
    generator = np.random.default_rng(7)
    for seeds in (9, 10):
        luck = generator.normal(size=(seeds, 1))
        own = generator.normal(size=(2, seeds, 1)) * 0.4
        values = [luck + own[side] + generator.normal(size=(seeds, 50)) + side for side in (0, 1)]
        scored, degrees = as_scored([sample(v) for v in values], "same")
        found = difference(*([one] for one in scored), degrees)
        expected = stats.ttest_rel(values[0].mean(axis=1), values[1].mean(axis=1))
        assert found.paired == (seeds == 10)
        if seeds == 10:
            assert found.degrees == 9
            assert found.value / math.sqrt(found.of_seeds) == pytest.approx(expected.statistic)
        else:
            assert found.of_seeds > 1.5 * luck.var(ddof=1) / seeds  # with the luck that both share


def test_equal_networks_do_not_differ():
    right = np.random.default_rng(7).random((3, 100)) < 0.9
    scored, degrees = as_scored([sample(right), sample(right)], "same")
    found = difference([scored[0]], [scored[1]], degrees)
    assert (found.value, found.p_value()) == pytest.approx((0.0, 1.0))
    assert Difference(0.0, 0.0, 0.0, 1).p_value() == 1.0
    assert Difference(0.1, 0.0, 0.0, 1).p_value() == 0.0


def test_steps_compare_fewer_and_fewer_means():
    found = [Difference(value, 1.0, 0.0, 12) for value in (1.0, 6.0, 3.0)]
    adjusted = step_down(found)
    assert adjusted[1] == pytest.approx(found[1].p_value(4))
    assert adjusted[2] == pytest.approx(found[2].p_value(3))
    assert adjusted[0] == pytest.approx(found[0].p_value(2))
    assert adjusted[0] < found[0].p_value(4)
    equal = step_down([Difference(2.0, 1.0, 0.0, 12)] * 3)
    assert equal == [equal[0]] * 3  # a smaller step never has a smaller p-value


def test_interval_and_verdict_agree():
    assert agreeing(Interval(-0.1, 0.5), 0.2, 0.01) == Interval(0.0, 0.5)
    assert agreeing(Interval(-0.5, 0.1), -0.2, 0.01) == Interval(-0.5, 0.0)
    assert agreeing(Interval(0.01, 0.5), 0.2, 0.06) == Interval(0.0, 0.5)
    assert agreeing(Interval(0.1, 0.5), 0.2, 0.01) == Interval(0.1, 0.5)


def test_may_be_best_leaves_out_the_clearly_worse():
    generator = np.random.default_rng(0)
    rows = [generator.normal(mean, 0.1, 3) for mean in (1.0, 1.05, 3.0, 3.05, 2.0)]
    assert may_be_best(*as_scored(means(*rows))) == [False, False, True, True, False]


def simulate(generator, *, seeds, images, seed_deviation, hard=0.1):
    """Right or wrong (seeds, images): hard images 60 %, others 97 %; each seed shifts all of them."""
    chance = np.where(generator.random(images) < hard, 0.6, 0.97)
    return generator.random((seeds, images)) < chance + seed_deviation * generator.standard_normal((seeds, 1))


TRUE_ACCURACY = 0.1 * 0.6 + 0.9 * 0.97


@pytest.mark.parametrize("seed_deviation", [0.0, 0.004, 0.008])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_accuracy_intervals_cover(seeds, seed_deviation):
    generator = np.random.default_rng(8)
    hits, without = [], []
    for _ in range(600):
        right = simulate(generator, seeds=seeds, images=400, seed_deviation=seed_deviation)
        known, told = sample(right), sample_of_means(right.mean(axis=1), 400)
        hits.append(covers(accuracy_interval(known, spreads([known])[0]), TRUE_ACCURACY))
        without.append(covers(accuracy_interval(told, spreads([told])[0]), TRUE_ACCURACY))
    assert np.mean(hits) >= 0.93
    assert np.mean(without) >= 0.93


@pytest.mark.parametrize(("accuracy", "images"), [(0.97, 1_000), (0.9922, 10_000), (0.9, 200)])
def test_wilson_interval_covers(accuracy, images):
    right = np.random.default_rng(0).binomial(images, accuracy, TRIALS)
    assert 0.93 <= np.mean([covers(wilson_interval(int(count), images), accuracy) for count in right]) <= 0.97


def test_accuracy_interval_of_one_seed_is_wilsons():
    right = np.arange(100)[None] < 97
    assert accuracy_interval(sample(right), None) == wilson_interval(97, 100)
    perfect = sample(np.ones((3, 50), bool))
    assert accuracy_interval(perfect, spreads([perfect])[0]) == wilson_interval(50, 50)
    assert accuracy_interval(sample_of_means([0.9], 0), None) == Interval(-math.inf, math.inf)


@pytest.mark.parametrize("seeds", range(2, 9))
@pytest.mark.parametrize("wrong", [1, 7, 8, 9, 10])
def test_any_number_of_seeds_may_tie(seeds, wrong):
    """Each has as many of 180 images wrong, none the same; some of these means have a variance of 1e-34 in floats."""
    right = np.ones((seeds, 180))
    for seed in range(seeds):
        right[seed, seed * wrong : (seed + 1) * wrong] = 0
    found = sample(right)
    interval = accuracy_interval(found, spreads([found])[0])
    assert interval.high - interval.low > 2 * 1.9 * np.sqrt(wrong / 180 * (1 - wrong / 180) / 180 / seeds)


# --- whole sweeps whose truth is known


@pytest.fixture
def known_images(monkeypatch):
    monkeypatch.setattr(comparisons, "_of_own_images", of_known_images)


EQUAL = [(3, 2, 0.060), (3, 3, 0.060), (9, 3, 0.060), (9, 5, 0.060), (30, 3, 0.060)]
UNEVEN = [  # configurations, seeds, share of them, whose spread is how many times that of the others, limit
    *((k, s, share, 2, 0.075) for k, s in ((3, 3), (9, 3), (9, 5)) for share in (0.0, 1 / 3)),
    (30, 3, 1 / 3, 2, 0.10), (3, 2, 0.0, 5, 0.11), (3, 3, 0.0, 5, 0.11), (9, 3, 0.0, 5, 0.11), (9, 5, 0.0, 5, 0.06),
]  # fmt: skip
POWER = [(9, 3, 0.5, 0.95), (9, 3, 0.2, 0.35), (10, 2, 0.5, 0.85), (3, 3, 0.2, 0.45)]


def slack(limit: float, count: int) -> float:
    """Two standard errors of a simulated share."""
    return 2 * math.sqrt(limit * (1 - limit) / count)


@pytest.mark.usefixtures("known_images")
def test_equal_configurations_are_rarely_said_to_differ():
    found = fields(FEW, 3, 3)
    assert found.wrong <= 0.06 + slack(0.06, FEW)
    assert found.covered >= 0.94 - slack(0.06, FEW)
    assert found.able >= 0.95 - slack(0.05, FEW)


@pytest.mark.usefixtures("known_images")
def test_half_a_point_is_found_with_nine_configurations_and_three_seeds():
    assert fields(60, 9, 3, gap=0.5).found >= 0.95


def test_single_images_give_the_same_picture():
    assert image_fields(40, 3, 3, images=1_000).wrong <= 0.06 + slack(0.06, 40)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("known_images")
@pytest.mark.parametrize(("configurations", "seeds", "limit"), EQUAL)
def test_errors_among_equals(configurations, seeds, limit):
    found = fields(MANY, configurations, seeds)
    tell(f"equal {configurations} × {seeds}", found)
    assert found.wrong <= limit
    assert found.covered >= 0.94
    assert found.able >= 0.94


@pytest.mark.exhaustive
@pytest.mark.usefixtures("known_images")
@pytest.mark.parametrize(("configurations", "seeds", "share", "factor", "limit"), UNEVEN)
def test_errors_among_uneven_spreads(configurations, seeds, share, factor, limit):
    found = fields(MANY, configurations, seeds, spread=uneven(configurations, share, factor))
    tell(f"{factor}× in {share:.2f} of {configurations} × {seeds}", found)
    assert found.wrong <= limit


@pytest.mark.exhaustive
@pytest.mark.usefixtures("known_images")
def test_errors_where_the_bad_scatter_more_than_the_good():
    generator = np.random.default_rng(1)
    wrong = []
    for _ in range(MANY):
        truth = np.array([0.99] * 5 + [0.97] * 4)
        samples = normal_field(generator, truth, 3, np.array([1.0] * 5 + [5.0] * 4) * 0.0005)
        scored, degrees = as_scored(samples)
        first = int(np.argmax([s.mean for s in samples]))
        others = [index for index in range(9) if index != first]
        p = step_down([difference([scored[first]], [scored[index]], degrees) for index in others])
        wrong.append(
            any(value <= 0.05 and truth[index] == truth[first] for value, index in zip(p, others, strict=True))
        )
    assert np.mean(wrong) <= 0.05


@pytest.mark.exhaustive
@pytest.mark.usefixtures("known_images")
@pytest.mark.parametrize(("configurations", "seeds", "gap", "least"), POWER)
def test_gaps_are_found(configurations, seeds, gap, least):
    found = fields(MANY, configurations, seeds, gap=gap)
    tell(f"gap {gap} of {configurations} × {seeds}", found)
    assert found.found >= least
    assert found.covered >= 0.94


@pytest.mark.exhaustive
@pytest.mark.parametrize(("configurations", "seeds"), [(3, 3), (9, 3), (5, 10)])
def test_errors_with_single_images(configurations, seeds):
    found = image_fields(MANY_IMAGES, configurations, seeds)
    tell(f"images {configurations} × {seeds}", found)
    assert found.wrong <= 0.06 + slack(0.06, MANY_IMAGES)
    assert found.covered >= 0.94 - slack(0.06, MANY_IMAGES)


def tell(what: str, found: Shares) -> None:
    """For the table of errors and power; seen with `pytest -s`."""
    print(f"\n{what}: wrong {found.wrong:.4f}, found {found.found:.3f}, covered {found.covered:.4f}")


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)])
@pytest.mark.usefixtures("known_images")
def test_equivalence_at_the_margin_is_rarely_claimed(count):
    generator, margin, claimed = np.random.default_rng(5), 0.002, []
    for _ in range(count):
        scored, degrees = as_scored(normal_field(generator, np.array([0.99 + margin, 0.99]), 5, np.full(2, 0.0005)))
        interval = difference([scored[0]], [scored[1]], degrees).interval()
        claimed.append(max(-interval.low, interval.high) < margin)
    assert np.mean(claimed) <= 0.055


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_noise_is_rarely_called_overfitting(seeds):
    generator, found = np.random.default_rng(seeds), []
    for _ in range(400):
        noise = generator.normal(size=(seeds, 30))
        for epoch in range(1, 30):
            noise[:, epoch] = 0.7 * noise[:, epoch - 1] + math.sqrt(0.51) * noise[:, epoch]
        found.append(mean_curve_rises((0.03 + 0.2 * np.exp(-np.arange(30) / 4)) * (1 + 0.1 * noise)))
    assert np.mean(found) <= 0.10


def test_rising_curves_are_called_overfitting():
    curves = 0.03 + 0.2 * np.exp(-np.arange(30) / 4) + 0.001 * np.maximum(0, np.arange(30) - 15)
    noise = np.random.default_rng(0).normal(size=(3, 30)) * 0.0005
    assert mean_curve_rises(curves + noise)
    assert not mean_curve_rises(np.minimum.accumulate(curves) + noise)


# --- many comparisons, planning, selection


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


def test_families_are_corrected_by_their_smallest():
    assert holm_over_families([[0.04, 0.5], [0.01], []]) == [[0.04, 0.5], [0.02], []]
    assert holm_over_families([[0.03], [0.02, 0.04]]) == [[0.04], [0.04, 0.08]]
    assert holm_over_families([[]]) == [[]]


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 394), (0.5, 64), (0.8, 26)])
def test_seeds_needed_agree_with_gpower(effect, seeds):
    # G*Power 3.1, t tests, means: difference between two independent means, two tails, α = 0.05, power = 0.80
    found = needed(Difference(effect, 2.0 / 3, 0.0, 4), 3, 1_000, 2)
    assert found.seeds == pytest.approx(seeds, abs=1)
    assert found.images is None


def test_images_needed_are_the_sample_size_of_a_normal_mean_where_seeds_do_not_differ():
    assert needed(Difference(0.5, 1e-12, 1.0 / 3, 4), 3, 3, 2).images == pytest.approx(32, abs=1)  # (2.80 / 0.5)²


def test_what_is_needed_would_give_the_power():
    found = Difference(0.0018, 0.0005**2, 0.0004**2, 8)
    need = needed(found, 3, 10_000, 5)
    with_seeds = Difference(0.0018, 0.0005**2 * 3 / need.seeds, 0.0004**2, 8 * (need.seeds - 1) / 2)
    assert power(with_seeds, 5) == pytest.approx(0.8, abs=0.04)
    assert needed(Difference(0.0001, 0.0005**2, 0.0004**2, 8), 3, 10_000, 5).seeds is None  # images alone hide it
    assert power(Difference(0.0, 0.0, 0.0, 1), 2) == 0.0


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


def test_importance_agrees_with_omega_squared_of_montgomerys_analysis_of_variance():
    scores, settings = battery()
    shares = importance(scores, settings, ["material", "degrees"])
    total, within = 77_646.97, 18_230.75
    mean_square = within / 27
    assert shares.options["material"] == pytest.approx((10_683.72 - 2 * mean_square) / (total + mean_square), abs=1e-6)
    assert shares.options["degrees"] == pytest.approx((39_118.72 - 2 * mean_square) / (total + mean_square), abs=1e-6)
    assert shares.combinations == pytest.approx((9_613.78 - 4 * mean_square) / (total + mean_square), abs=1e-6)
    assert list(shares.shares()) == ["material", "degrees", "combinations", "seeds"]


def test_shares_sum_to_one_also_in_an_incomplete_grid():
    scores, settings = battery()
    kept = [index for index, run in enumerate(settings) if (run["material"], run["degrees"]) != (1, 15)]
    for chosen in (range(36), kept):
        shares = importance([scores[i] for i in chosen], [settings[i] for i in chosen], ["material", "degrees"])
        assert sum(shares.shares().values()) == pytest.approx(1)
        assert min(shares.shares().values()) >= 0


def test_importance_without_repetition_or_variance_says_nothing():
    scores, settings = battery()
    assert importance([1.0] * 36, settings, ["material", "degrees"]) is None
    single = [run for run in settings if run["seed"] == 0]
    assert importance(scores[::4], single, ["material", "degrees"]) is None


def test_importance_of_noise_is_zero_on_average():
    generator = np.random.default_rng(2)
    settings = [{"a": a, "b": b, "seed": s} for a in range(3) for b in range(3) for s in range(3)]
    found = [importance(generator.normal(size=27).tolist(), settings, ["a", "b"]).options["a"] for _ in range(2_000)]
    assert abs(np.mean(found)) <= 0.005


def test_matched_settings_differ_in_one_option_alone():
    settings = [
        {"optimizer": "adam", "rate": 0.1},
        {"optimizer": "sgd", "rate": 0.1},
        {"optimizer": "adam", "rate": 0.3},
        {"optimizer": "sgd", "rate": 0.2},
    ]
    assert matched_settings(settings, "optimizer") == [{"adam": 0, "sgd": 1}]
    assert matched_settings(settings[2:], "rate") == []
