"""From a column of cells to a task and its labels: missing markers, kinds inferred or declared, class names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mtl.data.problems import Problems
from mtl.tasks import Task

#: Whole numbers of more distinct values than this are inferred to be a regression label.
MAX_INFERRED_CLASSES = 20

#: Texts of more distinct values than this are no label.
MAX_CLASSES = 1000

# Texts that usually mean "missing". Only NaN and blanks are taken so without a declaration; these are refused.
_SUSPECTS = frozenset({"?", "-", "na", "n/a", "null", "none", "missing", "<na>", "#n/a"})

_FLOAT32_MAX = float(np.finfo(np.float32).max)

Markers = Sequence[str | int | float]
ClassNames = Mapping[str, Sequence[str]] | Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Label:
    """One label column, read.

    Args:
      task: its task, the kind declared or inferred.
      values: [N] float64, NaN where missing; class ids for ``multiclass``.
      classes: names of the classes in order of their ids, unless they are just 0, 1, 2, ...
    """

    task: Task
    values: np.ndarray
    classes: tuple[str, ...] = ()


def number(cell: object) -> float | None:
    """Return the number that a cell holds, NaN for a missing one, or None for what is no number.

    >>> number(" 1e3 "), number("1_0"), number("cat"), number(True)
    (1000.0, None, None, 1.0)
    """
    if isinstance(cell, str):
        if "_" in cell:  # Python reads 1_0 as 10, other programs do not
            return None
        try:
            return float(cell)
        except ValueError:
            return math.nan if not cell.strip() else None
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):  # of pandas, which is not imported for this
        return math.nan
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def text(cell: object) -> str:
    """Return a cell as a class name: whole numbers without a point.

    >>> text(3.0), text(" cat "), text(0.5), text(True)
    ('3', 'cat', '0.5', '1')
    """
    if isinstance(cell, str):
        return cell.strip()
    value = number(cell)
    if value is None:
        return str(cell)
    return str(int(value)) if abs(value) < 1e15 and value == math.floor(value) else repr(value)


class Missing:
    """What counts as missing: blanks, NaN and None always, and the markers that were declared.

    >>> missing = Missing(("?", -1))
    >>> [missing(cell) for cell in ("?", "-1.0", " ", None, "0")]
    [True, True, True, True, False]
    """

    def __init__(self, markers: Markers | str = ()) -> None:
        """Read the markers: a text, or a number in any spelling."""
        given = [markers] if isinstance(markers, str) else list(markers)
        self.texts = frozenset(text(m) for m in given)
        values = {number(m) for m in given}
        self.numbers = frozenset(v for v in values if v is not None and not math.isnan(v))

    def __call__(self, cell: object) -> bool:
        """Return whether a cell is missing."""
        value = number(cell)
        if value is None:
            return text(cell) in self.texts
        return math.isnan(value) or value in self.numbers or (isinstance(cell, str) and cell.strip() in self.texts)


def class_names(classes: ClassNames) -> dict[str, tuple[str, ...]]:
    """Return declared classes as ``{column: names}``; a list holds (column, name, name, ...).

    >>> class_names([("pet", "cat", "dog")])
    {'pet': ('cat', 'dog')}
    """
    if isinstance(classes, Mapping):
        return {str(k): tuple(text(n) for n in v) for k, v in classes.items()}
    return {str(entry[0]): tuple(text(n) for n in entry[1:]) for entry in classes if len(entry)}


def read_label(
    name: str,
    cells: np.ndarray,
    problems: Problems,
    at: Callable[[int], str],
    kind: str = "",
    classes: tuple[str, ...] = (),
    missing: Missing | None = None,
) -> Label | None:
    """Return a column's labels, or note what is wrong with them.

    With the missing cells left out, and unless ``kind`` says otherwise: numbers that are all 0 or 1, or two
    distinct values, are ``binary``; whole numbers of at most ``MAX_INFERRED_CLASSES`` distinct values, or
    texts, are ``multiclass``; other numbers are ``regression``. Class ids follow the sorted values (numbers as
    numbers) unless ``classes`` gives their order. What could be a missing marker that nobody declared (−1
    as the only negative of whole numbers; "?" or "NA" among texts; a text among numbers) is refused.

    Args:
      name: of the column and of the task.
      cells: [N] numbers, booleans or objects (texts).
      problems: where to note what is wrong.
      at: what to call row i, such as ``line 7``.
      kind: the declared kind, or empty to infer it.
      classes: the declared classes, in order of their ids.
      missing: what counts as missing.

    Returns:
      The label, or None if there are problems.
    """
    import pandas as pd  # here: it takes 0.2 s to import, and not every study needs it

    before, missing = problems.count, missing or Missing()
    codes, distinct = pd.factorize(cells)  # −1 for NaN and None
    absent = np.array([missing(cell) for cell in distinct] + [True])  # the last is that of code −1
    present = ~absent[codes]
    if not present.any():
        problems.add(f'column "{name}": all {len(cells):,} labels are missing')
        return None
    kept = [i for i, gone in enumerate(absent[:-1]) if not gone]
    ids: dict[int, float] = {}
    values = {i: number(distinct[i]) for i in kept}
    names: tuple[str, ...] = ()

    def refuse(index: int, why: str) -> None:
        rows = np.flatnonzero(codes == index)
        for count, row in enumerate(rows):
            if problems.full:
                return problems.more(len(rows) - count)
            problems.add(f'{at(int(row))}, column "{name}": label {distinct[index]}: {why}')

    if classes:
        kind = kind or ("binary" if len(classes) == 2 else "multiclass")
        names = classes
        for i in kept:
            found = [c for c, n in enumerate(classes) if _same(n, distinct[i])]
            if found:
                ids[i] = found[0]
            else:
                refuse(i, f"must be one of {', '.join(classes)}, or missing")
    elif kind == "regression":
        ids = _numbers(kept, values, refuse)
    elif kind == "binary" and any(v is not None for v in values.values()):
        for i in kept:
            if values[i] not in (0.0, 1.0):
                refuse(i, "must be 0, 1 or missing (declare markers in missing=, or both classes in classes=)")
        ids = {i: values[i] or 0.0 for i in kept}
    else:
        kind, ids, names = _inferred(name, kind, kept, values, [text(d) for d in distinct], problems, refuse)
    if problems.count > before:
        return None
    try:
        count = len(names) or len(set(ids.values()))
        task = Task(name, kind, num_classes=count if kind == "multiclass" else 0)  # type: ignore[arg-type]
    except ValueError as error:
        problems.add(f'column "{name}": {error}')
        return None
    table = np.array([ids.get(i, math.nan) for i in range(len(distinct))] + [math.nan])
    plain = names == tuple(str(i) for i in range(len(names)))
    return Label(task, table[codes], () if plain else names)


def _same(name: str, cell: object) -> bool:
    value, other = number(cell), number(name)
    return name == text(cell) or (value is not None and value == other)


def _numbers(
    kept: list[int], values: Mapping[int, float | None], refuse: Callable[[int, str], None]
) -> dict[int, float]:
    ids = {}
    for i in kept:
        value = values[i]
        if value is None:
            refuse(i, "must be a number, or missing (declare markers in missing=)")
        elif not abs(value) <= _FLOAT32_MAX:
            refuse(i, "must be finite in float32")
        else:
            ids[i] = value
    return ids


def _inferred(
    name: str,
    kind: str,
    kept: list[int],
    values: Mapping[int, float | None],
    texts: list[str],
    problems: Problems,
    refuse: Callable[[int, str], None],
) -> tuple[str, dict[int, float], tuple[str, ...]]:
    """Return (kind, ids of the distinct values, class names) of classes that nobody listed."""
    numeric = [v for v in values.values() if v is not None]
    if len(numeric) == len(kept):
        whole = all(math.isfinite(v) and v == math.floor(v) for v in numeric)
        there = sorted(set(numeric))
        if not kind and (not whole or (len(there) > MAX_INFERRED_CLASSES and there[0] >= 0)):
            return "regression", _numbers(kept, values, refuse), ()
        if whole and there[0] == -1 and (len(there) == 1 or there[1] >= 0):
            what = 'missing=("-1",) if it means missing, or classes= (or kind "regression") if it does not'
            problems.add(f'column "{name}": is -1, its only negative label, missing or a value? declare {what}')
            return kind, {}, ()
        if not kind and len(there) > MAX_INFERRED_CLASSES:
            return "regression", _numbers(kept, values, refuse), ()
        if not kind and set(there) <= {0.0, 1.0}:
            return "binary", {i: values[i] or 0.0 for i in kept}, ()
        if not all(map(math.isfinite, there)):
            return kind, _numbers(kept, values, refuse), ()
        order = {v: rank for rank, v in enumerate(there)}
        names = tuple(text(v) for v in there)
        ids = {i: float(order[values[i]]) for i in kept}  # type: ignore[index]
    else:
        for i in kept if not kind else []:
            if texts[i].lower() in _SUSPECTS:
                refuse(i, f'declare missing=("{texts[i]}",) if it means missing, or classes= if it does not')
            elif numeric and values[i] is None:
                refuse(i, "a text among numbers: declare it in missing=, or give the kind")
        names = tuple(sorted({texts[i] for i in kept}))
        lower = {n.lower(): n for n in reversed(names)}
        for n in names:
            if lower[n.lower()] != n:
                problems.add(f'column "{name}": labels "{lower[n.lower()]}" and "{n}" differ in case only')
        ids = {i: float(names.index(texts[i])) for i in kept} if len(names) <= MAX_CLASSES else {}
    if len(names) > MAX_CLASSES:
        problems.add(f'column "{name}": {len(names):,} distinct labels: must be at most {MAX_CLASSES:,} to be classes')
    if len(names) < 2 or (kind == "binary" and len(names) > 2):
        which = "two" if kind == "binary" else "two or more"
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        problems.add(
            f'column "{name}": {len(names)} distinct labels ({shown}): must be {which}, or classes= must say all'
        )
    return kind or ("binary" if len(names) == 2 else "multiclass"), ids, names


def read_input(
    name: str, cells: np.ndarray, problems: Problems, at: Callable[[int], str], missing: Missing
) -> np.ndarray:
    """Return an input column as float64, NaN where missing, noting cells that are no finite number.

    Args:
      name: of the column.
      cells: [N] numbers, booleans or objects (texts).
      problems: where to note what is wrong.
      at: what to call row i.
      missing: what counts as missing.
    """
    if cells.dtype.kind in "biuf":
        values = cells.astype(np.float64)
        if missing.numbers:
            values[np.isin(values, list(missing.numbers))] = np.nan
        bad = np.abs(values) > _FLOAT32_MAX
    else:
        read = [math.nan if missing(cell) else number(cell) for cell in cells] if len(cells) else []
        bad = np.array([v is None or abs(v) > _FLOAT32_MAX for v in read], dtype=bool)
        values = np.array([math.nan if v is None else v for v in read], dtype=np.float64)
    rows = np.flatnonzero(bad)
    for count, row in enumerate(rows):
        if problems.full:
            problems.more(len(rows) - count)
            break
        problems.add(f'{at(int(row))}, column "{name}": "{cells[row]}": must be a number, finite in float32')
    return np.where(bad, 0.0, values)  # so that nothing after it says the same again
