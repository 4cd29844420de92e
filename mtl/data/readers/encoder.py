"""The encoder of a table of mixed columns: from cells to numbers [N, F], the same in training and afterwards.

It is a list of columns, plain JSON, that a model's file carries (``Table.reading["encoder"]``). What a row becomes
depends on that row and the encoder alone, never on the rows beside it, nor on the order of columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np

from mtl.data.problems import DataError, Problems
from mtl.data.readers.cells import Missing, folded, number, plain, spelled
from mtl.data.readers.dates import ISO, Part, days, encoded_days, is_format
from mtl.data.readers.figures import figures
from mtl.options import checked
from mtl.ranges import Range

#: What a column can be taken for; the last two are no inputs.
Kind = Literal["number", "boolean", "category", "date", "text", "id", "constant"]
KINDS: tuple[str, ...] = ("number", "boolean", "category", "date", "text")

#: How many bins a text's words are hashed into.
Bins = Annotated[int, Range(1, 2**16)]


@dataclasses.dataclass(frozen=True)
class Column:
    """What an input column is taken for, and all it takes to encode its cells.

    Args:
      name: of the column.
      kind: what it is taken for.
      decimal, unit: of figures: the decimal mark, and ``%`` or the currency.
      levels: of a category, each an input that is 1 where a cell is that level; of booleans (negative, positive).
      rare: further levels of a category, which share one input.
      gaps: whether cells were missing: a category or a text has then one more input, 1 where one is.
      format, parts: of dates: how they are written, and what comes round (``day``, ``week``, ``year``).
      bins: of a text: how many inputs its words are hashed into.
      fill: of numbers, booleans and dates: the mean of all rows that were read, for a cell that is missing later where
        none was.

    >>> Column("sex", "category", levels=("f", "m"), gaps=True).features
    ('sex=f', 'sex=m', 'sex is missing')
    """

    name: str
    kind: Kind
    decimal: Literal[".", ","] = "."
    unit: str = ""
    levels: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()
    gaps: bool = False
    format: str = ISO
    parts: tuple[Part, ...] = ()
    bins: Bins = 1
    fill: float = 0.0

    @property
    def features(self) -> tuple[str, ...]:
        """What the inputs are called that it becomes."""
        lacks = (f"{self.name} is missing",) if self.gaps else ()
        if self.kind == "category":
            others = (f"{self.name} is rare",) if self.rare else ()
            return (*(f"{self.name}={level}" for level in self.levels), *others, *lacks)
        if self.kind == "text":
            return (*(f"{self.name}#{i}" for i in range(self.bins)), *lacks)
        if self.kind == "date":
            waves = (f"{self.name}: {wave} of the {part}" for part in self.parts for wave in ("sin", "cos"))
            return (self.name, *waves)
        return () if self.kind in ("id", "constant") else (self.name,)


def to_json(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return columns as JSON types, what is as by default left out.

    >>> to_json([Column("age", "number", fill=3.0)])
    [{'name': 'age', 'kind': 'number', 'fill': 3.0}]
    """
    defaults = {f.name: f.default for f in dataclasses.fields(Column)}
    every = [{k: v for k, v in vars(column).items() if v != defaults[k]} for column in columns]
    return [{k: list(v) if isinstance(v, tuple) else v for k, v in each.items()} for each in every]


