"""Texts as ids of their words, by a rule without a dictionary: new texts are read as those of the training were."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterable

import numpy as np

#: What counts as a word: letters and digits, or a mark that says something by itself.
_WORD = re.compile(r"\w+|[$!?%]")


def token_ids(texts: Iterable[str], vocabulary: int = 2**14, length: int = 256) -> np.ndarray:
    """Return texts as ids of their words: 0 is padding, and a word's id 1 + crc32(word) mod (vocabulary − 1).

    Capitals count as small letters; words beyond the length are left out. Different words may share an id, the fewer
    the larger the vocabulary is.

    Args:
      texts: any.
      vocabulary: how many ids there are, 2 or more; what ``make_table`` is told.
      length: words of a text at most.

    Returns:
      [N, length] int32.

    Raises:
      ValueError: for a vocabulary or a length that is too small.

    Source: K. Weinberger et al. 2009, Feature hashing for large scale multitask learning (arXiv:0902.2206).

    >>> token_ids(["Buy now!", "now"], vocabulary=1000, length=4)
    array([[315, 954, 510,   0],
           [954,   0,   0,   0]], dtype=int32)
    """
    if vocabulary < 2 or length < 1:
        raise ValueError(f"vocabulary = {vocabulary}, length = {length}: must be at least 2 and 1")
    rows = []
    for text in texts:
        words = itertools.islice(_WORD.finditer(text.lower()), length)
        found = [1 + zlib.crc32(word.group().encode("utf-8", "surrogatepass")) % (vocabulary - 1) for word in words]
        rows.append(np.pad(np.array(found, np.int32), (0, length - len(found))))
    return np.stack(rows) if rows else np.zeros((0, length), np.int32)
