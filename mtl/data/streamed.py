"""Inputs that are read when they are needed and never all at once, ahead of time by threads of Grain."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from mtl.data.extras import needs
from mtl.host import machine
from mtl.inputs import count, each, leaves

Made = TypeVar("Made")

#: Threads that read ahead; each holds one block or window. Decoders of images let go of Python's lock.
THREADS = max(2, min(4, machine.cores()))

# Bytes of inputs that are read at once where all of them are gone through.
_BLOCK_BYTES = 2**21


class Streamed:
    """Inputs [N, …] that are nowhere in memory: rows are read, and checked, when they are asked for.

    A data set of one's own streams if it gives ``make_table`` this in place of an array.

    Attributes:
      shape: (N, …).
      vocabulary: how many ids there are, of inputs that are ids; else 0.
      dtype: int32 of ids, else float32.
      first_rows: for each row the first one with the same inputs, once all of them were read for a table.
      range: their least and their greatest value, likewise.

    >>> squares = Streamed((5, 1), lambda rows: np.float32(rows[:, None] ** 2))
    >>> len(squares), squares[np.array([3, 1, 3])].ravel(), squares[2]
    (5, array([9., 1., 9.], dtype=float32), array([4.], dtype=float32))
    """

    def __init__(self, shape: tuple[int, ...], read: Callable[[np.ndarray], np.ndarray], vocabulary: int = 0) -> None:
        """Wrap a way to read rows.

        Args:
          shape: (N, …), N ≥ 1 and an axis of features or more.
          read: from numbers of rows, ascending and different, to their inputs, float32 and finite, or int32 ids; called
            by several threads at once, and always with the same answer.
          vocabulary: how many ids there are, if inputs are ids, from 0 to one less.

        Raises:
          ValueError: for a shape that cannot be.
          DataError: if Grain is not installed.
        """
        needs("grain", "stream", "Streams of data")
        if len(shape) < 2 or min(shape) < 1:
            raise ValueError(f"streamed inputs of shape {shape}: must be (N, …) with at least one row and one feature")
        self.shape, self._read, self.vocabulary = shape, read, vocabulary
        self.dtype = np.dtype(np.int32 if vocabulary else np.float32)
        self.first_rows: np.ndarray | None = None
        self.range: tuple[float, float] = (np.inf, -np.inf)

    @property
    def ndim(self) -> int:
        """Axes, that of the rows included."""
        return len(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes that a row takes in memory."""
        return 4 * int(np.prod(self.shape[1:], dtype=np.int64))

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | int) -> np.ndarray:
        """Return the inputs of some rows, each read once; of one row, without the leading axis.

        Raises:
          ValueError: if what is read is not what was promised.
        """
        if not isinstance(rows, np.ndarray):
            return self[np.array([rows])][0]
        wanted, back = np.unique(rows, return_inverse=True)
        found = self._read(wanted)
        right = (len(wanted), *self.shape[1:])
        if found.dtype != self.dtype or found.shape != right:
            raise ValueError(f"streamed inputs: read {found.dtype} {found.shape}: must be {self.dtype} {right}")
        known = (found >= 0) & (found < self.vocabulary) if self.vocabulary else np.isfinite(found)
        good = known.reshape(len(found), -1).all(axis=1)
        if not good.all():
            row, wrong = wanted[~good][0], found[~known][0]
            if self.vocabulary:
                raise ValueError(f"streamed inputs: id {wrong} in row {row}: must be from 0 to {self.vocabulary - 1:,}")
            raise ValueError(f"streamed inputs: row {row} is not finite: inputs must be finite in float32")
        return found if np.array_equal(wanted, rows) else found[back]


#: Inputs [N, …]: held in memory, as one array or ``{leaf: array}``, or streamed.
Inputs = np.ndarray | Streamed | Mapping[str, np.ndarray]


def prefetched(make: Callable[[int], Made], count: int, threads: int = THREADS) -> Generator[Made, None, None]:
    """Yield ``make(0)``, …, ``make(count − 1)`` in order, made ahead of time by threads.

    Args:
      make: called by several threads at once.
      count: how many.
      threads: how many threads, and how many are made ahead.

    Raises:
      Exception: whatever ``make`` raises, in its turn.

    Source: Grain's ``MapDataset``, https://google-grain.readthedocs.io.

    >>> list(prefetched(lambda i: i * i, 4))
    [0, 1, 4, 9]
    """
    import grain  # Here: it takes a second.

    source: Any = _Source(make, count)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    made = iter(grain.MapDataset.source(source).to_iter_dataset(options))
    try:
        yield from made
    finally:
        made.close()


class _Source:
    """What Grain reads: items by their number."""

    def __init__(self, make: Callable[[int], Any], count: int) -> None:
        self._make, self._count = make, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self._make(int(index))


def blocks(x: Inputs, rows: np.ndarray | None = None, size: int = 0) -> Iterator[Any]:
    """Yield the inputs of some rows, block by block; streamed ones are read ahead.

    Args:
      x: inputs [N, …], or ``{leaf: [N, …]}``.
      rows: which, in this order; all of them if none.
      size: of a block, in rows; 2 MiB if 0.

    >>> [block.tolist() for block in blocks(np.arange(3.0)[:, None], np.array([2, 0, 1]), 2)]
    [[[2.0], [0.0]], [[1.0]]]
    """
    row_bytes = sum(4 * int(np.prod(leaf.shape[1:], dtype=np.int64)) for leaf in leaves(x))
    size = size or max(1, _BLOCK_BYTES // row_bytes)
    parts = range(0, (count(x) if rows is None else len(rows)) or 1, size)
    if isinstance(x, Streamed):
        wanted = np.arange(len(x)) if rows is None else rows
        yield from prefetched(lambda i: x[wanted[parts[i] : parts[i] + size]], len(parts))
    else:
        for i in parts:
            part = slice(i, i + size) if rows is None else rows[i : i + size]
            yield each(lambda leaf, part=part: leaf[part], x)
