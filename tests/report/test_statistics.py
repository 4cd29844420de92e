from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from mtl.report import bootstrap, contrasts, statistics

from .studies import crossed, null_study


def gaussian(rng, cells, r, i, a=1.0, b=1.0, e=1.0):
    shape = (cells, r, i)
    return rng.normal(0, a, (cells, r, 1)) + rng.normal(0, b, (cells, 1, i)) + rng.normal(0, e, shape)


# ---------------------------------------------------------------------------------------- bootstrap


def test_draws_have_the_pigeonhole_variance():
    x = np.random.default_rng(0).normal(size=(1, 12, 40)) + np.random.default_rng(1).normal(size=(1, 12, 1))
    draws = bootstrap.two_way_bootstrap(x, 20_000)
    # The exact variance of the multinomial product, for fixed data.
    c = x[0] - x[0].mean()
    a, b = c.mean(1), c.mean(0)
    e = c - a[:, None] - b
    exact = (a @ a) / 12**2 + (b @ b) / 40**2 + np.square(e).sum() / (12 * 40) ** 2
    assert draws.var() == pytest.approx(exact, rel=0.04)
    assert draws.mean() == pytest.approx(x.mean(), abs=4 * np.sqrt(exact / 20_000))


def test_one_way_bootstrap_agrees_with_scipy():
    x = np.random.default_rng(0).exponential(size=30)
    ours = bootstrap.percentile_interval(bootstrap.two_way_bootstrap(x[:, None], 20_000))
    scipys = scipy.stats.bootstrap((x,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    np.testing.assert_allclose(ours, scipys.confidence_interval, atol=0.02)
    mean, *paired = bootstrap.paired_bootstrap(x + 1, np.ones(30), 20_000)
    assert mean == pytest.approx(x.mean())
    np.testing.assert_allclose(paired, scipys.confidence_interval, atol=0.02)


def test_draws_do_not_depend_on_the_other_cells_or_on_blocks():
    x = np.random.default_rng(0).normal(size=(4, 3, 7, 11))
    whole = bootstrap.two_way_bootstrap(x, 1100, seed=5)
    np.testing.assert_allclose(bootstrap.two_way_bootstrap(x[2], 1100, seed=5), whole[:, 2], atol=1e-12)
    np.testing.assert_allclose(bootstrap.two_way_bootstrap(x, 1030, seed=5)[:512], whole[:512], atol=1e-12)
    assert not np.allclose(bootstrap.two_way_bootstrap(x, 1100, seed=6), whole)


def test_missing_replicates_are_left_out_of_their_cell_only():
    x = np.random.default_rng(0).normal(size=(2, 6, 9))
    gap = x.copy()
    gap[1, 2:] = np.nan
    whole, draws = bootstrap.two_way_bootstrap(x, 3000), bootstrap.two_way_bootstrap(gap, 3000)
    np.testing.assert_array_equal(draws[:, 0], whole[:, 0])
    lost = np.isnan(draws[:, 1]).mean()
    assert lost == pytest.approx((4 / 6) ** 6, abs=0.02)
    assert np.nanmean(draws[:, 1]) == pytest.approx(x[1, :2].mean(), abs=0.02)
    assert np.isnan(bootstrap.two_way_bootstrap(np.full((1, 3, 4), np.nan), 10)).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[1.0, np.nan]]), "some test examples"),
        (np.array([[1.0, np.inf]]), "infinite"),
        (np.zeros((3, 0)), "empty"),
    ],
)
def test_bad_scores_are_named(values, words):
    with pytest.raises(ValueError, match=words):
        bootstrap.two_way_bootstrap(values)


def test_error_is_that_of_the_crossed_variance_components():
    rng = np.random.default_rng(0)
    a, b, e = 0.7, 1.5, 2.0
    x = gaussian(rng, 3000, 8, 30, a, b, e)
    mean, se, _, replicates = statistics.two_way_error(x)
    exact = a**2 / 8 + b**2 / 30 + e**2 / (8 * 30)
    assert mean.var() == pytest.approx(exact, rel=0.08)
    assert np.square(se).mean() == pytest.approx(exact, rel=0.04)
    assert (replicates == 8).all()


@pytest.mark.parametrize(("a", "b", "e"), [(1, 3, 1), (0, 0, 1), (1, 0, 3), (0, 3, 3), (1, 0, 0)])
def test_intervals_cover_new_replicates_and_new_examples(a, b, e):
    x = gaussian(np.random.default_rng(1), 600, 20, 50, a, b, e)
    mean, se, df, _ = statistics.two_way_error(x)
    draws = bootstrap.two_way_bootstrap(x, 600)
    ends = np.array([bootstrap.two_way_interval(draws[:, k], mean[k], se[k], df[k]) for k in range(600)])
    covered = ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean()
    assert 0.93 <= covered <= 0.99
    p = np.array([statistics.p_value(mean[k], se[k], df[k], 20) for k in range(600)])
    assert 0.01 <= (p <= 0.05).mean() <= 0.07


