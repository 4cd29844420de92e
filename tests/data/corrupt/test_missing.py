"""Hidden labels: rates within binomial bounds, nested under a seed, nothing invented, test labels untouched."""

import re

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data import Asked, digits_table, transfer_split
from mtl.data.corrupt.missing import at_random, by_class, by_rank, imbalance, masked, one_task_each
from mtl.data.corrupt.noise import flip
from mtl.data.corrupt.split import corrupt
from mtl.tasks import Task

seeds = st.integers(0, 2**40)
rates = st.floats(0, 1)
few = settings(max_examples=40, deadline=None)


def made(seed, rows=300, tasks=("a", "b", "c")):
    rng = np.random.default_rng(seed)
    labels = {t: rng.integers(0, 2, rows).astype(np.float32) for t in tasks}
    return labels, {t: rng.random(rows) < 0.8 for t in tasks}


def within(count, trials, probability):
    """Whether a count is one that 1 in a million draws would not exceed on either side."""
    low, high = scipy.stats.binom.ppf([1e-6, 1 - 1e-6], trials, probability)
    return low <= count <= high


def ways(labels, mask, seed):
    """Every way of hiding, as a function of the rate."""
    return [
        lambda rate: at_random(mask, rate, seed),
        lambda rate: at_random(mask, {"b": rate}, seed),
        lambda rate: one_task_each(mask, seed, rate),
        lambda rate: by_rank(labels, mask, rate / 2, 1.0, seed),
        lambda rate: by_rank(labels, mask, rate / 2, -0.7, seed),
        lambda rate: by_class(labels, mask, (rate, 0.2), seed),
        lambda rate: by_class(labels, mask, (0.0, rate), seed, ["c"]),
    ]


@few
@given(seed=seeds, one=rates, two=rates)
def test_nothing_is_invented_and_hidden_labels_are_nested_in_the_rate(seed, one, two):
    labels, mask = made(seed)
    for way in ways(labels, mask, seed):
        more, fewer = way(min(one, two)), way(max(one, two))
        for task in mask:
            assert not (more[task] & ~mask[task]).any()
            assert not (fewer[task] & ~more[task]).any()


@few
@given(seed=seeds, rate=rates)
def test_a_task_is_hidden_the_same_beside_other_tasks_and_more_rows(seed, rate):
    labels, mask = made(seed)
    alone = {"b": mask["b"][:100]}
    np.testing.assert_array_equal(at_random(alone, rate, seed)["b"], at_random(mask, rate, seed)["b"][:100])
    np.testing.assert_array_equal(
        by_class({"b": labels["b"][:100]}, alone, (rate, 0.5), seed)["b"],
        by_class(labels, mask, (rate, 0.5), seed)["b"][:100],
    )


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_at_random_hides_as_many_as_asked_independently(rate):
    mask = {t: np.ones(10_000, dtype=bool) for t in "abc"}
    left = at_random(mask, rate, seed=3)
    assert all(within(10_000 - left[t].sum(), 10_000, rate) for t in "abc")
    if 0 < rate < 1:
        pairs = np.corrcoef([left[t] for t in "abc"])[np.triu_indices(3, 1)]
        assert np.abs(pairs).max() < 0.05
        assert not np.array_equal(left["a"], at_random(mask, rate, seed=4)["a"])
    each = at_random(mask, {"a": rate, "b": 0.3}, seed=3)
    assert within(10_000 - each["b"].sum(), 10_000, 0.3)
    assert each["c"].all()


def test_one_task_each_in_proportion_to_the_shares():
    mask = {t: np.ones(10_000, dtype=bool) for t in "abc"}
    for shares, expected in ((None, (1 / 3, 1 / 3, 1 / 3)), ({"a": 1.0, "c": 3.0}, (0.25, 0.0, 0.75))):
        left = one_task_each(mask, seed=1, shares=shares)
        np.testing.assert_array_equal(sum(left[t].astype(int) for t in "abc"), 1)
        assert all(within(left[t].sum(), 10_000, p) for t, p in zip("abc", expected, strict=True))
    half = one_task_each(mask, seed=1, rate=0.5)
    total = sum(half[t].astype(int) for t in "abc")
    assert set(total.tolist()) == {1, 3}
    assert within((total == 1).sum(), 10_000, 0.5)
    _, some = made(0)
    left = one_task_each(some, seed=1)
    np.testing.assert_array_equal(
        sum(left[t].astype(int) for t in "abc"), np.minimum(sum(some[t].astype(int) for t in "abc"), 1)
    )


