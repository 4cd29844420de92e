"""Tables of mixed columns: numbers, booleans, categories, dates, short texts; from a file or a DataFrame.

Every input column is taken for one kind (see ``kinds``) and encoded as numbers (see ``encoder``). Nothing that is found
out uses labels; levels, formats and which columns are dropped are those of all rows, the scaling is of the training
rows alone, as ever (``mtl.data.scaling``).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np

from mtl.data.paths import read, resolve
from mtl.data.problems import DataError, Problems, located
from mtl.data.readers.cells import Missing, number
from mtl.data.readers.columns import Roles, build, chosen_by
from mtl.data.readers.csv_file import read_columns, stem
from mtl.data.readers.encoder import Bins, Cells, Column, encode, to_json
from mtl.data.readers.figures import decimal_of, figures, unit_of, units
from mtl.data.readers.frames import read_frame
from mtl.data.readers.kinds import Kinds, Rules, decide, declared, mostly
from mtl.data.readers.leaks import copied, leaks
from mtl.data.readers.options import ReadOptions, reader
from mtl.data.readers.parquet import parquet_frame
from mtl.data.readers.sheet import decoded, delimiter_of, excel_frame, kind_of_file
from mtl.data.table import Table
from mtl.ranges import Count, Range
from mtl.tasks import KINDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameOptions(ReadOptions):
    """Options of ``mixed_frame``.

    Args:
      missing_inputs: ``flag``, the default: one more input for each column that lacks any, 1 where it does; numbers are
        then the mean of the training rows; or ``error``.
      kinds: ``{column: kind}`` or a list of ``column:kind``, for input columns that are not to be taken for what their
        cells look like: ``number``, ``boolean``, ``category``, ``date`` (``date:%d.%m.%Y`` with its format), ``text``.
      decimal: the decimal mark of numbers that are texts, ``.`` or ``,``; what their cells say by default.
      levels: the most levels of a category that have an input of their own; 32 by default.
      rare: levels of a category in fewer rows than this share one input; 3 by default.
      bins: inputs that the words of a text are hashed into; 64 by default.
    """

    missing_inputs: str = "flag"
    kinds: Kinds = ()
    decimal: Literal["", ".", ","] = ""
    levels: Count = 32
    rare: Annotated[int, Range(1)] = 3
    bins: Bins = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixedOptions(FrameOptions):
    """Options of ``mixed_table``.

    Args:
      delimiter: what parts the cells of a text file; what the file seems to have by default.
      encoding: of a text file, as ``latin-1``; found out by default.
    """

    delimiter: str = ""
    encoding: str = ""


@dataclasses.dataclass(frozen=True)
class Sheet:
    """The cells of a table, whatever it lay in.

    Args:
      where: what to call it.
      roles: what each column is for.
      cells: ``{column: [N]}`` of each that has a role.
      at: what to call row i.
      problems: those found so far.
      options: of the reader, with what the columns themselves declare: a name, kinds, classes in order.
      likely: the decimal mark where no cell says.
      told: what was found out about the file.
    """

    where: str
    roles: Roles
    cells: Mapping[str, np.ndarray]
    at: Callable[[int], str]
    problems: Problems
    options: FrameOptions
    likely: Literal[".", ","] = "."
    told: tuple[str, ...] = ()


@reader(MixedOptions)
def mixed_table(path: str, options: MixedOptions) -> Table:
    """Return the table of a file with columns of all kinds: .csv, .tsv, .txt (also .gz), .xlsx or .parquet.

    What parts the cells of a text file, its encoding and its decimal mark are found out; so is what each input column
    is taken for. All of it is said in ``Table.told``, with the option that changes it. Categories are 0/1 inputs, a
    date is its days and where it is in the year, the words of a text are hashed. How cells are encoded travels with a
    model (``Table.reading["encoder"]``), so that ``predict`` takes rows as they are.

    Args:
      path: of the file, inside the data directory.
      options: see ``MixedOptions``; given by name.

    Raises:
      DataError: for everything that is wrong, one sentence a column.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "pets.csv").write_text("kg;sex;ill\\n4,1;f;ja\\n9,5;m;nein\\n3,9;f;ja\\n")
    ...     table = mixed_table("pets.csv", labels="ill", directory=folder, rare=1)
    >>> table.columns, table.x[1].tolist(), table.labels["ill"].tolist(), table.classes["ill"]
    (('kg', 'sex=f', 'sex=m'), [9.5, 0.0, 1.0], [1.0, 0.0, 1.0], ('nein', 'ja'))
    """
    full = resolve(path, options.directory)
    return _table(read_sheet(full, options, lambda names: chosen_by(options, names)))


@reader(FrameOptions, without=("directory", "sha256", "max_bytes"))
def mixed_frame(frame: Any, options: FrameOptions) -> Table:
    """Return the table of a DataFrame with columns of all kinds; see ``mixed_table``.

    A column of pandas' ``category`` is taken for one, and what a column of texts holds is found out as in a file.

    Args:
      frame: the DataFrame; columns are named by texts.
      options: see ``FrameOptions``; given by name.

    Raises:
      DataError: for everything that is wrong, one sentence a column.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"sex": ["f", "m", "f"], "old": [True, False, True], "ill": [0, 1, 1]})
    >>> mixed_frame(frame, "ill", rare=1).columns
    ('sex=f', 'sex=m', 'old')
    """
    name = options.name or "frame"
    return _table(_frame_sheet(frame, f'data "{name}"', name, options, lambda names: chosen_by(options, names)))


def read_sheet(path: pathlib.Path, options: MixedOptions, choose_roles: Callable[[list[str]], Roles]) -> Sheet:
    """Read the cells of a file.

    Args:
      path: of the file, as it was resolved.
      options: what the file may be.
      choose_roles: from the names of the columns to their roles.

    Raises:
      DataError: for a file that cannot be read, and what ``choose_roles`` refuses.
    """
    where, kind = f'file "{path.name}"', kind_of_file(path)
    if kind == "parquet":
        frame, roles = parquet_frame(path, options, choose_roles)
        return _frame_sheet(frame, where, stem(path), options, lambda names: roles)
    data = read(path, options.sha256, options.max_bytes)
    if kind == "excel":
        return _frame_sheet(excel_frame(data, path.name, options.max_bytes), where, stem(path), options, choose_roles)
    text, encoding = decoded(data, path.name, options.encoding)
    delimiter = options.delimiter or delimiter_of(text)
    columns = read_columns(path, options, lambda names: _as_texts(choose_roles(names)), delimiter, text, "column {}")
    told = () if encoding in ("utf-8", options.encoding) else (f"{where}: read as {encoding}; encoding= changes that",)
    return Sheet(
        where,
        dataclasses.replace(columns.roles, inputs=columns.roles.texts, texts=()),
        columns.cells,
        columns.at,
        columns.problems,
        dataclasses.replace(options, name=options.name or columns.name),
        "," if delimiter == ";" else ".",
        told,
    )


def _as_texts(roles: Roles) -> Roles:
    """Return roles by which inputs are kept as texts."""
    return dataclasses.replace(roles, inputs=(), texts=roles.inputs)


def _frame_sheet(
    frame: Any, where: str, name: str, options: FrameOptions, choose_roles: Callable[[list[str]], Roles]
) -> Sheet:
    """Return the cells of a DataFrame."""
    roles, cells, options = read_frame(frame, options, where, choose_roles)
    given = options.kinds
    if isinstance(given, Mapping):
        given = [f"{k}:{v}" for k, v in given.items()]
    entries = [given] if isinstance(given, str) else given
    categories = [c for c in roles.inputs if str(frame.dtypes.get(c)) == "category"]
    options = dataclasses.replace(
        options, name=options.name or name, kinds=(*(f"{c}:category" for c in categories), *entries)
    )
    return Sheet(where, roles, cells, lambda row: f"row {row}", Problems(), options)


def _table(sheet: Sheet) -> Table:
    """Return the table of a sheet."""
    options, roles, problems, missing = sheet.options, sheet.roles, sheet.problems, Missing(sheet.options.missing)
    kinds = declared(options.kinds, roles.inputs, problems)
    cells = {name: Cells.of(sheet.cells[name], missing) for name in roles.inputs}
    rules = Rules(kinds, options.decimal, sheet.likely, options.levels, options.rare, options.bins)
    columns, decisions = decide(cells, rules)
    names = [feature for column in columns for feature in column.features]
    with located(sheet.where):
        _check(columns, cells, options, problems)
    x, _ = encode(columns, cells, problems, sheet.at) if names else (np.zeros((1, 1)), [])
    columns = _filled(columns, x)
    labels = {name: _label_cells(sheet.cells[name], kind, missing, rules) for name, kind in roles.labels.items()}
    table = build(
        sheet.where,
        dataclasses.replace(roles, inputs=()),
        x,
        {**sheet.cells, **labels},
        problems,
        sheet.at,
        options,
        {"encoder": to_json(columns), "missing": sorted(missing.texts)},
        columns=names,
    )
    decisions = [*sheet.told, *decisions, *(_label_told(table, task.name) for task in table.tasks)]
    said = [*leaks(table, columns), *copied(table)]
    return dataclasses.replace(table, told=(*decisions, *table.told, *said), decided=len(decisions))


def _check(columns: Sequence[Column], cells: Mapping[str, Cells], options: FrameOptions, problems: Problems) -> None:
    """Note what is wrong with what columns become: nothing, two of one name, too large, cells missing."""
    owners: dict[str, str] = {}
    for column in columns:
        for feature in column.features:
            if (other := owners.setdefault(feature, column.name)) != column.name:
                problems.add(f'columns "{other}" and "{column.name}" would both be the input "{feature}": rename one')
        lacking = 0 if not column.features else int((~cells[column.name].there).sum())
        if lacking and options.missing_inputs == "error":
            right = 'missing_inputs="flag" takes the mean, and adds an input that says so'
            problems.add(f'column "{column.name}": {lacking:,} inputs missing: {right}')
    rows = max((len(own.codes) for own in cells.values()), default=0)
    if not owners:
        problems.add("inputs: none is left: every input column is an id or constant; kinds= keeps one")
    elif 8 * rows * len(owners) > options.max_bytes:
        size = f"{rows:,} rows of {len(owners):,} inputs"
        raise DataError(f"{size}: must be at most max_bytes = {options.max_bytes:,} in float64; lower bins= or levels=")


def _filled(columns: Sequence[Column], x: np.ndarray) -> list[Column]:
    """Return columns with the mean that stands for a cell that is missing later."""
    found, place = [], 0
    for column in columns:
        if column.kind in ("number", "boolean", "date"):
            there = x[:, place][~np.isnan(x[:, place])]
            column = dataclasses.replace(column, fill=float(there.mean()) if len(there) else 0.0)
        place += len(column.features)
        found.append(column)
    return found


def _label_cells(cells: np.ndarray, kind: str, missing: Missing, rules: Rules) -> np.ndarray:
    """Return a label column's cells, those that are figures (``1.234,5``, ``12 %``) as numbers."""
    seen = Cells.of(cells, missing)
    if seen.numbers is not None or (kind and KINDS[kind].labels != "numbers"):
        return cells
    if all(number(text) is not None for text in seen.texts):
        return cells
    mark = rules.decimal or decimal_of(seen.texts) or rules.likely
    unit = unit_of(units(seen.texts, mark))
    values = figures(seen.texts, mark, unit)
    if not mostly(seen, [value is not None for value in values]):
        return cells
    own = [text if value is None else value for text, value in zip(seen.texts, values, strict=True)]
    return np.array([*own, None], dtype=object)[seen.codes]


