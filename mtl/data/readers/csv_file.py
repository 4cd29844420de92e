"""CSV files, plain or gzipped: read record by record, so that every problem has its line."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import math
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mtl.data.paths import read, resolve, text_of
from mtl.data.problems import DataError, Problems, located
from mtl.data.readers.cells import Missing, spelled
from mtl.data.readers.columns import Roles, build, chosen_by
from mtl.data.readers.labels import input_numbers, told_bad
from mtl.data.readers.options import ReadOptions, reader
from mtl.data.table import Table

# Records converted at a time: inputs become float32 before the next ones are read, so text never piles up.
_CHUNK = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class CsvOptions(ReadOptions):
    """Options of ``csv_table``.

    Args:
      delimiter: what parts cells: one character, a comma by default.
    """

    delimiter: str = ","


@reader(CsvOptions)
def csv_table(path: str, options: CsvOptions) -> Table:
    """Return the table of a CSV file (or .csv.gz) whose first record names the columns.

    Blank cells and NaN are missing; other markers ("?", -1) only if ``missing`` declares them. Kinds are
    inferred as ``mtl.data.readers.labels.read_label`` says, and printed by ``mtl.data.summary``.

    Args:
      path: of the file, inside the data directory (see ``mtl.data.paths.resolve``).
      options: see ``CsvOptions``; given by name.

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
    full = resolve(path, options.directory)
    columns = read_columns(full, options, lambda names: chosen_by(options, names), options.delimiter)
    return build(
        columns.where,
        columns.roles,
        columns.inputs,
        columns.cells,
        columns.problems,
        columns.at,
        options.named(columns.name),
    )


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of a CSV file.

    Args:
      where: what to call the file.
      name: of the file, without its ending.
      roles: what each is for.
      inputs: ``{column: [N] float64}``, NaN where missing.
      cells: ``{column: [N] texts}`` of ``roles.cells``.
      lines: [N], the line at which each record begins.
      problems: what is wrong with its records and inputs.
    """

    where: str
    name: str
    roles: Roles
    inputs: dict[str, np.ndarray]
    cells: dict[str, np.ndarray]
    lines: np.ndarray
    problems: Problems

    def at(self, row: int) -> str:
        """Return what to call a row in an error."""
        return f"line {self.lines[row]}"


def read_columns(
    path: pathlib.Path,
    options: ReadOptions,
    choose_roles: Callable[[list[str]], Roles],
    delimiter: str = ",",
    text: str | None = None,
    unnamed: str = "",
) -> Columns:
    """Read a CSV file's columns, noting ragged records and cells that are no numbers.

    Args:
      path: of the file, as it was resolved.
      options: what the file may be, and what means missing.
      choose_roles: from the names of the columns to their roles.
      delimiter: what parts cells.
      text: of the file, where it has been read.
      unnamed: what columns without a name are called, such as ``column {}``; nothing to leave them without.

    Raises:
      DataError: for a file without a header or without rows, and what ``choose_roles`` refuses.
    """
    problems = Problems()
    where, missing = f'file "{path.name}"', Missing(options.missing)
    text = text_of(read(path, options.sha256, options.max_bytes), path.name) if text is None else text
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise DataError(f'delimiter = "{delimiter}": must be one character that parts cells')
    records = _records(text, delimiter, problems)
    first = next(records, None)
    if first is None:
        problems.stop(where)
        raise DataError(f"{where}: is empty: its first record must name the columns")
    names = [spelled(cell) or unnamed.format(i) for i, cell in enumerate(first[1], 1)]
    with located(where):
        roles = choose_roles(names)
    position = {name: i for i, name in enumerate(names)}
    inputs: dict[str, list[np.ndarray]] = {name: [] for name in roles.inputs}
    cells: dict[str, list[str]] = {name: [] for name in roles.cells}
    lines: list[int] = []
    wrong: dict[str, Any] = {}  # Of each column with cells that are no numbers: the first one's line, it, how many.
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
            values, bad = _numbers(by_column[position[name]], missing)
            parts.append(values)
            if len(found := np.flatnonzero(bad)):
                first = (begin[found[0]], by_column[position[name]][found[0]])
                *at, count = wrong.get(name, (*first, 0))
                wrong[name] = (*at, count + len(found))
        for name, texts in cells.items():
            texts.extend(map(sys.intern, by_column[position[name]]))
    for name, (line, cell, count) in wrong.items():
        said = told_bad(name, f"line {line}", cell, count)
        problems.add(f'{said} (data.name = "table" takes columns of all kinds)')
    if not lines:
        problems.add("has no row under its header: must have at least one")
        problems.stop(where)
    return Columns(
        where,
        stem(path),
        roles,
        {name: np.concatenate(parts) for name, parts in inputs.items()},
        {name: np.array(texts, dtype=object) for name, texts in cells.items()},
        np.array(lines),
        problems,
    )


def stem(path: pathlib.Path) -> str:
    """Return what to call a file's table: its name without the ending.

    >>> stem(pathlib.Path("data/pets.csv.gz"))
    'pets'
    """
    return re.sub(r"(?i)\.(csv|tsv|txt|xlsx|parquet)$", "", path.name.removesuffix(".gz"))


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


def _numbers(cells: Sequence[str], missing: Missing) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of some cells, and which are none: at once where they are plain, one by one where not."""
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
                return values, np.zeros(len(values), bool)
    return input_numbers(np.array(cells, dtype=object), missing)
