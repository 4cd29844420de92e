"""Which part of the data each row is of, train, validation or test, where a column says so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mtl.data.problems import Problems
from mtl.data.readers.cells import folded, spelled
from mtl.data.table import PARTS

#: What the names of parts begin with, in the order of ``PARTS``; "dev" is what speech and language call validation.
_BEGINNINGS = (("train",), ("val", "dev"), ("test",))


def part_of(name: str) -> int | None:
    """Return which of ``PARTS`` a name means by how it begins; None if none.

    >>> [part_of(name) for name in ("Training", "val", "dev-clean", "test", "fold 3")]
    [0, 1, 1, 2, None]
    """
    return next((part for part, begin in enumerate(_BEGINNINGS) if folded(name).startswith(begin)), None)


def read_part(name: str, cells: np.ndarray, problems: Problems, at: Callable[[int], str]) -> np.ndarray:
    """Return which of ``PARTS`` each row is of, [N]; a cell that says none is a problem.

    Args:
      name: of the column.
      cells: [N].
      problems: those found so far, to which it adds.
      at: what to call row i.
    """
    texts = [spelled(cell) or "" for cell in cells]
    known = {text: part_of(text) for text in set(texts)}
    for row, text in enumerate(texts):
        if known[text] is None:
            said = f'"{text}"' if text else "blank"
            problems.add(f'{at(row)}, column "{name}": is {said}: must be one of {", ".join(PARTS)}')
    return np.array([known[text] or 0 for text in texts], np.int8)
