"""The chosen trials of a sweep, for what a page shows beside the study's own metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mtl.sweep.chosen import axes, candidates, choose, row_name, tuned
from mtl.sweep.store import Workdir


class Picked(NamedTuple):
    """A chosen trial.

    Attributes:
      row: the row of the table that it is in.
      size: its column.
      replicate: its seed.
      target: of several targets the one that its network is for; empty for all.
      digest: its hash.
      result: its result.
    """

    row: str
    size: float
    replicate: Any
    target: str
    digest: str
    result: Mapping[str, Any]


def picked(workdir: Workdir, entry: Mapping[str, Any]) -> list[Picked]:
    """Return the chosen trials of a sweep.

    Args:
      workdir: the work directory.
      entry: the sweep, from ``study.json``.
    """
    fields, row_field, several = tuned(entry), axes(entry["base"])[0], bool(entry["base"].get("data.targets"))
    found = []
    for (row, column, replicate, target), those in candidates(workdir, entry).items():
        if (pick := choose(those, fields)) is not None:
            trial, result = pick
            one = str(target) if several else ""
            found.append(Picked(row_name(row_field, row), float(column), replicate, one, trial["hash"], result))
    return found
