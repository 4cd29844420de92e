"""Label columns: kinds inferred and declared, markers, class names, and what is refused rather than guessed."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data.problems import DataError, Problems
from mtl.data.readers.cells import Missing
from mtl.data.readers.labels import read_label


def read(cells, kind="", classes=(), missing=()):
    problems = Problems()
    array = cells if isinstance(cells, np.ndarray) else np.array(cells, dtype=object)
    label = read_label("y", array, problems, lambda i: f"line {i + 2}", kind, classes, Missing(missing))
    problems.stop()
    return label


@pytest.mark.parametrize(
    ("cells", "kind", "values", "classes"),
    [
        (["1", "0", ""], "binary", [1, 0, None], ()),
        (["1.0", "0", "1"], "binary", [1, 0, 1], ()),
        (["1", "1", ""], "binary", [1, 1, None], ()),  # positive-only
        (["True", "False"], "binary", [1, 0], ("False", "True")),
        (["no", "yes", " yes"], "binary", [0, 1, 1], ("no", "yes")),
        (["1", "2"], "binary", [0, 1], ("1", "2")),
        (["2", "0", "1", "nan"], "multiclass", [2, 0, 1, None], ()),
        (["10", "9", "30"], "multiclass", [1, 0, 2], ("9", "10", "30")),
        (["b", "a", "c"], "multiclass", [1, 0, 2], ("a", "b", "c")),
        (["0.5", "1", ""], "regression", [0.5, 1, None], ()),
        ([str(i) for i in range(30)], "regression", range(30), ()),
        ([str(i - 15) for i in range(30)], "regression", range(-15, 15), ()),
        (np.array([True, False]), "binary", [1, 0], ()),
        (np.array([0.0, np.nan, 1.0]), "binary", [0, None, 1], ()),
        (np.array([3, 5, 4], np.uint8), "multiclass", [0, 2, 1], ("3", "4", "5")),
        ([None, pd.NA, pd.NaT, "x", "y"], "binary", [None, None, None, 0, 1], ("x", "y")),
    ],
)
def test_what_is_inferred(cells, kind, values, classes):
    label = read(cells)
    assert (label.task.kind, label.classes) == (kind, classes)
    np.testing.assert_array_equal(label.values, [np.nan if v is None else v for v in values])
    if kind == "multiclass":
        assert label.task.num_classes == len(set(values) - {None})


def test_what_is_declared_counts():
    assert read(["0", "1"], "regression").task.kind == "regression"
    assert read(["-1", "0", "4"], "regression").values.tolist() == [-1, 0, 4]
    assert read(["0", "1"], "multiclass").task.num_classes == 2
    assert read([str(i) for i in range(30)], "multiclass").task.num_classes == 30
    label = read(["dog", "cat"], classes=("dog", "cat", "cow"))
    assert (label.task.num_classes, label.values.tolist(), label.classes) == (3, [0, 1], ("dog", "cat", "cow"))
    assert read(["-1", "1"], classes=("-1", "1")).values.tolist() == [0, 1]
    np.testing.assert_array_equal(read(["-1", "1", "0"], missing=(-1,)).values, [np.nan, 1, 0])
    np.testing.assert_array_equal(read(["-1.0", "1", "?"], "binary", missing=("-1", "?")).values, [np.nan, 1, np.nan])
    np.testing.assert_array_equal(read(np.array([-1, 1, 0]), missing="-1").values, [np.nan, 1, 0])


@pytest.mark.parametrize(
    ("cells", "options", "sentences"),
    [
        (["0", "2", "2"], {"kind": "binary"}, ['line 3, column "y": label 2: must be 0, 1', "; 1 more row"]),
        (["0", "cat"], {"kind": "binary"}, ['line 3, column "y": label cat: must be 0, 1']),
        (["a", "b", "c"], {"kind": "binary"}, ["3 distinct labels (a, b, c): must be two"]),
        (["0", "1", "-1"], {}, ['is -1, its only negative label, missing or a value? declare missing=("-1",)']),
        (["-1", "1"], {}, ["is -1, its only negative label, missing"]),
        (["-1", "-1"], {}, ["is -1, its only negative label, missing"]),
        ([str(i - 1) for i in range(40)], {}, ["is -1, its only negative label, missing"]),
        (["-1", "0", "2"], {"kind": "multiclass"}, ["is -1, its only negative label, missing"]),
        (["0", "1", "NA"], {}, ['line 4, column "y": label NA: declare missing=("NA",)']),
        (["cat", "dog", "?"], {}, ['line 4, column "y": label ?: declare missing=("?",)']),
        (["1", "2", "two"], {}, ['line 4, column "y": label two: a text among numbers']),
        (["1", "two"], {"kind": "regression"}, ['line 3, column "y": label two: must be a number']),
        (["1", "inf", "1e300"], {"kind": "regression"}, ["label inf: must be finite in float32; 1 more row (1e300)"]),
        (["0.5", "inf"], {}, ["label inf: must be finite in float32"]),
        (["", "nan"], {}, ['column "y": all 2 labels are missing']),
        (["?", "?"], {"missing": "?"}, ['column "y": all 2 labels are missing']),
        (["a", "a"], {}, ["1 distinct labels (a): must be two or more"]),
        (["cat", "Cat", "dog"], {}, ['labels "Cat" and "cat" differ in case only']),
        (["cat", "cow"], {"classes": ("cat", "dog")}, ['line 3, column "y": label cow: must be one of cat, dog']),
        ([f"name {i}" for i in range(1001)], {}, ["1,001 distinct labels: must be at most 1,000"]),
    ],
)
def test_what_is_refused(cells, options, sentences):
    with pytest.raises(DataError) as error:
        read(cells, **options)
    for sentence in sentences:
        assert sentence in str(error.value)


def test_an_error_lists_twenty_sentences_and_counts_the_rest():
    problems = Problems()
    for i in range(1999):
        problems.add(f"problem {i}")
    with pytest.raises(DataError, match=re.escape("… and 1,979 more problems")) as error:
        problems.stop()
    assert error.value.count == 1999
    assert len(str(error.value).splitlines()) == 21


def test_what_is_wrong_with_a_column_is_one_line():
    with pytest.raises(DataError, match=r"label 2: .*; 1,998 more rows$") as error:
        read(["0"] + ["2"] * 1999, "binary")
    assert error.value.count == 1


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([25.0, 31, 40, 44, 52, 59, 61, 66, 70, 75, 81, 88, 90, 97, 101, 110, 25, 31, 40, 44], "regression"),
        ([float(i % 12) for i in range(40)], "multiclass"),
        ([float(i) for i in range(10)], "multiclass"),
    ],
)
def test_whole_numbers_that_are_there_once_are_no_classes(values, kind):
    assert read(np.array(values)).task.kind == kind


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["ja", "nein"], ("nein", "ja")),
        (["Yes", "No"], ("No", "Yes")),
        (["ill", "healthy"], ("healthy", "ill")),
        (["normal", "abnormal"], ("normal", "abnormal")),
        (["TRUE", "FALSE"], ("FALSE", "TRUE")),
        (["dog", "cat"], ("cat", "dog")),
    ],
)
def test_of_two_words_the_one_that_says_yes_is_positive(cells, names):
    label = read(cells)
    assert label.classes == names
    assert label.values.tolist() == [names.index(cell) for cell in cells]
    assert read(cells, classes=names[::-1]).values.tolist() == [1 - v for v in label.values]


cell = st.one_of(
    st.sampled_from(["", "nan", "0", "1", "2", "-1", "1.5", "inf", "1e400", "a", "A", "?", "NA", "1_0", " 1 "]),
    st.text(max_size=3),
    st.floats(),
    st.integers(),
    st.booleans(),
    st.none(),
)


@settings(max_examples=300, deadline=None)
@given(cells=st.lists(cell, min_size=1, max_size=12), kind=st.sampled_from(["", "binary", "multiclass", "regression"]))
def test_any_column_gives_a_label_or_a_data_error(cells, kind):
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    try:
        label = read(array, kind)
    except DataError:
        return
    present = ~np.isnan(label.values)
    assert present.any()
    assert kind in ("", label.task.kind)
    if label.task.kind != "regression":
        assert set(label.values[present]) <= set(range(max(label.task.num_classes, 2)))


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1, max_size=40))
def test_ids_are_the_ranks_of_the_values(values):
    there = sorted({v for v in values if v is not None})
    if len(there) < 3:
        return
    label = read(["" if v is None else str(v) for v in values])
    np.testing.assert_array_equal(label.values, [np.nan if v is None else there.index(v) for v in values])
