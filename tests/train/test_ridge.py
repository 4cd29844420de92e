"""The ridge head against scikit-learn's, and as a phase of a trial."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.preprocessing import StandardScaler

from mtl.tasks import Task
from mtl.train import ridge
from mtl.train.begin import freshen
from tests.train.build import data_of, run_all, run_phase, same, split_of, stages, table, trial

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def problem(n=60, width=7, outputs=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(2.0, [0.1, 1, 3, 1, 1, 10, 1], size=(n, width)).astype(np.float32)
    y = x @ rng.normal(size=(width, outputs)) + rng.normal(0, 3, size=(n, outputs))
    return x, y.astype(np.float32), rng


@pytest.mark.parametrize(("n", "width"), [(60, 7), (5, 7)])
def test_leave_one_out_chooses_and_fits_as_scikit_learn(n, width):
    x, y, _ = problem(n, width)
    scaler = StandardScaler().fit(x)
    oracle = RidgeCV(alphas=[n * p for p in PENALTIES], fit_intercept=True).fit(scaler.transform(x), y)
    found = ridge.fit(jnp.asarray(x), jnp.asarray(y), jnp.ones(n, bool), PENALTIES)
    assert float(found.penalty) * n == pytest.approx(oracle.alpha_, rel=1e-5)
    np.testing.assert_allclose(
        x @ np.asarray(found.kernel) + np.asarray(found.bias), oracle.predict(scaler.transform(x)), atol=2e-3
    )


def test_the_leave_one_out_error_is_that_of_fits_without_each_row():
    """With the scale and the mean of all rows, as the definition says."""
    x, y, _ = problem(12)
    xs = StandardScaler().fit_transform(x.astype(np.float64))
    found = ridge.fit(jnp.asarray(x), jnp.asarray(y), jnp.ones(12, bool), [0.1])
    gram = xs.T @ xs / 12 + 0.1 * np.eye(7)
    hat = 1 / 12 + xs @ np.linalg.solve(gram, xs.T) / 12
    residual = (y - hat @ y) / (1 - np.diag(hat))[:, None]
    assert float(found.error) == pytest.approx((residual**2).sum() / 12, rel=1e-3)


def test_masked_rows_and_constant_features_take_no_part():
    x, y, _rng = problem()
    mask = np.arange(60) < 40
    junk = np.where(mask[:, None], x, np.nan).astype(np.float32)
    flat = np.concatenate([junk, np.where(mask[:, None], 5.0, 0)], axis=1).astype(np.float32)
    padded = ridge.fit(jnp.asarray(flat), jnp.asarray(np.where(mask[:, None], y, np.nan)), jnp.asarray(mask), PENALTIES)
    alone = ridge.fit(jnp.asarray(x[:40]), jnp.asarray(y[:40]), jnp.ones(40, bool), PENALTIES)
    assert float(padded.penalty) == float(alone.penalty)
    np.testing.assert_allclose(padded.kernel[:7], alone.kernel, rtol=2e-3, atol=2e-3)
    assert not np.any(padded.kernel[7])


def test_validation_chooses_by_its_own_error():
    x, y, _rng = problem()
    far = x[40:] + 5.0
    scaler = StandardScaler().fit(x[:40])
    errors = []
    for p in PENALTIES:
        fit = Ridge(alpha=40 * p).fit(scaler.transform(x[:40]), y[:40])
        errors.append(((fit.predict(scaler.transform(far)) - y[40:]) ** 2).sum() / 20)
    held_out = (jnp.asarray(far), jnp.asarray(y[40:]), jnp.ones(20, bool))
    found = ridge.fit(jnp.asarray(x[:40]), jnp.asarray(y[:40]), jnp.ones(40, bool), PENALTIES, held_out)
    assert float(found.penalty) == pytest.approx(PENALTIES[int(np.argmin(errors))])
    assert float(found.error) == pytest.approx(min(errors), rel=1e-3)


def test_codes():
    assert ridge.codes(Task("a", "multiclass", num_classes=3), jnp.array([2])).tolist() == [[-1, -1, 1]]
    assert ridge.codes(Task("a", "regression"), jnp.array([2.5])).tolist() == [[2.5]]


@pytest.mark.parametrize("choose", ["leave_one_out", "validation"])
def test_a_ridge_phase_is_scikit_learns_ridge_on_the_frozen_features(choose):
    t = trial(regime="ridge_probe", ridge__choose=choose, optimizer__weight_decay=0.0)
    _initial, (_source, head), _data, (before, after) = run_all(t)
    assert (head.steps, head.hypers.lr, head.program.cached) == (1, 0.0, True)
    assert same(before.weights.params["backbone"], after.weights.params["backbone"])
    split = split_of(t)
    rows, later = (np.flatnonzero(part["goal"]) for part in (split.train, split.val))
    h = table().x
    for name in ("dense_0", "dense_1"):
        dense = before.weights.params["backbone"][name]
        h = np.maximum(h @ dense["kernel"] + dense["bias"], 0)
    y = 2.0 * table().labels["goal"] - 1
    scaler, n = StandardScaler().fit(h[rows]), len(rows)
    xs = scaler.transform(h)
    fits = {p: Ridge(alpha=n * p).fit(xs[rows], y[rows]) for p in t.config["ridge"]["penalties"]}
    if choose == "validation":
        best = min(fits, key=lambda p: ((fits[p].predict(xs[later]) - y[later]) ** 2).mean())
    else:
        best = RidgeCV(alphas=[n * p for p in fits]).fit(xs[rows], y[rows]).alpha_ / n
    oracle = next(f for p, f in fits.items() if np.isclose(p, best))
    assert after.penalties == {"goal": pytest.approx(best)}
    found = after.weights.params["heads"]["goal"]
    np.testing.assert_allclose((h @ found["kernel"] + found["bias"])[:, 0] / 2, oracle.predict(xs), atol=5e-3)


@pytest.mark.parametrize("choose", ["leave_one_out", "validation"])
def test_a_ridge_head_does_not_depend_on_its_pack_or_its_rate(choose):
    changes = {"regime": "ridge_probe", "ridge__choose": choose}
    one, other = (trial(lr=lr, **changes) for lr in (0.1, 0.2))
    assert one.hash == other.hash
    assert stages(one) == stages(other)
    initial, phases, _data, (source, alone) = run_all(one)

    trials = [trial(seed=s, **changes) for s in range(3)]
    begin = [freshen(run_all(t)[3][0].weights, initial, phases[1].fresh) for t in trials]
    together = run_phase(trials, [stages(t)[1] for t in trials], data_of(*trials), begin)
    # To the bit: three splits in the place of one must not move a sum's rounding either.
    assert same(together[0].weights, alone.weights)
    # A closed form does not care for the head that it replaces.
    (again,) = run_phase([one], phases[1:], data_of(one), [source.weights])
    assert same(again.weights.params["heads"]["goal"], alone.weights.params["heads"]["goal"])
