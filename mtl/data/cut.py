"""The split that a resolved config asks for, its labels hidden, skewed or made wrong as it says."""

from __future__ import annotations

import functools
import json
from typing import Any

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
    fields = {k: v for k, v in json.loads(section).items() if k not in ("name", "options", "normalize", "fold_repeats")}
    corrupting = {k: fields.pop(k) for k in FIELDS if k in fields}
    folds, fold = fields.pop("folds", 0), fields.pop("fold", None)
    split = _whole(table, json.dumps(fields), seed)
    if folds:
        targets = fields.get("targets", [fields.get("target")])
        tasks = [*fields["source"], *targets] if fields.get("rows") == "shared" else targets
        split = divided(split, table, tasks, seed, folds, fold)
    return corrupt(split, table, seed, **corrupting) if corrupting else split


@functools.lru_cache(maxsize=256)
def _whole(table: Table, section: str, seed: int) -> Split:
    """Return a replicate's split before its labels are divided into folds or corrupted."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(section).items()}
    if "targets" in fields:
        return shared_split(table, seed=seed, **fields)
    return transfer_split(table, seed=seed, **fields)
