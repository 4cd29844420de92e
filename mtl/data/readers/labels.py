"""From a column of cells to a task and its labels: missing markers, kinds inferred or declared, class names."""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

import numpy as np

from mtl.data.problems import Problems
from mtl.data.readers.cells import Missing, canonical, folded, number, plain, quantity, spelled
from mtl.data.readers.polarity import ordered
from mtl.tasks import KINDS, Task

#: Whole numbers of more distinct values than this are inferred to be a regression label.
MAX_INFERRED_CLASSES = 20

#: Whole numbers of more distinct values than this are too if most of them are there once.
FEW_CLASSES = 10

#: Texts of more distinct values than this are no label.
MAX_CLASSES = 1000

#: Texts that usually mean "missing". None is taken so without a declaration, but for NaN among numbers.
SUSPECTS = frozenset({"?", "-", "na", "n/a", "nan", "null", "none", "missing", "<na>", "#n/a"})

_FLOAT32_MAX = float(np.finfo(np.float32).max)

ClassNames = Mapping[str, Sequence[str]] | Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Label:
    """One label column, read.

    Args:
      task: its task, the kind declared or inferred.
      values: [N] float64, NaN where missing; class ids for ``multiclass``.
      classes: names of the classes in order of their ids, unless they are just 0, 1, 2, ...
      merged: sentences on cells that were spelled in several ways and are one class.
      doubts: sentences on classes that may be meant as one.
    """

    task: Task
    values: np.ndarray
    classes: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def class_names(classes: ClassNames) -> dict[str, tuple[str, ...]]:
    """Return declared classes as ``{column: names}``; a list holds (column, name, name, ...).

    >>> class_names([("pet", "cat", "dog")])
    {'pet': ('cat', 'dog')}
    """
    if isinstance(classes, Mapping):
        classes = [(k, *v) for k, v in classes.items()]
    return {str(entry[0]): tuple(_name(n) for n in entry[1:]) for entry in classes if len(entry)}


def _name(given: object) -> str:
    text = spelled(given) or ""
    return text if isinstance(given, str) else plain(text) or text