@pytest.mark.parametrize(("rate", "skew"), [(0.5, 1.0), (0.5, -1.0), (0.3, 0.5), (0.4, 0.0)])
def test_by_rank_hides_by_the_formula_and_keeps_the_overall_rate(rate, skew):
    rng = np.random.default_rng(0)
    positive = 0.2
    y = (rng.random(20_000) < positive).astype(np.float32)
    real = rng.normal(size=20_000).astype(np.float32)
    mask = {t: np.ones(20_000, dtype=bool) for t in ("y", "real")}
    left = by_rank({"y": y, "real": real}, mask, rate, skew, seed=2)
    p = y.mean()
    for label, chance in ((1, rate * (1 + skew * (1 - p))), (0, rate * (1 - skew * p))):
        hidden = ~left["y"][y == label]
        assert within(hidden.sum(), len(hidden), chance)
    for task in ("y", "real"):
        assert within((~left[task]).sum(), 20_000, rate)
    top = real > np.quantile(real, 0.9)
    assert within((~left["real"][top]).sum(), top.sum(), rate * (1 + skew * 0.9))


def test_positives_alone():
    labels, mask = made(0)
    left = by_class(labels, mask, (1.0, 0.0), seed=0, tasks=["a", "b"])
    for task in ("a", "b"):
        np.testing.assert_array_equal(left[task], mask[task] & (labels[task] == 1))
    np.testing.assert_array_equal(left["c"], mask["c"])


@few
@given(seed=seeds, one=st.floats(0.02, 0.98), two=st.floats(0.02, 0.98))
def test_imbalance_is_exact_and_nested_on_each_side(seed, one, two):
    labels, mask = made(seed)
    shares, lefts = sorted((one, two)), []
    for prevalence in shares:
        left = imbalance(labels, mask, prevalence, seed)
        lefts.append(left)
        for task in mask:
            y = labels[task][left[task]]
            assert abs(y.sum() - prevalence * len(y)) <= 1
            hidden = labels[task][mask[task] & ~left[task]]
            assert len(set(hidden.tolist())) <= 1  # one class only
    for task in mask:
        present = labels[task][mask[task]].mean()
        if shares[1] <= present:
            assert not (lefts[0][task] & ~lefts[1][task]).any()
        if shares[0] >= present:
            assert not (lefts[1][task] & ~lefts[0][task]).any()


DIGITS = digits_table()
SPLIT = transfer_split(
    DIGITS,
    Asked(
        source=("identity", "prime"),
        targets=("even",),
        seed=0,
        target_size=100,
        test_size=500,
        source_size=700,
        source_val_size=100,
        target_pool=500,
        val_fraction=0.2,
    ),
)


def test_masks_touch_training_and_validation_alone():
    left = at_random(DIGITS.mask, 0.5, seed=0)
    noisy = dict(DIGITS.labels)
    for task in ("even", "identity"):
        noisy[task] = flip(DIGITS.task(task), noisy[task], DIGITS.mask[task], 0.3, seed=1)
    hidden = masked(SPLIT, left, noisy)
    for task in SPLIT.labels:
        np.testing.assert_array_equal(hidden.test[task], SPLIT.test[task])
        np.testing.assert_array_equal(hidden.train[task], SPLIT.train[task] & left[task])
        np.testing.assert_array_equal(hidden.val[task], SPLIT.val[task] & left[task])
        test = SPLIT.test[task]
        np.testing.assert_array_equal(hidden.labels[task][test], DIGITS.labels[task][test])
        np.testing.assert_array_equal(hidden.labels[task][~test], noisy[task][~test])
        assert hidden.labels[task].dtype == DIGITS.labels[task].dtype
    assert hidden.sha256 != SPLIT.sha256
    assert masked(SPLIT, {}).sha256 == SPLIT.sha256
    with pytest.raises(ValueError, match='task "even": none of its 80 training labels is left'):
        masked(SPLIT, {"even": np.zeros(len(DIGITS), dtype=bool)})


