"""Parquet files, by way of pyarrow (the extra "parquet")."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Callable
from typing import Any

from mtl.data.extras import needs
from mtl.data.paths import read, resolve
from mtl.data.problems import DataError, located
from mtl.data.readers.cells import spelled
from mtl.data.readers.columns import Roles, chosen_by
from mtl.data.readers.frames import frame_table
from mtl.data.readers.options import ReadOptions, reader
from mtl.data.table import Table


@reader(ReadOptions)
def parquet_table(path: str, options: ReadOptions) -> Table:
    """Return the table of a Parquet file; only the columns that have a role are read.

    Nulls and NaN are missing; other markers only if ``missing`` declares them. ``max_bytes`` is the most that the file
    may hold, decompressed, as its footer says.

    Args:
      path: of the file, inside the data directory.
      options: see ``ReadOptions``; given by name.

    Raises:
      DataError: for pyarrow not installed, a damaged or truncated file, and everything wrong with its cells.
    """
    needs("pyarrow", "parquet", "Parquet files")
    full = resolve(path, options.directory)
    where = f'file "{full.name}"'
    frame, roles = parquet_frame(full, options, lambda names: chosen_by(options, names))
    name = options.name or full.name.removesuffix(".parquet")
    try:
        return frame_table(
            frame,
            labels=roles.labels,
            inputs=roles.inputs,
            groups=options.groups,
            part=options.part,
            missing=options.missing,
            missing_inputs=options.missing_inputs,
            classes=options.classes,
            name=name,
            about=options.about,
        )
    except DataError as error:
        own = f'data "{name}", '
        raise DataError([f"{where}, {s.removeprefix(own)}" for s in error.sentences], error.count) from None


def parquet_frame(
    path: pathlib.Path, options: ReadOptions, choose_roles: Callable[[list[str]], Roles]
) -> tuple[Any, Roles]:
    """Return (the columns of a Parquet file that have a role, as a DataFrame; the roles).

    Args:
      path: of the file, as it was resolved.
      options: what the file may be.
      choose_roles: from the names of the columns to their roles.

    Raises:
      DataError: as ``parquet_table``, and what ``choose_roles`` refuses.
    """
    needs("pyarrow", "parquet", "Parquet files")
    import pyarrow
    import pyarrow.parquet

    max_bytes = options.max_bytes
    where = f'file "{path.name}"'
    data = read(path, options.sha256, max_bytes)
    try:
        with located(where):
            file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
            given = list(file.schema_arrow.names)
            names = [spelled(n) or "" for n in given]
            kinds = dict(zip(names, file.schema_arrow.types, strict=True))
            groups_of_rows = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            size = max(sum(g.total_byte_size for g in groups_of_rows), file.metadata.num_rows)
            if size > max_bytes:
                raise DataError(f"{where}: {size:,} bytes once decompressed: must be at most max_bytes = {max_bytes:,}")
            roles = choose_roles(names)
            size = 8 * file.metadata.num_rows * len(roles.all)
            if size > max_bytes:
                raise DataError(f"{where}: {size:,} bytes of cells: must be at most max_bytes = {max_bytes:,}")
            for column in roles.all:
                if pyarrow.types.is_nested(kinds[column]):
                    raise DataError(f'column "{column}": each cell is a {kinds[column]}: must be a number or a text')
            # A text that stands in many rows is held once: a dictionary of one long text may be named by all of them.
            column_of = dict(zip(names, given, strict=True))
            texts = [column_of[c] for c in roles.all if kinds[c] in (pyarrow.string(), pyarrow.binary())]
            file = pyarrow.parquet.ParquetFile(io.BytesIO(data), read_dictionary=texts)
            # What pandas left in the file about its columns is no more to be believed than the rest, and is not needed.
            frame = (
                file.read(columns=[column_of[c] for c in roles.all])
                .replace_schema_metadata(None)
                .to_pandas(integer_object_nulls=True)
            )
            frame = frame.astype(dict.fromkeys(texts, object))
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise DataError(f"{where}: damaged or truncated Parquet ({str(error).splitlines()[0]})") from None
    return frame, roles
