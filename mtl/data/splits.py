"""Who may learn from what: a fixed test set, disjoint source and target pools, nested stratified subsets."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from mtl.data.asked import Asked, nearest
from mtl.data.grouped import draw, others
from mtl.data.parts import held_out, learnable, testable
from mtl.data.table import Table, sha256_of

# What a random stream is for; the test set's stream has no seed of a trial in it. The purpose comes first
# because SeedSequence pads with zeros: [seed] and [seed, 0] would be one stream.
_TEST, _POOLS, _RESERVOIRS, _TRAIN_ORDER, _VAL_ORDER, _SHUFFLE = 1, 2, 3, 4, 5, 6

#: Number of quantile bins by which a regression target is stratified.
BINS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """For each task, its labels and the rows whose label may be used to train, to validate and to test.

    A role's mask is false wherever the label is missing, and the roles of a task share no row. Tasks are in
    the order sources, then target.

    Args:
      labels: ``{task: [N]}``, as ``Table.label_of`` has them (permuted in the control with shuffled source labels).
      train: ``{task: [N]}`` booleans.
      val: ``{task: [N]}`` booleans.
      test: ``{task: [N]}`` booleans; false everywhere for source tasks.
      pool: [N] booleans, the training rows of the source and the target pools, labelled or not: those that inputs are
        scaled by. The same for every number of target labels.
    """

    labels: dict[str, np.ndarray]
    train: dict[str, np.ndarray]
    val: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    pool: np.ndarray

    def rows(self, tasks: Sequence[str]) -> np.ndarray:
        """Return the indices, ascending, of the rows with a training label of any of some tasks: a phase's."""
        return np.flatnonzero(np.any(np.stack([self.train[task] for task in tasks]), axis=0))

    @property
    def sha256(self) -> str:
        """The SHA-256 of all labels and masks."""
        roles = {"labels": self.labels, "train": self.train, "val": self.val, "test": self.test}
        arrays = {f"{role}/{task}": a for role, by_task in roles.items() for task, a in by_task.items()}
        return sha256_of({}, arrays)


def transfer_split(table: Table, asked: Asked) -> Split:
    """Cut a table for one replicate of a transfer study.

    1. The *test set* is ``test_size`` rows with a target label, stratified by it; the same for every seed. What it is
       drawn from ``asked.split`` says, see ``parts.testable``.
    2. The other rows are shuffled by ``seed``. The *target pool* is the first ``target_pool`` of them that
       have a target label; the *source pool* is the first ``source_size`` of what is left that have a label
       of any source task, its last ``source_val_size`` rows being source validation.
    3. The target pool is divided, stratified, into reservoirs for training and for validation, each ordered
       such that in every prefix each class is within one row of its share. A target of n labels takes the
       first v = ⌊val_fraction · n + ½⌋ of one and the first n − v of the other: validation is charged to n,
       and subsets are nested in n in both roles. With an official split, validation rows are those of the data's
       own validation part, if they have one.

    If the table has groups, the rows of a group are never parted: test set, target training, target
    validation, source training and source validation share no group. The sizes and the test set's shares
    stay exact; of a group that has to be cut for that, the rest is used nowhere.

    The pools depend on the seed, the target and the sizes of test set and pools, never on ``target_size``;
    the target pool does not depend on the source tasks.

    Args:
      table: the data.
      asked: its tasks and sizes; one target, and source tasks on rows of their own.

    Returns:
      The split; tasks are ``source`` and ``target``, in that order. Regression targets are stratified by
      ``BINS`` quantile bins.

    Raises:
      ValueError: one sentence with the field, the value and what would be right, for unknown, repeated or
        clashing task names, numbers out of range, more rows asked for than there are, a target class absent
        from the test set, and a source task without a label in train.

    Source: the stratified prefixes are R. Tijdeman's (1980, "The chairman assignment problem", Discrete
    Mathematics 32, 323–330).

    >>> from mtl.data.sets.digits import digits_table
    >>> asked = Asked(source=("identity",), targets=("even",), target_size=20, test_size=500, source_size=797,
    ...     source_val_size=97, target_pool=500, val_fraction=0.2)
    >>> split = transfer_split(digits_table(), asked)
    >>> [int(part["even"].sum()) for part in (split.train, split.val, split.test)]
    [16, 4, 500]
    >>> [int(part["identity"].sum()) for part in (split.train, split.val, split.test)]
    [700, 97, 0]
    """
    asked.check(table)
    (target,) = asked.targets
    strata = _strata(table, target)
    test = _test_rows(table, asked, strata)
    target_rows, source_rows = pools(table, asked, test)
    train_rows, val_rows, reservoir = _subset(table, asked, strata, target_rows)
    labels, train, val = source_roles(table, asked, source_rows)
    tested = {name: np.zeros(len(table), dtype=bool) for name in asked.source}
    labels[target] = table.label_of(target)
    train[target], val[target] = among(table, train_rows), among(table, val_rows)
    tested[target] = among(table, test)
    pool = among(table, reservoir) | among(table, source_rows[: asked.source_train])
    pool.setflags(write=False)
    return Split(labels, train, val, tested, pool)


