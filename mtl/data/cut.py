"""The split that a resolved config asks for, its labels hidden, skewed or made wrong as it says."""

from __future__ import annotations

import dataclasses
import functools
import json

from mtl.data.asked import Asked
from mtl.data.corrupt.split import FIELDS, corrupt
from mtl.data.folds import divided
from mtl.data.shared import shared_split
from mtl.data.splits import Split, transfer_split
from mtl.data.table import Table


@functools.lru_cache(maxsize=4096)
def cut(table: Table, section: str, seed: int) -> Split:
    """Return a replicate's split, its n labels divided into folds if it says so; it is cut once.

    Args:
      table: the data.
      section: the resolved config's section ``data`` as canonical JSON.
      seed: the replicate.

    Raises:
      ValueError: as ``transfer_split``, ``shared_split`` and ``divided``.
    """
    fields = json.loads(section) | {"seed": seed}
    asked = Asked.of(fields)
    corrupting = {k: fields[k] for k in FIELDS if k in fields}
    split = _whole(table, dataclasses.replace(asked, folds=0))
    if asked.folds:
        split = divided(split, table, asked.pooled, seed, asked.folds, fields.get("fold"))
    return corrupt(split, table, seed, **corrupting) if corrupting else split


@functools.lru_cache(maxsize=256)
def _whole(table: Table, asked: Asked) -> Split:
    """Return a replicate's split before its labels are divided into folds or corrupted."""
    alone = asked.rows == "disjoint" and len(asked.targets) == 1
    return (transfer_split if alone else shared_split)(table, asked)
