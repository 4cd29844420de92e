"""A table in words: one line a task, so that what was inferred can be seen."""

from __future__ import annotations

import numpy as np

from mtl.data.table import Table


def summary(table: Table) -> str:
    """Return what a table holds: its inputs, then each task's kind, labels present, classes and missing share.

    Below stands what was read as one class or group, or as two, where it might be doubted.

    >>> from mtl.data.table import make_table
    >>> from mtl.tasks import Task
    >>> tasks = [Task("ill", "binary"), Task("dose", "regression")]
    >>> print(summary(make_table("toy", np.eye(4), tasks, {"ill": [1, 0, 0, float("nan")], "dose": [1, 2, 3, 6]})))
    toy: 4 examples, inputs (4,)
    ill   binary      3 labels, 25.0 % missing, 1 positive (33.3 %)
    dose  regression  4 labels,  0.0 % missing, 1 to 6, mean 3, std 1.87
    """
    groups = "" if table.groups is None else f", {len(np.unique(table.groups)):,} groups"
    lines = [f"{table.name}: {len(table):,} examples, inputs {table.shape}{groups}"]
    wide, kind = (
        max(len(text) for text in texts) for texts in zip(*((t.name, t.kind) for t in table.tasks), strict=True)
    )
    digits = max(len(f"{int(mask.sum()):,}") for mask in table.mask.values())
    for task in table.tasks:
        mask = table.mask[task.name]
        labels, count = table.present_labels(task.name, mask), int(mask.sum())
        names = table.classes.get(task.name, ())
        if task.labels == "binary":
            positive = int(labels.sum())
            called = f" ({names[0]} = 0, {names[1]} = 1)" if names else ""
            what = f"{positive:,} positive ({positive / count:.1%})".replace("%", " %") + called
        elif task.labels == "ids":
            counts = np.bincount(labels, minlength=task.num_classes)
            amounts = [f"{n / len(labels):.1%}".replace("%", " %") if task.shape else f"{n:,}" for n in counts[:8]]
            shown = [f"{names[c] if names else c}: {n}" for c, n in enumerate(amounts)]
            what = f"{task.num_classes} classes ({', '.join(shown)}{', …' if task.num_classes > 8 else ''})"
        else:
            low, high, mean, std = (f"{v:.3g}" for v in (labels.min(), labels.max(), labels.mean(), labels.std()))
            what = f"{low} to {high}, mean {mean}, std {std}"
        share = f"{100 * (1 - count / len(table)):4.1f} % missing"
        lines.append(f"{task.name:{wide}}  {task.kind:{max(kind, 10)}}  {count:{digits},} labels, {share}, {what}")
    return "\n".join([*lines, *table.told])
