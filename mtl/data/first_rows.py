"""Which rows have inputs that an earlier row has, found block by block."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from mtl.inputs import leaves


class FirstRows:
    """For each row the number of the first one with the same inputs, compared by a digest of 128 bits of their bytes.

    0 and −0 are the same input.

    Attributes:
      found: [N] int64, filled as far as rows were seen.

    >>> rows = FirstRows(3)
    >>> rows.see(np.float32([[1.0], [2.0]]))
    >>> rows.see(np.float32([[1.0]]))
    >>> rows.found.tolist()
    [0, 1, 0]
    """

    def __init__(self, count: int) -> None:
        """Begin with the first of so many rows."""
        self.found = np.empty(count, np.int64)
        self._first: dict[bytes, int] = {}
        self._row = 0

    def see(self, block: Any) -> None:
        """Take the next rows' inputs, [rows, …] or ``{leaf: [rows, …]}``."""
        for row in zip(*(leaf.reshape(len(leaf), -1) for leaf in leaves(block)), strict=True):
            digest = hashlib.blake2b(digest_size=16)
            for inputs in row:
                digest.update((inputs + inputs.dtype.type(0)).data)
            self.found[self._row] = self._first.setdefault(digest.digest(), self._row)
            self._row += 1
        self.found.setflags(write=self._row < len(self.found))
