"""The split that a resolved config asks for, its labels hidden, skewed or made wrong as it says."""

from __future__ import annotations

import functools
import json

from mtl.data.corrupt.split import FIELDS, corrupt
from mtl.data.shared import shared_split
from mtl.data.splits import Split, transfer_split
from mtl.data.table import Table


@functools.lru_cache(maxsize=4096)
def cut(table: Table, section: str, seed: int) -> Split:
    """Return a replicate's split; it is cut once.

    Args:
      table: the data.
      section: the resolved config's section ``data`` as canonical JSON.
      seed: the replicate.

    Raises:
      ValueError: as ``transfer_split`` and ``shared_split``.
    """
    fields = {k: v for k, v in json.loads(section).items() if k not in ("name", "options", "normalize")}
    fields["source"] = tuple(fields["source"])
    corrupting = {k: fields.pop(k) for k in FIELDS if k in fields}
    if "targets" in fields:
        split = shared_split(table, seed=seed, **{**fields, "targets": tuple(fields["targets"])})
    else:
        split = transfer_split(table, seed=seed, **fields)
    return corrupt(split, table, seed, **corrupting) if corrupting else split