@few
@given(seed=seeds, one=st.floats(0, 0.5), two=st.floats(0, 0.5))
def test_noise_is_nested_and_touches_present_labels_alone(seed, one, two):
    rng = np.random.default_rng(seed)
    mask = rng.random(200) < 0.7
    for task, labels in (
        (Task("a", "binary"), rng.integers(0, 2, 200).astype(np.float32)),
        (Task("a", "multiclass", num_classes=5), rng.integers(0, 5, 200).astype(np.int32)),
    ):
        low, high = (flip(task, labels, mask, rate, seed) for rate in sorted((one, two)))
        wrong = low != labels
        assert not (wrong & ~mask).any()
        np.testing.assert_array_equal(high[wrong], low[wrong])
        assert low.dtype == labels.dtype
        assert set(low.tolist()) <= set(range(max(task.num_classes, 2)))


def test_noise_is_as_much_as_asked():
    rows, mask = 20_000, np.ones(20_000, dtype=bool)
    rng = np.random.default_rng(0)
    y = (rng.random(rows) < 0.3).astype(np.float32)
    wrong = flip(Task("a", "binary"), y, mask, 0.2, 0, asymmetry=0.5) != y
    assert within(wrong[y == 1].sum(), int(y.sum()), 0.3)
    assert within(wrong[y == 0].sum(), int((1 - y).sum()), 0.1)
    ids = rng.integers(0, 4, rows).astype(np.int32)
    noisy = flip(Task("a", "multiclass", num_classes=4), ids, mask, 0.3, 0)
    moved = (noisy - ids) % 4
    assert all(within((moved == step).sum(), rows, 0.1) for step in (1, 2, 3))
    real = rng.normal(3, 2, rows).astype(np.float32)
    error = flip(Task("a", "regression"), real, mask, 0.5, 0) - real
    assert abs(error.mean()) < 5 / np.sqrt(rows)
    assert abs(error.std() - 1.0) < 0.03
    assert abs(scipy.stats.kurtosis(error)) < 0.3


MASK = {"a": np.ones(4, dtype=bool), "b": np.ones(4, dtype=bool)}
LABELS = {"a": np.array([0.0, 1, 1, 0]), "b": np.array([0.0, 2, 1, 0])}


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: at_random(MASK, 1.5, 0), "rate = 1.5: must be from 0 to 1"),
        (lambda: at_random(MASK, {"c": 0.5}, 0), 'there is no task "c": Valid: a, b'),
        (lambda: one_task_each(MASK, 0, shares={"a": -1.0}), "shares = {'a': -1.0}: must be at least 0"),
        (lambda: one_task_each(MASK, 0, shares={"a": 0.0}), "shares = {'a': 0.0}: must be at least 0"),
        (lambda: by_rank(LABELS, MASK, 0.6, 1.0, 0), "rate = 0.6: must be from 0 to 0.5"),
        (lambda: by_rank(LABELS, MASK, 0.5, 2.0, 0), "skew = 2.0: must be from -1 to 1"),
        (lambda: by_class(LABELS, MASK, (0.5, 0.5), 0), 'task "b" has label 2.0: must have a rate for each class'),
        (lambda: by_class(LABELS, MASK, (0.5, 1.5), 0), "rates = 1.5: must be from 0 to 1"),
        (lambda: imbalance(LABELS, MASK, 0.5, 0), 'task "b": labels [0.0, 1.0, 2.0]: must be 0 and 1'),
        (lambda: imbalance(LABELS, MASK, 1.0, 0, ["a"]), "prevalence = 1.0: must be between 0 and 1"),
        (lambda: flip(Task("a", "binary"), LABELS["a"], MASK["a"], 1.5, 0), 'task "a": rate = 1.5: must be'),
        (lambda: flip(Task("a", "binary"), LABELS["a"], MASK["a"], 0.6, 0, 1.0), "asymmetry = 1.0: must be in"),
        (
            lambda: flip(Task("a", "regression"), LABELS["a"], MASK["a"], 0.6, 0, 1.0),
            "asymmetry = 1.0: is for binary tasks, not regression",
        ),
        (lambda: corrupt(SPLIT, DIGITS, 0, label_noise={"q": 0.1}), 'data "digits" has no task "q"'),
    ],
)
def test_what_is_refused(call, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call()