def test_intervals_over_seeds_only_are_far_too_narrow():
    """The reason for resampling the examples too."""
    x = gaussian(np.random.default_rng(2), 500, 20, 50, 0.3, 1.5, 1.0)
    seeds = np.array([statistics.t_interval(v.mean(axis=1))[1:] for v in x])
    assert ((seeds[:, 0] <= 0) & (seeds[:, 1] >= 0)).mean() < 0.75
    mean, se, df, _ = statistics.two_way_error(x)
    half = scipy.stats.t.ppf(0.975, df) * se
    assert 0.93 <= (np.abs(mean) <= half).mean() <= 0.99


@pytest.mark.parametrize("replicates", [2, 3, 5])
def test_few_replicates_make_wide_intervals_that_still_cover(replicates):
    x = gaussian(np.random.default_rng(3), 500, replicates, 60, 1.0, 1.0, 1.0)
    mean, se, df, _ = statistics.two_way_error(x)
    draws = bootstrap.two_way_bootstrap(x, 400)
    ends = np.array([bootstrap.two_way_interval(draws[:, k], mean[k], se[k], df[k]) for k in range(500)])
    assert ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean() >= 0.90
    assert (2 * scipy.stats.t.sf(np.abs(mean) / se, df) <= 0.05).mean() <= 0.07


# ---------------------------------------------------------------------------------------- tests


def test_one_example_is_the_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 15))
    assert statistics.paired_t_test(a, b) == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue)
    mean, low, high = statistics.t_interval(a)
    expected = scipy.stats.t.interval(0.95, 14, loc=a.mean(), scale=scipy.stats.sem(a))
    np.testing.assert_allclose((mean, low, high), (a.mean(), *expected))
    a[3] = np.nan
    assert statistics.paired_t_test(a, b) == pytest.approx(
        scipy.stats.ttest_rel(np.delete(a, 3), np.delete(b, 3)).pvalue
    )


def test_degenerate_differences_make_no_unfounded_claim():
    same = np.full((4, 9), 0.3)
    mean, se, df, r = statistics.two_way_error(same - same)
    assert statistics.p_value(float(mean), float(se), float(df), int(r)) == 1.0
    mean, se, df, r = statistics.two_way_error(same + 0.1 - same)
    assert se == 0
    assert statistics.p_value(float(mean), float(se), float(df), int(r)) == 0.125
    mean, se, *_ = statistics.two_way_error(same[:1])
    assert mean == pytest.approx(0.3)
    assert np.isnan(se)
    assert np.isnan(statistics.p_value(0.1, np.nan, np.nan, 1))
    assert statistics.t_interval(np.array([0.5]))[0] == 0.5
    assert np.isnan(bootstrap.paired_bootstrap(np.array([np.nan]), np.array([1.0]))).all()


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=40))
def test_holm_is_statsmodels_with_nan_passed_through(p):
    p = np.array(p, dtype=np.float64)
    ours = statistics.holm(p)
    there = ~np.isnan(p)
    assert np.isnan(ours[~there]).all()
    if there.any():
        np.testing.assert_allclose(ours[there], multipletests(p[there], method="holm")[1], atol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.05])
def test_tost_is_statsmodels(shift):
    rng = np.random.default_rng(0)
    a, b = rng.normal(shift, 0.05, 20), rng.normal(0, 0.05, 20)
    expected, *_ = ttost_paired(a, b, -0.02, 0.02)
    mean, se, df, _ = statistics.two_way_error((a - b)[:, None])
    assert statistics.tost(float(mean), float(se), float(df), 0.02) == pytest.approx(expected)
    low, high = mean - se * scipy.stats.t.ppf(0.95, df), mean + se * scipy.stats.t.ppf(0.95, df)
    assert (expected < 0.05) == (low > -0.02 and high < 0.02)


def test_tost_rejects_a_margin_that_is_none():
    assert statistics.tost(0.0, 0.0, 19.0, 0.02) == 0.0
    assert np.isnan(statistics.tost(0.0, np.nan, 19.0, 0.02))
    with pytest.raises(ValueError, match="margin: -1"):
        statistics.tost(0.0, 1.0, 19.0, -1.0)


# ---------------------------------------------------------------------------------------- crossovers

SIZES = (10.0, 20.0, 50.0, 100.0)


def crossings(values):
    draws = bootstrap.two_way_bootstrap(values, 600)
    names = [f"r{i}" for i in range(len(values))]
    return contrasts.crossovers(contrasts.compare(values, draws), names, SIZES, names)


