"""A table in numbers: what each task has, what is missing, what comes together, what is there twice."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtl.data.duplicates import across, within
from mtl.data.splits import Split
from mtl.data.streamed import blocks
from mtl.data.table import PARTS, Table
from mtl.inputs import Shape, each, leaves, structure
from mtl.tasks import Task

#: Tasks up to which the matrix of co-occurrence is printed.
MATRIX = 14

#: What the rows of ``PARTS`` are for.
_USES = ("training", "validation", "testing")


def description(table: Table, split: Split | None = None) -> dict[str, Any]:
    """Return what a table holds, as JSON types.

    Args:
      table: the data.
      split: of it, to describe its roles too.

    >>> from mtl.data.table import make_table
    >>> toy = make_table("toy", np.eye(4), [Task("a", "binary")], {"a": [1, float("nan"), float("nan"), 0]})
    >>> description(toy)["tasks"]
    [{'name': 'a', 'kind': 'binary', 'labels': 2, 'missing': 0.5, 'positives': 1}]
    """
    twice = within(table)
    found: dict[str, Any] = {
        "name": table.name,
        "about": table.about,
        "told": list(table.told),
        "examples": len(table),
        "inputs": each(lambda leaf: list(leaf.shape[1:]), table.x),
        **({"vocabulary": table.vocabulary} if table.vocabulary else {}),
        "constant_inputs": _constant(table),
        "complete": int(np.all(np.stack(list(table.mask.values())), axis=0).sum()),
        "sha256": table.sha256,
        "tasks": [_task(table, task) for task in table.tasks],
        "duplicates": {"rows": twice.rows, "sets": twice.sets, "conflicts": twice.conflicts},
        "groups": None,
        "parts": None,
        "co_occurrence": co_occurrence(table),
    }
    if table.groups is not None:
        sizes = np.unique(table.groups, return_counts=True)[1]
        found["groups"] = {"count": len(sizes), "largest": int(sizes.max()), "alone": int((sizes == 1).sum())}
    if table.part is not None:
        found["parts"] = dict(zip(PARTS, np.bincount(table.part, minlength=len(PARTS)).tolist(), strict=True))
    if split is not None:
        found["split"] = {
            "roles": {
                task: {role: int(masks[task].sum()) for role, masks in _roles(split).items()} for task in split.labels
            },
            "duplicates": across(table, split),
        }
    return found


def facts(table: Table) -> dict[str, Any]:
    """Return what a study says of its data: few JSON types, and words for what its labels are.

    Args:
      table: the data.

    >>> from mtl.data.table import make_table
    >>> toy = make_table("toy", np.eye(4), [Task("a", "binary")], {"a": [1, float("nan"), float("nan"), 0]})
    >>> facts(toy)["tasks"]
    [{'name': 'a', 'kind': 'binary', 'labels': 2, 'missing': 0.5, 'what': '1 positive, 50.0 %'}]
    """
    twice, every = within(table), [_task(table, task) for task in table.tasks]
    inputs = each(lambda leaf: list(leaf.shape[1:]), table.x)
    return {
        "name": table.name,
        "about": table.about,
        "examples": len(table),
        "inputs": _shape_words(_inputs({"inputs": inputs, "vocabulary": table.vocabulary})),
        "complete": int(np.all(np.stack(list(table.mask.values())), axis=0).sum()),
        "tasks": [{**{k: t[k] for k in ("name", "kind", "labels", "missing")}, "what": _what(t)} for t in every],
        "duplicates": {"rows": twice.rows, "sets": twice.sets, "conflicts": twice.conflicts},
        "groups": 0 if table.groups is None else len(np.unique(table.groups)),
    }


def _shape_words(shape: Shape) -> str:
    """Return what one input is, in words: ``64 numbers``, ``28 × 28``."""
    if not isinstance(shape, tuple) or not all(isinstance(n, int) for n in shape):
        return str(shape)
    return f"{shape[0]:,} numbers" if len(shape) == 1 else " × ".join(f"{n:,}" for n in shape)


def _constant(table: Table) -> int:
    """Return how many inputs have one value in all rows."""
    found = 0
    for x in leaves(table.x):
        first, same = x[0], np.ones(x.shape[1:], bool)
        for block in blocks(x):
            same &= (block == first).all(axis=0)
        found += int(same.sum())
    return found


def co_occurrence(table: Table) -> dict[str, Any]:
    """Return what binary tasks are positive together.

    Returns:
      ``{"tasks": names, "positive": [K, K] rows where both are positive, "present": [K, K] rows where both labels
      are present}``; their quotient along a row is not needed to be symmetric: see ``conditional``.
    """
    names = [task.name for task in table.tasks if task.labels == "binary" and not task.shape]
    mask = np.stack([table.mask[n] for n in names]).astype(np.float32) if names else np.zeros((0, len(table)))
    positive = np.stack([table.labels[n] for n in names]) * mask if names else mask
    return {
        "tasks": names,
        "positive": np.rint(positive @ positive.T).astype(int).tolist(),
        "present": np.rint(mask @ mask.T).astype(int).tolist(),
        "first": np.rint(positive @ mask.T).astype(int).tolist(),
    }


def conditional(together: dict[str, Any]) -> np.ndarray:
    """Return [K, K]: of the rows where task i is positive and task j is known, the share where j is positive too.

    NaN where there are none.
    """
    both, given = np.array(together["positive"], float), np.array(together["first"], float)
    return np.divide(both, given, out=np.full(both.shape, np.nan), where=given > 0)


def text(found: dict[str, Any]) -> str:
    """Return a description for people.

    Args:
      found: from ``description``.
    """
    lines = [f"{found['name']}: {found['examples']:,} examples, inputs {_inputs(found)}"]
    if found["about"]:
        lines.append(found["about"])
    lines += found["told"]
    lines += [f"sha256 {found['sha256']}", ""]
    rows: list[tuple[str, ...]] = [("task", "kind", "labels", "missing", "what")]
    rows += [
        (t["name"], t["kind"], f"{t['labels']:,}", f"{100 * t['missing']:.1f} %", _what(t)) for t in found["tasks"]
    ]
    lines += _aligned(rows, right=(2, 3))
    share = found["complete"] / found["examples"]
    lines += ["", f"{found['complete']:,} examples ({100 * share:.1f} %) have the labels of all tasks."]
    if found["constant_inputs"]:
        every = sum(int(np.prod(shape)) for shape in leaves(found["inputs"]))
        lines.append(f"{found['constant_inputs']:,} of {every:,} inputs are constant.")
    if found["parts"]:
        parts = ", ".join(f"{n:,} for {use}" for use, n in zip(_USES, found["parts"].values(), strict=True) if n)
        lines.append(f'The data come in parts: {parts}; data.split = "official" goes by them.')
    lines += _duplicates(found)
    together = found["co_occurrence"]
    if 2 <= len(together["tasks"]) <= MATRIX:
        lines += ["", "Of the examples where the row is positive, % where the column is too (both known):"]
        names, shares = together["tasks"], conditional(together)
        body = [
            (n, *("-" if np.isnan(v) else f"{100 * v:.0f}" for v in row)) for n, row in zip(names, shares, strict=True)
        ]
        lines += _aligned([("", *(n[:12] for n in names)), *body], right=range(1, len(names) + 1))
    elif len(together["tasks"]) > MATRIX:
        lines.append(f"What {len(together['tasks'])} tasks are positive together: see the picture, or --json.")
    if "split" in found:
        roles = list(next(iter(found["split"]["roles"].values())))
        lines += ["", "The config's split, of its seed:"]
        body = [(task, *(f"{n[r]:,}" for r in roles)) for task, n in found["split"]["roles"].items()]
        lines += _aligned([("task", *roles), *body], right=range(1, len(roles) + 1))
        copies = ", ".join(f"{n:,} {what}" for what, n in found["split"]["duplicates"].items())
        lines.append(f"Rows with a copy in another role: {copies}.")
    return "\n".join(lines)


def _inputs(found: dict[str, Any]) -> Shape:
    """Return what one input is."""
    return structure(each(lambda shape: np.broadcast_to(0, (1, *shape)), found["inputs"]), found.get("vocabulary"))


def _task(table: Table, task: Task) -> dict[str, Any]:
    mask = table.mask[task.name]
    labels, names = table.present_labels(task.name, mask), table.classes.get(task.name, ())
    found: dict[str, Any] = {
        "name": task.name,
        "kind": task.kind,
        "labels": int(mask.sum()),
        "missing": float(1 - mask.mean()),
    }
    if task.shape:
        found |= {"shape": list(task.shape), "positions": len(labels)}
    if task.labels == "binary":
        found["positives"] = int(labels.sum())
        if names:
            found["classes"] = list(names)
    elif task.labels == "ids":
        counts = np.bincount(labels, minlength=task.num_classes)
        found["classes"] = {names[c] if names else str(c): int(n) for c, n in enumerate(counts)}
    else:
        exact = labels.astype(np.float64)
        found |= {k: float(f(exact)) for k, f in (("min", np.min), ("max", np.max), ("mean", np.mean), ("std", np.std))}
    return found


def _what(task: dict[str, Any]) -> str:
    if "positives" in task:
        named = f" ({task['classes'][1]}; else {task['classes'][0]})" if "classes" in task else ""
        share = task["positives"] / task.get("positions", task["labels"])
        return f"{task['positives']:,} positive, {100 * share:.1f} %{named}"
    if "classes" in task:
        total = task.get("positions", 0)
        amounts = {name: f"{100 * n / total:.1f} %" if total else f"{n:,}" for name, n in task["classes"].items()}
        shown = [f"{name} {amount}" for name, amount in list(amounts.items())[:10]]
        more = len(task["classes"]) - len(shown)
        return f"{len(task['classes'])} classes: {', '.join(shown)}{f' and {more} more' if more else ''}"
    return f"{task['min']:.4g} to {task['max']:.4g}, mean {task['mean']:.4g}, std {task['std']:.4g}"


def _duplicates(found: dict[str, Any]) -> list[str]:
    twice, groups = found["duplicates"], found["groups"]
    lines = []
    if twice["rows"]:
        conflicts = ", ".join(f"{task} {n:,}" for task, n in list(twice["conflicts"].items())[:8])
        more = f"; their labels differ in {conflicts}" if conflicts else "; their labels agree"
        sets = f"{twice['sets']:,} different input{'s are' if twice['sets'] > 1 else ' is'} there more than once"
        lines.append(f"{twice['rows']:,} examples repeat the inputs of an earlier one ({sets}){more}.")
    else:
        lines.append("No input is there twice.")
    if groups:
        lines.append(f"{groups['count']:,} groups that no split parts, the largest of {groups['largest']:,} examples.")
    elif twice["rows"]:
        lines.append("There are no groups: a split may put copies on both sides.")
    return lines


def _roles(split: Split) -> dict[str, dict[str, np.ndarray]]:
    return {"train": split.train, "val": split.val, "test": split.test}


def _aligned(rows: list[tuple[str, ...]], right: Any = ()) -> list[str]:
    wide = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(w) if c in right else cell.ljust(w) for c, (cell, w) in enumerate(zip(row, wide, strict=True))
        ).rstrip()
        for row in rows
    ]
