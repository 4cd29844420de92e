"""Inputs that are streamed: the same table as in memory, checked as they are read, threads that end."""

import importlib.util
import threading
import time

import numpy as np
import pytest

pytest.importorskip("grain", reason='needs the extra: pip install "mtl[stream]"')

from mtl.data import Streamed, make_table
from mtl.data.describe import description
from mtl.data.duplicates import copies
from mtl.data.problems import DataError
from mtl.data.streamed import blocks, prefetched
from mtl.tasks import Task

X = np.random.default_rng(0).normal(size=(50, 3, 2)).astype(np.float32)
X[:, 1, 1] = 0.5
X[40] = X[7]
TASKS, LABELS = [Task("even", "binary")], {"even": np.arange(50) % 2}


def streamed(x=X):
    return Streamed(x.shape, lambda rows: x[rows])


def test_a_streamed_table_is_the_table(monkeypatch):
    monkeypatch.setattr("mtl.data.streamed._BLOCK_BYTES", 7 * 24)
    held, table = make_table("toy", X, TASKS, LABELS), make_table("toy", streamed(), TASKS, LABELS)
    assert table.sha256 == held.sha256 and len(table) == 50 and table.x.ndim == 3
    np.testing.assert_array_equal(copies(table), copies(held))
    assert copies(table)[40] == 7
    assert description(table) == description(held) and description(table)["constant_inputs"] == 1
    np.testing.assert_array_equal(np.concatenate(list(blocks(table.x))), X)


def test_rows_come_as_asked_for_and_each_is_read_once():
    asked = []

    def read(rows):
        asked.append(rows.tolist())
        return X[rows]

    x = Streamed(X.shape, read)
    np.testing.assert_array_equal(x[np.array([9, 3, 9, 0])], X[[9, 3, 9, 0]])
    np.testing.assert_array_equal(x[49], X[49])
    assert asked == [[0, 3, 9], [49]]


@pytest.mark.parametrize(
    ("read", "line"),
    [
        (lambda rows: X[rows].astype(np.float64), r"read float64 \(2, 3, 2\): must be float32 \(2, 3, 2\)"),
        (lambda rows: X[rows][:, :2], r"read float32 \(2, 2, 2\): must be float32 \(2, 3, 2\)"),
        (lambda rows: X[rows][:1], r"read float32 \(1, 3, 2\): must be"),
        (lambda rows: np.where(rows[:, None, None] == 4, np.float32(np.nan), X[rows]), "row 4 is not finite"),
    ],
)
def test_what_is_read_is_checked(read, line):
    with pytest.raises(ValueError, match=line):
        Streamed(X.shape, read)[np.array([2, 4])]


def test_a_streamed_set_that_cannot_be_is_refused_when_the_table_is_made(monkeypatch):
    bad = X.copy()
    bad[33, 0, 0] = np.inf
    with pytest.raises(ValueError, match="row 33 is not finite"):
        make_table("toy", streamed(bad), TASKS, LABELS)
    with pytest.raises(ValueError, match=r"shape \(5,\): must be \(N, …\)"):
        Streamed((5,), lambda rows: rows)
    with pytest.raises(ValueError, match=r"labels of shape \(50,\): must be \(49,\)"):
        make_table("toy", streamed(X[:49]), TASKS, LABELS)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "grain" else find(name))
    with pytest.raises(DataError, match=r'need grain, which is not installed: pip install "mtl\[stream\]"'):
        streamed()


def test_what_is_read_ahead_comes_in_order_and_bounded():
    made = []

    def make(i):
        time.sleep(0.02 if i % 2 else 0.0)
        made.append(i)
        return i

    found = prefetched(make, 20, threads=3)
    assert next(found) == 0
    time.sleep(0.2)
    assert len(made) <= 1 + 2 * 3  # Those asked for, and no more than a few ahead.
    assert list(found) == list(range(1, 20))


def test_an_error_comes_in_its_turn_and_threads_end():
    def make(i):
        if i == 3:
            raise KeyError("three")
        return i

    found = prefetched(make, 10)
    assert [next(found), next(found), next(found)] == [0, 1, 2]
    with pytest.raises(KeyError, match="three"):
        next(found)
    left = prefetched(lambda i: i, 100)
    next(left)
    left.close()
    deadline = time.monotonic() + 10
    while any(t.name.startswith("grain") for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("grain")]
