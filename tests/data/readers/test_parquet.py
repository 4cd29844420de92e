"""Parquet files, where pyarrow is installed; and what is said where it is not."""

import importlib.util
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtl.data import DataError, load, parquet_table
from tests.data.readers.damage import damaged, refusal

arrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason='pyarrow is not installed: pip install "mtl[parquet]"'
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path))
    return tmp_path


def frame():
    return pd.DataFrame(
        {
            "a": np.arange(5, dtype=np.int8),
            "b": np.linspace(0, 1, 5, dtype=np.float32),
            "pet": pd.Categorical(["cat", "dog", None, "cow", "cat"]),
            "toxic": pd.array([1, None, 0, 1, 0], dtype="Int64"),
            "who": list("aabbc"),
        }
    )


def test_without_pyarrow_one_sentence_says_which_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=re.escape('need pyarrow, which is not installed: pip install "mtl[parquet]"')):
        parquet_table("a.parquet", "y")


@arrow
def test_the_whole_way(folder):
    frame().to_parquet(folder / "a.parquet")
    table = parquet_table("a.parquet", ["pet", "toxic"], groups="who")
    np.testing.assert_array_equal(table.x, frame()[["a", "b"]].to_numpy(np.float32))
    assert table.classes == {"pet": ("cat", "cow", "dog")}
    np.testing.assert_array_equal(table.labels["pet"], [0, 2, 0, 1, 0])
    np.testing.assert_array_equal(table.mask["toxic"], [True, False, True, True, True])
    np.testing.assert_array_equal(table.groups, [0, 0, 1, 1, 2])
    assert load("parquet", path="a.parquet", labels=["toxic"], inputs=["a"]).name == "a"
    frame().assign(fold=["train", "val", "test", "test", "train"]).to_parquet(folder / "b.parquet")
    table = parquet_table("b.parquet", ["pet", "toxic"], ignore="who", part="fold")
    assert table.part.tolist() == [0, 1, 2, 2, 0] and table.columns == ("a", "b")


@arrow
def test_what_is_refused(folder):
    frame().assign(y=[0, 1, 2, 0, 1]).to_parquet(folder / "a.parquet")
    options = {"inputs": "a"}
    for labels, sentence in (
        ("y:binary", 'file "a.parquet", row 2, column "y": label 2: must be 0, 1'),
        ("z", 'file "a.parquet", labels: "z" is no column'),
    ):
        with pytest.raises(DataError, match=re.escape(sentence)):
            parquet_table("a.parquet", labels, **options)
    pd.DataFrame({"a": np.zeros(10**6), "y": 0}).to_parquet(folder / "z.parquet")
    with pytest.raises(DataError, match="once decompressed: must be at most max_bytes"):
        parquet_table("z.parquet", "y", max_bytes=200_000)
    (folder / "b.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r'file "b.parquet": damaged or truncated Parquet'):
        parquet_table("b.parquet", "y", **options)


@arrow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_corruption_gives_a_data_error_or_a_table(folder, data):
    path = folder / "c.parquet"
    frame().to_parquet(path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    said = refusal(lambda: parquet_table("c.parquet", ["pet", "toxic"], inputs=["a", "b"], max_bytes=10**7))
    assert said is None or 'file "c.parquet"' in said
