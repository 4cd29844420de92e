"""NPZ files: what numpy writes comes back, and nothing else costs memory or runs code."""

import io
import re
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtl.data import DataError, load, npz_table
from mtl.data.readers.npz import read_npz
from tests.data.readers.damage import damaged, refusal


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path))
    return tmp_path


def save(folder, name="a.npz", **arrays):
    np.savez_compressed(folder / name, **arrays)
    return name


def refused(sentence, path="a.npz", labels="y", **options):
    with pytest.raises(DataError, match=re.escape(sentence)):
        npz_table(path, labels, **options)


def test_the_whole_way(folder):
    x = np.asfortranarray(np.random.default_rng(0).normal(size=(5, 4, 3)))
    save(folder, x=x, y=np.array([0, 1, -1, 1, 0]), m=np.eye(5)[:, :2], who=np.array(list("aabbc")), other=np.zeros(1))
    table = npz_table("a.npz", ["y:binary", "m"], missing=[-1], groups="who")
    np.testing.assert_array_equal(table.x, x)
    assert [(t.name, t.kind) for t in table.tasks] == [("y", "binary"), ("m_0", "binary"), ("m_1", "binary")]
    np.testing.assert_array_equal(table.mask["y"], [True, True, False, True, True])
    np.testing.assert_array_equal(table.groups, [0, 0, 1, 1, 2])
    assert load("npz", path="a.npz", labels=["m"]).name == "a"
    assert [t.kind for t in npz_table("a.npz", {"m": "regression"}).tasks] == ["regression"] * 2


def test_arrays_in_parts_are_joined(folder):
    x = np.random.default_rng(0).integers(0, 256, (6, 4, 3, 1), np.uint8)
    y, who = np.array([0, 1, 2, 1, 0, 2]), np.array(["a", "b", "c", "dd", "e", "f"])
    whole = {"x": x, "y": y, "who": who}
    for ends in (
        {"_train": slice(0, 4), "_test": slice(4, 6)},
        dict(_train=slice(0, 3), _val=slice(3, 4), _test=[4, 5]),
    ):
        save(folder, **{f"{name}{end}": array[at] for end, at in ends.items() for name, array in whole.items()})
        table = npz_table("a.npz", "y", groups="who")
        np.testing.assert_array_equal(np.round(table.x * 255), x)
        np.testing.assert_array_equal(table.labels["y"], y)
        np.testing.assert_array_equal(table.groups, range(6))
        assert table.part.tolist() == ([0, 0, 0, 0, 2, 2] if len(ends) == 2 else [0, 0, 0, 1, 2, 2])
    save(folder, **whole, part=np.array(["train"] * 4 + ["test"] * 2))
    assert npz_table("a.npz", "y", part="part").part.tolist() == [0, 0, 0, 0, 2, 2]
    save(folder, x_train=x[:4], x_test=x[4:], y_train=y[:4], y_test=y[3:])
    refused('file "a.npz", "y_test": int64 (3,): must be int64 (2,), as x_test and y_train are')
    save(folder, x_train=x[:4], x_test=x[4:] / 255, y_train=y[:4], y_test=y[4:])
    refused('"x_test": float64 (2, 4, 3, 1): must be uint8 (2, 4, 3, 1), as x_test and x_train are')
    save(folder, x_train=x[:4], x_test=x[4:], y_train=y[:4])
    refused('file "a.npz", "y_test" is no array: must be one, as "x_test" is')


def test_what_is_refused(folder):
    save(
        folder, x=np.ones((3, 2)), y=np.array([0, 1, 2]), o=np.array([None, 1, 2], dtype=object), z=np.zeros(3, "M8[s]")
    )
    refused('file "a.npz", row 2, column "y": label 2: must be 0, 1', labels="y:binary")
    refused('file "a.npz": array "o": holds objects, which would need pickle', labels=["y", "o"])
    refused("array \"z\": holds {'descr': '<M8[s]'", labels=["y", "z"])
    refused('file "a.npz", labels: "q" is no column', labels="q")
    refused('inputs: "q" is no column', inputs="q")
    refused('groups: "q" is no column', groups="q")
    (folder / "b.npz").write_bytes((folder / "a.npz").read_bytes()[:-30])
    refused('file "b.npz": damaged or truncated zip', path="b.npz")
    (folder / "c.npz").write_bytes(b"a,y\n1,2\n")
    refused('file "c.npz": damaged or truncated zip', path="c.npz")


def test_bombs_are_refused_before_memory_is_taken(folder):
    save(folder, x=np.zeros((3000, 1000)), y=np.zeros(3000))  # 24 MB in a few kB
    assert (folder / "a.npz").stat().st_size < 100_000
    refused("all arrays together must be at most 1,000,000 bytes", max_bytes=10**6)
    header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 8), }".ljust(
        128
    )
    for claimed, sentence in ((header, "must be at most"), (header.replace(b"1000000000000", b"2"), "are not those")):
        with zipfile.ZipFile(folder / "lie.npz", "w") as archive:
            archive.writestr("x.npy", claimed.ljust(128))
        with pytest.raises(DataError, match=sentence):
            read_npz((folder / "lie.npz").read_bytes(), "here", ["x"])
    with zipfile.ZipFile(folder / "two.npz", "w") as archive, warnings.catch_warnings(action="ignore"):
        archive.writestr("x.npy", header)
        archive.writestr("x.npy", header)
    refused('column 2: the name "x" is that of column 1 too', path="two.npz")


def test_no_expression_is_evaluated():
    buffer = io.BytesIO()
    evil = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2*3), }"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00\x76\x00" + evil.ljust(118))
    with pytest.raises(DataError, match="must hold numbers or texts"):
        read_npz(buffer.getvalue(), "here", ["x"])


dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(),
    hnp.unicode_string_dtypes(),
)


@settings(max_examples=100, deadline=None)
@given(array=hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)), compress=st.booleans())
def test_round_trip(array, compress):
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, x=array)
    back = read_npz(buffer.getvalue(), "here", ["x"])["x"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), compress=st.booleans())
def test_corruption_gives_a_data_error_or_a_table(folder, data, compress):
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, x=np.ones((4, 2)), y=np.array([0, 1, 1, 0]))
    (folder / "c.npz").write_bytes(data.draw(damaged(buffer.getvalue())))
    said = refusal(lambda: npz_table("c.npz", "y:regression", max_bytes=10**6))
    assert said is None or 'file "c.npz"' in said
