"""Splits: who may learn from what, for any sizes and seeds, and every refusal."""

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mtl.data import Asked, digits_table, latent_table, make_table, transfer_split
from mtl.data.splits import _apportion, _stratified_prefix
from mtl.tasks import Task

DIGITS = digits_table()
PROTOCOL = {
    "source": ("identity",),
    "target": "even",
    "seed": 0,
    "target_size": 20,
    "test_size": 500,
    "source_size": 797,
    "source_val_size": 97,
    "target_pool": 500,
    "val_fraction": 0.2,
}
CONTROL = PROTOCOL | {"source": ("low_identity",), "target": "high_identity", "test_size": 250}
SIZES = (10, 20, 50, 100, 200, 500)
BINARY = ("even", "prime", "at_least_five", "has_loop")

targets = st.sampled_from([*BINARY, "identity"])
seeds = st.integers(0, 2**40)
few = settings(max_examples=25, deadline=None)


def split(table=DIGITS, **changes):
    return transfer_split(table, Asked.of(PROTOCOL | changes))


def other_than(target):
    return ("identity",) if target in BINARY else BINARY


def any_of(masks, names):
    return np.any([masks[name] for name in names], axis=0)


@few
@given(target=targets, seed=seeds, size=st.integers(3, 500), val_fraction=st.floats(0.15, 0.85))
def test_roles_are_disjoint_counted_and_never_hold_a_missing_label(target, seed, size, val_fraction):
    source = other_than(target)
    pool = 400  # leaves rows for the sources that lack a label of has_loop
    size = min(size, pool)
    assume(1 <= np.floor(val_fraction * size + 0.5) < size)
    s = split(target=target, source=source, seed=seed, target_size=size, target_pool=pool, val_fraction=val_fraction)
    assert list(s.labels) == list(s.train) == list(s.val) == list(s.test) == [*source, target]
    train, val, test = s.train[target], s.val[target], s.test[target]
    source_train, source_val = any_of(s.train, source), any_of(s.val, source)
    roles = np.stack([train, val, test, source_train, source_val])
    assert roles.sum(axis=0).max() == 1
    assert [int(role.sum()) for role in roles[2:]] == [500, 700, 97]
    assert int(val.sum()) == int(np.floor(val_fraction * size + 0.5))  # validation is charged to n
    assert int(train.sum() + val.sum()) == size
    for masks in (s.train, s.val, s.test):
        for name, mask in masks.items():
            assert not (mask & ~DIGITS.mask[name]).any()
    assert not any_of(s.test, source).any()
    for name in source:  # every label that a source row has is there
        np.testing.assert_array_equal(s.train[name], source_train & DIGITS.mask[name])
        assert s.labels[name] is DIGITS.labels[name]


@few
@given(target=targets, seed=seeds, one=st.integers(5, 400), two=st.integers(5, 400), fraction=st.floats(0.2, 0.8))
def test_subsets_are_nested_in_both_roles_and_pools_do_not_move(target, seed, one, two, fraction):
    source = other_than(target)
    small, large = (
        split(target=target, source=source, seed=seed, target_size=n, target_pool=400, val_fraction=fraction)
        for n in sorted((one, two))
    )
    assert not (small.train[target] & ~large.train[target]).any()
    assert not (small.val[target] & ~large.val[target]).any()
    np.testing.assert_array_equal(small.test[target], large.test[target])
    for name in source:
        np.testing.assert_array_equal(small.train[name], large.train[name])
        np.testing.assert_array_equal(small.val[name], large.val[name])


@few
@given(target=targets, seed=seeds, size=st.integers(10, 500))
def test_every_subset_is_stratified_within_one_row(target, seed, size):
    source = other_than(target)
    s, full = (split(target=target, source=source, seed=seed, target_size=n) for n in (size, 500))
    labels = DIGITS.labels[target]
    for role, whole in ((s.train[target], full.train[target]), (s.val[target], full.val[target])):
        for c in np.unique(labels):
            share = (labels[whole] == c).mean() * role.sum()
            assert abs((labels[role] == c).sum() - share) <= 1 + 1e-9
    pool = full.train[target] | full.val[target]
    for c in np.unique(labels):  # the reservoirs themselves are shares of the pool
        assert abs((labels[full.val[target]] == c).sum() - 100 * (labels[pool] == c).mean()) < 1
        everywhere = DIGITS.mask[target]
        share = 500 * (labels[everywhere] == c).mean()
        assert abs((labels[s.test[target]] == c).sum() - share) < 1


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any), seed=seeds)
def test_every_prefix_is_within_tijdemans_bound(counts, seed):
    rng = np.random.default_rng(seed)
    groups = [np.full(n, c) for c, n in enumerate(counts)]
    order = _stratified_prefix(groups, sum(counts), rng)
    np.testing.assert_array_equal(np.bincount(order, minlength=len(counts)), counts)  # each row once
    taken = np.cumsum(order[:, None] == np.arange(len(counts)), axis=0)
    share = np.outer(np.arange(1, len(order) + 1), np.array(counts) / sum(counts))
    groups_there = np.count_nonzero(counts)
    assert np.abs(taken - share).max() <= 1 - 1 / max(2 * groups_there - 2, 2) + 1e-9


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(1, 1000), min_size=1, max_size=12), data=st.data())
def test_apportionment_keeps_quota(counts, data):
    size = data.draw(st.integers(0, sum(counts)))
    shares = _apportion(np.array(counts), size)
    exact = size * np.array(counts) / sum(counts)
    assert shares.sum() == size
    assert (np.abs(shares - exact) < 1).all()
    assert (shares <= counts).all()


