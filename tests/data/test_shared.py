"""One pool of rows for several targets: roles, nesting, shares, groups, and every refusal."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data import Asked, digits_table, make_table
from mtl.data.shared import shared_split
from mtl.tasks import Task

DIGITS = digits_table()
TARGETS = ("even", "prime", "has_loop", "identity")
ASKED = {
    "source": (),
    "targets": TARGETS,
    "rows": "shared",
    "seed": 0,
    "target_size": 60,
    "test_size": 500,
    "source_size": 0,
    "source_val_size": 0,
    "target_pool": 500,
    "val_fraction": 0.2,
}
APART = {"rows": "disjoint", "source": ("at_least_five",), "source_size": 300, "source_val_size": 50}
few = settings(max_examples=20, deadline=None)


def split(table=DIGITS, **changes):
    return shared_split(table, Asked(**(ASKED | changes)))


def any_of(masks, names=None):
    return np.any([masks[name] for name in names or masks], axis=0)


def grouped(rows=400, groups=120):
    rng = np.random.default_rng(0)
    labels = {"a": rng.integers(0, 2, rows).astype(float), "b": rng.integers(0, 2, rows).astype(float)}
    labels["a"][rng.random(rows) < 0.3] = np.nan
    tasks = [Task("a", "binary"), Task("b", "binary"), Task("y", "regression")]
    labels["y"] = rng.normal(size=rows)
    return make_table("toy", rng.normal(size=(rows, 3)), tasks, labels, groups=rng.integers(0, groups, rows))


@few
@given(seed=st.integers(0, 2**40), size=st.integers(5, 500), fraction=st.floats(0.15, 0.85))
def test_a_row_has_one_role_with_all_its_labels_and_validation_is_charged_to_n(seed, size, fraction):
    s = split(seed=seed, target_size=size, val_fraction=fraction)
    assert list(s.labels) == list(s.train) == list(s.val) == list(s.test) == list(TARGETS)
    roles = np.stack([any_of(part) for part in (s.train, s.val, s.test)])
    assert roles.sum(axis=0).max() == 1
    val = int(np.floor(fraction * size + 0.5))
    assert roles.sum(axis=1).tolist() == [size - val, val, 500]
    for part, role in zip((s.train, s.val, s.test), roles, strict=True):
        for task in TARGETS:
            np.testing.assert_array_equal(part[task], role & DIGITS.mask[task])
    assert not (roles[0] & ~s.pool).any() and not (roles[1:].any(axis=0) & s.pool).any()


@few
@given(seed=st.integers(0, 2**40), one=st.integers(5, 500), two=st.integers(5, 500))
def test_subsets_are_nested_in_both_roles_and_the_test_set_never_moves(seed, one, two):
    small, large = (split(seed=seed, target_size=n) for n in sorted((one, two)))
    another = split(seed=seed + 1)
    for task in TARGETS:
        assert not (small.train[task] & ~large.train[task]).any()
        assert not (small.val[task] & ~large.val[task]).any()
        np.testing.assert_array_equal(small.test[task], another.test[task])
    np.testing.assert_array_equal(small.pool, large.pool)


@pytest.mark.parametrize("size", [20, 60, 200, 500])
def test_every_class_of_every_target_has_its_share_within_three_rows(size):
    s, full = split(target_size=size), split(target_size=500)
    for part, whole in ((s.train, full.train), (s.val, full.val), (s.test, DIGITS.mask)):
        rows, everywhere = any_of(part), any_of(whole)
        for task in TARGETS:
            for c in np.unique(DIGITS.labels[task]):
                share = (everywhere & DIGITS.mask[task] & (DIGITS.labels[task] == c)).sum() / everywhere.sum()
                assert abs((part[task] & (DIGITS.labels[task] == c)).sum() - share * rows.sum()) < 3


def test_sources_share_the_rows_or_have_others():
    together = split(source=("at_least_five",))
    np.testing.assert_array_equal(together.train["at_least_five"], together.train["even"])
    np.testing.assert_array_equal(together.test["at_least_five"], together.test["even"])
    apart = split(**APART)
    assert list(apart.train) == ["at_least_five", *TARGETS]
    own = apart.train["at_least_five"] | apart.val["at_least_five"]
    assert [int(apart.train["at_least_five"].sum()), int(apart.val["at_least_five"].sum())] == [250, 50]
    assert not (
        own & any_of({r: any_of(part, TARGETS) for r, part in enumerate((apart.train, apart.val, apart.test))})
    ).any()
    assert not apart.test["at_least_five"].any()


def test_the_targets_rows_do_not_depend_on_the_sources_of_other_rows():
    for task in TARGETS:
        np.testing.assert_array_equal(split().train[task], split(**APART).train[task])


def test_labels_of_sources_can_be_shuffled():
    for changes in (APART, {"source": ("at_least_five",)}):
        s = split(**changes, shuffle_source_labels=True)
        rows = s.train["at_least_five"] | s.val["at_least_five"]
        before, after = DIGITS.labels["at_least_five"], s.labels["at_least_five"]
        assert (before[rows] != after[rows]).any() and before[rows].sum() == pytest.approx(after[rows].sum(), abs=99)
        np.testing.assert_array_equal(before[s.test["even"]], after[s.test["even"]])
        assert s.labels["even"] is DIGITS.labels["even"]


def test_no_group_is_in_two_roles_and_missing_labels_have_none():
    table = grouped()
    for seed in range(5):
        s = split(table, targets=("a", "b", "y"), seed=seed, target_size=100, test_size=120, target_pool=200)
        roles = [any_of(part) for part in (s.train, s.val, s.test)]
        assert [int(role.sum()) for role in roles] == [80, 20, 120]
        groups = [set(table.groups[role].tolist()) for role in roles]
        assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
        for part in (s.train, s.val, s.test):
            assert not (part["a"] & ~table.mask["a"]).any()
        share = table.labels["a"][s.test["a"]].mean() - table.labels["a"][table.mask["a"]].mean()
        assert abs(share) < 0.06


def test_labelled_rows_are_those_with_any_label():
    labels = {"a": [0, 1, np.nan, np.nan] * 10, "b": [np.nan, np.nan, 1, np.nan] * 5 + [np.nan, np.nan, 0, np.nan] * 5}
    table = make_table("toy", np.arange(40.0)[:, None], [Task("a", "binary"), Task("b", "binary")], labels)
    s = split(table, targets=("a", "b"), target_size=10, test_size=15, target_pool=15)
    none = ~(table.mask["a"] | table.mask["b"])
    assert not (any_of(s.train) & none).any() and not (any_of(s.test) & none).any()
    assert int(any_of(s.train).sum() + any_of(s.val).sum()) == 10


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": ("even", "evn")}, 'target: data "digits" has no task "evn"'),
        ({"targets": ("even", "even")}, "targets = ('even', 'even'): task \"even\" is there twice"),
        ({"source": ("even",)}, 'target = "even" is also in source'),
        ({"source_size": 5}, "source_size = 5: must be 0, as there is no source task"),
        ({"source": ("at_least_five",), "source_size": 5}, "source_size = 5: must be 0, as rows are shared"),
        ({"test_size": 1796}, "test_size = 1796: there are 1797 labelled rows"),
        ({"test_size": 1300}, "target_pool = 500: only 497 rows with a label of"),
        ({"test_size": 5}, 'of "identity" ('),
        ({"target_size": 501}, "target_size = 501: must be at most target_pool = 500"),
        ({"target_size": 2, "val_fraction": 0.1}, "it gives 2 training and 0 validation labels"),
    ],
)
def test_what_cannot_be_is_refused(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        split(**changes)
