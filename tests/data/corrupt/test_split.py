"""Labels corrupted as a config says: test labels never, validation only on demand, one draw for regimes and sizes."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data import Asked, digits_table, transfer_split
from mtl.data.corrupt.split import FIELDS, WAYS, corrupt, without

DIGITS = digits_table()
TASKS = ("identity", "prime", "even")


def split(seed=0, n=100):
    return transfer_split(
        DIGITS,
        Asked(
            source=("identity", "prime"),
            targets=("even",),
            seed=seed,
            target_size=n,
            test_size=500,
            source_size=700,
            source_val_size=100,
            target_pool=500,
            val_fraction=0.2,
        ),
    )


def spec(way, rate):
    """What a config says of a way of hiding at a rate."""
    rates = {
        "at_random": dict.fromkeys(TASKS, rate),
        "by_rank": dict.fromkeys(TASKS, rate / 2),
        "by_class": {"identity": [rate] * 5 + [0.0] * 5, "even": [0.0, rate]},
        "positive_only": {"prime": rate, "even": rate},
        "one_task_each": {},
    }[way]
    return {"hide": way, "hide_rate": rate if way == "one_task_each" else 0.0, "hide_rates": rates, "hide_skew": 0.5}


ways = st.sampled_from(WAYS)
few = settings(max_examples=25, deadline=None)


def same(a, b):
    return all(np.array_equal(a[t], b[t]) for t in TASKS)


@few
@given(way=ways, seed=st.integers(0, 50), rates=st.tuples(*[st.floats(0, 0.9)] * 2), both=st.booleans())
def test_test_labels_stay_and_hidden_ones_are_nested_in_the_rate_and_in_n(way, seed, rates, both):
    noise = {"label_noise": {"prime": 0.2, "identity": 0.1}, "hide_in_validation": both}
    one = split(seed)
    more, fewer = (corrupt(one, DIGITS, seed, **spec(way, r), **noise) for r in (min(rates), max(rates)))
    smaller = corrupt(split(seed, 50), DIGITS, seed, **spec(way, max(rates)), **noise)
    for task in TASKS:
        for poor in (more, fewer):
            assert np.array_equal(poor.test[task], one.test[task])
            test = one.test[task] if both else one.test[task] | one.val[task]
            assert np.array_equal(poor.labels[task][test], one.labels[task][test])
        assert not (fewer.train[task] & ~more.train[task]).any() and not (more.train[task] & ~one.train[task]).any()
        assert np.array_equal(more.labels[task], fewer.labels[task])
        assert not (smaller.train[task] & ~fewer.train[task]).any()
        rows = smaller.train[task]
        assert np.array_equal(smaller.labels[task][rows], fewer.labels[task][rows])
    assert same(more.val, one.val) or both


def test_validation_is_corrupted_on_demand_only_by_the_same_draws():
    one = split()
    kept = corrupt(one, DIGITS, 0, **spec("at_random", 0.5))
    both = corrupt(one, DIGITS, 0, **spec("at_random", 0.5), hide_in_validation=True)
    assert same(kept.val, one.val) and same(kept.train, both.train)
    assert 30 < both.val["prime"].sum() < 70


def test_noise_is_there_before_anything_is_hidden_by_its_value():
    poor = corrupt(split(), DIGITS, 0, **spec("positive_only", 1.0), label_noise={"prime": 0.3})
    rows = poor.train["prime"]
    assert poor.labels["prime"][rows].all() and 0.1 < (DIGITS.labels["prime"][rows] == 0).mean() < 0.5


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_the_share_of_positives_is_that_of_what_is_left(share):
    hidden = spec("at_random", 0.5)
    poor = corrupt(split(), DIGITS, 1, **hidden, imbalance={"prime": share, "even": share}, hide_in_validation=True)
    for task in ("prime", "even"):
        labels = poor.labels[task][poor.train[task]]
        assert abs(labels.sum() - share * len(labels)) <= 1.0
    assert abs(poor.labels["prime"][poor.val["prime"]].mean() - share) < 0.06
    plain = corrupt(split(), DIGITS, 1, **hidden)
    assert not (poor.train["prime"] & ~plain.train["prime"]).any()


def test_target_rows_keep_their_label_where_each_source_row_has_one_task():
    one = split()
    poor = corrupt(one, DIGITS, 0, **spec("one_task_each", 1.0))
    assert np.array_equal(poor.train["even"], one.train["even"])
    there = poor.train["identity"].astype(int) + poor.train["prime"]
    assert there.max() == 1 and there.sum() == one.train["prime"].sum()


def test_a_replicate_of_another_seed_hides_others():
    one = split()
    a, b = (corrupt(one, DIGITS, seed, **spec("at_random", 0.5)).train["prime"] for seed in (0, 1))
    assert 0.3 < (a & b).sum() / a.sum() < 0.7


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=re.escape('hide = "nothing": must be one of at_random')):
        corrupt(split(), DIGITS, 0, hide="nothing")
    with pytest.raises(ValueError, match='task "even": none of its 80 training labels is left'):
        corrupt(split(), DIGITS, 0, hide="at_random", hide_rates={"even": 1.0})


def test_nothing_asked_is_nothing_done():
    assert corrupt(split(), DIGITS, 0).sha256 == split().sha256


def test_a_phase_that_never_sees_a_task_does_not_depend_on_how_it_is_corrupted():
    plain = {"name": "digits", "test_size": 5}
    full = plain | {"hide": "by_rank", "hide_rates": {"even": 0.5}, "hide_skew": 1.0, "label_noise": {"even": 0.1}}
    full |= {"label_noise_asymmetry": 0.5, "imbalance": {"even": 0.1}, "hide_in_validation": True}
    assert set(full) - set(plain) == set(FIELDS) - {"hide_rate"}
    assert without(full, "even") == plain == without(plain, "even")
    some = without(full | {"hide_rates": {"even": 0.5, "prime": 0.2}}, "even")
    assert some == plain | {
        "hide": "by_rank",
        "hide_rates": {"prime": 0.2},
        "hide_skew": 1.0,
        "hide_in_validation": True,
    }
    each = plain | {"hide": "one_task_each", "hide_rate": 1.0}
    assert without(each, "even") == each
