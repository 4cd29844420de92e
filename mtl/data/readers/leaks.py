"""Inputs that give a label away, and rows that are nearly copies: what makes a test too easy is said, not mended."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from mtl.data.duplicates import within
from mtl.data.first_rows import FirstRows
from mtl.data.readers.encoder import Column
from mtl.data.scaling import moments
from mtl.data.table import Table
from mtl.tasks import Task

#: A label that an input tells is worth a sentence if chance would do it once in so many inputs.
_CHANCE = 1e-4

#: A regression's label that an input correlates with so well is the input itself, in another unit.
_SAME = 0.99999

#: Inputs count as nearly the same within this share of their column's spread.
_NEAR = 1e-3


def leaks(table: Table, columns: Sequence[Column]) -> list[str]:
    """Return a sentence for each input column that predicts a label alone and perfectly.

    Of numbers: an interval for each class, or a correlation of one; of categories: one class for each level. What
    chance could have done among so many inputs is left out.

    Args:
      table: of such columns.
      columns: its encoder.
    """
    told, x = [], np.asarray(table.x)
    for task in table.tasks:
        rows = table.rows(task.name)
        labels, place = table.labels[task.name][rows], 0
        for column in columns:
            block = x[rows, place : place + len(column.features)]
            place += len(column.features)
            if column.features and _tells(column, block, labels, task, len(columns)):
                right = f'ignore=("{column.name}",) if it is not known when the model is used'
                told.append(f'column "{column.name}" alone tells the label "{task.name}": {right}')
    return told


def _tells(column: Column, block: np.ndarray, labels: np.ndarray, task: Task, inputs: int) -> bool:
    """Return whether a column's inputs tell a task's labels."""
    if task.labels == "numbers":
        own, spread = block[:, 0].astype(np.float64), np.ptp(labels)
        there = np.isfinite(own)
        if column.kind != "number" or there.sum() < 10 or spread == 0 or np.ptp(own[there]) == 0:
            return False
        return bool(abs(np.corrcoef(own[there], labels[there])[0, 1]) > _SAME)
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        return False
    if column.kind in ("category", "boolean"):
        # One input of a row is 1 at most, so that a level is one number; missing booleans are another.
        levels = np.nan_to_num(block, nan=2.0).astype(np.int64) @ np.arange(1, block.shape[1] + 1)
        patterns, pairs = np.unique(levels), len(np.unique(levels * len(classes) + np.searchsorted(classes, labels)))
        # Each row but the first of its level has that one's class by chance as often as the largest class is there.
        by_chance = (len(labels) - len(patterns)) * math.log(counts.max() / len(labels))
        return pairs == len(patterns) and by_chance < math.log(_CHANCE / inputs)
    if column.kind == "text":
        return False
    own = block[:, 0]
    if not np.isfinite(own).all():
        return False
    ranges = sorted((float(own[labels == c].min()), float(own[labels == c].max())) for c in classes)
    apart = all(before[1] < after[0] for before, after in itertools.pairwise(ranges))
    orders = math.lgamma(len(labels) + 1) - sum(math.lgamma(n + 1) for n in counts) - math.lgamma(len(classes) + 1)
    return apart and orders > math.log(inputs / _CHANCE)


def copied(table: Table) -> list[str]:
    """Return a sentence if rows repeat the inputs of another, or nearly.

    >>> from mtl.data.table import make_table
    >>> from mtl.tasks import Task
    >>> x = [[1.0, 50.0], [2.0, 70.0], [1.0, 50.0], [2.0, 70.001]]
    >>> copied(make_table("toy", x, [Task("a", "binary")], {"a": [0, 1, 1, 0]}))
    ['2 rows repeat the inputs of an earlier one (1 of them nearly), and labels differ: groups= keeps copies together']
    """
    x = np.asarray(table.x, np.float64)
    _, spread = moments(x, np.arange(len(x)))
    rows = FirstRows(len(x))
    rows.see(np.rint(np.nan_to_num(x / spread, nan=-1e6) / _NEAR))
    near = int((rows.found != np.arange(len(x))).sum())
    if not near:
        return []
    exact = within(table)
    nearly = f" ({near - exact.rows:,} of them nearly)" if near > exact.rows else ""
    differ = ", and labels differ" if exact.conflicts else ""
    return [f"{near:,} rows repeat the inputs of an earlier one{nearly}{differ}: groups= keeps copies together"]
