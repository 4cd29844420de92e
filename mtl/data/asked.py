"""What is asked of a split, and checked: its tasks, and how many rows have each role."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from mtl.data.table import Table
from mtl.tasks import suggest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of a split, as a config's section ``data`` says it (see ``mtl.config.declaration.Data``).

    Attributes:
      source: names of the source tasks, in the order the split will have.
      targets: names of the targets, at least one, none of ``source``.
      split: ``random``; ``scaffold``: tested on whole scaffolds, the big ones left to learn from; ``official``: the
        data say which rows are for testing, and which for validation if any (``Table.part``).
      rows: ``shared``: a row comes with all its labels, those of source tasks too; ``disjoint``: source tasks have rows
        of their own.
      seed: of the replicate, at least 0.
      target_size: n, labelled rows for training and validation together.
      test_size: rows of the test set; of an official test part at most so many, 0 for all.
      source_size: rows of the source pool; 0 where there is none.
      source_val_size: rows of the source pool that are source validation; less than ``source_size``.
      target_pool: rows that the n are drawn from, at least ``target_size``.
      val_fraction: share of the n that goes to validation, in (0, 1).
      folds: k, of those that the n are divided into (see ``folds.divided``); in the end all n train. 0 for none.
      shuffle_source_labels: for a control, permute each source task's labels among the rows of the source
        pool that have one (training and validation together): the marginal stays, the relation to the input
        goes.

    >>> of_ten = Asked(source=("a",), targets=("b",), target_size=10, test_size=5, source_size=100, source_val_size=20,
    ...     target_pool=10, val_fraction=0.25)
    >>> of_ten.source_train, of_ten.target_train, of_ten.target_val
    (80, 7, 3)
    >>> dataclasses.replace(of_ten, folds=5).target_train
    10
    """

    source: tuple[str, ...]
    targets: tuple[str, ...]
    split: Literal["random", "scaffold", "official"] = "random"
    rows: Literal["shared", "disjoint"] = "disjoint"
    seed: int = 0
    target_size: int
    test_size: int
    source_size: int
    source_val_size: int
    target_pool: int
    val_fraction: float
    folds: int = 0
    shuffle_source_labels: bool = False

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Asked:
        """Return what a resolved config's section ``data`` asks, with ``seed`` beside it; other fields are ignored."""
        given = {"targets": (section["target"],), **section} if "target" in section else section
        names = {field.name for field in dataclasses.fields(cls)}
        asked: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k in names}
        return cls(**asked)

    @property
    def apart(self) -> tuple[str, ...]:
        """The source tasks that are seen on rows of their own: the source pool's."""
        return self.source if self.rows == "disjoint" else ()

    @property
    def pooled(self) -> tuple[str, ...]:
        """The tasks that are seen on the target pool's rows, and tested."""
        return self.targets if self.rows == "disjoint" else (*self.source, *self.targets)

    @property
    def source_train(self) -> int:
        """Training rows of the source pool."""
        return self.source_size - self.source_val_size

    @property
    def target_val(self) -> int:
        """Validation rows among the n; with folds none are left."""
        return 0 if self.folds else nearest(self.val_fraction * self.target_size)

    @property
    def target_train(self) -> int:
        """Training rows among the n."""
        return self.target_size - self.target_val

    def check(self, table: Table) -> None:
        """Check that the tasks exist and that each is named once, and every number.

        Raises:
          ValueError: one sentence with the field, the value and what would be right.
        """
        _check_names(table, self.source, self.targets)
        for field, low in (
            ("seed", 0),
            ("target_size", 2),
            ("test_size", 0 if self.split == "official" else 1),
            ("source_size", 0),
            ("source_val_size", 0),
            ("target_pool", 2),
        ):
            value = getattr(self, field)
            if value < low:
                raise ValueError(f"{field} = {value}: must be at least {low}")
        if not 0.0 < self.val_fraction < 1.0:
            raise ValueError(f"val_fraction = {self.val_fraction}: must be between 0 and 1, both excluded")
        if self.source_val_size >= max(self.source_size, 1):
            raise ValueError(
                f"source_val_size = {self.source_val_size}: must be less than source_size = {self.source_size}"
            )
        if self.target_size > self.target_pool:
            raise ValueError(f"target_size = {self.target_size}: must be at most target_pool = {self.target_pool}")
        if not (self.target_train and self.target_val):
            raise ValueError(
                f"target_size = {self.target_size}: with val_fraction = {self.val_fraction} it gives "
                f"{self.target_train} training and {self.target_val} validation labels: must give one of each"
            )
        if self.source_size and not self.apart:
            why = "rows are shared" if self.source else "there is no source task"
            raise ValueError(f"source_size = {self.source_size}: must be 0, as {why}")


def nearest(value: float) -> int:
    """Return ⌊value + ½⌋ (Python's own ``round`` would take 2.5 to 2 and 3.5 to 4)."""
    return math.floor(value + 0.5)


def _check_names(table: Table, source: tuple[str, ...], targets: tuple[str, ...]) -> None:
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