def from_json(given: Any) -> tuple[Column, ...]:
    """Return the columns that some JSON says; each value is held against its type and range.

    Raises:
      ValueError: for what is no encoder.

    >>> from_json([{"name": "age", "kind": "numbr"}])
    Traceback (most recent call last):
    ...
    ValueError: encoder[0].kind = 'numbr': must be "number", "boolean", ..., "id" or "constant"
    """
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise ValueError("encoder: must be a list of columns")
    columns = tuple(Column(**checked(Column, each, f"encoder[{i}].", "a column")) for i, each in enumerate(given))
    for i, column in enumerate(columns):
        if column.kind == "boolean" and len(column.levels) != 2:
            raise ValueError(f"encoder[{i}].levels = {column.levels}: must be two")
        if column.kind == "date" and not is_format(column.format):
            raise ValueError(f"encoder[{i}].format = {column.format!r}: must be a format of dates")
    return columns


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """A column's cells: the number of the distinct value of each, −1 where missing, and these values.

    Args:
      codes: [N] integers.
      texts: the distinct values, spelled.
      numbers: the distinct values as numbers, where the cells hold numbers and no texts.
    """

    codes: np.ndarray
    texts: tuple[str, ...]
    numbers: np.ndarray | None = None

    @classmethod
    def of(cls, cells: np.ndarray, missing: Missing) -> Cells:
        """Return a column's cells, read once.

        Args:
          cells: [N] numbers, booleans or objects.
          missing: what counts as missing.

        >>> Cells.of(np.array(["b", "?", "a", "b "], object), Missing("?"))
        Cells(codes=array([ 0, -1,  1,  0]), texts=('b', 'a'), numbers=None)
        """
        import pandas as pd  # here: it takes 0.2 s to import, and not every study needs it

        if cells.dtype == object and pd.api.types.infer_dtype(cells, skipna=True) not in ("string", "empty"):
            there = [c for c in cells if spelled(c) is not None]
            if all(not isinstance(c, str | bytes) and number(c) is not None for c in there):
                cells = np.array([np.nan if spelled(c) is None else number(c) for c in cells], np.float64)
            else:
                cells = np.array([spelled(cell) for cell in cells] + [None], dtype=object)[:-1]
        codes, distinct = pd.factorize(cells)
        typed = cells.dtype.kind in "biuf"
        texts = [spelled(value) or "" for value in distinct.tolist()]
        if not typed:  # "a" and "a " are one.
            place: dict[str, int] = {}
            codes = np.array([*(place.setdefault(text, len(place)) for text in texts), -1], int)[codes]
            texts = list(place)
        gone = np.array([missing(text) for text in texts], bool)
        keep = np.flatnonzero(~gone)
        moved = np.full(len(texts) + 1, -1)
        moved[keep] = np.arange(len(keep))
        values = np.asarray(distinct, np.float64)[keep] if typed else None
        return cls(moved[codes], tuple(texts[i] for i in keep), values)

    @property
    def there(self) -> np.ndarray:
        """[N] booleans: which cells are not missing."""
        return self.codes >= 0

    def spread(self, values: np.ndarray, lacking: float = np.nan) -> np.ndarray:
        """Return [N, …]: of each cell what its distinct value has, or ``lacking`` where it is missing."""
        last = np.full((1, *np.shape(values)[1:]), lacking)
        return np.concatenate([values, last])[self.codes]


def level_of(text: str) -> str:
    """Return what texts have in common that are one level: case and blanks apart, and a number's spelling.

    >>> level_of("North  Sea") == level_of("north sea"), level_of("1.0") == level_of("1")
    (True, True)
    """
    return plain(text) or folded(text)


def encode(
    columns: Sequence[Column],
    cells: Mapping[str, Cells],
    problems: Problems,
    at: Callable[[int], str],
    later: bool = False,
) -> tuple[np.ndarray, list[str]]:
    """Return (inputs [N, F] float64, NaN where a number is missing; what was done with cells that training never saw).

    Args:
      columns: the encoder.
      cells: of each of its columns.
      problems: where to note what is wrong, one sentence a column.
      at: what to call row i.
      later: whether these rows are others than those the encoder was made of.
    """
    blocks, told = [], []
    for column in columns:
        if not column.features:
            continue
        block, unseen = _encoded(column, cells[column.name], problems, at)
        lacking = int(np.isnan(block[:, 0]).sum())
        if later and lacking and not column.gaps:
            block[:, 0] = np.where(np.isnan(block[:, 0]), column.fill, block[:, 0])
            told.append(
                f'column "{column.name}": {lacking:,} missing, as none was in training: taken as the mean there'
            )
        if unseen:
            told.append(f'column "{column.name}": {unseen}')
        blocks.append(block)
    return np.concatenate(blocks, axis=1), told


