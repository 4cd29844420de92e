"""Who may learn from what where several tasks are asked about: one pool of rows with all their labels, one test set."""

from __future__ import annotations

import numpy as np

from mtl.data.asked import check_names, checked_sizes, nearest
from mtl.data.grouped import others
from mtl.data.splits import Split, _strata, among, labelled_rows, marks_of, pools, shuffled, source_roles
from mtl.data.stratified import stratified
from mtl.data.table import Table

# What a random stream is for, as in ``splits``.
_TEST, _RESERVOIRS, _TRAIN_ORDER, _VAL_ORDER = 11, 12, 13, 14


def shared_split(
    table: Table,
    *,
    source: tuple[str, ...],
    targets: tuple[str, ...],
    seed: int,
    target_size: int,
    test_size: int,
    source_size: int,
    source_val_size: int,
    target_pool: int,
    val_fraction: float,
    rows: str = "shared",
    shuffle_source_labels: bool = False,
) -> Split:
    """Cut a table for one replicate of a study of several targets.

    As ``splits.transfer_split``, but a row comes with all the labels that it has: n counts *labelled rows*, those with
    a label of any of the tasks, and test set, reservoirs and subsets are stratified over all of these tasks at once
    (``stratified.stratified``; a task's strata are its classes, or ``splits.BINS`` quantile bins). The same rows serve
    every target.

    Args:
      table: the data.
      source: names of the source tasks.
      targets: names of the targets, at least one, none of ``source``.
      seed: of the replicate, at least 0.
      target_size: n, labelled rows for training and validation together.
      test_size: rows of the test set.
      source_size, source_val_size: of the source pool; 0 where rows are shared.
      target_pool: labelled rows that the n are drawn from, at least ``target_size``.
      val_fraction: share of the n that goes to validation, in (0, 1).
      rows: ``shared``: the source tasks are seen on the targets' rows too, and are tested; ``disjoint``: they have a
        pool of other rows, and are not.
      shuffle_source_labels: see ``transfer_split``.

    Returns:
      The split; tasks are ``source`` and ``targets``, in that order.

    Raises:
      ValueError: as ``transfer_split``; a class of a target that is absent from the test set included.

    >>> from mtl.data.sets.digits import digits_table
    >>> split = shared_split(digits_table(), source=(), targets=("even", "prime"), seed=0, target_size=20,
    ...     test_size=500, source_size=0, source_val_size=0, target_pool=500, val_fraction=0.2)
    >>> [int(part[task].sum()) for part in (split.train, split.val, split.test) for task in ("even", "prime")]
    [16, 16, 4, 4, 500, 500]
    """
    check_names(table, source, targets)
    size = checked_sizes(seed, target_size, test_size, source_size, source_val_size, target_pool, val_fraction)
    apart = rows == "disjoint"
    if source_size and not (source and apart):
        why = "rows are shared" if source else "there is no source task"
        raise ValueError(f"source_size = {source_size}: must be 0, as {why}")
    asked = targets if apart else (*source, *targets)
    marks = np.concatenate([marks_of(table, task) for task in asked], axis=1)
    test = _test_rows(table, targets, asked, marks, test_size)
    pool, source_rows = pools(
        table, source if apart else (), asked, test, seed, target_pool, source_size, source_val_size
    )
    val = _drawn(table, marks, pool, nearest(val_fraction * len(pool)), np.random.default_rng([_RESERVOIRS, seed]))
    train = np.setdiff1d(pool, val) if table.groups is None else others(pool, val, table.groups)
    if size.target_train > len(train):
        raise ValueError(
            f"target_size = {target_size}: of the target pool of {len(pool)} only {len(train)} rows share no group "
            f"with its validation rows: must be at most {len(train) + size.target_val}"
        )
    labels, trained, judged = source_roles(
        table, source if apart else (), source_rows, size.source_train, seed, shuffle_source_labels
    )
    tested = {task: np.zeros(len(table), dtype=bool) for task in labels}
    train_order, val_order = (np.random.default_rng([purpose, seed]) for purpose in (_TRAIN_ORDER, _VAL_ORDER))
    trained_on = train[stratified(marks[train], size.target_train, train_order)]
    judged_on = val[stratified(marks[val], size.target_val, val_order)]
    roles = [among(table, chosen) for chosen in (trained_on, judged_on, test)]
    for task in asked:
        shuffles = shuffle_source_labels and task in source
        labels[task] = shuffled(table, task, pool, seed) if shuffles else table.label_of(task)
        trained[task], judged[task], tested[task] = (role & table.mask[task] for role in roles)
    scaled_by = among(table, train) | among(table, source_rows[: size.source_train])
    scaled_by.setflags(write=False)
    return Split(labels, trained, judged, tested, scaled_by)


def _drawn(table: Table, marks: np.ndarray, rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return so many of some rows, stratified, by whole groups as far as that goes."""
    groups = None if table.groups is None else table.groups[rows]
    return np.sort(rows[stratified(marks[rows], size, rng, groups)])


def _test_rows(
    table: Table, targets: tuple[str, ...], asked: tuple[str, ...], marks: np.ndarray, test_size: int
) -> np.ndarray:
    """Return the rows of the test set, drawn from a stream that no seed enters."""
    labelled = np.flatnonzero(labelled_rows(table, asked))
    if test_size > len(labelled) - 2:
        raise ValueError(
            f"test_size = {test_size}: there are {len(labelled)} labelled rows and 2 are needed beside the test set: "
            f"must be at most {len(labelled) - 2}"
        )
    test = _drawn(table, marks, labelled, test_size, np.random.default_rng([_TEST, 0]))
    for name in targets:
        task, strata = table.task(name), _strata(table, name)
        classes = 0 if task.shape else task.classes
        strata = strata if classes else np.minimum(strata, 0)
        if absent := sorted(set(range(classes or 1)) - set(strata[test].tolist())):
            what = f"class {absent[0]}" if classes else "every label"
            count = f"{(strata == absent[0]).sum()} of {(strata >= 0).sum()} labels"
            raise ValueError(
                f'test_size = {test_size}: {what} of "{name}" ({count}) would be absent from the test set: must be '
                "larger, or the task must go"
            )
    return test
