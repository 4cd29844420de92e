"""How many labels a regime is worth: closed forms, scikit-learn, and how often intervals hold a known truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import interpolate, stats
from sklearn.isotonic import isotonic_regression

from mtl.report import bootstrap, contrasts, efficiency
from mtl.report.analyse import analyse
from mtl.report.analysis import Sizes

from .studies import scores_of

PAIR = ("scratch", "finetune")
SIZES = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


def curve(n):
    """What scratch has with n labels."""
    return 0.5 + 0.1 * np.log10(n)


def exact(regime, baseline=curve, sizes=SIZES, **changes):
    """A study of two replicates and three test examples, all alike but for their levels."""
    means = np.array([[baseline(n) for n in sizes], [regime(n) for n in sizes]])
    noise = np.array([[-0.1, 0.0, 0.1], [-0.05, 0.0, 0.05]])
    return analyse(scores_of(means[:, :, None, None] + noise, PAIR, sizes=sizes, **changes), resamples=50)


def noisy(rng, regime, sizes, replicates=12, examples=80):
    """Scores with replicates and test examples as crossed effects, which regimes and sizes share in part."""
    means = np.array([[curve(n) for n in sizes], [regime(n) for n in sizes]])[:, :, None, None]
    count = len(sizes)
    shared = rng.normal(0, 0.3, examples) + rng.normal(0, 0.03, (replicates, 1))
    own = (
        rng.normal(0, 0.015, (2, count, replicates, 1))
        + rng.normal(0, 0.06, (2, count, 1, examples))
        + rng.normal(0, 0.2, (2, count, replicates, examples))
    )
    return means + shared + own


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-9, 9), min_size=1, max_size=7))
def test_isotonic_regression_is_scikit_learns(values):
    y = np.array(values)
    np.testing.assert_allclose(efficiency.isotonic(np.stack([y, -y], axis=1))[:, 0], isotonic_regression(y), atol=1e-9)


@pytest.mark.parametrize("times", [0.7, 1.0, 1.5, 2.0])
def test_a_baseline_with_more_labels_is_worth_them(times):
    found = exact(lambda n: curve(times * n)).worth["finetune"]
    for n in SIZES:
        if SIZES[0] <= times * n <= SIZES[-1]:
            assert found[n].times == pytest.approx(times)
            assert (found[n].low, found[n].high) == pytest.approx((times, times))
        elif times > 1:  # Beyond what was measured.
            assert (found[n].least, found[n].most) == (pytest.approx(500 / n), math.inf)
            assert math.isnan(found[n].times) and math.isinf(found[n].high)
        else:
            assert (found[n].least, found[n].most, found[n].low) == (0.0, pytest.approx(10 / n), 0.0)


def test_between_sizes_the_curve_is_linear_in_the_logarithm_and_its_dips_are_pooled():
    levels = np.array([0.50, 0.60, 0.56, 0.70, 0.80, 0.90])
    regime = np.array([0.55, 0.65, 0.69, 0.71, 0.82, 0.95])
    at = {n: k for k, n in enumerate(SIZES)}
    found = exact(lambda n: regime[at[n]], lambda n: levels[at[n]]).worth["finetune"]
    smooth = isotonic_regression(levels)
    for n in (10.0, 100.0, 200.0):
        wanted = interpolate.interp1d(smooth, np.log(SIZES))(smooth[at[n]] + regime[at[n]] - levels[at[n]])
        assert found[n].times == pytest.approx(math.exp(wanted) / n)
    assert all((found[n].least > 1) == (regime[k] > levels[k]) for n, k in at.items() if n != 500.0)


def test_less_is_better_of_losses_and_neither_unit_nor_order_matters():
    rng = np.random.default_rng(0)
    values = noisy(rng, lambda n: curve(2 * n), SIZES)
    kinds = [
        analyse(scores_of(scale * values, PAIR, metric="score", margin=0.02 * abs(scale), **changes), 200)
        for scale, changes in ((1.0, {}), (-7.0, {"higher_is_better": False}))
    ]
    for n in SIZES:
        first, second = (k.worth["finetune"][n] for k in kinds)
        assert (first.least, first.low, first.high) == pytest.approx((second.least, second.low, second.high))
    one, two = (k.over_sizes["finetune"] for k in kinds)
    assert (two.gain, two.iqm_low, two.improvement) == pytest.approx((7 * one.gain, 7 * one.iqm_low, one.improvement))


def test_over_sizes_are_the_geometric_mean_the_mean_gain_and_those_of_others():
    values = noisy(np.random.default_rng(1), lambda n: curve(1.3 * n) + 0.02, SIZES)
    got = analyse(scores_of(values, PAIR), 400)
    whole, each = got.over_sizes["finetune"], got.worth["finetune"]
    gains = (values[1] - values[0]).mean(axis=-1)
    assert whole.gain == pytest.approx(np.mean([got.cells["finetune"][n].gain for n in SIZES]))
    assert whole.gain_low < whole.gain < whole.gain_high
    assert (
        whole.gain_high - whole.gain_low < got.cells["finetune"][50.0].gain_high - got.cells["finetune"][50.0].gain_low
    )
    assert whole.iqm == pytest.approx(stats.trim_mean(gains, 0.25, axis=None))
    assert whole.improvement == pytest.approx((gains > 0).mean())
    assert whole.improvement_low < whole.improvement < whole.improvement_high
    assert whole.worth.least == pytest.approx(stats.gmean([w.least for w in each.values()]))
    assert math.isinf(whole.worth.most) and math.isnan(whole.worth.times)  # That of 500 labels is only bounded.
    assert whole.worth.low <= whole.worth.least
    turned = {10.0: 10.0, 20.0: 40.0, 40.0: 20.0, 80.0: 80.0}
    inner = exact(lambda n: curve(turned[n]), sizes=tuple(turned)).over_sizes["finetune"].worth
    assert (inner.times, inner.low, inner.high) == pytest.approx((1.0, 1.0, 1.0))


def test_a_missing_replicate_is_as_good_as_none():
    values = noisy(np.random.default_rng(2), lambda n: curve(2 * n), SIZES, 16, 150)
    values[0, 3, 2] = np.nan
    part, whole = (analyse(scores_of(v, PAIR), 3000) for v in (values, np.delete(values, 2, axis=2)))
    for n in SIZES[:-1]:
        first, second = (a.worth["finetune"][n] for a in (part, whole))
        assert first.least == pytest.approx(second.least)
        if n in (50.0, 100.0):
            assert (first.low, first.high) == pytest.approx((second.low, second.high), rel=0.15)
    assert part.over_sizes["finetune"].replicates == 15
    assert part.over_sizes["finetune"].gain == pytest.approx(whole.over_sizes["finetune"].gain)
    values[1] = np.nan
    none = analyse(scores_of(values, PAIR), 50)
    assert (none.worth, none.over_sizes) == ({"finetune": {}}, {})


def test_one_replicate_or_one_size_says_what_it_can():
    values = noisy(np.random.default_rng(3), lambda n: curve(2 * n), SIZES, replicates=1)
    one = analyse(scores_of(values, PAIR), 400).worth["finetune"][50.0]
    assert one.low < one.times < one.high
    single = exact(lambda n: curve(2 * n), sizes=(10.0,)).worth["finetune"][10.0]
    assert (single.least, single.most, single.low, single.high) == (1.0, math.inf, 1.0, math.inf)


def test_columns_that_are_no_labels_are_worth_none():
    got = exact(lambda n: curve(2 * n), sizes=Sizes.of("data.source_size", (10.0, 20.0)))
    assert (got.worth, got.over_sizes["finetune"].worth) == ({}, None)
    assert got.over_sizes["finetune"].gain == pytest.approx(0.1 * math.log10(2))


def coverage(times: float, studies: int, seed: int, **changes) -> tuple[np.ndarray, np.ndarray]:
    """How often intervals of the multipliers at 30, 100 and 300 labels hold the truth, and that of the mean gain."""
    sizes = (10.0, 30.0, 100.0, 300.0, 1000.0)
    rng, inside, gains = np.random.default_rng(seed), [], []
    for _ in range(studies):
        scores = scores_of(noisy(rng, lambda n: curve(times * n), sizes, **changes), PAIR, sizes=sizes)
        pairs = contrasts.compare(scores.values, bootstrap.two_way_bootstrap(scores.values, 1000))
        each, total = efficiency.worth(pairs, scores, {1: 0})
        inside.append([each["finetune"][n].low <= times <= each["finetune"][n].high for n in (30.0, 100.0, 300.0)])
        gains.append(total["finetune"].gain_low <= 0.1 * math.log10(times) <= total["finetune"].gain_high)
    return np.mean(inside, axis=0), np.mean(gains)


def test_intervals_cover_in_a_few_studies():
    inside, gains = coverage(2.0, 40, 4)
    assert inside.mean() > 0.88 and gains > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("times", [1.0, 2.0])
def test_intervals_cover_as_often_as_they_say(times):
    studies = 200
    inside, gains = coverage(times, studies, 5)
    slack = 2.5 * math.sqrt(0.05 * 0.95 / studies)
    for share in (*inside, gains):
        assert 0.93 - slack < share < 0.97 + slack
    assert 0.93 - slack / 2 < inside.mean() < 0.97 + slack / 2
