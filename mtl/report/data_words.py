"""The data of a sweep as a page describes them, from what its ``study.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl.report.formats import Table, TableCell
from mtl.report.phrases import join

#: A table to read shows so many tasks.
SHOWN = 20


def data_sentence(facts: Mapping[str, Any], targets: Sequence[str], sources: Sequence[str]) -> str:
    """Return one sentence on a data set: what it is, its size, and what is predicted.

    Args:
      facts: as ``mtl.data.describe.facts`` returns them.
      targets, sources: the study's tasks.
    """
    tasks = {task["name"]: task for task in facts["tasks"]}
    said = f"{facts['name']}: {facts['examples']:,} rows, inputs {facts['inputs']}."
    if len(targets) == 1 and (task := tasks.get(targets[0])):
        missing = f", {_share(task['missing'])} of rows have none" if task["missing"] else ""
        said += f" Target {task['name']} ({task['kind']}): {task['labels']:,} labels, {task['what']}{missing}."
    elif len(targets) > 1 and (known := [tasks[name] for name in targets if name in tasks]):
        labels = [task["labels"] for task in known]
        missing = sum(task["missing"] for task in known) / len(known)
        kinds = join(list(dict.fromkeys(task["kind"] for task in known)))
        said += (
            f" {len(known):,} targets ({kinds}) with {min(labels):,} to {max(labels):,} labels each; "
            f"{_share(missing)} of labels are missing."
        )
    return f"{said} Source: {join(list(sources))}." if sources else said


def data_table(facts: Mapping[str, Any], targets: Sequence[str], sources: Sequence[str]) -> Table:
    """Make the table of a data set's tasks: the study's first.

    Args:
      facts, targets, sources: as ``data_sentence``.

    Returns:
      A row a task: its kind, its part in the study, labels present and missing, and their balance.
    """
    part = {**dict.fromkeys(sources, "source"), **dict.fromkeys(targets, "target")}
    tasks = sorted(facts["tasks"], key=lambda task: {"target": 0, "source": 1}.get(part.get(task["name"], ""), 2))
    rows = tuple(
        (
            TableCell(task["name"]),
            TableCell(task["kind"]),
            TableCell(part.get(task["name"], "—")),
            TableCell(f"{task['labels']:,}"),
            TableCell(_share(task["missing"])),
            TableCell(task["what"]),
        )
        for task in tasks[:SHOWN]
    )
    notes = [f"{facts['complete']:,} of {facts['examples']:,} rows have the labels of all tasks."]
    if (hidden := len(tasks) - SHOWN) > 0:
        notes.append(f"{hidden:,} more tasks: `mtl data {facts['name']}` prints all.")
    if facts["groups"]:
        notes.append(f"{facts['groups']:,} groups of rows that no split parts.")
    if not facts["duplicates"]["rows"]:
        notes.append("No input is there twice.")
    if facts["about"]:
        notes.append(facts["about"])
    return Table(
        name="data",
        title=f"{facts['name']}: labels",
        header=("task", "kind", "in this study", "labels", "missing", "balance"),
        rows=rows,
        footnotes=tuple(notes),
        records=(),
        words=(1, 2, 5),
    )


def data_warnings(facts: Mapping[str, Any]) -> list[str]:
    """Return sentences on what of the data weakens an answer: inputs that are there twice.

    Args:
      facts: as ``data_sentence``.
    """
    twice = facts["duplicates"]
    if not twice["rows"]:
        return []
    differ = join([f"{task} {n:,}" for task, n in list(twice["conflicts"].items())[:5]]) if twice["conflicts"] else ""
    labels = f"labels differ within sets of copies: {differ}" if differ else "the labels of copies agree"
    kept = "groups keep copies on one side of a split" if facts["groups"] else "a split may part them"
    return [f"{twice['rows']:,} of {facts['examples']:,} rows repeat the inputs of an earlier one; {labels}; {kept}."]


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"
