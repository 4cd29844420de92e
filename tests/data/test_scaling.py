"""Scaling against NumPy in float64 and scikit-learn: which rows it is fitted on, what is scaled, and what is lost."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from mtl.data import Asked, make_table, transfer_split
from mtl.data.scaling import centred, changes, check_cast, chosen, coded, fit, moments, restore
from mtl.tasks import Task

N = 300


def table(x=None, **options):
    rng = np.random.default_rng(0)
    x = rng.normal(5.0, 2.0, (N, 4)) if x is None else x
    labels = {"a": rng.integers(0, 2, N).astype(float), "b": rng.integers(0, 2, N).astype(float)}
    labels["y"] = 1e4 * rng.normal(size=N)
    labels["a"][:40] = np.nan
    tasks = [Task("a", "binary"), Task("b", "binary"), Task("y", "regression")]
    return make_table("toy", x, tasks, labels, **options)


def split(of, target_size=40, target="b", source=("a",), seed=0):
    sizes = {"test_size": 60, "source_size": 100, "source_val_size": 20, "target_pool": 100, "val_fraction": 0.2}
    return transfer_split(of, Asked(source=source, targets=(target,), seed=seed, target_size=target_size, **sizes))


def test_it_is_scikit_learns_on_the_training_rows_of_both_pools():
    of = table()
    found, s = fit(of, split(of)), split(of)
    used = np.any([*s.train.values()], axis=0)
    held_out = np.any([*s.val.values(), *s.test.values()], axis=0)
    assert s.pool.sum() == 80 + 80  # 100 source rows less 20, 100 target rows less 20 %.
    assert (used <= s.pool).all()
    assert not (s.pool & held_out).any()
    oracle = StandardScaler().fit(of.x[s.pool])
    np.testing.assert_allclose(found.shift, oracle.mean_, rtol=1e-12)
    np.testing.assert_allclose(1 / found.scale, oracle.scale_, rtol=1e-12)
    np.testing.assert_allclose(found.inputs(of.x), oracle.transform(of.x), atol=1e-6)


@pytest.mark.parametrize("size", [5, 20, 80])
def test_it_is_the_same_for_every_number_of_labels(size):
    of = table()
    one, two = fit(of, split(of, size)), fit(of, split(of, 40))
    np.testing.assert_array_equal(one.shift, two.shift)
    np.testing.assert_array_equal(one.scale, two.scale)


def test_labels_decide_nothing_of_it():
    of = table()
    hidden = dataclasses.replace(split(of), train={k: v & False for k, v in split(of).train.items()})
    np.testing.assert_array_equal(fit(of, hidden).shift, fit(of, split(of)).shift)


def test_a_control_is_scaled_by_its_own_labelled_rows():
    of = table()
    s = split(of)
    found = fit(of, s, "auto", ("b",))
    np.testing.assert_allclose(found.shift, of.x[s.train["b"]].mean(axis=0), rtol=1e-12)


def test_only_what_was_measured_is_scaled():
    rng = np.random.default_rng(1)
    x = np.column_stack([rng.normal(size=N), rng.integers(0, 2, N), np.arange(N) % 3, np.ones(N), rng.normal(size=N)])
    x[:5, 4] = np.nan
    of = table(x, missing_inputs="flag")
    assert of.measured.tolist() == [True, False, True, False, True, False]
    found = fit(of, split(of))
    np.testing.assert_array_equal(found.shift[[1, 3, 5]], 0)
    np.testing.assert_array_equal(found.scale[[1, 3, 5]], 1)
    assert (found.scale[[0, 2, 4]] != 1).all()


@pytest.mark.parametrize(
    ("options", "way", "right"),
    [
        ({}, "auto", True),
        ({}, "standardize", True),
        ({}, "none", False),
        ({"pixels": True}, "auto", False),
        ({"pixels": True}, "standardize", True),
    ],
)
def test_what_each_way_scales(options, way, right):
    of = table(**options)
    assert chosen(of, way).tolist() == [right] * 4
    assert changes(of, way) is right


def test_images_are_pixels():
    of = table(np.random.default_rng(0).uniform(size=(N, 2, 2, 1)))
    assert of.measured is None
    assert fit(of, split(of)).shift is None


@settings(max_examples=60, deadline=None)
@given(
    offset=st.sampled_from([0.0, 1.0, -300.0, 1e6, 1e9, -1e12]),
    spread=st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e20]),
    missing=st.sampled_from([0.0, 0.1, 0.9]),
    seed=st.integers(0, 5),
)
def test_moments_are_numpys_two_passes_of_what_is_there(offset, spread, missing, seed):
    rng = np.random.default_rng(seed)
    x = offset * (spread >= abs(offset) * 1e-12) + spread * rng.normal(size=(N, 2))
    x[rng.random((N, 2)) < missing] = np.nan
    of = table(x, missing_inputs="flag")
    mean, deviation = moments(of.x, np.arange(N))
    there = of.x[:, :2].astype(np.float64)
    np.testing.assert_allclose(mean[:2], np.nanmean(there, axis=0), rtol=1e-10, atol=1e-10 * spread)
    np.testing.assert_allclose(deviation[:2], np.nanstd(there, axis=0), rtol=1e-6)


@pytest.mark.parametrize("value", [0.1, 1e9 + 0.1, -7.3, 1e-20])
def test_a_constant_keeps_its_scale_whatever_its_sum_rounds_to(value):
    x = np.column_stack([np.full(N, value), np.arange(N)])
    of = table(x)
    found = fit(of, split(of))
    assert found.scale[0] == 1
    assert found.shift[0] == of.x[0, 0]
    assert found.inputs(of.x)[:, 0].tolist() == [0.0] * N


def test_an_input_that_no_training_row_has_is_left_out():
    x = np.random.default_rng(0).normal(size=(N, 2))
    of = table(x)
    x[split(of).pool, 1] = np.nan
    of = table(x, missing_inputs="flag")
    found = fit(of, split(of))
    assert (found.shift[1], found.scale[1], found.fill[1]) == (0, 1, 0)


@settings(max_examples=40, deadline=None)
@given(offset=st.floats(-1e9, 1e9), spread=st.floats(1e-3, 1e6), seed=st.integers(0, 3))
def test_the_device_computes_what_float64_says(offset, spread, seed):
    """What programs do to centred inputs in float32 is the scaling in float64, to rounding."""
    x = offset + spread * np.random.default_rng(seed).normal(size=(N, 3))
    of = table(x)
    own = fit(of, split(of))
    shift, scale, _ = coded(of, own)
    right = (of.x.astype(np.float64) - own.shift) * own.scale
    np.testing.assert_allclose((centred(of)[0] - shift) * scale, right, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(own.inputs(of.x), right, atol=1e-6, rtol=1e-6)


def test_units_are_those_of_the_training_labels():
    of = table()
    s = split(of, target="y")
    y = of.labels["y"][s.train["y"]]
    own = fit(of, s)
    np.testing.assert_allclose(own.units["y"], (y.mean(), y.std()), rtol=1e-12)
    np.testing.assert_allclose(own.outputs("y", own.labels("y", of.labels["y"])), of.labels["y"], rtol=1e-5, atol=1e-2)
    assert own.squared("y") == pytest.approx(y.var())
    assert own.squared("a") == 1.0


def test_one_label_has_no_spread():
    of = table()
    s = split(of, target="y")
    only = np.zeros(N, bool)
    only[np.flatnonzero(s.train["y"])[0]] = True
    assert fit(of, dataclasses.replace(s, train={**s.train, "y": only})).units["y"][1] == 1.0


def test_it_is_restored_from_its_tree():
    x = np.random.default_rng(0).normal(size=(N, 2))
    x[0, 0] = np.nan
    of = table(x, missing_inputs="flag")
    own = fit(of, split(of, target="y"))
    again = restore(own.tree())
    np.testing.assert_array_equal(again.inputs(of.x), own.inputs(of.x))
    assert again.units == own.units


def test_float32_keeps_what_it_can_hold_and_float64_the_rest():
    exact = np.arange(N * 2, dtype=np.float64).reshape(N, 2)
    assert table(exact).x.dtype == np.float32
    assert table(exact + 0.1).x.dtype == np.float64
    assert table((exact + 0.1).astype(np.float32)).x.dtype == np.float32
    assert table(exact.astype(np.int64) + 2**30).x.dtype == np.float64


def test_values_that_float32_cannot_tell_apart_are_refused_unscaled():
    x = np.random.default_rng(0).normal(size=(N, 2))
    check_cast(table(x))
    check_cast(table(300 + x))
    with pytest.raises(ValueError, match=r'^column "t" of toy spreads by .* around 1e\+09.*must be scaled'):
        check_cast(table(1e9 + x, columns=["t", "u"]))


@pytest.mark.parametrize("far", [1e6, 1e12, 1e38])
@pytest.mark.parametrize("missing", [False, True])
def test_a_value_far_off_in_a_row_that_is_not_fitted_on_changes_nothing(far, missing):
    """Not what is fitted, and not what a program computes of the other rows in float32."""
    x = 300 + np.random.default_rng(0).normal(size=(N, 2))
    if missing:
        x[::7, 0] = np.nan
    plain = table(x, missing_inputs="flag")
    row = int(np.flatnonzero(~split(plain).pool & ~np.isnan(x[:, 0]))[0])
    x[row, 0] = far
    of = table(x, missing_inputs="flag")
    own = fit(of, split(of))
    np.testing.assert_array_equal(own.shift, fit(plain, split(plain)).shift)
    shift, scale, fill = coded(of, own)
    held = centred(of)[0]
    computed = np.where(np.isnan(held), fill if missing else 0, (held - shift) * scale)
    others = np.arange(N) != row
    np.testing.assert_allclose(computed[others], own.inputs(of.x)[others], atol=2e-6)
    assert np.isfinite(held[~np.isnan(held)]).all()
    assert np.isfinite(own.inputs(of.x)).all()


def test_series_are_measured_and_pictures_are_not():
    rng = np.random.default_rng(0)
    series = table(1e8 + rng.normal(size=(N, 5, 2)))
    assert series.measured.all()
    own = fit(series, split(series))
    np.testing.assert_allclose(own.inputs(series.x)[split(series).pool].std(axis=0), 1, rtol=1e-4)
    shift, scale, _ = coded(series, own)
    np.testing.assert_allclose((centred(series)[0] - shift) * scale, own.inputs(series.x), atol=1e-5)
    assert table(rng.uniform(size=(N, 4, 4))).measured is None
    assert table(rng.uniform(size=(N, 4, 4, 1))).measured is None
    with pytest.raises(ValueError, match="float32 cannot tell apart"):
        check_cast(table(1e8 + rng.normal(size=(N, 4, 4, 1))))
