"""Which trial of each cell and replicate stands for it: validation chooses, and nothing else is tested in public."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl.config import canonical
from mtl.sweep.store import Workdir

REPLICATE = "seed"

#: In a sweep of several targets, the one that a trial's network is for; empty for all that it is trained on.
TARGET = "data.target"

#: A trial of a sweep (its changes and its hash), and its result if there is one.
Candidate = tuple[Mapping[str, Any], Mapping[str, Any] | None]


def axes(base: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return the fields that are the axes of a sweep's table: its rows and columns, the replicate, and the target.

    Every other field that a sweep changes is tuned: validation chooses within each replicate.

    Args:
      base: the fields of the sweep's config.
    """
    return base.get("report.rows", "regime"), base.get("report.columns", "data.target_size"), REPLICATE, TARGET


def level(base: Mapping[str, Any], changes: Mapping[str, Any], axis: str) -> Any:
    """Return where on an axis a trial is; of what is no text or number its JSON.

    >>> level({"data.options": {"rho": 0.5}}, {"regime": "scratch"}, "data.options.rho")
    0.5
    """
    value = changes.get(axis, base.get(axis))
    if value is None:
        section, _, name = axis.rpartition(".")
        value = inside.get(name) if isinstance(inside := base.get(section), Mapping) else None
    return value if isinstance(value, str | int | float) else canonical(value)


def row_name(axis: str, value: Any) -> str:
    """Return what a table calls a row.

    >>> row_name("regime", "scratch"), row_name("data.hide_rate", 0.5)
    ('scratch', 'hide_rate=0.5')
    """
    return str(value) if axis == "regime" else f"{axis.rpartition('.')[2]}={value}"


def tuned(entry: Mapping[str, Any]) -> list[str]:
    """Return the fields that a sweep changes and that are no axis."""
    return sorted({field for trial in entry["trials"] for field in trial["changes"]} - set(axes(entry["base"])))


def candidates(workdir: Workdir, entry: Mapping[str, Any]) -> dict[tuple[Any, Any, Any, Any], list[Candidate]]:
    """Return the trials of each (row, column, replicate, target) of a sweep, with their results."""
    workdir.expect(entry)
    found: dict[tuple[Any, Any, Any, Any], list[Candidate]] = {}
    for trial in entry["trials"]:
        base, changes = entry["base"], trial["changes"]
        row, column, replicate, target = (level(base, changes, axis) for axis in axes(base))
        found.setdefault((row, column, replicate, target), []).append((trial, workdir.result(trial["hash"])))
    return found


def choose(found: Sequence[Candidate], fields: Sequence[str]) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Return the candidate with the least validation score (the smaller value in a tie).

    Nothing where a candidate has no result, since the choice would not be the one that was asked for. One that diverged
    is not eligible; without validation labels there is no loss, and only a candidate that is alone needs none.

    Args:
      found: the candidates of one cell and replicate.
      fields: that are tuned.

    >>> def of(rate, loss, status="done"):
    ...     return {"hash": "", "changes": {"lr": rate}}, {"status": status, "val_score": loss}
    >>> choose([of(0.1, 0.3), of(0.01, 0.2), of(1.0, 0.1, "diverged")], ["lr"])[0]["changes"]
    {'lr': 0.01}
    >>> choose([of(0.1, 0.3), ({"changes": {}}, None)], ["lr"]) is None
    True
    """
    if any(result is None for _, result in found):
        return None
    eligible = [
        (trial, result)
        for trial, result in found
        if result is not None and result["status"] == "done" and (result["val_score"] is not None or len(found) == 1)
    ]
    if len(eligible) < 2:
        return eligible[0] if eligible else None
    return min(eligible, key=lambda c: (c[1]["val_score"], tuple(order(c[0]["changes"].get(f)) for f in fields)))


def chosen(workdir: Workdir, entry: Mapping[str, Any]) -> set[str]:
    """Return the hashes of a sweep's chosen trials.

    The test results of the others are for nobody: who looked at them could choose again, by the test set.
    """
    fields = tuned(entry)
    picked = (choose(found, fields) for found in candidates(workdir, entry).values())
    return {trial["hash"] for pick in picked if pick is not None for trial in pick[:1]}


def order(value: Any) -> tuple[int, Any]:
    """Return a key that sorts tried values: numbers first, then texts."""
    return (0, value) if isinstance(value, (int, float)) else (1, str(value))
