"""Data on the device: inputs are scaled as the split says, and pools hold the rows of their role."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mtl.data import make_table
from mtl.data.scaling import fit
from mtl.tasks import Task
from mtl.train.dataset import Pool, inputs, make_data
from tests.train.build import VAL_ROWS, curves, data_of, run_all, same, split_of, stages, table, trial


def standardized_numpy(table, rows):
    """Return all inputs standardised by some rows, in float64."""
    x = table.x.astype(np.float64)
    return (x - x[rows].mean(axis=0)) / x[rows].std(axis=0)


def test_validation_and_test_inputs_change_nothing():
    t = trial(data__normalize="auto", regime="multitask")
    held_out = ~split_of(t).pool
    other = table().x.copy()
    other[held_out] = np.random.default_rng(1).normal(50.0, 1000.0, size=other[held_out].shape)
    other = dataclasses.replace(table(), x=other)
    assert same(fit(table(), split_of(t)).tree(), fit(other, split_of(t)).tree())
    # Nor do they change what is learned; only the validation loss sees them. What is held on the device is another
    # affine image of the inputs, so rounding differs.
    data = data_of(t, from_table=other)
    (one,), (two,) = run_all(t)[3], run_all(t, data)[3]
    np.testing.assert_allclose(curves(one), curves(two), rtol=1e-3)
    assert abs(one.val_loss["goal"][-1] / two.val_loss["goal"][-1] - 1) > 0.1


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6, -1e9])
def test_batches_are_numpys_in_float64_wherever_the_inputs_lie(offset):
    """Inputs far from zero lose nothing: statistics and the subtraction come before the cast."""
    x = offset + table().x.astype(np.float64)
    labels = {t: np.where(m, table().labels[t], np.nan) for t, m in table().mask.items()}
    of = make_table("far", x, table().tasks, labels)
    t = trial(data__normalize="auto")
    split = split_of(t)
    programs = [stage.program for stage in stages(t)]
    data = make_data(of, [split], programs, VAL_ROWS, [fit(of, split)]).of(jnp.int32(0))
    found = inputs(True, data, jnp.arange(len(x)))
    spacing = np.spacing(np.abs(x).max())  # What float64 itself can hold of such inputs.
    np.testing.assert_allclose(found, standardized_numpy(of, split.pool), atol=2e-6 + 20 * spacing, rtol=1e-5)


def test_batches_are_as_they_are_if_not_scaled():
    programs = [stage.program for stage in stages(trial())]
    data = make_data(table(), [split_of(trial())], programs, VAL_ROWS).of(jnp.int32(0))
    np.testing.assert_array_equal(inputs(False, data, jnp.arange(5)), table().x[:5])


def test_missing_inputs_are_the_mean_of_what_is_there_after_scaling():
    x = 300.0 + table().x.astype(np.float64)
    gone = np.random.default_rng(0).random(len(x)) < 0.2
    x[gone, 1] = np.nan
    labels = {t: np.where(m, table().labels[t], np.nan) for t, m in table().mask.items()}
    of = make_table("gaps", x, table().tasks, labels, missing_inputs="flag")
    split = split_of(trial())
    programs = [stage.program for stage in stages(trial(data__normalize="auto"))]
    data = make_data(of, [split], programs, VAL_ROWS, [fit(of, split)]).of(jnp.int32(0))
    found = np.asarray(inputs(True, data, jnp.arange(len(x))))
    pool = x[split.pool, 1]
    right = (x[:, 1] - np.nanmean(pool)) / np.nanstd(pool)
    np.testing.assert_allclose(found[:, 1], np.where(gone, 0.0, right), atol=1e-5)
    np.testing.assert_array_equal(found[:, -1], gone)


def test_regressions_are_scaled_by_their_own_training_labels():
    y = 2e5 + 5e4 * table().x[:, 1].astype(np.float64)
    labels = {t: np.where(m, table().labels[t], np.nan) for t, m in table().mask.items()} | {"kind": y}
    tasks = (Task("kind", "regression"), *table().tasks[1:])
    of = make_table("euros", table().x, tasks, labels)
    t = trial()
    split = dataclasses.replace(split_of(t), labels={**split_of(t).labels, "kind": of.labels["kind"]})
    data = make_data(of, [split], [s.program for s in stages(t)], VAL_ROWS, [fit(of, split)])
    train = y[split.train["kind"]]
    kind, rare = data.columns(["kind", "rare"])
    np.testing.assert_allclose(data.labels[0, :, kind], (y - train.mean()) / train.std(), atol=1e-5)
    np.testing.assert_array_equal(data.labels[0, :, rare], split.labels["rare"])


def test_pools_hold_the_rows_of_their_role():
    split = split_of(trial())
    data = data_of(trial(regime="finetune")).of(jnp.int32(0))
    assert set(data.train_rows) == {"goal", "kind+rare", "kind+rare+goal"}
    own = {t: Pool(data.own_rows.rows[i], data.own_rows.count[i]) for i, t in enumerate(data.tasks)}
    assert set(own) == {"kind", "rare", "goal"}
    for pools, masks in ((data.train_rows, split.train), (data.val_rows, split.val), (own, split.train)):
        for name, pool in pools.items():
            expected = np.flatnonzero(np.any([masks[t] for t in name.split("+")], axis=0))
            assert int(pool.count) == len(expected)
            np.testing.assert_array_equal(pool.rows[: len(expected)], expected)
