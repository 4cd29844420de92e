"""Labels of a dense task: class ids or numbers at each position of an example, as an array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl.data.problems import Problems
from mtl.data.readers.cells import Missing
from mtl.data.readers.labels import MAX_CLASSES, Label
from mtl.tasks import KINDS, Task


def is_map(values: np.ndarray, kind: str = "") -> bool:
    """Return whether labels are a dense task's: of three axes or more, or declared to be.

    >>> is_map(np.zeros((4, 8, 8))), is_map(np.zeros((4, 8))), is_map(np.zeros((4, 8)), "segmentation")
    (True, False, True)
    """
    return values.ndim > 2 or (kind in KINDS and KINDS[kind].dense)


def read_map(
    name: str, values: np.ndarray, problems: Problems, kind: str, classes: Sequence[str], missing: Missing
) -> Label | None:
    """Return a dense task and its labels, float64 with NaN where missing.

    Integers are class ids, of ``segmentation``, and other numbers ``dense_regression``, unless ``kind`` says otherwise.

    Args:
      name: of the array.
      values: [N, *shape] numbers.
      problems: where to note what is wrong.
      kind: the declared kind, or empty to infer it.
      classes: what the classes are called, in order of their ids; their number is else the largest id's.
      missing: what counts as missing, beside NaN, and −1 among class ids.
    """
    kind = kind or ("segmentation" if values.dtype.kind in "biu" else "dense_regression")
    if values.dtype.kind not in "biuf" or values.ndim < 2 or not KINDS[kind].dense:
        given = f"{values.dtype} {values.shape}, {kind}"
        right = ", ".join(k for k, v in KINDS.items() if v.dense)
        problems.add(f'labels "{name}": {given}: must be numbers [N, positions, …] of a kind that is dense: {right}')
        return None
    found = values.astype(np.float64)
    found[np.isin(values, np.asarray(list(missing.numbers), np.float64))] = np.nan
    count = 0
    if KINDS[kind].labels == "ids":
        there = np.unique(found[np.isfinite(found)])  # The door refuses what is infinite.
        most, before = [*(-1.0, -1.0), *there[-2:].tolist()][:-3:-1]
        count = len(classes) or max(2, int(most) + 1)
        if count > MAX_CLASSES or (not classes and most > before + 1):  # Such as 255 after 20, which many sets ignore.
            ways = f"declare missing=({most:g},) if it means missing, or classes= if it does not"
            problems.add(f'labels "{name}": class id {most:g}, and the next below it is {before:g}: {ways}')
            return None
    try:
        return Label(Task(name, kind, num_classes=count, shape=values.shape[1:]), found, tuple(classes))
    except ValueError as error:
        problems.add(str(error))
        return None