def test_a_crossing_is_found_where_it_was_put():
    # Equal at n = 20 · (50/20)^(1/2), half way in log n.
    (found,) = crossings(crossed(np.array([[0.80, 0.80, 0.80, 0.80], [0.70, 0.76, 0.84, 0.90]]), seed=1))
    assert (found.leader, found.overtaker, found.between) == ("r0", "r1", (20.0, 50.0))
    assert 20 < found.low < np.sqrt(1000) < found.high < 50
    assert found.share > 0.95


@pytest.mark.parametrize(
    "rates",
    [
        [[0.7, 0.75, 0.8, 0.85], [0.75, 0.8, 0.85, 0.9]],  # parallel
        [[0.7, 0.75, 0.8, 0.85], [0.6, 0.7, 0.8, 0.85]],  # they meet, and stay together
        [[0.7, 0.7, 0.7, 0.7], [0.8, 0.6, 0.8, 0.6]],  # they weave
        [[0.7, 0.7, 0.7, 0.7], [0.7, 0.7, 0.7, 0.7]],
    ],
)
def test_no_crossing_where_there_is_none(rates):
    for seed in range(10):
        assert crossings(crossed(np.array(rates), seed=seed)) == ()


def test_crossing_intervals_cover():
    rates = np.array([[0.80, 0.80, 0.80, 0.80], [0.75, 0.78, 0.82, 0.86]])
    inside, shown = 0, 0
    for seed in range(60):
        for c in crossings(crossed(rates, seed=seed, examples=80, noise=0.2)):
            shown += 1
            inside += c.low <= np.sqrt(1000) <= c.high
    assert shown > 40
    assert inside / shown >= 0.85


def test_crossing_sizes_of_every_kind_of_curve():
    n = np.array([0.0, 9.0, 99.0])
    curves = np.array([[-1, 1, 1], [-1, -1, 1], [1, -1, 1], [-1, -2, -1], [1, 1, 2], [1, -1, -1], [0, 0, 0]])
    first, last, count = bootstrap.crossing_sizes(n, curves.astype(float))
    middle = [np.sqrt(10) - 1, np.sqrt(1000) - 1]
    np.testing.assert_allclose(first, [middle[0], middle[1], middle[1], 99, 0, 0, 0])
    np.testing.assert_allclose(last, [middle[0], middle[1], middle[1], 99, 0, 99, 0])
    assert count.tolist() == [1, 1, 0, 0, 0, -1, 0]
    with pytest.raises(ValueError, match="ascend"):
        bootstrap.crossing_sizes(np.array([2.0, 1.0]), np.zeros((1, 2)))


# ---------------------------------------------------------------------------------------- calibration


def false_claims(studies: int, groups: int, sizes: int, replicates: int, examples: int, high: float) -> int:
    rng = np.random.default_rng(4)
    claims = 0
    for _ in range(studies):
        x = null_study(rng, groups, np.linspace(0.3, high, sizes), replicates, examples)
        mean, se, df, r = statistics.two_way_error(x[1:] - x[:1])
        cells = zip(mean.ravel(), se.ravel(), df.ravel(), r.ravel(), strict=True)
        p = np.array([statistics.p_value(float(m), float(s), float(d), int(k)) for m, s, d, k in cells])
        claims += bool((statistics.holm(p) <= 0.05).any())
    return claims


def test_quick_studies_of_nothing_claim_nothing():
    assert false_claims(100, 5, 3, 20, 100, 2.5) <= 12


@pytest.mark.slow
@pytest.mark.parametrize(("replicates", "high"), [(20, 2.5), (20, 4.5), (5, 2.5)])
def test_studies_of_nothing_claim_nothing(replicates, high):
    """8 regimes against scratch × 6 sizes × 500 images: at most 29 family-wise claims in 400."""
    assert false_claims(400, 9, 6, replicates, 500, high) <= 29


def at_the_margin(rng, cells: int, replicates: int = 20, examples: int = 100):
    """Paired gains of which each is exactly the margin of 0.02: no cell is equivalent."""
    shape = (cells, replicates, examples)
    return 0.02 + rng.normal(0, 0.006, (cells, replicates, 1)) + rng.normal(0, 0.05, shape)


def false_equivalences(studies: int, cells: int, corrected: bool) -> int:
    rng, found = np.random.default_rng(5), 0
    for _ in range(studies):
        mean, se, df, _ = statistics.two_way_error(at_the_margin(rng, cells))
        p = np.array([statistics.tost(*map(float, of), 0.02) for of in zip(mean, se, df, strict=True)])
        found += bool(((statistics.holm(p) if corrected else p) <= 0.05).any())
    return found


def test_gains_at_the_margin_are_rarely_called_equivalent():
    """12 cells a study: 5 % of studies may hold a false claim; uncorrected it is 1 − 0.95^12, nearly half."""
    assert false_equivalences(300, 12, corrected=True) <= 300 * (0.05 + 3 * np.sqrt(0.05 * 0.95 / 300))
    assert false_equivalences(300, 12, corrected=False) > 300 * 0.3


