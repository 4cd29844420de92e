"""From named columns to a table: which are inputs, which are labels, and everything wrong with them at once."""

from __future__ import annotations

import dataclasses
import fnmatch
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mtl.data.problems import DataError, Problems
from mtl.data.readers.cells import Missing, spelled
from mtl.data.readers.groups import read_groups
from mtl.data.readers.labels import class_names, read_input, read_label
from mtl.data.readers.maps import is_map, read_map
from mtl.data.readers.options import Labels, ReadOptions
from mtl.data.readers.part import read_part
from mtl.data.streamed import Streamed
from mtl.data.table import Table, make_table
from mtl.tasks import KINDS, suggest


@dataclasses.dataclass(frozen=True)
class Roles:
    """What each column is for.

    Args:
      inputs: names of input columns, in the file's order.
      labels: ``{column: kind}``, the kind empty where it is inferred.
      groups: the column whose equal cells make rows that no split may part, or empty.
      texts: columns to keep as texts, such as the paths of images.
      part: the column that says which rows are for training, validation and testing, or empty.
    """

    inputs: tuple[str, ...]
    labels: dict[str, str]
    groups: str = ""
    texts: tuple[str, ...] = ()
    part: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """Every column but the inputs, once."""
        return tuple(dict.fromkeys((*self.labels, *filter(None, (self.groups, self.part)), *self.texts)))

    @property
    def all(self) -> tuple[str, ...]:
        """Every column that has a role."""
        return (*self.inputs, *self.cells)


def choose(
    names: Sequence[str],
    labels: Labels,
    inputs: Sequence[str] | str = "*",
    ignore: Sequence[str] | str = (),
    groups: str = "",
    part: str = "",
) -> Roles:
    """Say which columns are labels and which are inputs.

    A name is taken as it is if there is such a column, and as a pattern (``*``, ``?``, ``[...]``) otherwise; readers
    spell the names of columns as ``mtl.data.readers.cells`` does, and those asked for are too.
    A pattern of inputs never takes a label, an ignored column, the groups' or the parts'.

    Args:
      names: the columns there are.
      labels: ``{column: kind}``, or a list of ``column`` or ``column:kind``; the kind is ``binary``,
        ``multiclass``, ``regression`` or left out, to be inferred.
      inputs: columns that are inputs; ``*`` for all that are nothing else.
      ignore: columns that are neither.
      groups: the column that says which rows belong together.
      part: the column that says which rows are for training, validation and testing.

    Raises:
      DataError: one sentence for each column name that repeats, declaration that matches nothing, column
        with two roles and kind that does not exist; and if no input or no label is left.

    >>> choose(["id", "a", "b", "y"], ["y:binary"], ignore="id")
    Roles(inputs=('a', 'b'), labels={'y': 'binary'}, groups='', texts=(), part='')
    """
    problems, columns = Problems(), list(names)
    first: dict[str, int] = {}
    for position, name in enumerate(columns, 1):
        if first.setdefault(name, position) != position:
            problems.add(f'column {position}: the name "{name}" is that of column {first[name]} too: names must differ')
        elif not name.strip():
            problems.add(f"column {position}: has no name: every column must have one")

    def known(name: str) -> str:
        return name if name in first else spelled(name) or name

    def matching(what: str, pattern: str) -> list[str]:
        rest = what == "inputs:" and pattern == "*"  # All that is nothing else, also beside a column of that name.
        found = [pattern] if pattern in first and not rest else fnmatch.filter(first, pattern)
        if not found:
            problems.add(f'{what} "{pattern}" is no column: {_near(pattern, columns)}')
        return found

    kinds: dict[str, str] = {}
    for pattern, kind in _declared(labels, columns):
        if kind and kind not in KINDS:
            problems.add(f'labels: "{pattern}" has kind "{kind}": {suggest(kind, KINDS)}')
            kind = ""
        for name in matching("labels:", known(pattern)):
            if kinds.get(name, kind) != kind and kind and kinds[name]:
                problems.add(f'labels: "{name}" is declared {kinds[name]} and {kind}: must be one')
            kinds[name] = kind or kinds.get(name, "")
    groups, part = known(groups), known(part)
    for role, name in (("groups", groups), ("part", part)):
        if name and name not in first:
            problems.add(f'{role}: "{name}" is no column: {_near(name, columns)}')
        if name in kinds:
            problems.add(f'{role}: "{name}" is a label too: must be one or the other')
    ignored = {n for p in _list(ignore) for n in matching("ignore:", known(p))}
    for name in sorted(ignored & kinds.keys()):
        problems.add(f'ignore: "{name}" is a label too: must be one or the other')
    taken: dict[str, None] = {}
    for pattern in map(known, _list(inputs)):
        for name in matching("inputs:", pattern) if columns else []:
            if name in kinds and name == pattern:
                problems.add(f'inputs: "{name}" is a label too: must be one or the other')
            if name == pattern or (name not in kinds and name not in ignored and name not in (groups, part)):
                taken[name] = None
    if not kinds and not problems.count:
        problems.add("labels: none: at least one column must be a label")
    if not taken and not problems.count:
        problems.add("inputs: none: at least one column must be an input")
    problems.stop()
    return Roles(tuple(n for n in columns if n in taken), kinds, groups, part=part)


def chosen_by(options: ReadOptions, names: Sequence[str]) -> Roles:
    """Return what ``choose`` does with a reader's options."""
    return choose(names, options.labels, options.inputs, options.ignore, options.groups, options.part)