def _label_told(table: Table, name: str) -> str:
    """Return what a label is taken for, with the option that changes it."""
    task, classes = table.task(name), table.classes.get(name, ())
    labels = table.present_labels(name, table.mask[name])
    if task.labels == "binary":
        no, yes = classes or ("0", "1")
        share = f"{int(labels.sum()):,} of {len(labels):,} rows"
        return (
            f'label "{name}": 1 is "{yes}" ({share}), 0 "{no}"; classes={{"{name}": ("{yes}", "{no}")}} turns it round'
        )
    if task.labels == "ids":
        shown = (
            ", ".join(classes[:4]) + (", …" if len(classes) > 4 else "") if classes else f"0 to {task.num_classes - 1}"
        )
        told = f'label "{name}": {task.num_classes} classes ({shown})'
        if all(number(each) is not None for each in classes):
            return f'{told}; labels={{"{name}": "regression"}} takes them for numbers'
        return f'{told}; classes={{"{name}": (…)}} gives their order'
    low, high = f"{labels.min():.4g}", f"{labels.max():.4g}"
    if low == high:
        return f'label "{name}": always {low}, so that there is nothing to learn; leave it out of labels='
    return f'label "{name}": numbers, {low} to {high}; labels={{"{name}": "multiclass"}} takes them for classes'
