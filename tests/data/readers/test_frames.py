"""Tables from pandas and NumPy."""

import numpy as np
import pandas as pd
import pytest

from mtl.data import DataError, arrays_table, frame_table, summary


def frame():
    return pd.DataFrame(
        {
            "a": np.array([1, 2, 3, 4], np.int16),
            "b": [0.5, 1.5, 2.5, 3.5],
            "flag": [True, False, True, False],
            "size": pd.Categorical(["small", "large", None, "small"], ["small", "medium", "large"], ordered=True),
            "toxic": pd.array([1, None, 0, 1], dtype="Int64"),
            "dose": [0.1, np.nan, -1.0, 3.0],
            "who": ["x", "y", "x", None],
        }
    )


def test_a_frame_of_every_dtype():
    table = frame_table(frame(), ["size", "toxic", "dose"], groups="who")
    np.testing.assert_array_equal(table.x, [[1, 0.5, 1], [2, 1.5, 0], [3, 2.5, 1], [4, 3.5, 0]])
    assert [(t.kind, t.num_classes) for t in table.tasks] == [("multiclass", 3), ("binary", 0), ("regression", 0)]
    assert table.classes == {"size": ("small", "medium", "large")}
    np.testing.assert_array_equal(table.labels["size"], [0, 2, 0, 0])
    np.testing.assert_array_equal(table.mask["size"], [True, True, False, True])
    np.testing.assert_array_equal(table.mask["toxic"], [True, False, True, True])
    np.testing.assert_array_equal(table.labels["dose"], [0.1, 0, -1, 3])
    assert table.groups[0] == table.groups[2] != table.groups[1] != table.groups[3]
    assert "4 examples, inputs (3,), 3 groups" in summary(table)
    assert not frame_table(frame(), "dose", inputs="a", missing=[-1.0]).mask["dose"][2]


def test_a_frame_that_is_wrong():
    bad = frame().assign(b=[1.0, np.inf, 2.0, 3.0], c=["1", "two", "3", "4"])
    with pytest.raises(DataError) as error:
        frame_table(bad, ["flag", "dose:binary"], ignore=["size", "who", "toxic"])
    assert str(error.value).splitlines() == [
        'data "frame", row 0, column "dose": label 0.1: must be 0, 1 or missing '
        "(declare markers in missing=, or both classes in classes=); 2 more rows (-1.0, 3.0)",
        'data "frame", row 1, column "b": "inf": must be a number, finite in float32',
        'data "frame", row 1, column "c": "two": must be a number, finite in float32',
    ]
    with pytest.raises(DataError, match="a dict: must be a DataFrame"):
        frame_table({}, "dose")
    with pytest.raises(DataError, match="has no rows"):
        frame_table(frame().iloc[:0], "dose", inputs="a")
    with pytest.raises(DataError, match="names must be texts"):
        frame_table(pd.DataFrame(np.eye(2)), "0")
    with pytest.raises(DataError, match=r'data "frame", labels: "dosis" is no column: did you mean "dose"'):
        frame_table(frame(), "dosis")


def test_arrays():
    x = np.arange(24.0).reshape(4, 3, 2)
    labels = {"m": [[0, 1], [1, -1], [1, 1], [0, 0]], "c": ["a", "b", "c", "a"], "r": [1, 2, 3, 4]}
    table = arrays_table(x, labels, kinds=["r:regression"], groups=[7, 7, 8, 9], missing=[-1])
    np.testing.assert_array_equal(table.x, x)
    assert [(t.name, t.kind) for t in table.tasks] == [
        ("m_0", "binary"),
        ("m_1", "binary"),
        ("c", "multiclass"),
        ("r", "regression"),
    ]
    np.testing.assert_array_equal(table.mask["m_1"], [True, False, True, True])
    np.testing.assert_array_equal(table.groups, [0, 0, 1, 2])


@pytest.mark.parametrize(
    ("x", "labels", "sentence"),
    [
        (np.ones(3), {"y": [0, 1, 0]}, r"inputs: float64 \(3,\): must be numbers"),
        (np.full((2, 2), np.nan), {"y": [0, 1]}, "inputs, row 0: 4 values are not finite"),
        (np.ones((2, 2)), {"y": [0, 1, 1]}, r'labels of "y": shape \(3,\): must be one label'),
        (np.ones((2, 2)), {}, "labels: none"),
        (np.ones((2, 2)), {"y": [0, -1]}, "is -1, its only negative label, missing or a value"),
    ],
)
def test_arrays_that_are_refused(x, labels, sentence):
    with pytest.raises(DataError, match=sentence):
        arrays_table(x, labels)
