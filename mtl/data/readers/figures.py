"""Numbers as people write them: a decimal comma, thousands, percent, a currency.

``1.234`` is one number where commas are decimal and another where points are, so a column is read by one mark: the one
that its own cells say, where they can; else those of the other columns of the file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

#: The marks that may part a number's whole part from the rest.
DECIMALS = (".", ",")

#: A text that is longer is no number that somebody wrote.
LONGEST_FIGURE = 64

_GAPS = " '\u2019\u00a0\u2009\u202f"
_CURRENCY = r"[€$£¥₹₽₺₩₪]|EUR|USD|GBP|CHF|JPY|SEK|NOK|DKK|PLN|CZK|HUF|kr\.?|zł|Kč|Fr\."
_FIGURE = re.compile(
    rf"([+\-\u2212]?)\s?((?:{_CURRENCY})?)\s?([+\-\u2212]?)"
    rf"([0-9.,][0-9.,{_GAPS}]*(?:[eE][+\-]?[0-9]{{1,4}})?)\s?(%?)\s?((?:{_CURRENCY})?)"
)


def _shape(decimal: str, thousands: str) -> re.Pattern[str]:
    whole = rf"[0-9]{{1,3}}([{thousands}{_GAPS}])[0-9]{{3}}(?:\1[0-9]{{3}})*|[0-9]+"
    return re.compile(rf"(?:{whole}|(?=[{decimal}][0-9]))(?:[{decimal}][0-9]*)?(?:[eE][+\-]?[0-9]{{1,4}})?")


_SHAPES = {".": _shape(".", ","), ",": _shape(",", ".")}
_CODE = re.compile(r"[+\-\u2212]?0[0-9].*")


def figure(text: str, decimal: str = ".") -> tuple[float, str] | None:
    """Return (the number, its unit) that a text says, or None; of percent the share, and of no unit "".

    Args:
      text: without blanks around it.
      decimal: the decimal mark; the other one, blanks and apostrophes may part thousands.

    >>> figure("1.234,5", ","), figure("1,234.5"), figure("-12,5 %", ","), figure("€ 1'000")
    ((1234.5, ''), (1234.5, ''), (-0.125, '%'), (1000.0, '€'))
    >>> figure("1,23"), figure("007"), figure("seven")
    (None, None, None)
    """
    if len(text) > LONGEST_FIGURE or (found := _FIGURE.fullmatch(text)) is None:
        return None
    sign, before, other, digits, percent, after = found.groups()
    digits = digits.rstrip(_GAPS)
    units = [unit for unit in (before, percent, after) if unit]
    if (sign and other) or len(units) > 1 or _CODE.fullmatch(digits) or _SHAPES[decimal].fullmatch(digits) is None:
        return None
    plain = "".join(c for c in digits if c not in _GAPS and c != DECIMALS[decimal == "."])
    value = float(plain.replace(",", "."))
    value = -value if (sign or other) in ("-", "\u2212") else value
    return (value / 100 if percent else value), (units[0] if units else "")


def as_written(texts: Sequence[str]) -> np.ndarray | None:
    """Return the numbers of texts that are all as programs write them, at once; None if any is not.

    >>> as_written(["1.5", "2"]), as_written(["1.5", "007"]), as_written(["1_0"]), as_written(["nan"])
    (array([1.5, 2. ]), None, None, None)
    """
    try:
        values = np.array([float(text) for text in texts])
    except ValueError:
        return None
    plain = len(values) > 0 and np.isfinite(values).all() and "_" not in "".join(texts)
    return values if plain and not any(map(_CODE.fullmatch, texts)) else None


def decimal_of(texts: Sequence[str]) -> str:
    """Return the decimal mark that some texts must have been written with; empty where they do not say.

    >>> decimal_of(["1,5", "2"]), decimal_of(["1.5"]), decimal_of(["1,234"]), decimal_of(["3", "cat"])
    (',', '.', '', '')
    """
    if as_written(texts) is not None and any(figure(t, ",") is None for t in texts):
        return "."
    read = [(figure(t, ".") is not None, figure(t, ",") is not None) for t in texts]
    point, comma = (sum(each[i] for each in read) for i in (0, 1))
    return "" if point == comma else "." if point > comma else ","


def units(texts: Sequence[str], decimal: str) -> list[str]:
    """Return the units of the texts that are figures."""
    if decimal == "." and as_written(texts) is not None:
        return [""] * len(texts)
    return [found[1] for text in texts if (found := figure(text, decimal)) is not None]


def unit_of(given: Iterable[str]) -> str:
    """Return the unit that most figures of a column have: ``%``, a currency, or none.

    >>> unit_of(["€", "", "€"]), unit_of(["%", "%", ""]), unit_of([])
    ('€', '%', '')
    """
    counts = Counter(given)
    some = [unit for unit in counts if unit]
    most = max(some, key=lambda unit: counts[unit], default="")
    return "" if most == "%" and counts[""] > counts["%"] else most


def figures(texts: Sequence[str], decimal: str, unit: str) -> list[float | None]:
    """Return the number of each text, None for what is none: of another unit, or not in percent where others are.

    Args:
      texts: the cells, spelled.
      decimal: the mark.
      unit: of ``unit_of``; a currency may be left out.

    >>> figures(["5 €", "6", "7 $", "8 %"], ".", "€"), figures(["5 %", "6"], ".", "%")
    ([5.0, 6.0, None, None], [0.05, None])
    """
    if decimal == "." and not unit and (plain := as_written(texts)) is not None:
        return list(plain.tolist())
    allowed = {unit} if unit == "%" else {unit, ""}
    found = [figure(text, decimal) for text in texts]
    return [f[0] if f is not None and f[1] in allowed else None for f in found]
