"""The split that a resolved config asks for, its labels hidden, skewed or made wrong as it says."""

from __future__ import annotations

import functools
import json

from mtl.data.asked import Asked
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
    fields = json.loads(section) | {"seed": seed}
    asked = Asked.of(fields)
    split = transfer_split if asked.rows == "disjoint" and len(asked.targets) == 1 else shared_split
    corrupting = {k: fields[k] for k in FIELDS if k in fields}
    found = split(table, asked)
    return corrupt(found, table, seed, **corrupting) if corrupting else found
