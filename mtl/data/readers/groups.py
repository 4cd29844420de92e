"""Which rows belong together: a column of groups, read so that no split parts what is one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Hashable

import numpy as np

from mtl.data.readers.cells import Missing, canonical, folded, quantity
from mtl.data.readers.labels import SUSPECTS, distinct_cells, told_merged


@dataclasses.dataclass(frozen=True)
class Together:
    """The groups of a table.

    Args:
      codes: [N] int64, equal for rows of one group, in order of appearance; a row without a group has its own.
      merged: sentences on cells that were spelled in several ways and are one group.
      doubts: sentences on groups that are taken as one, and may not be.
    """

    codes: np.ndarray
    merged: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def read_groups(name: str, cells: np.ndarray, missing: Missing) -> Together:
    """Return the groups that a column says.

    A mistake that keeps two groups together costs a split some freedom; one that parts a group lets a test hold what
    was trained on. So groups whose names differ only in case, in blanks, in the form of characters or in leading zeros
    are one, and so are texts that can be read as one number; both are told.

    Args:
      name: of the column.
      cells: [N].
      missing: what counts as missing: such rows stand for themselves.

    >>> read_groups("person", np.array(["P1", "P2", "P1 ", "", "p2"], dtype=object), Missing())
    Together(codes=array([0, 1, 0, 2, 1]), merged=('groups "person": "P1" and "P1 " are one group',),
             doubts=('groups "person": "P2" and "p2" are taken as one group',))
    """
    codes, distinct = distinct_cells(cells)
    texts = canonical(list(distinct), missing)
    keys: dict[Hashable, int] = {}
    alike: dict[int, list[str]] = {}
    place = np.full(len(distinct) + 1, -1)
    for i, text in enumerate(texts):
        if text is not None:
            place[i] = keys.setdefault(_alike(text), len(keys))
            ways = alike.setdefault(int(place[i]), [])
            ways += [text] if text not in ways else []
    found = place[codes]
    alone = found < 0
    pairs = [(cell, text) for cell, text in zip(distinct, texts, strict=True) if text is not None]
    doubts = []
    if several := [sorted(w) for w in alike.values() if len(w) > 1]:
        one, two = min(several)[:2]
        more = f", and {len(several) - 1:,} more such" if len(several) > 1 else ""
        doubts.append(f'groups "{name}": "{one}" and "{two}" are taken as one group{more}')
    for code, (text, *_) in alike.items():
        if text.lower() in SUSPECTS:
            rows = int((found == code).sum())
            doubts.append(f'groups "{name}": "{text}" is one group of {rows:,} rows: if it is none, declare missing=')
    return Together(
        np.where(alone, len(keys) - 1 + np.cumsum(alone), found),
        told_merged(f'groups "{name}"', "group", pairs),
        tuple(doubts),
    )


def _alike(text: str) -> Hashable:
    """Return what names of one group have in common: their number, or their text without leading zeros."""
    exact = quantity(text)
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", folded(text)) if exact is None else exact
