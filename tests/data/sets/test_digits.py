"""The digits against scikit-learn's own arrays."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mtl.data import digits_table, load

RAW = load_digits()


def test_inputs_are_scikit_learns_scans_divided_by_16():
    flat, images = digits_table(), digits_table(images=True)
    assert flat.x.shape == (1797, 64)
    assert flat.x.dtype == np.float32
    np.testing.assert_array_equal(flat.x * 16, RAW.data)  # exact: sixteenths are float32 numbers
    np.testing.assert_array_equal(images.x[..., 0] * 16, RAW.images)
    assert images.x.shape == (1797, 8, 8, 1)
    assert flat.x.min() == 0
    assert flat.x.max() == 1
    assert flat.sha256 != images.sha256


def test_tasks_are_functions_of_the_digit():
    table, digit = digits_table(), RAW.target
    assert [(t.name, t.kind, t.num_classes) for t in table.tasks] == [
        ("identity", "multiclass", 10),
        ("even", "binary", 0),
        ("prime", "binary", 0),
        ("at_least_five", "binary", 0),
        ("has_loop", "binary", 0),
        ("low_identity", "multiclass", 5),
        ("high_identity", "multiclass", 5),
    ]
    np.testing.assert_array_equal(table.labels["identity"], digit)
    truth = {  # written out by hand, a row a digit: even, prime, at least five, loop
        0: (1, 0, 0, 1),
        1: (0, 0, 0, 0),
        2: (1, 1, 0, 0),
        3: (0, 1, 0, 0),
        4: (1, 0, 0, None),
        5: (0, 1, 1, 0),
        6: (1, 0, 1, 1),
        7: (0, 1, 1, 0),
        8: (1, 0, 1, 1),
        9: (0, 0, 1, 1),
    }
    for d, row in truth.items():
        for name, value in zip(("even", "prime", "at_least_five", "has_loop"), row, strict=True):
            assert (table.mask[name][digit == d] == (value is not None)).all()
            assert (table.labels[name][digit == d] == (value or 0)).all()


def test_the_controls_classes_never_meet():
    table, digit = digits_table(), RAW.target
    low, high = table.mask["low_identity"], table.mask["high_identity"]
    np.testing.assert_array_equal(low, digit < 5)
    np.testing.assert_array_equal(high, digit >= 5)
    assert (int(low.sum()), int(high.sum())) == (901, 896)
    np.testing.assert_array_equal(table.labels["low_identity"][low], digit[low])
    np.testing.assert_array_equal(table.labels["high_identity"][high], digit[high] - 5)


@pytest.mark.parametrize("word", ["Alpaydin", "1998", "UCI", "CC BY 4.0", "mix writers"])
def test_it_says_where_it_comes_from_and_what_it_cannot_say(word):
    assert word in load("digits").about


def test_golden_sha256():
    assert digits_table().sha256 == "4808fd72aa6cc60dd4b7284c6c4e9e525c4493f83301cdb891c43f088951cb0d"
