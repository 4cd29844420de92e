"""The words of what would settle a comparison, and of what labels are worth."""

import math

import pytest

from mtl.report import advice
from mtl.report.estimates import Power, Worth

INF = math.inf


def power(replicates=INF, examples=INF, both=INF, labels=math.nan, settled=False):
    return Power(
        settled=settled,
        shows="gain",
        level=0.05,
        effect=0.02,
        test_share=0.3,
        replicates=20,
        examples=300,
        replicates_needed=replicates,
        examples_needed=examples,
        both_needed=both,
        labels_needed=labels,
        labels_low=labels,
        labels_high=labels,
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (power(34.0, 1000.0, 1.4), "about 14 more replicates"),
        (power(21.0, 1000.0, 1.1), "about 1 more replicate"),
        (power(266.0, 1534.0, 3.0), "about 250 more replicates, or about 1,200 more test examples"),
        (
            power(INF, 1534.0, 3.0),
            "more replicates do not help: the test set is too small (about 1,200 more test examples would)",
        ),
        (
            power(INF, INF, 3.14159),
            "neither more replicates nor more test examples alone: about 3.1 times as many of both",
        ),
        (power(), "nothing feasible: 1,000 times the replicates and test examples would not"),
        (power(25.0, 400.0, 1.1, settled=True), ""),
        (None, "a second replicate, before anything can be said"),
    ],
)
def test_what_would_settle_it(found, words):
    assert advice.settles(found) == words


def test_groups_are_named():
    assert advice.settles(power(INF, 340.0, 1.1), grouped=True).endswith(
        "(about 40 more groups of test examples would)"
    )
    assert "(about 1 more group of test examples would)" in advice.settles(power(INF, 301.0), grouped=True)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (power(labels=404.0), "about 300 more labels"),
        (power(labels=101.0), "about 1 more label"),
        (power(labels=INF), "more than 500 labels"),
        (power(), ""),
        (power(labels=100.0, settled=True), ""),
    ],
)
def test_labels_that_would_settle_it(found, words):
    assert advice.labels_settle(found, 100.0, 500.0) == words


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Worth(3.14, 3.14, 2.21, 4.38), "worth 3.1× the labels [2.2, 4.4]"),
        (Worth(3.14, 3.14, 2.21, INF), "worth 3.1× the labels [at least 2.2]"),
        (Worth(0.75, 0.75, 0.0, 1.04), "worth 0.75× the labels [at most 1]"),
        (Worth(1.2, 1.2, 0.0, INF), "worth 1.2× the labels [not bounded by these sizes]"),
        (Worth(5.0, INF, 2.2, INF), "worth more than 5× the labels [at least 2.2]"),
        (Worth(5.0, INF, 5.0, INF), "worth more than 5× the labels"),
        (Worth(0.0, 1.0, 0.0, 1.0), "worth less than 1× the labels"),
        (Worth(0.0, 1.0, 0.0, 1.62), "worth less than 1× the labels [at most 1.6]"),
        (Worth(0.0, 1.0, 0.0, 1.04), "worth less than 1× the labels"),
        (Worth(0.0, INF, 0.0, INF), "worth in labels not bounded by these sizes"),
    ],
)
def test_how_many_times_the_labels(found, words):
    assert advice.multiplier(found) == words


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Worth(4.0, 4.0, 2.0, 6.0), "about 300 more labels"),
        (Worth(0.7, 0.7, 0.5, 0.9), "about 30 fewer labels"),
        (Worth(1.001, 1.001, 0.9, 1.1), "as many labels"),
        (Worth(5.0, INF, 2.2, INF), "more than 400 more labels"),
        (Worth(1.3, 1.3, 0.9, 1.9), "about 30 more labels, or none"),
        (Worth(1.0, INF, 1.0, INF), "more labels"),
        (Worth(1.0, INF, 0.6, INF), "more labels, or none"),
        (Worth(0.0, 0.5, 0.0, 0.5), "more than 50 fewer labels"),
        (Worth(0.0, 1.0, 0.0, 1.0), "fewer labels"),
        (Worth(0.0, INF, 0.0, INF), ""),
    ],
)
def test_how_many_labels(found, words):
    assert advice.labels_worth(found, 100.0) == words