def distinct_cells(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (for each cell the number of its kind, −1 if missing; the distinct kinds in order of appearance).

    Cells that pandas takes for one, as True, 1 and 1.0, are kept apart by their spelling where they come together.
    """
    import pandas as pd  # here: it takes 0.2 s to import, and not every study needs it

    if cells.dtype == object and pd.api.types.infer_dtype(cells, skipna=True) not in ("string", "boolean", "empty"):
        cells = np.array([spelled(cell) for cell in cells] + [None], dtype=object)[:-1]
    codes, distinct = pd.factorize(cells)
    return codes, np.asarray(distinct)


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
    distinct values, are ``binary``; whole numbers of at most ``MAX_INFERRED_CLASSES`` distinct values (of
    ``FEW_CLASSES`` where they are more than half as many as the labels), or texts, are ``multiclass``; other numbers
    are ``regression``. Class ids follow the sorted values (numbers as numbers; of two words such as "ja" and "nein" the
    one that says yes is 1, see ``mtl.data.readers.polarity``) unless ``classes`` gives their order. What could be a
    missing marker that nobody declared (−1 as the only negative of whole numbers; "?", "NA" or "nan" among texts; a
    text among numbers) is refused; so are classes that differ in case only.

    Args:
      name: of the column and of the task.
      cells: [N] numbers, booleans or objects (texts); what they mean, see ``mtl.data.readers.cells``.
      problems: where to note what is wrong.
      at: what to call row i, such as ``line 7``.
      kind: the declared kind, or empty to infer it.
      classes: the declared classes, in order of their ids; never missing, whatever they are called.
      missing: what counts as missing.

    Returns:
      The label, or None if there are problems.
    """
    before, missing = problems.count, missing or Missing()
    codes, distinct = distinct_cells(cells)
    values: dict[int, float | None] = {}
    if _labels(kind) == "numbers" or (not kind and not classes and len(distinct) > MAX_CLASSES):
        values = dict(enumerate(_numbers(distinct, missing)))
        kind = kind or _measured(values, distinct)
    if _labels(kind) == "numbers":
        texts = ["" if v is None or not math.isnan(v) else None for v in values.values()]
    else:
        texts = canonical(list(distinct), missing, classes)
        if all(isinstance(cell, bool | np.bool_) for cell in distinct) and not {"True", "False"} & set(classes):
            texts = [t and {"True": "1", "False": "0"}.get(t) for t in texts]
    absent = np.array([t is None for t in texts] + [True])  # the last is that of code −1
    if absent[codes].all():
        problems.add(f'column "{name}": all {len(cells):,} labels are missing')
        return None
    found = _Found(name, {i: t for i, t in enumerate(texts) if t is not None}, distinct, codes, problems, at)
    names: tuple[str, ...] = ()
    if _labels(kind) == "numbers":
        ids = found.numbers({i: values[i] for i in found.texts})
    elif classes:
        kind = kind or ("binary" if len(classes) == 2 else "multiclass")
        names, ids = classes, found.among(classes)
    else:
        kind, ids, names = found.inferred(kind)
    found.tell()
    if problems.count > before:
        return None
    try:
        count = len(names) or len(set(ids.values()))
        task = Task(name, kind, num_classes=count if KINDS[kind].labels == "ids" else 0)
    except ValueError as error:
        problems.add(f'column "{name}": {error}')
        return None
    table = np.array([ids.get(i, math.nan) for i in range(len(distinct))] + [math.nan])
    named = () if names == tuple(str(i) for i in range(len(names))) else names
    if _labels(kind) == "numbers":
        return Label(task, table[codes])
    return Label(task, table[codes], named, found.merged(), () if classes else found.doubts(names))


def _labels(kind: str) -> str:
    """Return what the labels of a kind are; empty for a kind that is not known yet."""
    return KINDS[kind].labels if kind else ""


@dataclasses.dataclass(frozen=True)
class _Found:
    """The distinct cells of a label column that are present.

    Args:
      name: of the column.
      texts: the canonical value of each, by its number.
      distinct: the cells as they stand.
      codes: [N], the number of each cell.
      problems, at: as in ``read_label``.
      refused: ``{reason: cells}``.
    """

    name: str
    texts: dict[int, str]
    distinct: np.ndarray
    codes: np.ndarray
    problems: Problems
    at: Callable[[int], str]
    refused: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    def refuse(self, index: int, why: str) -> None:
        """Refuse a cell; ``tell`` says it."""
        self.refused.setdefault(why, []).append(index)

    def tell(self) -> None:
        """Note a problem for each reason for which cells were refused."""
        for why, indices in self.refused.items():
            rows = np.flatnonzero(np.isin(self.codes, indices))
            first = int(self.codes[rows[0]])
            also = ", ".join(str(self.distinct[i])[:40] for i in indices[:4] if i != first)
            also = f" ({also})" if also else ""
            more = f"; {told_more(len(rows) - 1)}{also}" if len(rows) > 1 else ""
            self.problems.add(
                f'{self.at(int(rows[0]))}, column "{self.name}": label {self.distinct[first]}: {why}{more}'
            )

    def numbers(self, values: Mapping[int, float | None]) -> dict[int, float]:
        """Return the numbers, refusing what is none."""
        for i, value in values.items():
            if value is None:
                self.refuse(i, "must be a number, or missing (declare markers in missing=)")
            elif not abs(value) <= _FLOAT32_MAX:
                self.refuse(i, "must be finite in float32")
        return {i: v for i, v in values.items() if v is not None}

    def among(self, classes: tuple[str, ...]) -> dict[int, float]:
        """Return the ids of declared classes, refusing what is none of them."""
        ids = {}
        for i, text in self.texts.items():
            if text in classes:
                ids[i] = float(classes.index(text))
            else:
                self.refuse(i, f"must be one of {', '.join(classes)}, or missing")
        return ids

    def inferred(self, kind: str) -> tuple[str, dict[int, float], tuple[str, ...]]:
        """Return (kind, ids of the distinct cells, class names) of classes that nobody listed."""
        values = {i: number(t) for i, t in self.texts.items()}
        plains = {i for i, t in self.texts.items() if plain(t) is not None}
        if _labels(kind) == "binary" and plains:
            for i, value in values.items():
                if i not in plains or value not in (0.0, 1.0):
                    why = "must be 0, 1 or missing (declare markers in missing=, or both classes in classes=)"
                    self.refuse(i, why)
            return kind, {i: v or 0.0 for i, v in values.items()}, ()
        if any(v is None for v in values.values()) or not any(quantity(t) is not None for t in self.texts.values()):
            return self._texts(kind)
        exact = {i: quantity(t) for i, t in self.texts.items()}
        whole = all(q is not None and q == q.to_integral_value() for q in exact.values())
        there = sorted({q for q in exact.values() if q is not None})
        rows = int(np.isin(self.codes, list(self.texts)).sum())
        many = len(there) > (MAX_INFERRED_CLASSES if 2 * len(there) <= rows else FEW_CLASSES)
        if not kind and whole and many and len(plains) < len(values):
            code = next(t for i, t in self.texts.items() if i not in plains)
            self.problems.add(
                f'column "{self.name}": is "{code}" a code or a number? declare its kind, multiclass or regression'
            )
            return kind, {}, ()
        if not whole and (not kind or any(q is None for q in exact.values())):
            return kind or "regression", self.numbers(values), ()
        if whole and len(plains) == len(values) and there[0] == -1 and (len(there) == 1 or there[1] >= 0):
            what = 'missing=("-1",) if it means missing, or classes= (or kind "regression") if it does not'
            self.problems.add(
                f'column "{self.name}": is -1, its only negative label, missing or a value? declare {what}'
            )
            return kind, {}, ()
        if not kind and many:
            return "regression", self.numbers(values), ()
        if len(plains) < len(values):
            return self._texts(kind)
        if not kind and set(there) <= {0, 1}:
            return "binary", {i: values[i] or 0.0 for i in values}, ()
        return self._ranked(kind, sorted(set(self.texts.values()), key=Decimal))

    def _texts(self, kind: str) -> tuple[str, dict[int, float], tuple[str, ...]]:
        """Return what classes that are texts come to."""
        numeric = any(plain(t) is not None for t in self.texts.values())
        for i, text in self.texts.items():
            if text.lower() in SUSPECTS:
                self.refuse(i, f'declare missing=("{text}",) if it means missing, or classes= if it does not')
            elif numeric and number(text) is None and not kind:
                self.refuse(i, "a text among numbers: declare it in missing=, or give the kind")
        names = sorted(set(self.texts.values()))
        if set(names) <= {"False", "True"}:  # Two classes, also where only one of them is seen.
            names = ["False", "True"]
        names = list(ordered(names)) or names
        first: dict[str, str] = {}
        for n in names:
            if (other := first.setdefault(folded(n), n)) != n:
                how = "in case only" if other.lower() == n.lower() else "only in blanks, case or kinds of characters"
                self.problems.add(f'column "{self.name}": labels "{other}" and "{n}" differ {how}')
        return self._ranked(kind, names)

    def _ranked(self, kind: str, names: list[str]) -> tuple[str, dict[int, float], tuple[str, ...]]:
        if len(names) > MAX_CLASSES:
            self.problems.add(
                f'column "{self.name}": {len(names):,} distinct labels: must be at most {MAX_CLASSES:,} to be classes'
            )
        if len(names) < 2 or (_labels(kind) == "binary" and len(names) > 2):
            which = "two" if _labels(kind) == "binary" else "two or more"
            shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            given = f"{len(names)} distinct labels ({shown})"
            self.problems.add(f'column "{self.name}": {given}: must be {which}, or classes= must say all')
        rank = {n: float(i) for i, n in enumerate(names)}
        ids = {i: rank[t] for i, t in self.texts.items()}
        return kind or ("binary" if len(names) == 2 else "multiclass"), ids, tuple(names)

    def merged(self) -> tuple[str, ...]:
        """Return a sentence if cells that are spelled in several ways are one class."""
        return told_merged(f'column "{self.name}"', "class", [(self.distinct[i], t) for i, t in self.texts.items()])

    def doubts(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return a sentence if several classes could be read as one number."""
        first: dict[Decimal, str] = {}
        for n in names:
            q = quantity(n)
            if q is not None and (other := first.setdefault(q, n)) != n:
                return (f'column "{self.name}": "{other}" and "{n}" are two classes, though one number',)
        return ()


def told_more(rows: int) -> str:
    """Return what follows the first of several rows.

    >>> told_more(1), told_more(12072)
    ('1 more row', '12,072 more rows')
    """
    return f"{rows:,} more row{'s' if rows != 1 else ''}"


def told_merged(where: str, what: str, pairs: Iterable[tuple[object, str]]) -> tuple[str, ...]:
    """Return a sentence that says which cells, spelled in several ways, are one value; nothing if none are.

    Args:
      where: which column.
      what: what the value is, ``class`` or ``group``.
      pairs: (cell, its value).
    """
    ways: dict[str, list[str]] = {}
    for cell, value in pairs:
        ways.setdefault(value, []).append(str(cell))
    several = [sorted(w) for w in ways.values() if len(w) > 1]
    if not several:
        return ()
    one, two = sorted(several)[0][:2]
    alike = not (one + two).isprintable() or unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", two)
    seen = f"{one!a} and {two!a}" if alike else f'"{one}" and "{two}"'
    more = f", and {len(several) - 1:,} more such" if len(several) > 1 else ""
    return (f"{where}: {seen} are one {what}{more}",)


def _numbers(cells: np.ndarray, missing: Missing) -> list[float | None]:
    if cells.dtype.kind not in "biuf":
        return [missing.number(cell) for cell in cells]
    values = cells.astype(np.float64)
    with np.errstate(over="ignore"):  # In the cells' own dtype: −999.9 in float32 is another number in float64.
        markers = np.asarray(list(missing.numbers), cells.dtype if cells.dtype.kind == "f" else np.float64)
    values[np.isin(cells, markers)] = np.nan
    return values.tolist()


def _measured(values: Mapping[int, float | None], distinct: np.ndarray) -> str:
    """Return ``regression`` for so many numbers that they are no classes, unless some may be codes or a marker."""
    there = [v for v in values.values() if v is None or not math.isnan(v)]
    if any(v is None or math.isinf(v) for v in there):
        return ""
    whole = all(v == math.floor(v) for v in there)  # type: ignore[arg-type]
    codes = distinct.dtype.kind not in "biuf" and any(plain(spelled(cell) or "0") is None for cell in distinct)
    return "" if whole and (codes or min(there, default=-1) == -1) else "regression"  # type: ignore[type-var]


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
    values, bad = input_numbers(cells, missing)
    if len(rows := np.flatnonzero(bad)):
        problems.add(told_bad(name, at(int(rows[0])), cells[rows[0]], len(rows)))
    return values


def input_numbers(cells: np.ndarray, missing: Missing) -> tuple[np.ndarray, np.ndarray]:
    """Return (cells as float64, NaN where missing and 0 where they are no finite number; which are none)."""
    values = np.array([math.inf if v is None else v for v in _numbers(cells, missing)], dtype=np.float64)
    bad = np.abs(values) > _FLOAT32_MAX
    return np.where(bad, 0.0, values), bad  # 0, so that nothing after it says the same again.


def told_bad(name: str, first: str, cell: object, rows: int) -> str:
    """Return what to say of a column of numbers with cells that are none.

    >>> told_bad("age", "line 3", "old", 2)
    'line 3, column "age": "old": must be a number, finite in float32; 1 more row'
    """
    more = f"; {told_more(rows - 1)}" if rows > 1 else ""
    return f'{first}, column "{name}": "{cell}": must be a number, finite in float32{more}'
