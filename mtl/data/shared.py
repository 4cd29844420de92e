"""Who may learn from what where several tasks are asked about: one pool of rows with all their labels, one test set."""

from __future__ import annotations

import numpy as np

from mtl.data.asked import Asked, nearest
from mtl.data.grouped import others
from mtl.data.parts import held_out, testable
from mtl.data.splits import Split, _strata, among, labelled_rows, marks_of, pools, shuffled, source_roles
from mtl.data.stratified import stratified
from mtl.data.table import Table

# What a random stream is for, as in ``splits``.
_TEST, _RESERVOIRS, _TRAIN_ORDER, _VAL_ORDER = 11, 12, 13, 14


def shared_split(table: Table, asked: Asked) -> Split:
    """Cut a table for one replicate of a study of several targets.

    As ``splits.transfer_split``, but a row comes with all the labels that it has: n counts *labelled rows*, those with
    a label of any of the tasks, and test set, reservoirs and subsets are stratified over all of these tasks at once
    (``stratified.stratified``; a task's strata are its classes, or ``splits.BINS`` quantile bins). The same rows serve
    every target.

    Args:
      table: the data.
      asked: its tasks and sizes. Where rows are shared, the source tasks are seen on the targets' rows and are tested;
        where they are disjoint, they are not.

    Returns:
      The split; tasks are ``source`` and ``targets``, in that order.

    Raises:
      ValueError: as ``transfer_split``; a class of a target that is absent from the test set included.

    >>> from mtl.data.sets.digits import digits_table
    >>> asked = Asked(source=(), targets=("even", "prime"), rows="shared", target_size=20, test_size=500, source_size=0,
    ...     source_val_size=0, target_pool=500, val_fraction=0.2)
    >>> split = shared_split(digits_table(), asked)
    >>> [int(part[task].sum()) for part in (split.train, split.val, split.test) for task in ("even", "prime")]
    [16, 16, 4, 4, 500, 500]
    """
    asked.check(table)
    seed = asked.seed
    marks = np.concatenate([marks_of(table, task) for task in asked.pooled], axis=1)
    test = _test_rows(table, asked, marks)
    pool, source_rows = pools(table, asked, test)
    held = held_out(table, asked)
    if held is None:
        size = nearest(asked.val_fraction * len(pool))
        val = _drawn(table, marks, pool, size, np.random.default_rng([_RESERVOIRS, seed]))
    else:
        val = np.sort(pool[held[pool]])
    train = np.setdiff1d(pool, val) if table.groups is None else others(pool, val, table.groups)
    if asked.target_train > len(train):
        raise ValueError(
            f"target_size = {asked.target_size}: of the target pool of {len(pool)} only {len(train)} rows share no "
            f"group with its validation rows: must be at most {len(train) + asked.target_val}"
        )
    labels, trained, judged = source_roles(table, asked, source_rows)
    tested = {task: np.zeros(len(table), dtype=bool) for task in labels}
    train_order, val_order = (np.random.default_rng([purpose, seed]) for purpose in (_TRAIN_ORDER, _VAL_ORDER))
    trained_on = train[stratified(marks[train], asked.target_train, train_order)]
    judged_on = val[stratified(marks[val], asked.target_val, val_order)]
    roles = [among(table, chosen) for chosen in (trained_on, judged_on, test)]
    for task in asked.pooled:
        shuffles = asked.shuffle_source_labels and task in asked.source
        labels[task] = shuffled(table, task, pool, seed) if shuffles else table.label_of(task)
        trained[task], judged[task], tested[task] = (role & table.mask[task] for role in roles)
    scaled_by = among(table, train) | among(table, source_rows[: asked.source_train])
    scaled_by.setflags(write=False)
    return Split(labels, trained, judged, tested, scaled_by)


def _drawn(table: Table, marks: np.ndarray, rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return so many of some rows, stratified, by whole groups as far as that goes."""
    groups = None if table.groups is None else table.groups[rows]
    return np.sort(rows[stratified(marks[rows], size, rng, groups)])


def _test_rows(table: Table, asked: Asked, marks: np.ndarray) -> np.ndarray:
    """Return the rows of the test set, drawn from a stream that no seed enters."""
    labelled = np.flatnonzero(labelled_rows(table, asked.pooled))
    rows, size = testable(table, asked, labelled)
    if asked.split == "random" and size > len(labelled) - 2:
        raise ValueError(
            f"test_size = {asked.test_size}: there are {len(labelled)} labelled rows and 2 are needed beside the test "
            f"set: must be at most {len(labelled) - 2}"
        )
    test = _drawn(table, marks, rows, size, np.random.default_rng([_TEST, 0]))
    for name in asked.targets:
        task, strata = table.task(name), _strata(table, name)
        classes = 0 if task.shape else task.classes
        strata = strata if classes else np.minimum(strata, 0)
        if absent := sorted(set(range(classes or 1)) - set(strata[test].tolist())):
            what = f"class {absent[0]}" if classes else "every label"
            count = f"{(strata == absent[0]).sum()} of {(strata >= 0).sum()} labels"
            raise ValueError(
                f'test_size = {asked.test_size}: {what} of "{name}" ({count}) would be absent from the test set: must '
                "be larger, or the task must go"
            )
    return test