# ---------------------------------------------------------------------------------------- groups


def in_groups(rng, replicates: int, counts: np.ndarray, icc: float = 0.5):
    """Scores of mean 0 whose variance over examples lies in the groups for a share ``icc``; and the groups."""
    groups = np.repeat(np.arange(len(counts)), counts)
    of_groups = rng.normal(0, np.sqrt(icc), len(counts))[groups]
    own = rng.normal(0, np.sqrt(1 - icc), len(groups))
    return of_groups + own + rng.normal(0, 0.3, (replicates, len(groups))), groups


def covered(counts, studies: int, grouped: bool, replicates: int = 20) -> float:
    rng, inside = np.random.default_rng(6), 0
    for _ in range(studies):
        x, groups = in_groups(rng, replicates, counts)
        t, sizes = bootstrap.by_group(x[None], groups if grouped else None)
        (mean,), (se,), (df,), _ = statistics.two_way_error(t, sizes)
        draws = bootstrap.two_way_bootstrap(t, 300, sizes=sizes)[:, 0]
        low, high = bootstrap.two_way_interval(draws, mean, se, df)
        inside += low <= 0 <= high
    return inside / studies


@pytest.mark.slow
@pytest.mark.parametrize(
    "counts",
    [np.full(50, 6), np.full(12, 20), np.r_[np.full(40, 2), np.full(8, 15), 40]],
    ids=["even", "few", "uneven"],
)
def test_intervals_cover_new_groups(counts):
    """Groups as in 50 persons of 6 scans each, half of the variance theirs."""
    tolerance = 3 * np.sqrt(0.05 * 0.95 / 300)
    assert 0.95 - tolerance <= covered(counts, 300, grouped=True) <= 0.995
    assert covered(counts, 300, grouped=False) < 0.85  # The control: rows as if they were alone.


def test_groups_of_one_change_no_bit():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 8))
    x[1, 2, 3] = np.nan
    t, sizes = bootstrap.by_group(x, np.arange(8))
    np.testing.assert_array_equal(t, x)
    np.testing.assert_array_equal(bootstrap.two_way_bootstrap(t, 99, 3, sizes), bootstrap.two_way_bootstrap(x, 99, 3))
    for ours, plain in zip(statistics.two_way_error(t, sizes), statistics.two_way_error(x), strict=True):
        np.testing.assert_array_equal(ours, plain)


def test_groups_of_equal_size_are_their_means():
    x = np.random.default_rng(0).normal(size=(2, 6, 12))
    groups = np.tile([4, 1, 9, 0], 3)
    t, sizes = bootstrap.by_group(x, groups)
    means = np.stack([x[..., groups == k].mean(axis=-1) for k in (0, 1, 4, 9)], axis=-1)
    np.testing.assert_allclose(t, means)
    for ours, plain in zip(statistics.two_way_error(t, sizes), statistics.two_way_error(means), strict=True):
        np.testing.assert_allclose(ours, plain)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=12), st.integers(0, 1000))
def test_the_error_of_groups_is_that_of_least_squares_with_clusters(counts, seed):
    """With replicates that are all alike only groups vary: statsmodels' cluster-robust error of a mean."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(counts)), counts)
    x = rng.normal(size=len(groups)) + rng.normal(size=len(counts))[groups]
    t, sizes = bootstrap.by_group(np.tile(x, (1, 4, 1)), groups)
    mean, se, _, _ = statistics.two_way_error(t, sizes)
    fit = OLS(x, np.ones(len(x))).fit(cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False})
    k = len(counts)
    assert mean[0] == pytest.approx(x.mean())
    assert se[0] == pytest.approx(float(fit.bse[0]) * np.sqrt(k / (k - 1)), rel=1e-6)


def test_draws_of_groups_are_means_over_drawn_rows():
    """Against drawing whole groups by hand: the mean of all rows of what was drawn."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(7), [1, 2, 3, 4, 5, 6, 30])
    x = rng.normal(size=(1, len(groups))) + rng.normal(size=7)[groups]
    t, sizes = bootstrap.by_group(x, groups)
    ours = bootstrap.two_way_bootstrap(t, 20_000, sizes=sizes)
    by_hand = []
    for _ in range(20_000):
        drawn = rng.integers(7, size=7)
        by_hand.append(np.concatenate([x[0, groups == k] for k in drawn]).mean())
    assert ours.mean() == pytest.approx(np.mean(by_hand), abs=0.02)
    np.testing.assert_allclose(
        np.quantile(ours, [0.025, 0.5, 0.975]), np.quantile(by_hand, [0.025, 0.5, 0.975]), atol=0.06
    )