def build(
    where: str,
    roles: Roles,
    inputs: np.ndarray | Streamed | Mapping[str, np.ndarray],
    cells: Mapping[str, np.ndarray],
    problems: Problems,
    at: Callable[[int], str],
    options: ReadOptions,
    reading: Mapping[str, object] | None = None,
    groups: np.ndarray | None = None,
    vocabulary: int | Mapping[str, int] | None = None,
    part: np.ndarray | None = None,
    columns: Sequence[str] = (),
) -> Table:
    """Check columns and make their table; every sentence of an error begins with ``where``.

    Args:
      where: what the data are called in errors, such as ``file "a.csv"``.
      roles: which columns are what.
      inputs: ``{column: [N]}`` for each of ``roles.inputs``; where there are none, x as ``make_table`` takes it.
      cells: ``{column: [N]}`` for each label, the groups and the parts.
      problems: those found so far; they are raised with those found here.
      at: what to call row i.
      options: what means missing, the classes, what to do with missing inputs, and the table's name and ``about``.
      reading, vocabulary: as in ``make_table``.
      groups, part: [N] integers, where they are no column.
      columns: names of x, where that is an array.

    Returns:
      The table. What was read as one value, or as two, on purpose is in ``Table.told``; what may not be meant so is
      warned of too.

    Raises:
      DataError: one sentence for everything that is wrong.
    """
    marks, declared = Missing(options.missing), class_names(options.classes)
    missing_inputs = options.missing_inputs
    declared = {c if c in roles.labels else spelled(c) or c: names for c, names in declared.items()}
    for column, given in declared.items():
        if len(set(given)) < len(given) or "" in given:
            problems.add(f'classes: those of "{column}" are {given}: names must differ, and not be blank')
        if column not in roles.labels:
            problems.add(f'classes: "{column}" is no label: {_near(column, list(roles.labels))}')
    if missing_inputs not in ("error", "flag"):
        problems.add(f'missing_inputs = "{missing_inputs}": must be "error" or "flag"')
    for column in roles.cells:
        for row, cell in enumerate(cells[column] if cells[column].dtype == object else ()):
            if hasattr(cell, "__len__") and not isinstance(cell, str | bytes):
                kind = type(cell).__name__
                problems.add(f'{at(row)}, column "{column}": holds a {kind}: must be a number or a text')
                problems.stop(where)
    tasks, values, names = [], {}, {}
    told: list[str] = []
    doubts: list[str] = []
    for column, kind in roles.labels.items():
        own = declared.get(column, ())
        if is_map(cells[column], kind):
            label = read_map(column, cells[column], problems, kind, own, marks)
        else:
            label = read_label(column, cells[column], problems, at, kind, own, marks)
        if label is not None:
            tasks.append(label.task)
            values[column] = label.values
            told += label.merged
            doubts += label.doubts
            if label.classes:
                names[column] = label.classes
    x: Any = inputs
    if roles.inputs and isinstance(inputs, Mapping):
        x = _inputs(inputs, missing_inputs, marks, problems, at)
    if roles.groups:
        together = read_groups(roles.groups.strip(), cells[roles.groups], marks)
        groups, told, doubts = together.codes, [*told, *together.merged], [*doubts, *together.doubts]
    if roles.part:
        part = read_part(roles.part.strip(), cells[roles.part], problems, at)
    problems.stop(where)
    try:
        columns = tuple(inputs) if roles.inputs and isinstance(inputs, Mapping) else tuple(columns)
        table = make_table(
            options.name,
            x,
            tasks,
            values,
            options.about,
            groups,
            names,
            columns,
            None,
            missing_inputs,
            reading,
            vocabulary,
            part,
        )
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    for doubt in doubts:
        warnings.warn(f"{where}: {doubt}", stacklevel=4)
    return dataclasses.replace(table, told=(*told, *doubts))


def _inputs(
    columns: Mapping[str, np.ndarray], policy: str, missing: Missing, problems: Problems, at: Callable[[int], str]
) -> np.ndarray:
    read = []
    for name, cells in columns.items():
        before = problems.count
        values = read_input(name, cells, problems, at, missing)
        absent = np.isnan(values)
        if policy != "flag" and absent.any() and problems.count == before:
            row = int(np.flatnonzero(absent)[0])
            right = 'missing_inputs="flag" takes the mean, and adds a column that says so'
            problems.add(f'{at(row)}, column "{name}": {int(absent.sum()):,} inputs missing, the first here: {right}')
        read.append(values)
    return np.stack(read, axis=1, dtype=np.float64, casting="same_kind") if read else np.zeros((0, 0))


def _declared(labels: Labels, columns: list[str]) -> list[tuple[str, str]]:
    if isinstance(labels, Mapping):
        return [(str(k), str(v or "")) for k, v in labels.items()]
    pairs, there = [], set(columns)
    for entry in _list(labels):
        column, colon, kind = entry.rpartition(":")
        whole = not colon or entry in there or spelled(entry) in there  # a column's own name may hold a colon
        pairs.append((entry, "") if whole else (column, kind.strip()))
    return pairs


def _list(names: Sequence[str] | str) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _near(name: str, columns: list[str]) -> str:
    shown = columns if len(columns) <= 20 else [*columns[:20], "…"]
    hint = suggest(name, columns).split("Valid:")[0]
    return f"{hint}Valid: {', '.join(shown)}"
