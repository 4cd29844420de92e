"""Standardisation and pools: what is fitted and drawn from comes from training rows only."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from mtl.train.dataset import make_data, statistics
from mtl.train.program import inputs
from tests.train.build import VAL_ROWS, data_of, run_all, same, split_of, stages, table, trial


def test_standardisation_is_numpys_on_rows_with_a_training_label_of_any_task():
    split = split_of(trial())
    rows = np.any([split.train[t] for t in ("kind", "rare", "goal")], axis=0)
    x = table().x[rows].astype(np.float64)
    shift, scale = statistics(table(), split)
    np.testing.assert_allclose(shift, np.mean(x, axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale, 1 / np.std(x, axis=0), rtol=1e-6)
    assert 0 < rows.sum() < len(rows)


def test_validation_and_test_inputs_change_nothing():
    t = trial(data__normalize="standardize", regime="multitask")
    split = split_of(t)
    held_out = ~np.any(list(split.train.values()), axis=0)
    other = table().x.copy()
    other[held_out] = np.random.default_rng(1).normal(50.0, 1000.0, size=other[held_out].shape)
    other = dataclasses.replace(table(), x=other)
    assert same(statistics(table(), split), statistics(other, split))
    # Nor do they change what is learned; only the validation loss sees them.
    data = data_of(t, from_table=other)
    (one,), (two,) = run_all(t)[3], run_all(t, data)[3]
    assert same(one.weights, two.weights)
    assert one.train_loss == two.train_loss
    assert one.val_loss["goal"] != two.val_loss["goal"]


def test_a_constant_input_keeps_its_scale():
    split, x = split_of(trial()), table().x.copy()
    x[:, 1] = np.where(np.any(list(split.train.values()), axis=0), 0.1, 7.0)
    shift, scale = statistics(dataclasses.replace(table(), x=x), split)
    assert scale[1] == 1
    assert shift[1] == np.float32(0.1)


def test_batches_are_standardised_only_if_asked():
    programs = [stage.program for stage in stages(trial(data__normalize="standardize"))]
    data = make_data(table(), [split_of(trial())], programs, VAL_ROWS).of(jnp.int32(0))
    rows = jnp.arange(5)
    np.testing.assert_array_equal(inputs(False, data, rows), table().x[:5])
    shift, scale = statistics(table(), split_of(trial()))
    np.testing.assert_allclose(inputs(True, data, rows), (table().x[:5] - shift) * scale, rtol=1e-6)


def test_pools_hold_the_rows_of_their_role():
    split = split_of(trial())
    data = data_of(trial(regime="finetune")).of(jnp.int32(0))
    assert set(data.train_rows) == {"kind", "rare", "goal", "kind+rare", "kind+rare+goal"}
    for pools, masks in ((data.train_rows, split.train), (data.val_rows, split.val)):
        for name, pool in pools.items():
            expected = np.flatnonzero(np.any([masks[t] for t in name.split("+")], axis=0))
            assert int(pool.count) == len(expected)
            np.testing.assert_array_equal(pool.rows[: len(expected)], expected)
