"""Parquet files, by way of pyarrow (the extra "parquet")."""

from __future__ import annotations

import io
from collections.abc import Sequence

from mtl.data.extras import needs
from mtl.data.paths import MAX_BYTES, read, resolve
from mtl.data.problems import DataError, prefixed
from mtl.data.readers.cells import Markers, spelled
from mtl.data.readers.columns import Labels, choose
from mtl.data.readers.frames import frame_table
from mtl.data.readers.labels import ClassNames
from mtl.data.table import Table


def parquet_table(
    path: str,
    labels: Labels,
    inputs: Sequence[str] | str = "*",
    ignore: Sequence[str] | str = (),
    groups: str = "",
    missing: Markers | str = (),
    missing_inputs: str = "error",
    classes: ClassNames = (),
    directory: str = "",
    sha256: str = "",
    name: str = "",
    about: str = "",
    max_bytes: int = MAX_BYTES,
) -> Table:
    """Return the table of a Parquet file; only the columns that have a role are read.

    Nulls and NaN are missing; other markers only if ``missing`` declares them.

    Args:
      path: of the file, inside the data directory.
      labels, inputs, ignore, groups, missing, missing_inputs, classes, directory, sha256, name, about: as in
        ``csv_table``.
      max_bytes: the most it may hold, decompressed, as its footer says.

    Raises:
      DataError: for pyarrow not installed, a damaged or truncated file, and everything wrong with its cells.
    """
    needs("pyarrow", "parquet", "Parquet files")
    import pyarrow
    import pyarrow.parquet

    full = resolve(path, directory)
    where = f'file "{full.name}"'
    data = read(full, sha256, max_bytes)
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        given = list(file.schema_arrow.names)
        names = [spelled(n) or "" for n in given]
        kinds = dict(zip(names, file.schema_arrow.types, strict=True))
        groups_of_rows = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        size = max(sum(g.total_byte_size for g in groups_of_rows), file.metadata.num_rows)
        if size > max_bytes:
            raise DataError(f"{where}: {size:,} bytes once decompressed: must be at most max_bytes = {max_bytes:,}")
        roles = choose(names, labels, inputs, ignore, groups)
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
    except DataError as error:
        raise (error if str(error).startswith("file ") else prefixed(error, where)) from None
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise DataError(f"{where}: damaged or truncated Parquet ({str(error).splitlines()[0]})") from None
    try:
        return frame_table(
            frame,
            roles.labels,
            roles.inputs,
            (),
            groups,
            missing,
            missing_inputs,
            classes,
            name or full.name.removesuffix(".parquet"),
            about,
        )
    except DataError as error:
        own = f'data "{name or full.name.removesuffix(".parquet")}", '
        raise DataError([f"{where}, {s.removeprefix(own)}" for s in error.sentences], error.count) from None