def _encoded(column: Column, cells: Cells, problems: Problems, at: Callable[[int], str]) -> tuple[np.ndarray, str]:
    """Return (a column's inputs [N, f], what is to be said of cells that are unknown)."""
    lacks = [~cells.there] if column.gaps else []
    if column.kind == "text":
        # Words are hashed, so that nothing is fitted: any text can be encoded at any time.
        from sklearn.feature_extraction.text import HashingVectorizer

        hashed = HashingVectorizer(
            n_features=column.bins, binary=True, norm=None, alternate_sign=False, token_pattern=r"(?u)\b\w+\b"
        )
        words = hashed.transform(cells.texts).toarray() if cells.texts else np.zeros((0, column.bins))
        return np.column_stack([cells.spread(words, 0.0), *lacks]).astype(np.float64), ""
    if column.kind == "category":
        place = {level_of(level): i for i, level in enumerate(column.levels)}
        place |= {level_of(level): len(column.levels) for level in column.rare}
        found = np.array([place.get(level_of(text), -1) for text in cells.texts], int)
        width = len(column.levels) + bool(column.rare)
        one_hot = (found[:, None] == np.arange(width)).astype(np.float64)
        unknown = [text for text, i in zip(cells.texts, found, strict=True) if i < 0]
        rows = int(np.isin(cells.codes, np.flatnonzero(found < 0)).sum())
        hold = "cell holds" if rows == 1 else "cells hold"
        said = f"{rows:,} {hold} {_few(unknown)}, not seen in training: 0 for every level" if unknown else ""
        return np.column_stack([cells.spread(one_hot, 0.0), *lacks]).astype(np.float64), said
    if column.kind == "boolean":
        known = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}
        known |= {level_of(level): float(i) for i, level in enumerate(column.levels)}
        values = np.array([known.get(level_of(text), np.nan) for text in cells.texts])
        right = f"must be {column.levels[0]} or {column.levels[1]}"
    elif column.kind == "date":
        values = days(cells.texts, column.format)
        if not np.isfinite(values).all():  # Of a table from elsewhere, where they are dates and no texts.
            values = np.where(np.isfinite(values), values, days(cells.texts, ISO))
        right = f"must be a date, {'as 2024-12-31' if column.format == ISO else f'written as {column.format}'}"
    elif cells.numbers is not None:
        values, right = np.where(np.isfinite(cells.numbers), cells.numbers, np.nan), "must be finite"
    else:
        read = figures(cells.texts, column.decimal, column.unit)
        values = np.array([np.nan if value is None else value for value in read])
        right = "must be a number" + (f" in {column.unit}" if column.unit else "")
        right += ' with a decimal comma ("1.234,5")' if column.decimal == "," else ""
    with np.errstate(invalid="ignore"):
        values = np.where(np.abs(values) <= np.finfo(np.float32).max, values, np.nan)
    refuse(column, cells, np.isnan(values), right, problems, at)
    numbers = cells.spread(values)
    return encoded_days(numbers, column.parts) if column.kind == "date" else numbers[:, None], ""


def refuse(
    column: Column, cells: Cells, bad: np.ndarray, right: str, problems: Problems, at: Callable[[int], str]
) -> None:
    """Note one sentence on a column if some of its distinct values cannot be what it is taken for."""
    if not bad.any():
        return
    rows = np.flatnonzero(np.isin(cells.codes, np.flatnonzero(bad)))
    texts = [text for text, b in zip(cells.texts, bad, strict=True) if b]
    markers = ", ".join(f'"{text[:40]}"' for text in texts[:3])
    where = at(int(rows[0])) + (f" and {len(rows) - 1:,} more" if len(rows) > 1 else "")
    more = f'; missing=({markers},) if that means missing, or kinds={{"{column.name}": "category"}}'
    problems.add(f'{where}, column "{column.name}": {_few(texts)}: {right}{more}')


def _few(texts: Sequence[str]) -> str:
    """Return some of a list of texts in quotes.

    >>> _few(["a", "b", "c", "d"])
    '"a", "b" and 2 more'
    """
    shown = ", ".join(f'"{text[:40]}"' for text in texts[:2])
    return shown + (f" and {len(texts) - 2:,} more" if len(texts) > 2 else "")


def read_later(
    encoder: Sequence[Column], cells: Mapping[str, np.ndarray], missing: Missing, at: Callable[[int], str]
) -> tuple[np.ndarray, list[str]]:
    """Return what ``encode`` gives for rows that come after training.

    Args:
      encoder: of the table that training was on.
      cells: ``{column: [N]}``; columns that the encoder does not know are left alone.
      missing: what counts as missing.
      at: what to call row i.

    Raises:
      DataError: for all columns that are not there, and all cells that cannot be encoded, one sentence each column.
    """
    columns = [column for column in encoder if column.features]
    by_spelling = {spelled(name) or name: values for name, values in cells.items()}
    problems = Problems()
    for column in columns:
        if column.name not in by_spelling:
            problems.add(f'has no column "{column.name}" ({column.kind}), which the model needs')
    if problems.count:
        raise DataError(problems.sentences, problems.count)
    read = {column.name: Cells.of(by_spelling[column.name], missing) for column in columns}
    x, told = encode(columns, read, problems, at, later=True)
    problems.stop()
    return x, told
