"""Splits by groups: exact sizes, exact shares, and no group in two roles."""

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mtl.data import Asked, make_table, transfer_split
from mtl.data.grouped import draw, others
from mtl.tasks import Task

ROLES = {"source": ("s",), "targets": ("t",), "source_val_size": 5, "val_fraction": 0.3}


def table_of(rng, rows, groups):
    labels = {"t": rng.integers(0, 2, rows).astype(float), "s": rng.integers(0, 2, rows).astype(float)}
    labels["s"][rng.random(rows) < 0.2] = np.nan
    return make_table("toy", rng.normal(size=(rows, 2)), [Task("t", "binary"), Task("s", "binary")], labels, "", groups)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), largest=st.integers(1, 30), trial=st.integers(0, 99), size=st.integers(10, 60))
def test_no_group_is_parted_and_sizes_are_exact(seed, largest, trial, size):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(400), rng.integers(1, largest + 1, 400))[:400]
    table = table_of(rng, 400, rng.permutation(groups))
    assert np.bincount(table.groups).max() <= largest
    sizes = {"test_size": 90, "target_pool": 80, "source_size": 70, "target_size": size, "seed": trial}
    try:
        split, full = (
            transfer_split(table, Asked(**ROLES | sizes | {"target_size": n})) for n in (size, max(size, 60))
        )
    except ValueError as error:
        assume("must be at most" not in str(error))  # too few rows of other groups are left: said, not papered over
        raise
    roles = [split.test["t"], split.train["t"], split.val["t"], split.train["s"], split.val["s"]]
    held = [set(table.groups[role].tolist()) for role in roles]
    for i, one in enumerate(held):
        for other in held[i + 1 :]:
            assert not one & other
    assert split.test["t"].sum() == 90
    assert split.train["t"].sum() + split.val["t"].sum() == size
    source = split.train["s"] | split.val["s"]
    assert source.sum() == 70
    share = 90 * table.labels["t"].mean()
    assert abs(table.labels["t"][split.test["t"]].sum() - share) < 1
    assert not (split.train["t"] & ~full.train["t"]).any()  # nested in n
    assert not (split.val["t"] & ~full.val["t"]).any()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 60), kinds=st.integers(1, 4), number=st.integers(1, 20))
def test_draw_fills_the_shares_exactly_and_others_shares_no_group(seed, rows, kinds, number):
    rng = np.random.default_rng(seed)
    strata, groups = rng.integers(0, kinds, rows), rng.integers(0, number, rows)
    candidates = rng.permutation(rows)[: rng.integers(1, rows + 1)]
    shares = np.array([rng.integers(0, n + 1) for n in np.bincount(strata[candidates], minlength=kinds)])
    taken = draw(candidates, strata, shares, groups, rng)
    np.testing.assert_array_equal(np.bincount(strata[taken], minlength=kinds), shares)
    assert len(set(taken.tolist())) == len(taken)
    assert set(taken.tolist()) <= set(candidates.tolist())
    left = others(candidates, taken, groups)
    assert not set(groups[left].tolist()) & set(groups[taken].tolist())
    assert set(groups[candidates].tolist()) == set(groups[left].tolist()) | set(groups[taken].tolist())


def test_with_groups_of_one_nothing_is_lost():
    table = table_of(np.random.default_rng(0), 300, np.arange(300))
    sizes = {"test_size": 100, "target_pool": 100, "target_size": 100, "source_size": 70, "seed": 0}
    split = transfer_split(table, Asked(**ROLES | sizes))
    assert split.test["t"].sum() == split.train["t"].sum() + split.val["t"].sum() == 100


def test_what_groups_make_impossible_is_said():
    table = table_of(np.random.default_rng(0), 100, np.arange(100) // 50)
    sizes = {"test_size": 40, "target_pool": 20, "target_size": 10, "source_size": 10, "seed": 0}
    with pytest.raises(ValueError, match=re.escape("source_size = 10: only 0 rows with a label of s remain")):
        transfer_split(table, Asked(**ROLES | sizes))
