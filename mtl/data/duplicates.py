"""Inputs that are there twice: within a table, and across the roles of a split, where they make tests too easy."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from mtl.data.first_rows import FirstRows
from mtl.data.splits import Split
from mtl.data.streamed import Streamed, blocks
from mtl.data.table import Table


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Rows whose inputs are the same to the bit.

    Args:
      rows: how many rows have the inputs of an earlier row.
      sets: how many different inputs are there more than once.
      conflicts: ``{task: sets}`` whose present labels differ, tasks without one left out.
    """

    rows: int
    sets: int
    conflicts: dict[str, int]


@functools.lru_cache(maxsize=4)
def copies(table: Table) -> np.ndarray:
    """Return, for each row, the number of the first row with the same inputs.

    Rows are compared as ``FirstRows`` does.

    Args:
      table: any; its inputs are read once, and streamed ones not again after they were when the table was made.

    Returns:
      [N] int64.

    >>> from mtl.data.table import make_table
    >>> from mtl.tasks import Task
    >>> copies(make_table("toy", [[1.0], [2.0], [1.0]], [Task("a", "binary")], {"a": [0, 1, 1]})).tolist()
    [0, 1, 0]
    """
    if isinstance(table.x, Streamed) and table.x.first_rows is not None:
        return table.x.first_rows
    rows = FirstRows(len(table))
    for block in blocks(table.x):
        rows.see(block)
    return rows.found


def within(table: Table) -> Duplicates:
    """Return what a table has twice or more.

    >>> from mtl.data.table import make_table
    >>> from mtl.tasks import Task
    >>> within(make_table("toy", [[1.0], [2.0], [1.0]], [Task("a", "binary")], {"a": [0, 1, 1]}))
    Duplicates(rows=1, sets=1, conflicts={'a': 1})
    """
    first = copies(table)
    count = np.bincount(first, minlength=len(table))
    copied = np.flatnonzero(count[first] > 1)
    sets, own = np.unique(first[copied], return_inverse=True)
    conflicts = {}
    for task in table.tasks:
        there = table.positions.get(task.name, table.mask[task.name])[copied]
        labels = table.labels[task.name][copied].astype(np.float64)
        low, high = (np.full((len(sets), *task.shape), at) for at in (np.inf, -np.inf))
        np.minimum.at(low, own, np.where(there, labels, np.inf))
        np.maximum.at(high, own, np.where(there, labels, -np.inf))
        # Maps differ where both have a label at any of their positions, and another.
        if differing := int((low < high).any(axis=tuple(range(1, low.ndim))).sum()):
            conflicts[task.name] = differing
    return Duplicates(int((first != np.arange(len(table))).sum()), int((count > 1).sum()), conflicts)


def across(table: Table, split: Split) -> dict[str, int]:
    """Return how many rows of one role have a copy among the rows of another that the split learns from.

    Args:
      table: the data.
      split: of it.

    Returns:
      ``{"test in train": rows, "test in val": rows, "val in train": rows}``; a row counts once.
    """
    first = copies(table)
    roles = {
        role: np.any(np.stack(list(masks.values())), axis=0)
        for role, masks in (("train", split.train), ("val", split.val), ("test", split.test))
    }
    pairs = (("test", "train"), ("test", "val"), ("val", "train"))
    return {f"{a} in {b}": int(np.isin(first[roles[a]], first[roles[b]]).sum()) for a, b in pairs}


def warning(table: Table, splits: Sequence[Split]) -> str:
    """Return one sentence on copies that tests share with training or validation; empty if there are none.

    Args:
      table: the data.
      splits: of it, one or more replicates'.
    """
    shared = []
    for split in splits:
        first = copies(table)
        test = np.any(np.stack(list(split.test.values())), axis=0)
        learnt = np.any(np.stack([*split.train.values(), *split.val.values()]), axis=0)
        shared.append(int(np.isin(first[test], first[learnt]).sum()))
    if not any(shared):
        return ""
    tested = int(np.any(np.stack(list(splits[0].test.values())), axis=0).sum())
    which = f"in {sum(map(bool, shared))} of {len(splits)} splits, at most " if len(splits) > 1 else ""
    return (
        f"{which}{max(shared)} of {tested} test inputs of {table.name} are copies of inputs that training or "
        "validation sees: scores may be too good; groups that hold copies together keep splits from parting them."
    )
