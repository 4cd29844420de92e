"""What a cell holds: one canonical value for every reader (CSV, Parquet, frames, arrays, …) and every role.

A cell is first **spelled** as a text: without the blanks around it, in Unicode's composed form (NFC), numbers as they
are usually written. Two cells that are spelled alike are one value, whatever their dtype, file or encoding. In a column
of numbers alone, spellings of one number ("1", "1.0", "1.00e+00") are one value too. Where any cell is a text, all are:
"1.10" and "1.1" may be versions. "007" and "1E10" are texts, as codes are, though they could be read as numbers.

What may be one thing or two is decided by what a mistake would cost, and told: groups are kept together ("P01" and
"p01", "7" and "007": a split must not part one person's rows), classes are kept apart or refused.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from decimal import MAX_PREC, Context, Decimal

Markers = Sequence[str | int | float]

# What stands around a cell without being seen: spaces of all kinds, and marks that editors and exports leave.
_UNSEEN = "\ufeff\u200b\u2060"

# A number as programs write it. Not so codes: "007", and "1E10" (programs write 1e+10, or 1.0E10).
_DIGITS = r"(?:0|[1-9][0-9]*)"
_PLAIN = re.compile(
    rf"[+-]?(?:{_DIGITS}|{_DIGITS}?\.[0-9]+|{_DIGITS}\.)(?:[eE][+-][0-9]{{1,4}})?|[+-]?{_DIGITS}?\.[0-9]+[eE][0-9]{{1,4}}"
)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")


_EXACT = Context(prec=MAX_PREC)


def spelled(cell: object) -> str | None:
    """Return a cell as a text, or None if it is blank, None, NaN, NaT or NA.

    >>> spelled(" cat "), spelled("1.0"), spelled(2), spelled(2.0), spelled(True), spelled(b"a"), spelled(float("nan"))
    ('cat', '1.0', '2', '2.0', 'True', 'a', None)
    >>> spelled("Mu\\u0308ller") == spelled("M\\u00fcller\\u00a0")
    True
    """
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "backslashreplace")
    if not isinstance(cell, str):
        if cell is None or type(cell).__name__ in ("NAType", "NaTType") or cell != cell:  # of pandas; NaN
            return None
        return str(cell)
    if not cell.isascii():
        cell = unicodedata.normalize("NFC", cell)
    cell = cell.strip()
    while cell and (cell[0] in _UNSEEN or cell[-1] in _UNSEEN):
        cell = cell.strip(_UNSEEN).strip()
    return cell or None


def quantity(text: str) -> Decimal | None:
    """Return the exact number that a text could be read as, or None; infinities and NaN are none.

    >>> quantity("007"), quantity("1e3") == quantity("1000.0"), quantity("inf")
    (Decimal('7'), True, None)
    """
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def plain(text: str) -> str | None:
    """Return the canonical spelling of a number as programs write it, or None for what is no such number.

    The number is exact: integers past 2⁵³ stay apart.

    >>> plain("1.00"), plain("-0"), plain("5.0e-01"), plain("12345678901234567890"), plain("007"), plain("1E10")
    ('1', '0', '0.5', '12345678901234567890', None, None)
    """
    if not _PLAIN.fullmatch(text):
        return None
    short = _EXACT.normalize(Decimal(text))
    return "0" if not short else format(short, "f") if -7 <= short.adjusted() < 22 else str(short)


def folded(text: str) -> str:
    """Return what texts have in common that differ only in case, in blanks or in the form of their characters.

    >>> folded("P  01") == folded("p 01"), folded("CO₂") == folded("co2")
    (True, True)
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")  # What nobody sees.
    return " ".join(text.casefold().split())


def _is_nan(text: str) -> bool:
    return text.lower().lstrip("+-") == "nan"


def _is_infinite(text: str) -> bool:
    return text.lower().lstrip("+-") in ("inf", "infinity")


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
            return math.nan if spelled(cell) is None else None
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan if spelled(cell) is None else None


class Missing:
    """What counts as missing: blanks, NaN and None always, and the markers that were declared.

    >>> missing = Missing(("?", -1))
    >>> [missing(cell) for cell in ("?", "-1.0", " ", None, "0", "-01")]
    [True, True, True, True, False, False]

    Attributes:
      texts: the markers, spelled, and as plain numbers.
      numbers: the markers that are numbers, for columns that are read as numbers.
    """

    def __init__(self, markers: Markers | str | int | float = ()) -> None:
        """Read the markers: texts, or numbers in any spelling; or one."""
        given = [markers] if isinstance(markers, str | int | float) else markers
        texts = [t for m in given if (t := spelled(m)) is not None]
        self.texts = frozenset([*texts, *(p for t in texts if (p := plain(t)) is not None)])
        values = {number(t) for t in texts}
        self.numbers = frozenset(v for v in values if v is not None and not math.isnan(v))

    def __call__(self, cell: object) -> bool:
        """Return whether a cell is missing."""
        text = spelled(cell)
        return text is None or (bool(self.texts) and (text in self.texts or plain(text) in self.texts))

    def number(self, cell: object) -> float | None:
        """Return the number that a cell of a column of numbers holds: NaN if missing, None if it is no number."""
        value = number(cell)
        return math.nan if value in self.numbers or (value is None and self(cell)) else value


def canonical(cells: Sequence[object], missing: Missing, names: Sequence[str] = ()) -> list[str | None]:
    """Return the canonical values of a column's distinct cells, None where missing.

    Args:
      cells: all distinct ones, as what a cell means depends on its column.
      missing: what counts as missing; a name that is declared never does.
      names: declared values (classes), which also stand for other spellings of the same number.

    >>> canonical(["1", "1.0", " ", "nan"], Missing())
    ['1', '1', None, None]
    >>> canonical(["1", "1.0", "v2", "Nan"], Missing())
    ['1', '1.0', 'v2', 'Nan']
    >>> canonical(["01", "1.0", "-"], Missing("-"), names=("01", "1"))
    ['01', '1', None]
    """
    declared = set(names)
    texts = [t if (t := spelled(c)) in declared or t is None or not missing(t) else None for c in cells]
    others = [t for t in texts if t is not None and (t in declared or not _is_nan(t))]
    known = [quantity(t) is not None for t in others]
    numbers = any(known) and all(k or _is_infinite(t) for k, t in zip(known, others, strict=True))
    if numbers or not (others or declared):  # Then "nan" is a number that is missing, and not a name.
        texts = [t if t in declared or (t is not None and not _is_nan(t)) else None for t in texts]
    plains = [None if t is None else plain(t) for t in texts]
    if declared:
        values = [plain(n) for n in names]
        by_value = {v: n for v, n in zip(values, names, strict=True) if v is not None and values.count(v) == 1}
        return [t if t in declared or p is None else by_value.get(p, t) for t, p in zip(texts, plains, strict=True)]
    return texts if any(t is not None and p is None for t, p in zip(texts, plains, strict=True)) else plains
