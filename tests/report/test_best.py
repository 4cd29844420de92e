from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from mtl.report import best, bootstrap, contrasts, statistics
from mtl.report.analyse import analyse

from .studies import crossed, scores_of


def inside(values, **kwargs):
    pairs = contrasts.compare(values, bootstrap.two_way_bootstrap(values, 1))
    args = tuple(x[:, :, 0] for x in (pairs.gain, pairs.se, pairs.df, pairs.replicates))
    return best.best_set(*args, lambda others, i: pairs.directions(others, i, 0), means=pairs.means(0), **kwargs)


def test_draws_for_all_regimes_decide_as_draws_for_one():
    differ = 0
    for seed in range(40):
        values = crossed(np.array([0.80, 0.80, 0.79, 0.79])[:, None], 20, 60, seed, noise=0.3)
        pairs = contrasts.compare(values, np.zeros((1, 4, 1)))
        args = tuple(x[:, :, 0] for x in (pairs.gain, pairs.se, pairs.df, pairs.replicates))
        differ += (best.best_set(*args, lambda o, i, p=pairs: p.directions(o, i, 0)) != inside(values)).sum()
    assert differ <= 1  # Of 160: both know the critical value to about 0.01.


def test_the_set_holds_the_true_best_and_shrinks():
    rates = np.array([0.80, 0.80, 0.80, 0.80, 0.79])[:, None]
    held, sizes = [], []
    for seed in range(150):
        found = inside(crossed(rates, 20, 60, seed, noise=0.3))
        held.append(found[0])
        sizes.append(found.sum())
    # Ties are the least favourable case: 95 % less three standard errors of 150 trials.
    assert np.mean(held) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 150)
    assert np.mean(sizes) > 3
    far = inside(crossed(np.array([0.6, 0.9, 0.7])[:, None]))
    assert far.tolist() == [False, True, False]


def test_the_set_leaves_out_who_does_not_compete_and_copes_with_twins():
    values = crossed(np.array([0.6, 0.9, 0.7])[:, None])
    assert inside(values, exclude=(1,)).tolist() == [False, False, True]
    assert inside(values[[0, 1, 1]]).tolist() == [False, True, True]
    with pytest.raises(IndexError, match="exclude: 7"):
        inside(values, exclude=(7,))


@pytest.mark.parametrize("df", [3.0, 19.0, 200.0])
@pytest.mark.parametrize("others", [1, 2, 5])
def test_the_critical_value_is_that_of_the_multivariate_t(others, df):
    rng = np.random.default_rng(others)
    directions = rng.normal(size=(others, 7)) + 1.0
    length = np.linalg.norm(directions, axis=1)
    correlation = directions @ directions.T / np.outer(length, length)
    found = best.critical_value(directions, df)
    law = scipy.stats.multivariate_t(np.zeros(others), correlation, df=df)
    # 0.95 to within four standard errors of 50,000 draws, and what scipy's own integral is out by.
    assert law.cdf(np.full(others, found), random_state=0) == pytest.approx(0.95, abs=0.005)


def test_the_critical_value_is_dunnetts():
    """Equal correlations of one half: Dunnett's published one-sided 5 % points for 20 degrees of freedom."""
    for others, value in ((1, 1.72), (2, 2.03), (4, 2.30), (9, 2.60)):
        directions = np.hstack([np.eye(others), np.ones((others, 1))])
        assert best.critical_value(directions, 20.0) == pytest.approx(value, abs=0.03)


