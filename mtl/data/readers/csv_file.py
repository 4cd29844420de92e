"""CSV files, plain or gzipped: read record by record, so that every problem has its line."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mtl.data.paths import MAX_BYTES, read, resolve, text_of
from mtl.data.problems import DataError, Problems, prefixed
from mtl.data.readers.cells import Markers, Missing, spelled
from mtl.data.readers.columns import Labels, Roles, build, choose
from mtl.data.readers.labels import ClassNames, read_input
from mtl.data.table import Table

# Records converted at a time: inputs become float32 before the next ones are read, so text never piles up.
_CHUNK = 4096


def csv_table(
    path: str,
    labels: Labels,
    inputs: Sequence[str] | str = "*",
    ignore: Sequence[str] | str = (),
    groups: str = "",
    missing: Markers | str = (),
    missing_inputs: str = "error",
    classes: ClassNames = (),
    delimiter: str = ",",
    directory: str = "",
    sha256: str = "",
    name: str = "",
    about: str = "",
    max_bytes: int = MAX_BYTES,
) -> Table:
    """Return the table of a CSV file (or .csv.gz) whose first record names the columns.

    Blank cells and NaN are missing; other markers ("?", -1) only if ``missing`` declares them. Kinds are
    inferred as ``mtl.data.readers.labels.read_label`` says, and printed by ``mtl.data.summary``.

    Args:
      path: of the file, inside the data directory (see ``mtl.data.paths.resolve``).
      labels: ``{column: kind}``, or a list of ``column`` or ``column:kind``; patterns may stand for columns.
      inputs: names or patterns of input columns; ``*`` for all that are nothing else.
      ignore: columns that are neither.
      groups: a column whose equal cells make rows that no split may part, such as a person's number.
      missing: markers that mean missing, in labels and inputs.
      missing_inputs: ``error``, or ``flag`` for 0 and a further input column that says where.
      classes: ``{column: names}`` or a list of (column, name, ...): the classes in order of their ids.
      delimiter: what parts cells.
      directory: the data directory.
      sha256: of the file, to refuse any other.
      name: of the table; the file's if empty.
      about: what the data are, their source and licence.
      max_bytes: the most the file may hold, decompressed.

    Returns:
      The table; inputs [N, columns] in the file's order.

    Raises:
      DataError: for everything that is wrong, one sentence each with file, line and column.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "pets.csv").write_text("weight,pet\\n4.1,cat\\n9.5,dog\\n3.9,\\n")
    ...     table = csv_table("pets.csv", labels="pet", directory=folder)
    >>> table.x.ravel(), table.labels["pet"], table.mask["pet"], table.classes["pet"]
    (array([4.1, 9.5, 3.9]), array([0., 1., 0.], dtype=float32), array([ True,  True, False]), ('cat', 'dog'))
    """
    full = resolve(path, directory)
    where = f'file "{full.name}"'
    text = text_of(read(full, sha256, max_bytes), full.name)
    problems = Problems()
    columns = read_columns(
        text, where, lambda names: choose(names, labels, inputs, ignore, groups), problems, Missing(missing), delimiter
    )
    return build(
        name or full.name.removesuffix(".gz").removesuffix(".csv"),
        where,
        columns.roles,
        columns.inputs,
        columns.cells,
        problems,
        columns.at,
        missing,
        classes,
        missing_inputs,
        about,
    )


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of a CSV file.

    Args:
      roles: what each is for.
      inputs: ``{column: [N] float64}``, NaN where missing.
      cells: ``{column: [N] texts}`` of ``roles.cells``.
      lines: [N], the line at which each record begins.
    """

    roles: Roles
    inputs: dict[str, np.ndarray]
    cells: dict[str, np.ndarray]
    lines: np.ndarray

    def at(self, row: int) -> str:
        """Return what to call a row in an error."""
        return f"line {self.lines[row]}"


def read_columns(
    text: str,
    where: str,
    choose_roles: Callable[[list[str]], Roles],
    problems: Problems,
    missing: Missing,
    delimiter: str = ",",
) -> Columns:
    """Read a CSV file's columns, noting ragged records and cells that are no numbers.

    Args:
      text: of the file.
      where: what to call it.
      choose_roles: from the names of the columns to what each is for.
      problems: where to note what is wrong.
      missing: what counts as missing among inputs.
      delimiter: what parts cells.

    Raises:
      DataError: for a file without a header or without rows, and what ``choose_roles`` refuses.
    """
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise DataError(f'delimiter = "{delimiter}": must be one character that parts cells')
    records = _records(text, delimiter, problems)
    first = next(records, None)
    if first is None:
        if problems.count:
            raise DataError([f"{where}, {s}" for s in problems.sentences], problems.count)
        raise DataError(f"{where}: is empty: its first record must name the columns")
    names = [spelled(cell) or "" for cell in first[1]]
    try:
        roles = choose_roles(names)
    except DataError as error:
        raise prefixed(error, where) from None
    position = {name: i for i, name in enumerate(names)}
    inputs: dict[str, list[np.ndarray]] = {name: [] for name in roles.inputs}
    cells: dict[str, list[str]] = {name: [] for name in roles.cells}
    lines: list[int] = []
    while chunk := list(itertools.islice(records, _CHUNK)):
        rows = []
        for line, row in chunk:
            if len(row) == len(names):
                rows.append(row)
                lines.append(line)
            else:
                cut = f"{len(row)} cell{'s' if len(row) != 1 else ''}"
                problems.add(f"line {line}: {cut}: must be {len(names)}, as in the first record")
        if not rows:
            continue
        begin = lines[len(lines) - len(rows) :]
        by_column = list(zip(*rows, strict=True))
        for name, parts in inputs.items():
            parts.append(_numbers(name, by_column[position[name]], begin, problems, missing))
        for name, texts in cells.items():
            texts.extend(map(sys.intern, by_column[position[name]]))
    if not lines:
        problems.add("has no row under its header: must have at least one")
        raise DataError([f"{where}, {s}" for s in problems.sentences], problems.count)
    return Columns(
        roles,
        {name: np.concatenate(parts) for name, parts in inputs.items()},
        {name: np.array(texts, dtype=object) for name, texts in cells.items()},
        np.array(lines),
    )


def _records(text: str, delimiter: str, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    """Yield (line at which it begins, cells) of each record; blank lines are none."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # what follows an unclosed quote cannot be told apart any more
            problems.add(f"line {line}: {error}: the rest of the file was not read")
            return
        if row:
            yield line, row
        line = reader.line_num + 1


def _numbers(name: str, cells: Sequence[str], lines: Sequence[int], problems: Problems, missing: Missing) -> np.ndarray:
    """Return the numbers of some cells: all at once where they are plain, one by one where they are not."""
    if "_" not in "".join(cells):
        gone = missing.texts | {""}
        try:
            values = np.array([math.nan if cell in gone else float(cell) for cell in cells])
        except ValueError:
            pass
        else:
            if missing.numbers:
                values[np.isin(values, list(missing.numbers))] = np.nan
            if not (np.abs(values) > np.finfo(np.float32).max).any():
                return values
    return read_input(name, np.array(cells, dtype=object), problems, lambda row: f"line {lines[row]}", missing)
