"""Inputs that are there twice, against pandas."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data import Asked, Split, make_table, transfer_split
from mtl.data.duplicates import across, copies, warning, within
from mtl.tasks import Task

TASKS = (Task("a", "binary"), Task("b", "binary"))


def made(seed, rows=60, values=3, groups=False):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, values, (rows, 2)) * 0.5 - 0.5
    x[rng.random(x.shape) < 0.2] *= -1.0  # some zeros are negative
    labels = {t.name: np.where(rng.random(rows) < 0.2, np.nan, rng.integers(0, 2, rows)) for t in TASKS}
    together = pd.factorize(pd.Series(list(map(tuple, x + 0.0))))[0] if groups else None
    return make_table("toy", x, TASKS, labels, groups=together)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), values=st.integers(1, 12))
def test_duplicates_within_a_table_are_those_of_pandas(seed, values):
    table = made(seed, values=values)
    frame = pd.DataFrame(table.x + 0.0)
    found = within(table)
    assert found.rows == frame.duplicated().sum()
    assert found.sets == (frame.value_counts() > 1).sum()
    first = frame.reset_index().groupby([0, 1])["index"].transform("min")
    np.testing.assert_array_equal(copies(table), first)
    for task in TASKS:
        known = table.mask[task.name]
        distinct = frame[known].assign(y=table.labels[task.name][known]).groupby([0, 1])["y"].nunique()
        assert found.conflicts.get(task.name, 0) == (distinct > 1).sum()


def split_of(table):
    return transfer_split(
        table,
        Asked(
            source=("a",), targets=("b",), target_size=10, test_size=12, source_size=12, source_val_size=4,
            target_pool=12, val_fraction=0.5,
        ),
    )  # fmt: skip


def test_copies_across_roles_are_those_of_pandas():
    for seed in range(5):
        table = made(seed, values=6, rows=90)
        split = split_of(table)
        keys = pd.Series(list(map(tuple, table.x + 0.0)))
        roles = {role: np.any(list(getattr(split, role).values()), axis=0) for role in ("train", "val", "test")}
        for pair, count in across(table, split).items():
            one, other = pair.split(" in ")
            assert count == keys[roles[one]].isin(keys[roles[other]]).sum()
        shared = keys[roles["test"]].isin(keys[roles["train"] | roles["val"]]).sum()
        assert warning(table, [split]).startswith(f"{shared} of 12 test inputs of toy are copies")


def test_groups_that_hold_copies_together_leave_none_across():
    table = made(0, values=40, rows=90, groups=True)
    split = split_of(table)
    assert set(across(table, split).values()) == {0}
    assert warning(table, [split]) == ""


def test_of_several_splits_the_worst_is_told():
    x = np.array([[0.0], [1.0], [1.0], [2.0]])
    table = make_table("toy", x, TASKS[:1], {"a": [0, 1, 1, 0]})

    def split(train, test):
        masks = [{"a": np.isin(np.arange(4), rows)} for rows in (train, [], test)]
        return Split({"a": table.labels["a"]}, *masks, masks[0]["a"])

    good, bad = split([0], [1, 2, 3]), split([1], [2, 3])
    assert warning(table, [good, good]) == ""
    assert warning(table, [bad, good]).startswith("in 1 of 2 splits, at most 1 of 2 test inputs of toy are copies")