def source_roles(
    table: Table, asked: Asked, rows: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the (labels, training masks, validation masks) of source tasks on their pool, whose first rows train.

    Raises:
      ValueError: for a task without a label in train.
    """
    labels: dict[str, np.ndarray] = {}
    train: dict[str, np.ndarray] = {}
    val: dict[str, np.ndarray] = {}
    for name in asked.apart:
        mask = table.mask[name]
        shuffles = asked.shuffle_source_labels
        labels[name] = shuffled(table, name, rows, asked.seed) if shuffles else table.label_of(name)
        train[name] = among(table, rows[: asked.source_train]) & mask
        val[name] = among(table, rows[asked.source_train :]) & mask
        if not train[name].any():
            raise ValueError(
                f'source task "{name}" has no label in its {asked.source_train} training rows: '
                "take a larger source_size or leave the task out"
            )
    return labels, train, val


def _strata(table: Table, target: str) -> np.ndarray:
    """Return the stratum of each row: its class or its quantile bin, −1 where the target label is missing.

    Rows of a dense task are of one stratum.
    """
    labels, mask = table.labels[target], table.mask[target]
    if target in table.positions:
        strata = np.zeros(len(table), np.int64)
    elif table.task(target).labels == "numbers":
        edges = np.unique(np.quantile(labels[mask], np.linspace(0.0, 1.0, BINS + 1)[1:-1]))
        strata = np.searchsorted(edges, labels, side="right")
    else:
        strata = labels.astype(np.int64)
    return np.where(mask, strata, -1)


def marks_of(table: Table, task: str) -> np.ndarray:
    """Return which stratum of a task each row is in, [N, strata] booleans; in none where the label is missing."""
    strata = _strata(table, task)
    return strata[:, None] == np.unique(strata[strata >= 0])


def _test_rows(table: Table, asked: Asked, strata: np.ndarray) -> np.ndarray:
    """Return the rows of the test set: of each stratum its share, drawn from a stream that no seed enters."""
    (target,) = asked.targets
    rows, test_size = testable(table, asked, table.rows(target))
    if asked.split == "random" and test_size > len(rows) - 2:
        raise ValueError(
            f'test_size = {test_size}: "{target}" has {len(rows)} labels and needs 2 beside the test set: '
            f"must be at most {len(rows) - 2}"
        )
    task = table.task(target)
    classes = 0 if task.shape else task.classes
    num_strata = classes or int(strata.max()) + 1
    counts = np.bincount(strata[rows], minlength=num_strata)
    shares = _apportion(counts, test_size)
    if classes and (shares == 0).any():
        absent = int(np.flatnonzero(shares == 0)[0])
        raise ValueError(
            f'test_size = {test_size}: class {absent} of "{target}" ({counts[absent]} of {len(rows)} labels) '
            "would be absent from the test set: must be larger, or the class must go"
        )
    rng = np.random.default_rng([_TEST, 0])
    if table.groups is not None:
        return np.sort(draw(rows, strata, shares, table.groups, rng))
    chosen = [rng.permutation(rows[strata[rows] == c])[:share] for c, share in enumerate(shares)]
    return np.sort(np.concatenate(chosen))


def pools(table: Table, asked: Asked, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the target pool and of the source pool, both in shuffled order."""
    rng = np.random.default_rng([_POOLS, asked.seed])
    rest = learnable(table, asked, _without(table, rng.permutation(np.flatnonzero(~among(table, test))), test))
    labelled = rest[labelled_rows(table, asked.pooled)[rest]]
    if asked.target_pool > len(labelled):
        raise ValueError(
            f"target_pool = {asked.target_pool}: only {len(labelled)} rows with a label of "
            f'"{", ".join(asked.pooled)}" remain beside the test set of {len(test)}: must be at most {len(labelled)}'
        )
    held = held_out(table, asked)
    if held is None:
        target_rows = _first(table, labelled, asked.target_pool, rng)
    else:
        val_size = min(nearest(asked.val_fraction * asked.target_pool), int(held[labelled].sum()))
        target_rows = _apart(table, "target_pool", labelled, asked.target_pool, val_size, held, rng)
        if asked.target_val > val_size:
            raise ValueError(
                f"target_size = {asked.target_size}: {asked.target_val} of them are for validation, and the data's "
                f"validation part has {val_size}: must be less, or val_fraction must be"
            )
    rest = _without(table, rest, target_rows)
    candidates = rest[labelled_rows(table, asked.apart)[rest]]
    if asked.source_size > len(candidates):
        raise ValueError(
            f"source_size = {asked.source_size}: only {len(candidates)} rows with a label of {', '.join(asked.apart)} "
            f"remain beside the test set and the target pool: must be at most {len(candidates)}"
        )
    if table.groups is None and held is None:
        return target_rows, candidates[: asked.source_size]
    size, val_size = asked.source_size, asked.source_val_size
    return target_rows, _apart(table, "source_size", candidates, size, val_size, held, rng)


def _apart(
    table: Table,
    field: str,
    rows: np.ndarray,
    size: int,
    val_size: int,
    held: np.ndarray | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return ``size`` of some shuffled rows, the last ``val_size`` for validation: of other groups, of its own part."""
    judged, learned = (rows, rows) if held is None else (rows[held[rows]], rows[~held[rows]])
    if val_size > len(judged):
        raise ValueError(
            f"{field} = {size}: {val_size} rows are for validation, and the data's validation part has {len(judged)}: "
            "must have as many"
        )
    val = _first(table, judged, val_size, rng)
    learned = _without(table, learned, val)
    if size - val_size > len(learned):
        of_other = "" if table.groups is None else "of other groups "
        raise ValueError(
            f"{field} = {size}: {val_size} rows for validation leave {len(learned)} {of_other}for training: "
            f"must be at most {len(learned) + val_size}"
        )
    return np.concatenate([_first(table, learned, size - val_size, rng), val])


def _without(table: Table, rows: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Return the rows, in order, that are not taken and of whose group none is."""
    if table.groups is None:
        return rows[~among(table, taken)[rows]]
    return others(rows, taken, table.groups)


def _first(table: Table, rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``size`` of some shuffled rows: the first ones, or whole groups if there are groups."""
    if table.groups is None:
        return rows[:size]
    return draw(rows, np.zeros(len(table), dtype=np.int64), np.array([size]), table.groups, rng)


def _subset(
    table: Table, asked: Asked, strata: np.ndarray, pool: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the training and the validation rows of a target of so many labels, and all that train is from."""
    rng = np.random.default_rng([_RESERVOIRS, asked.seed])
    classes = rng.permutation(np.unique(strata[pool]))  # so that ties are broken by the seed
    members = [rng.permutation(pool[strata[pool] == c]) for c in classes]
    shares = _apportion(np.array([len(m) for m in members]), nearest(asked.val_fraction * len(pool)))
    val = [m[:share] for m, share in zip(members, shares, strict=True)]
    train = [m[share:] for m, share in zip(members, shares, strict=True)]
    held, drawn = held_out(table, asked), None
    if held is not None:
        drawn = pool[held[pool]]
    elif table.groups is not None:
        wanted = np.zeros(int(strata.max()) + 1, dtype=np.int64)
        wanted[classes] = shares
        drawn = draw(pool, strata, wanted, table.groups, rng)
    if drawn is not None:
        left = _without(table, pool, drawn)
        val = [drawn[strata[drawn] == c] for c in classes]
        train = [rng.permutation(left[strata[left] == c]) for c in classes]
        if asked.target_train > len(left):
            raise ValueError(
                f"target_size = {asked.target_size}: of the target pool of {len(pool)} only {len(left)} rows "
                f"share no group with its validation rows: must be at most {len(left) + asked.target_val}"
            )
    return (
        _stratified_prefix(train, asked.target_train, np.random.default_rng([_TRAIN_ORDER, asked.seed])),
        _stratified_prefix(val, asked.target_val, np.random.default_rng([_VAL_ORDER, asked.seed])),
        np.concatenate(train),
    )


def _stratified_prefix(groups: list[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the first ``size`` rows of an order in which every prefix is stratified.

    With K groups of shares p_c, the number of rows of group c among the first m stays within
    1 − 1 / (2K − 2) of m p_c (Tijdeman 1980): of the groups that are behind by at least 1 / (2K − 2), the one
    whose next row is due first comes next. For two groups this is "largest deficit first"; for more,
    largest deficit first can stray by more than one row. Ties are broken by ``rng``.
    """
    groups = [groups[i] for i in rng.permutation(len(groups)) if len(groups[i])]
    counts, total, taken = [len(g) for g in groups], sum(len(g) for g in groups), [0] * len(groups)
    unit = max(2 * len(groups) - 2, 1)
    order = []
    for m in range(1, size + 1):
        behind = [c for c in range(len(groups)) if unit * (m * counts[c] - total * taken[c]) >= total]
        chosen = min(behind, key=lambda c: (unit * (taken[c] + 1) - 1) / counts[c])
        order.append(groups[chosen][taken[chosen]])
        taken[chosen] += 1
    return np.array(order, dtype=np.int64)


def _apportion(counts: np.ndarray, size: int) -> np.ndarray:
    """Return integers near ``size * counts / sum(counts)`` that sum to ``size``, by largest remainder."""
    shares, remainders = np.divmod(size * counts, counts.sum())
    shares[np.argsort(-remainders, kind="stable")[: size - shares.sum()]] += 1
    return shares


def shuffled(table: Table, task: str, rows: np.ndarray, seed: int) -> np.ndarray:
    """Return a task's labels, those among ``rows`` permuted, by a stream of the task's own name."""
    stream = int.from_bytes(hashlib.sha256(task.encode()).digest()[:4], "big")
    labels, rows = table.label_of(task), rows[table.mask[task][rows]]
    permuted = labels.copy()
    permuted[rows] = labels[np.random.default_rng([_SHUFFLE, seed, stream]).permutation(rows)]
    permuted.setflags(write=False)
    return permuted


def labelled_rows(table: Table, tasks: Sequence[str]) -> np.ndarray:
    """Return which rows have a label of any of some tasks, [N] booleans."""
    found = np.zeros(len(table), dtype=bool)
    for name in tasks:
        found |= table.mask[name]
    return found


def among(table: Table, rows: np.ndarray) -> np.ndarray:
    """Return which rows of a table are among some, [N] booleans."""
    mask = np.zeros(len(table), dtype=bool)
    mask[rows] = True
    return mask
