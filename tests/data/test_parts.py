"""What a test set is drawn from: all rows, whole scaffolds but the big ones, or the data's own test part."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data import Asked, arrays_table, cut, frame_table, make_table
from mtl.data.describe import description, text
from mtl.tasks import Task

TASKS = [Task("t", "binary"), Task("s", "multiclass", num_classes=3), Task("y", "regression")]
SIZES = {"target_size": 40, "test_size": 60, "target_pool": 100, "val_fraction": 0.25}
ALONE = SIZES | {"target": "t", "source": ("s",), "source_size": 80, "source_val_size": 20}
SEVERAL = SIZES | {"targets": ("t", "y"), "rows": "shared", "source": ("s",), "source_size": 0, "source_val_size": 0}
APART = SIZES | {"targets": ("t", "y"), "rows": "disjoint", "source": ("s",), "source_size": 80, "source_val_size": 20}
WAYS = pytest.mark.parametrize("section", [ALONE, SEVERAL, APART], ids=["one", "shared", "disjoint"])
TRAIN, VAL, TEST = 0, 1, 2


def made(groups=None, shares=(0.6, 0.2, 0.2), seed=0, rows=600):
    """A table whose rows are of parts in no order; some have no label of ``t``."""
    rng = np.random.default_rng(seed)
    labels = {
        "t": np.where(rng.random(rows) < 0.2, np.nan, rng.integers(0, 2, rows)),
        "s": rng.integers(0, 3, rows),
        "y": rng.normal(size=rows),
    }
    x = rng.normal(size=(rows, 2))
    together = None if groups is None else rng.integers(0, groups, rows)
    part = None if shares is None else rng.choice(3, rows, p=shares)
    return make_table("toy", x, TASKS, labels, groups=together, part=part)


def split(table, section, seed=0, **changes):
    return cut(table, json.dumps(section | changes), seed)


def of(masks):
    return np.any(list(masks.values()), axis=0)


@WAYS
def test_a_random_split_goes_by_no_part(section):
    with_parts, without = made(), made(shares=None)
    np.testing.assert_array_equal(with_parts.x, without.x)
    assert split(with_parts, section, 3).sha256 == split(without, section, 3).sha256
    assert with_parts.sha256 != without.sha256


@WAYS
@pytest.mark.parametrize("groups", [None, 250])
def test_an_official_split_keeps_to_its_parts(section, groups):
    table, tests = made(groups), []
    for seed in range(3):
        s = split(table, section, seed, split="official")
        assert set(table.part[of(s.test)]) == {TEST} and set(table.part[of(s.train)]) == {TRAIN}
        assert set(table.part[of(s.val)]) == {VAL} and set(table.part[s.pool]) == {TRAIN}
        counts = [int(of({k: m[k] for k in m if k != "s" or section is SEVERAL}).sum()) for m in (s.train, s.val)]
        assert counts == [30, 10] and of(s.test).sum() == 60
        if section is not SEVERAL:
            assert [int(m["s"].sum()) for m in (s.train, s.val, s.test)] == [60, 20, 0]
        if groups:
            held = [set(table.groups[of(m)]) for m in (s.train, s.val, s.test)]
            assert sum(map(len, held)) == len(set.union(*held))
        tests.append(of(s.test))
    assert (tests[0] == tests[1]).all() and (tests[0] == tests[2]).all()


@WAYS
def test_subsets_of_an_official_split_are_nested(section):
    small, large = (split(made(), section, 1, split="official", target_size=n) for n in (20, 80))
    for role in ("train", "val", "test"):
        assert not (of(getattr(small, role)) & ~of(getattr(large, role))).any()


@WAYS
@pytest.mark.parametrize("size", [0, 10**6])
def test_the_whole_test_part_is_tested(section, size):
    table = made()
    s = split(table, section, split="official", test_size=size)
    for task in s.test:
        asked = task != "s" or section is SEVERAL
        np.testing.assert_array_equal(s.test[task], (table.part == TEST) & table.mask[task] & asked)


@WAYS
def test_without_a_validation_part_validation_is_of_the_training_part(section):
    table = made(shares=(0.8, 0.0, 0.2))
    s = split(table, section, split="official")
    assert set(table.part[of(s.val)]) == {TRAIN} and not (of(s.val) & of(s.train)).any()
    assert set(table.part[of(s.test)]) == {TEST}


def test_a_test_part_that_is_capped_is_stratified():
    table = made()
    s = split(table, ALONE, split="official")
    there = table.mask["t"] & (table.part == TEST)
    assert abs(table.labels["t"][s.test["t"]].mean() - table.labels["t"][there].mean()) < 1 / 60


@WAYS
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_big_scaffolds_are_learned_from(section, seed):
    rng = np.random.default_rng(seed)
    scaffolds = np.concatenate([np.repeat([0, 1], [200, 31]), 2 + np.arange(369) // rng.integers(1, 4)])
    labels = {task.name: rng.integers(0, 2, 600).astype(float) for task in TASKS}
    table = make_table("toy", rng.normal(size=(600, 2)), TASKS, labels, groups=rng.permutation(scaffolds))
    tests = []
    for replicate in range(2):
        s = split(table, section, replicate, split="scaffold")
        assert not set(table.groups[of(s.test)]) & {0, 1} and of(s.test).sum() == 60
        assert not np.isin(table.groups[of(s.test)], table.groups[of(s.train) | of(s.val)]).any()
        tests.append(of(s.test))
    np.testing.assert_array_equal(*tests)
    parted = np.isin(table.groups, table.groups[tests[0]]) & ~tests[0]
    assert len(set(table.groups[parted])) <= 1 + 2 * (section is ALONE)  # One of a class may be cut, for exact sizes.


@WAYS
@pytest.mark.parametrize(
    ("of_table", "changes", "sentence"),
    [
        ({"shares": None}, {"split": "official"}, 'split = "official": data "toy" have no test part with labels of '),
        ({"shares": (1.0, 0.0, 0.0)}, {"split": "official"}, "must be data that say which rows are for testing"),
        ({}, {"split": "official", "target_pool": 470, "val_fraction": 0.1}, "target_pool = 470: "),
        ({}, {"split": "official", "test_size": -1}, "test_size = -1: must be at least 0"),
        ({}, {"test_size": 0}, "test_size = 0: must be at least 1"),
        (
            {"shares": (0.77, 0.03, 0.2)},
            {"split": "official", "target_size": 90, "val_fraction": 0.4},
            "target_size = 90: 36 of them are for validation, and the data's validation part has ",
        ),
        ({}, {"split": "scaffold"}, 'split = "scaffold": data "toy" have no groups: must be grouped by scaffolds'),
        ({"groups": 5}, {"split": "scaffold"}, "test_size = 60: only 0 labelled rows are of scaffolds of at most 30"),
    ],
)
def test_what_cannot_be_is_said(section, of_table, changes, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        split(made(**of_table), section, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("shares", "changes", "sentence"),
    [
        (
            (0.4, 0.1, 0.5),
            {"source_size": 90, "source_val_size": 60},
            "source_size = 90: 60 rows are for validation, and",
        ),
        ((0.3, 0.3, 0.4), {"source_size": 170}, "source_size = 170: 20 rows for validation leave "),
    ],
)
def test_a_source_pool_needs_rows_of_both_parts(shares, changes, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        split(made(shares=shares), ALONE, split="official", **changes)


# --- where parts come from ---

WORDS = ["train", "Training", "val", "dev", " TEST ", "test"]
PARTS = [0, 0, 1, 1, 2, 2]


def test_tables_hold_parts_that_can_be():
    x, labels = np.eye(3), {"a": [0, 1, 1]}
    assert make_table("toy", x, [Task("a", "binary")], labels, part=[0, 0, 0]).part is None
    table = make_table("toy", x, [Task("a", "binary")], labels, part=[0, 1, 2])
    assert table.part.dtype == np.int8 and not table.part.flags.writeable
    for part, sentence in (
        ([0, 1], "part: int64 (2,): must be integers (3,), one a row"),
        ([0.0, 1.0, 2.0], "part: float64 (3,): must be integers"),
        ([0, 1, 3], "part: 0 to 3: must be 0 to 2"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            make_table("toy", x, [Task("a", "binary")], labels, part=part)


def test_a_column_says_the_parts():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": range(6), "y": [0, 1] * 3, "fold": WORDS})
    table = frame_table(frame, "y", part="fold")
    assert table.part.tolist() == PARTS and table.x.shape == (6, 1)
    assert arrays_table(np.eye(6), {"y": [0, 1] * 3}, part=WORDS).part.tolist() == PARTS
    for options, sentence in (
        ({"part": "split"}, 'part: "split" is no column'),
        ({"part": "y"}, 'part: "y" is a label too: must be one or the other'),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            frame_table(frame, "y", **options)
    frame["fold"] = ["train", "2", "", "test", None, "test"]
    with pytest.raises(ValueError, match='row 1, column "fold": is "2": must be one of train, validation, test') as e:
        frame_table(frame, "y", part="fold")
    assert len(e.value.sentences) == 3 and 'row 2, column "fold": is blank: must be' in e.value.sentences[1]


def test_a_description_says_the_parts():
    table = made()
    counts = np.bincount(table.part).tolist()
    found = description(table)
    assert found["parts"] == dict(zip(("train", "validation", "test"), counts, strict=True))
    assert (
        f"The data come in parts: {counts[0]} for training, {counts[1]} for validation, {counts[2]} for test"
        in text(found)
    )
    assert "parts:" not in text(description(made(shares=None)))


def test_asked_for_by_name():
    asked = Asked.of(ALONE | {"split": "official", "name": "toy"})
    assert asked.split == "official" and asked.targets == ("t",) and asked.source == ("s",)
