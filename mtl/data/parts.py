"""Which rows a split may draw for which role: any, whole scaffolds, or those of the parts that the data come in."""

from __future__ import annotations

import numpy as np

from mtl.data.asked import Asked
from mtl.data.table import PARTS, Table

_, _VALIDATION, _TEST = range(len(PARTS))


def testable(table: Table, asked: Asked, labelled: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the rows that the test set is drawn from, and how many of them it has.

    With ``scaffold`` they are those of groups of at most half the test set's size: bigger ones are learned from, as in
    Chemprop's balanced scaffold split. With ``official`` they are those of the data's test part, and
    all of them are tested if ``test_size`` is 0 or more than there are.

    Args:
      table: the data.
      asked: of the split.
      labelled: rows that have a label to be tested on.

    Raises:
      ValueError: where the data have no such rows, or too few.

    Source: K. Yang et al. 2019, Analyzing Learned Molecular Representations for Property Prediction, J. Chem. Inf.
    Model. 59, 3370-3388 (https://github.com/chemprop/chemprop: ``scaffold_split`` with ``balanced``).

    >>> from mtl.data.table import make_table
    >>> from mtl.tasks import Task
    >>> toy = make_table("toy", np.eye(4), [Task("a", "binary")], {"a": [0, 1, 0, 1]}, part=[0, 0, 2, 2])
    >>> asked = Asked(source=(), targets=("a",), split="official", target_size=2, test_size=500, source_size=0,
    ...     source_val_size=0, target_pool=2, val_fraction=0.5)
    >>> testable(toy, asked, np.arange(4))
    (array([2, 3]), 2)
    """
    size = asked.test_size
    if asked.split == "scaffold":
        if table.groups is None:
            raise ValueError(f'split = "scaffold": data "{table.name}" have no groups: must be grouped by scaffolds')
        _, own, members = np.unique(table.groups, return_inverse=True, return_counts=True)
        rows = labelled[members[own[labelled]] <= size / 2]
        if size > len(rows):
            raise ValueError(
                f"test_size = {size}: only {len(rows)} labelled rows are of scaffolds of at most {size // 2} rows, and "
                'bigger scaffolds are learned from: must be another number, or split = "random"'
            )
        return rows, size
    if asked.split == "official":
        rows = labelled if table.part is None else labelled[table.part[labelled] == _TEST]
        if table.part is None or not len(rows):
            raise ValueError(
                f'split = "official": data "{table.name}" have no test part with labels of {", ".join(asked.pooled)}: '
                'must be data that say which rows are for testing, or split = "random"'
            )
        return rows, min(size or len(rows), len(rows))
    return labelled, size


def learnable(table: Table, asked: Asked, rows: np.ndarray) -> np.ndarray:
    """Return those of some rows, in order, that may be learned from: none of an official test part, drawn or not."""
    if asked.split != "official" or table.part is None:
        return rows
    return rows[table.part[rows] != _TEST]


def held_out(table: Table, asked: Asked) -> np.ndarray | None:
    """Return which rows validation is drawn from, [N] booleans; None if from all, as the data have no part for it."""
    if asked.split != "official" or table.part is None or not (table.part == _VALIDATION).any():
        return None
    return np.asarray(table.part == _VALIDATION)
