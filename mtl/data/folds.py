"""Folds of a split's n labelled rows: each is left out once, to validate what the others train."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from mtl.data.splits import Split, marks_of
from mtl.data.table import Table

# What the random stream is for, as in ``splits``.
_FOLDS = 21


def divided(split: Split, table: Table, tasks: Sequence[str], seed: int, folds: int, fold: int | None) -> Split:
    """Return a split whose n labelled rows, for training and validation together, are divided anew.

    The n are those that they were, so that subsets stay nested, and so is the pool that inputs are scaled by.

    Args:
      split: of ``table``.
      table: the data.
      tasks: the tasks whose labels the n have; a row goes with all of them. Other tasks keep their roles.
      seed: of the replicate.
      folds: k.
      fold: which one validates, from 0; from k on those of the second repeat, which are drawn anew, and so on. Without
        one all n train.

    Raises:
      ValueError: for more folds than there are labelled rows, or groups of them.
    """
    labelled = {task: split.train[task] | split.val[task] for task in tasks}
    left_out = np.zeros(len(table), dtype=bool)
    if fold is not None:
        rows = np.flatnonzero(np.any(list(labelled.values()), axis=0))
        marks = np.concatenate([marks_of(table, task)[rows] for task in tasks], axis=1)
        groups = None if table.groups is None else table.groups[rows]
        own = fold_of(marks, folds, np.random.default_rng([_FOLDS, seed, fold // folds]), groups)
        left_out[rows] = own == fold % folds
    return dataclasses.replace(
        split,
        train=split.train | {task: there & ~left_out for task, there in labelled.items()},
        val=split.val | {task: there & left_out for task, there in labelled.items()},
    )


def fold_of(
    marks: Bool[np.ndarray, "n L"], folds: int, rng: np.random.Generator, groups: Int[np.ndarray, " n"] | None = None
) -> Int[np.ndarray, " n"]:
    """Return which of k folds each row is in, so that each fold has about 1/k of the rows and of every mark.

    Rows come one after the other, those with the rarest mark first, and each goes to the fold that has the smallest
    shares of the row's marks, to be a row being one of them. If each row has one mark, as of one task, no fold is off
    by a whole row in any. Rows of a group come together, large groups first. (Iterative stratification, Sechidis et al.
    2011, looks at one mark at a time.)

    Args:
      marks: true where a row has a mark: a class or a quantile of a task.
      folds: k.
      rng: decides the order.
      groups: of each row.

    Raises:
      ValueError: for more folds than rows, or groups of them.

    >>> own = fold_of(np.eye(2, dtype=bool)[np.arange(20) % 2], 5, np.random.default_rng(0))
    >>> np.bincount(own).tolist(), np.bincount(own[::2]).tolist()
    ([4, 4, 4, 4, 4], [2, 2, 2, 2, 2])
    """
    names = np.arange(len(marks)) if groups is None else groups
    _, unit, size = np.unique(names, return_inverse=True, return_counts=True)
    if len(size) < folds:
        what = "labelled rows" if groups is None else "groups of labelled rows"
        raise ValueError(f"folds = {folds}: must be at most {len(size)}, as there are no more {what}")
    marks = np.concatenate([np.ones((len(marks), 1)), marks[:, marks.any(axis=0)]], axis=1)  # That of being a row.
    total = marks.sum(axis=0)
    # Of each unit (a row, or a group): how often it has each mark, and which of its marks is the rarest.
    counts = np.zeros((len(size), len(total)))
    np.add.at(counts, unit, marks)
    rarest = np.argmax((counts > 0) / total, axis=1)
    most = -(-len(marks) // folds) if groups is None else len(marks)
    taken, found = np.zeros((folds, len(total))), np.zeros(len(size), dtype=np.int64)
    for u in np.lexsort((rng.random(len(size)), rarest, total[rarest], -size)):
        room = np.flatnonzero(taken[:, 0] < most)
        found[u] = room[np.argmin(taken[room] @ (counts[u] / total))]
        taken[found[u]] += counts[u]
    return found[unit]