def test_the_test_set_is_the_same_for_every_seed_size_and_source():
    test = split().test["even"]
    for changes in (
        {"seed": 7},
        {"target_size": 500},
        {"source": ("prime", "has_loop")},
        {"target_pool": 300},
    ):
        np.testing.assert_array_equal(split(**changes).test["even"], test)


def test_the_target_pool_does_not_depend_on_the_sources_and_the_seed_moves_everything():
    one, two = split(target_size=500), split(target_size=500, source=("prime", "has_loop"), source_size=600)
    np.testing.assert_array_equal(one.train["even"], two.train["even"])
    other = split(target_size=500, seed=1)
    for masks, name in (("train", "even"), ("val", "even"), ("train", "identity"), ("val", "identity")):
        assert (getattr(one, masks)[name] != getattr(other, masks)[name]).any()


def test_the_protocol_uses_every_scan():
    for target in ("even", "prime"):
        s = split(target=target, target_size=500)
        used = s.train[target] | s.val[target] | s.test[target] | s.train["identity"] | s.val["identity"]
        assert used.all()
        for n in SIZES:
            s = split(target=target, target_size=n)
            assert (int(s.train[target].sum()), int(s.val[target].sum())) == (n - n // 5, n // 5)


def test_has_loops_fours_are_neither_counted_nor_tested_but_teach_the_sources():
    s = split(target="has_loop", source=("even", "prime"), target_size=500)
    fours = DIGITS.labels["identity"] == 4
    for masks in (s.train, s.val, s.test):
        assert not (masks["has_loop"] & fours).any()
    assert int((s.train["has_loop"] | s.val["has_loop"]).sum()) == 500
    assert int(s.test["has_loop"].sum()) == 500
    assert (s.train["even"] & fours).any()
    masked = split(source=("prime", "has_loop"))
    assert not (masked.train["has_loop"] & fours).any()
    assert (masked.train["prime"] & fours).any()


def test_the_control_of_low_and_high_digits():
    s = transfer_split(DIGITS, Asked.of(CONTROL | {"target_size": 500}))
    digit = DIGITS.labels["identity"]
    assert (digit[s.train["low_identity"] | s.val["low_identity"]] < 5).all()
    assert (digit[s.train["high_identity"] | s.val["high_identity"] | s.test["high_identity"]] >= 5).all()
    assert [int(m["low_identity"].sum()) for m in (s.train, s.val)] == [700, 97]
    assert [int(m["high_identity"].sum()) for m in (s.train, s.val, s.test)] == [400, 100, 250]


@few
@given(seed=seeds)
def test_shuffled_source_labels_keep_the_multiset_and_break_the_relation(seed):
    plain = split(source=("identity", "has_loop"), seed=seed)
    s = split(source=("identity", "has_loop"), seed=seed, shuffle_source_labels=True)
    for role in ("train", "val", "test"):
        for name in plain.labels:
            np.testing.assert_array_equal(getattr(s, role)[name], getattr(plain, role)[name])
    np.testing.assert_array_equal(s.labels["even"], plain.labels["even"])
    for name, chance in (("identity", 0.1), ("has_loop", 0.5)):
        pool = s.train[name] | s.val[name]
        before, after = DIGITS.labels[name], s.labels[name]
        np.testing.assert_array_equal(np.bincount(before[pool].astype(int)), np.bincount(after[pool].astype(int)))
        np.testing.assert_array_equal(before[~pool], after[~pool])
        assert abs((before[pool] == after[pool]).mean() - chance) < 6 * (chance * (1 - chance) / 700) ** 0.5 + 0.02
    pool = s.train["has_loop"] | s.val["has_loop"]
    match = np.isin(s.labels["identity"][pool], [0, 6, 8, 9]) == s.labels["has_loop"][pool]
    assert match.mean() < 0.7  # each task has a permutation of its own


def test_regression_targets_are_stratified_by_quantiles():
    table = latent_table(examples=400, source_kind="regression")
    s = transfer_split(
        table,
        Asked(
            source=("target",),
            targets=("source_0",),
            seed=0,
            target_size=50,
            test_size=100,
            source_size=100,
            source_val_size=20,
            target_pool=150,
            val_fraction=0.2,
        ),
    )
    y = table.labels["source_0"]
    tenths = np.searchsorted(np.quantile(y, np.arange(0.1, 1, 0.1)), y)
    assert set(np.bincount(tenths[s.test["source_0"]])) == {10}
    assert np.bincount(tenths[s.train["source_0"]], minlength=10).min() >= 2
    assert int(s.train["target"].sum()) == 80


def test_a_split_without_sources_is_the_targets_own():
    s = split(source=(), source_size=0, source_val_size=0, target_size=100)
    np.testing.assert_array_equal(s.train["even"], split(target_size=100).train["even"])
    assert list(s.labels) == ["even"]


def test_determinism():
    assert split().sha256 == split().sha256
    assert len({split(seed=i, target_size=n).sha256 for i in range(3) for n in SIZES}) == 18
    assert split().sha256 == "39a8c6172bac219fbc072096a9a69243765285ac47c169cd89da05b9434d5773"


TINY = make_table(
    "tiny",
    np.ones((12, 1)),
    [
        Task("t", "multiclass", num_classes=3),
        Task("u", "binary"),
        Task("w", "binary"),
        Task("only", "binary"),
    ],
    {
        "t": [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2],
        "u": [0, 1] * 6,
        "w": [1] + [float("nan")] * 11,
        "only": [1] * 12,
    },
)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target": "evn"}, 'target: data "digits" has no task "evn": did you mean "even"?'),
        ({"source": ("identiti",)}, 'source: data "digits" has no task "identiti": did you mean "identity"?'),
        ({"source": ("prime", "prime")}, 'task "prime" is there twice or more: name it once'),
        ({"source": ("even", "prime")}, "target = \"even\" is also in source = ('even', 'prime')"),
        ({"seed": -1}, "seed = -1: must be at least 0"),
        ({"target_size": -5}, "target_size = -5: must be at least 2"),
        ({"test_size": 0}, "test_size = 0: must be at least 1"),
        ({"source_size": -1}, "source_size = -1: must be at least 0"),
        ({"source_val_size": -1}, "source_val_size = -1: must be at least 0"),
        ({"target_pool": -1}, "target_pool = -1: must be at least 2"),
        ({"val_fraction": 0.0}, "val_fraction = 0.0: must be between 0 and 1, both excluded"),
        ({"val_fraction": 1.0}, "val_fraction = 1.0: must be"),
        ({"val_fraction": float("nan")}, "val_fraction = nan: must be"),
        ({"source_val_size": 797}, "source_val_size = 797: must be less than source_size = 797"),
        ({"target_size": 501}, "target_size = 501: must be at most target_pool = 500"),
        (
            {"target_size": 2},
            "target_size = 2: with val_fraction = 0.2 it gives 2 training and 0 validation labels",
        ),
        ({"target_size": 2, "val_fraction": 0.8}, "it gives 0 training and 2 validation labels"),
        ({"test_size": 1796}, 'test_size = 1796: "even" has 1797 labels and needs 2 beside'),
        ({"target_pool": 1298}, 'target_pool = 1298: only 1297 rows with a label of "even" remain'),
        ({"target": "has_loop", "target_pool": 1200}, "target_pool = 1200: only 1116 rows"),
        ({"source_size": 798}, "source_size = 798: only 797 rows with a label of identity remain"),
        (
            {"source": ("low_identity",)},
            "rows with a label of low_identity remain beside the test set and the",
        ),
        ({"target": "identity", "source": ("even",), "test_size": 4}, 'of "identity" ('),
    ],
)
def test_every_refusal_says_what_would_be_right(changes, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        split(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target": "t"}, 'test_size = 4: class 2 of "t" (1 of 12 labels) would be absent from the test set'),
        (
            {"target": "only"},
            'test_size = 4: class 0 of "only" (0 of 12 labels) would be absent from the test set',
        ),
        ({"source": ("w",), "source_size": 2}, "source_size = 2: only"),
        (
            {"source": ("t", "w")},
            'source task "w" has no label in its 2 training rows: take a larger source_size',
        ),
    ],
)
def test_refusals_about_labels_that_are_not_there(changes, sentence):
    options = {
        "source": ("t",),
        "target": "u",
        "seed": 5,
        "target_size": 4,
        "test_size": 4,
        "source_size": 2,
        "source_val_size": 0,
        "target_pool": 4,
        "val_fraction": 0.5,
    }
    with pytest.raises(ValueError, match=re.escape(sentence)):
        transfer_split(TINY, Asked.of(options | changes | ({"source": ("u",)} if "target" in changes else {})))
