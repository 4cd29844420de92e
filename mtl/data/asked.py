"""What is asked of a split, checked: its tasks, and how many rows have each role."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from mtl.data.table import Table
from mtl.tasks import suggest


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How many rows of a split have each role: what the split is cut by, and what an epoch goes through.

    Attributes:
      source_train, source_val: rows with a label of any source task.
      target_train, target_val: rows with a label of the target.
    """

    source_train: int
    source_val: int
    target_train: int
    target_val: int


def sizes(target_size: int, val_fraction: float, source_size: int, source_val_size: int, folds: int = 0) -> Sizes:
    """Return the sizes of a split whose labels nobody hides; arguments as in ``transfer_split`` and ``folds.divided``.

    >>> sizes(10, 0.25, 100, 20)
    Sizes(source_train=80, source_val=20, target_train=7, target_val=3)
    >>> sizes(10, 0.25, 100, 20, folds=5)  # In the end all labels train.
    Sizes(source_train=80, source_val=20, target_train=10, target_val=0)
    """
    val = 0 if folds else nearest(val_fraction * target_size)
    return Sizes(source_size - source_val_size, source_val_size, target_size - val, val)


def sizes_of(section: Mapping[str, Any]) -> Sizes:
    """Return the sizes of the split that a resolved config's section ``data`` asks for."""
    known = ("target_size", "val_fraction", "source_size", "source_val_size", "folds")
    return sizes(**{key: section[key] for key in known if key in section})


def nearest(value: float) -> int:
    """Return ⌊value + ½⌋ (Python's own ``round`` would take 2.5 to 2 and 3.5 to 4)."""
    return math.floor(value + 0.5)


def check_names(table: Table, source: tuple[str, ...], targets: tuple[str, ...]) -> None:
    """Check that the tasks exist and that each is named once."""
    names = [task.name for task in table.tasks]
    for field, name in (*(("source", name) for name in source), *(("target", name) for name in targets)):
        if name not in names:
            raise ValueError(f'{field}: data "{table.name}" has no task "{name}": {suggest(name, names)}')
    for field, tasks in (("source", source), ("targets", targets)):
        for name in tasks:
            if tasks.count(name) > 1:
                raise ValueError(f'{field} = {tasks}: task "{name}" is there twice or more: name it once')
    for target in targets:
        if target in source:
            raise ValueError(f'target = "{target}" is also in source = {source}: must not be a source task')


def checked_sizes(
    seed: int,
    target_size: int,
    test_size: int,
    source_size: int,
    source_val_size: int,
    target_pool: int,
    val_fraction: float,
) -> Sizes:
    """Return the sizes of a split, every number checked; arguments as in ``transfer_split``."""
    for field, value, low in (
        ("seed", seed, 0),
        ("target_size", target_size, 2),
        ("test_size", test_size, 1),
        ("source_size", source_size, 0),
        ("source_val_size", source_val_size, 0),
        ("target_pool", target_pool, 2),
    ):
        if value < low:
            raise ValueError(f"{field} = {value}: must be at least {low}")
    if not 0.0 < val_fraction < 1.0:
        raise ValueError(f"val_fraction = {val_fraction}: must be between 0 and 1, both excluded")
    if source_val_size >= max(source_size, 1):
        raise ValueError(f"source_val_size = {source_val_size}: must be less than source_size = {source_size}")
    if target_size > target_pool:
        raise ValueError(f"target_size = {target_size}: must be at most target_pool = {target_pool}")
    size = sizes(target_size, val_fraction, source_size, source_val_size)
    if not (size.target_train and size.target_val):
        raise ValueError(
            f"target_size = {target_size}: with val_fraction = {val_fraction} it gives "
            f"{size.target_train} training and {size.target_val} validation labels: must give one of each"
        )
    return size
