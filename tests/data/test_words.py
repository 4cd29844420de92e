"""Texts as ids: by a rule of its own for each word, so that new texts are read as old ones."""

import re
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl.data import token_ids


@given(texts=st.lists(st.text(max_size=30), max_size=4), vocabulary=st.integers(2, 5000), length=st.integers(1, 9))
def test_each_text_is_read_by_itself(texts, vocabulary, length):
    found = token_ids(texts, vocabulary, length)
    assert found.shape == (len(texts), length) and found.dtype == np.int32
    assert ((found >= 0) & (found < vocabulary)).all()
    for text, row in zip(texts, found, strict=True):
        np.testing.assert_array_equal(token_ids([text], vocabulary, length)[0], row)
        words = re.findall(r"\w+|[$!?%]", text.lower())[:length]
        right = [1 + zlib.crc32(w.encode("utf-8", "surrogatepass")) % (vocabulary - 1) for w in words]
        np.testing.assert_array_equal(row, right + [0] * (length - len(right)))
    np.testing.assert_array_equal(
        token_ids([t.upper().lower() for t in texts], vocabulary, length),
        token_ids([t.upper() for t in texts], vocabulary, length),
    )


def test_words():
    a, b = token_ids(["Buy NOW!", "now,buy ,\n"], length=4)
    assert sorted(a[:2]) == sorted(b[:2]) and a[2] != 0 and b[2] == a[3] == 0
    assert token_ids([]).shape == (0, 256)
    for wrong in ({"vocabulary": 1}, {"length": 0}):
        with pytest.raises(ValueError, match="must be at least 2 and 1"):
            token_ids(["a"], **wrong)