def test_the_comparisons_correlate_as_their_gains_do():
    """Against the gains of 4,000 studies drawn alike: what the directions of one study say on average."""
    rng = np.random.default_rng(0)
    gains, said = [], []
    for _ in range(4000):
        # Crossed effects of their own for four regimes, of very different spread.
        scale = np.array([1.0, 0.3, 2.0, 0.6])[:, None, None]
        x = scale * (rng.normal(size=(4, 6, 1)) + rng.normal(size=(4, 1, 9)))
        gains.append([(x[j] - x[0]).mean() for j in (1, 2, 3)])
    for _ in range(200):
        x = scale * (rng.normal(size=(4, 6, 1)) + rng.normal(size=(4, 1, 9)))
        pairs = contrasts.compare(x[:, None], np.zeros((1, 4, 1)))
        f, means = pairs.directions([1, 2, 3], 0, 0), pairs.means(0)
        np.testing.assert_allclose(f, means[1:] - means[0], atol=1e-12)
        said.append(f @ f.T)
    expected, found = np.cov(np.transpose(gains)), np.mean(said, axis=0)
    np.testing.assert_allclose(
        found, expected, atol=0.08 * np.sqrt(np.outer(np.diag(expected), np.diag(expected))).max()
    )


def by_few_draws(values, seed, draws=4000):
    """What a seed decides where the critical value comes from the bootstrap's own 4,000 draws."""
    pairs = contrasts.compare(values, bootstrap.two_way_bootstrap(values, draws, seed), seed)
    noise = np.sqrt(np.random.default_rng(seed).chisquare(19, draws) / 19)
    found = []
    for i in range(len(values)):
        others = [j for j in range(len(values)) if j != i]
        deviations = np.array([pairs.drawn(j, i, 0) - pairs.gain[j, i, 0] for j in others])
        joint = (deviations / deviations.std(axis=1, keepdims=True)).max(axis=0) / noise
        largest = max(pairs.gain[j, i, 0] / pairs.se[j, i, 0] for j in others)
        found.append(bool(largest <= np.quantile(joint, 0.95)))
    return found


def near_the_edge():
    """Four regimes, the last of them behind by what is just not enough to drop it."""
    values = crossed(np.array([0.8, 0.8, 0.8, 0.8])[:, None], 20, 60, 1, noise=0.3)
    low, high = 0.0, 0.5  # By bisection: all its comparisons move together, and the spread stays.
    for _ in range(20):
        middle = (low + high) / 2
        stays = inside(values - np.array([0, 0, 0, middle])[:, None, None, None])[3]
        low, high = (middle, high) if stays else (low, middle)
    return values - np.array([0, 0, 0, low * 0.999])[:, None, None, None]


def test_no_seed_decides_who_may_be_best():
    values = near_the_edge()
    names = ("scratch", "a", "b", "c")
    marks = {
        tuple(row[10.0].not_worse for row in analyse(scores_of(values, names), 200, seed).cells.values())
        for seed in range(8)
    }
    assert marks == {(True, True, True, True)}
    assert len({tuple(by_few_draws(values, seed)) for seed in range(8)}) > 1  # The control.


def test_more_draws_do_not_move_the_critical_value():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(8, 20))
    first = best.critical_value(directions, 19.0)
    length = np.linalg.norm(directions, axis=1)
    unit = directions / length[:, None]
    values = []
    for seed in range(5):
        other = np.random.default_rng(seed + 10)
        z = other.standard_normal((400_000, 20)) @ unit.T
        values.append(np.quantile(z.max(axis=1) / np.sqrt(other.chisquare(19, 400_000) / 19), 0.95))
    assert first == pytest.approx(np.mean(values), abs=0.03)


def test_standard_errors_of_nothing_are_decided_by_the_sign_test():
    gain, se = np.array([[0.0, 1.0], [-1.0, 0.0]]), np.zeros((2, 2))
    args = (gain, se, np.full((2, 2), 4.0))
    assert best.best_set(*args, np.full((2, 2), 5), lambda j, i: np.ones((1, 1))).tolist() == [True, False]
    assert best.best_set(*args, np.full((2, 2), 4), lambda j, i: np.ones((1, 1))).tolist() == [True, True]
    assert statistics.p_value(1.0, 0.0, 4.0, 5) == 0.0625
