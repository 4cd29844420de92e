"""Files that hold a table, as other programs write them: what parts their cells, and their encoding, is found out."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import pathlib
import zipfile
from typing import Any

from mtl.data.extras import needs
from mtl.data.problems import DataError

#: What may part the cells of a text file.
DELIMITERS = (",", ";", "\t", "|")

#: Endings of text files, but for ``.gz`` behind them.
TEXTS = (".csv", ".tsv", ".txt")

# So much of a text is looked at for what parts its cells.
_LOOKED_AT = 2**16


def decoded(data: bytes, name: str, encoding: str = "") -> tuple[str, str]:
    """Return (bytes as text, the encoding).

    UTF-16 by its mark or by the zeros of its Latin letters, else UTF-8, with or without a mark; what is not valid there
    is Windows' Latin-1 (cp1252), or Latin-1 where that has holes.

    Args:
      data: of a text file.
      name: of the file.
      encoding: to read it by no other.

    Raises:
      DataError: for what is no text in the encoding that was declared, and bytes that are no text.

    >>> decoded("Größe".encode("latin-1"), "a.csv"), decoded("a;b".encode("utf-16-le"), "a.csv")
    (('Größe', 'cp1252'), ('a;b', 'utf-16-le'))
    """
    start = data[:1000]
    if encoding:
        ways = [encoding]
    elif data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        ways = ["utf-16"]
    elif (zeros := start.count(0)) and 3 * zeros >= len(start):
        ways = ["utf-16-le" if start[1::2].count(0) >= start[::2].count(0) else "utf-16-be"]
    else:
        ways = ["utf-8-sig", *(("cp1252", "latin-1") if not zeros else ())]
    for way in ways:
        try:
            text = data.decode(way)
        except UnicodeDecodeError:
            continue
        except (LookupError, ValueError):
            raise DataError(f'file "{name}": encoding = "{encoding}": must be a text encoding, as "latin-1"') from None
        if isinstance(text, str) and "\0" not in text[:1000]:
            return text, "utf-8" if way == "utf-8-sig" else way
    raise DataError(f'file "{name}": is no text in {" or ".join(ways)}: must be a text file, or say encoding=')


def delimiter_of(text: str) -> str:
    """Return what parts a text's cells: of what cuts most records into as many cells as the first, what cuts most.

    >>> delimiter_of("a;b\\n1,5;2\\n"), delimiter_of("a\\tb\\n1\\t2\\n"), delimiter_of("a,b;c\\n1,2;3\\n4,5\\n")
    (';', '\\t', ',')
    """
    some = text[:_LOOKED_AT]
    some = some if len(text) <= _LOOKED_AT else some[: some.rfind("\n") + 1] or some
    found = []
    for mark in DELIMITERS:
        try:
            rows = list(
                itertools.islice((r for r in csv.reader(io.StringIO(some, newline=""), delimiter=mark) if r), 50)
            )
        except csv.Error:
            continue
        cells = len(rows[0]) if rows else 0
        share = sum(len(row) == cells for row in rows) / max(1, len(rows))
        found.append((cells > 1, round(share, 1), cells, -DELIMITERS.index(mark), mark))
    return max(found)[-1] if found and max(found)[0] else ","


def excel_frame(data: bytes, name: str, max_bytes: int) -> Any:
    """Return the first sheet of an Excel file (.xlsx) as a DataFrame; by way of openpyxl (the extra "excel").

    Args:
      data: the file's bytes.
      name: of the file.
      max_bytes: the most that it may hold, decompressed.

    Raises:
      DataError: for openpyxl not installed, and a file that is damaged or too large.
    """
    needs("openpyxl", "excel", "Excel files")
    import pandas as pd

    where = f'file "{name}"'
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            size = sum(part.file_size for part in parts.infolist())
        if size > max_bytes:
            raise DataError(f"{where}: {size:,} bytes once decompressed: must be at most max_bytes = {max_bytes:,}")
        frame = pd.read_excel(io.BytesIO(data), engine="openpyxl", keep_default_na=False, na_values=[""])
    except (zipfile.BadZipFile, ValueError, KeyError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: damaged or truncated Excel file ({str(error).splitlines()[0]})") from None
    return frame.rename(columns={c: f"column {i}" for i, c in enumerate(frame, 1) if str(c).startswith("Unnamed: ")})


def kind_of_file(path: pathlib.Path) -> str:
    """Return ``text``, ``excel`` or ``parquet``, by how a file's name ends.

    Raises:
      DataError: for another ending.

    >>> kind_of_file(pathlib.Path("a.CSV.gz")), kind_of_file(pathlib.Path("a.xlsx"))
    ('text', 'excel')
    """
    name = path.name.lower()
    if name.removesuffix(".gz").endswith(TEXTS):
        return "text"
    for ending, kind in ((".xlsx", "excel"), (".parquet", "parquet")):
        if name.endswith(ending):
            return kind
    raise DataError(f'file "{path.name}": must end in {", ".join(TEXTS)} (or with .gz), .xlsx or .parquet')
