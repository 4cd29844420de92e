"""Folds of the n labels: each row in one, every class in its share, groups whole, the n those of one split."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from mtl.data import cut, digits_table, make_table
from mtl.data.folds import fold_of
from mtl.tasks import Task

DIGITS = digits_table()
SECTION = {
    "name": "digits",
    "options": {},
    "normalize": "auto",
    "source": ["identity"],
    "target": "even",
    "target_size": 20,
    "test_size": 500,
    "source_size": 500,
    "source_val_size": 60,
    "target_pool": 500,
    "val_fraction": 0.2,
}
SEVERAL = {"targets": ["even", "prime", "identity"], "rows": "shared", "source": [], "source_size": 0}
few = settings(max_examples=25, deadline=None)


def split(table=DIGITS, seed=0, **changes):
    section = SECTION | changes
    section |= {"source_val_size": 0} if not section["source_size"] else {}
    section = {k: v for k, v in section.items() if not (k == "target" and "targets" in section)}
    return cut(table, json.dumps(section), seed)


def marks_of(classes):
    return classes[:, None] == np.unique(classes)


@few
@given(seed=st.integers(0, 2**40), n=st.integers(5, 120), folds=st.integers(2, 5), kinds=st.integers(1, 12))
def test_each_fold_has_its_share_of_every_class_within_a_row_as_scikit_learns_have(seed, n, folds, kinds):
    rng = np.random.default_rng(seed)
    classes = rng.choice(kinds, n, p=rng.dirichlet(np.ones(kinds)))
    own = fold_of(marks_of(classes), folds, rng)
    assert set(np.bincount(own, minlength=folds).tolist()) <= {n // folds, -(-n // folds)}
    counts = np.stack([np.bincount(classes[own == f], minlength=kinds) for f in range(folds)])
    assert (np.abs(counts - counts.sum(axis=0) / folds) < 1).all()
    if np.unique(classes, return_counts=True)[1].min() >= folds:  # Fewer of a class it warns of.
        other = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32).split(classes, classes)
        theirs = np.stack([np.bincount(classes[test], minlength=kinds) for _, test in other])
        assert (np.abs(counts - theirs) < 2).all()
        assert np.sort(counts.max(axis=0) - counts.min(axis=0)).max() <= 1


@few
@given(seed=st.integers(0, 2**40), folds=st.integers(2, 6))
def test_of_many_tasks_at_once_every_label_is_in_each_fold_about_as_often(seed, folds):
    rng = np.random.default_rng(seed)
    marks = rng.random((200, 30)) < rng.uniform(0.05, 0.6, 30)
    own = fold_of(marks, folds, rng)
    sizes = np.bincount(own, minlength=folds)
    assert sizes.max() <= -(-200 // folds) and sizes.min() > 0.9 * 200 // folds
    off = [np.abs(marks[own == f].sum(axis=0) - marks.sum(axis=0) / folds).mean() for f in range(folds)]
    parts = [rng.permutation(200)[: 200 // folds] for _ in range(20)]
    at_random = [np.abs(marks[part].sum(axis=0) - marks.sum(axis=0) / folds).mean() for part in parts]
    assert np.mean(off) < 0.6 * np.mean(at_random)


def test_groups_stay_whole_and_shares_are_as_good_as_scikit_learns():
    ours, theirs = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(60), rng.integers(1, 8, 60))
        classes = rng.integers(0, 3, len(groups))
        own = fold_of(marks_of(classes), 5, rng, groups)
        assert all(len(set(own[groups == g].tolist())) == 1 for g in range(60))
        share = np.bincount(classes) / 5
        ours += [np.abs(np.bincount(classes[own == f], minlength=3) - share).mean() for f in range(5)]
        parts = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(classes, classes, groups)
        theirs += [np.abs(np.bincount(classes[test], minlength=3) - share).mean() for _, test in parts]
    assert np.mean(ours) <= 1.1 * np.mean(theirs)


@pytest.mark.parametrize("several", [{}, SEVERAL], ids=["one", "several"])
@few
@given(seed=st.integers(0, 2**40), one=st.integers(8, 400), two=st.integers(8, 400), repeats=st.integers(1, 2))
def test_the_n_are_those_of_one_split_so_that_they_are_nested(several, seed, one, two, repeats):
    rows = []
    for n in sorted((one, two)):
        plain = split(seed=seed, target_size=n, **several)
        whole = split(seed=seed, target_size=n, folds=4, fold_repeats=repeats, **several)
        tasks = several.get("targets", ["even"])
        for task in tasks:
            np.testing.assert_array_equal(whole.train[task], plain.train[task] | plain.val[task])
            assert not whole.val[task].any()
        for repeat in range(repeats):
            parts = [split(seed=seed, target_size=n, folds=4, fold=4 * repeat + f, **several) for f in range(4)]
            for task in tasks:
                assert (np.sum([p.val[task] for p in parts], axis=0) == whole.train[task]).all()  # Each row once.
                for p in parts:
                    np.testing.assert_array_equal(p.train[task] ^ p.val[task], whole.train[task])
            for other in (*parts, whole):
                np.testing.assert_array_equal(other.pool, plain.pool)
                for task in plain.labels:
                    np.testing.assert_array_equal(other.test[task], plain.test[task])
                    if task not in tasks:
                        np.testing.assert_array_equal(other.train[task], plain.train[task])
                        np.testing.assert_array_equal(other.val[task], plain.val[task])
        rows.append(whole.train[tasks[0]])
    assert not (rows[0] & ~rows[1]).any()


def test_a_repeat_divides_them_anew_and_so_does_a_replicate():
    first, again, other = (
        [split(seed=seed, folds=4, fold=f + begin).val["even"] for f in range(4)]
        for seed, begin in ((0, 0), (0, 4), (1, 0))
    )
    assert not all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not all((a == b).all() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("several", [{}, SEVERAL | {"targets": ["t"]}], ids=["one", "shared"])
def test_folds_of_groups_share_none(several):
    rng = np.random.default_rng(0)
    labels = {"t": rng.integers(0, 2, 400).astype(float), "s": rng.integers(0, 2, 400).astype(float)}
    tasks = [Task("t", "binary"), Task("s", "binary")]
    table = make_table("toy", rng.normal(size=(400, 2)), tasks, labels, groups=rng.integers(0, 150, 400))
    sizes = {"source": ["s"], "target": "t", "test_size": 90, "target_pool": 100, "source_size": 70, "target_size": 50}
    sizes |= {"source_val_size": 5, **several}
    whole = split(table, **sizes, folds=5)
    held = []
    for fold in range(5):
        part = split(table, **sizes, folds=5, fold=fold)
        groups = [set(table.groups[mask["t"]].tolist()) for mask in (part.train, part.val, part.test)]
        assert not groups[0] & groups[1] and not (groups[0] | groups[1]) & groups[2]
        held.append(part.val["t"])
    np.testing.assert_array_equal(np.sum(held, axis=0), whole.train["t"])
    assert whole.train["t"].sum() == 50
    with pytest.raises(ValueError, match=r"^folds = 50: must be at most \d+, as there are no more groups of labelled "):
        split(table, **sizes, folds=50, fold=0)


def test_more_folds_than_labels_are_refused():
    sentence = "folds = 21: must be at most 20, as there are no more labelled rows"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        split(folds=21, fold=0)
