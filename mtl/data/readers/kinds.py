"""What an input column is taken for, by its cells alone: labels take no part, and each decision is said."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np

from mtl.data.problems import Problems
from mtl.data.readers.cells import quantity, spelled
from mtl.data.readers.dates import ISO, days, formats_of, is_format, parts_of
from mtl.data.readers.encoder import KINDS, Bins, Cells, Column, level_of
from mtl.data.readers.figures import DECIMALS, as_written, decimal_of, figure, figures, unit_of, units
from mtl.data.readers.labels import SUSPECTS
from mtl.data.readers.polarity import ordered
from mtl.ranges import Range
from mtl.tasks import suggest

Kinds = Mapping[str, str] | Sequence[str] | str

#: Cells of one kind in a column from which the others count as errors, and not as another kind.
MOSTLY = 0.9

#: Rows from which a column of distinct cells is an id.
ID_ROWS = 20

#: Levels past which a category is hashed like a text.
MOST_LEVELS = 1000

_ID = re.compile(r"(?:.*[^A-Za-z]|.*(?<=[a-z])(?=[A-Z])|)(?i:id|ids|key|uuid|guid|index|nr|no|number)")
_DECLARED = re.compile(rf"(.+?):({'|'.join(KINDS)})(?::(.+))?")


@dataclasses.dataclass(frozen=True)
class Rules:
    """What decides beside the cells.

    Args:
      kinds: ``{column: (kind, format)}`` as declared; the format is of dates, else empty.
      decimal: the decimal mark that was declared, or empty.
      likely: the mark where no cell of the file says.
      levels, rare, bins: see ``mtl.data.readers.mixed.MixedOptions``.
    """

    kinds: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    decimal: Literal["", ".", ","] = ""
    likely: Literal[".", ","] = "."
    levels: Annotated[int, Range(1)] = 32
    rare: Annotated[int, Range(1)] = 3
    bins: Bins = 64


def declared(kinds: Kinds, names: Sequence[str], problems: Problems) -> dict[str, tuple[str, str]]:
    """Return ``{column: (kind, format)}`` of declared kinds; names may be patterns.

    >>> declared(("zip*:category", "born:date:%d.%m.%Y"), ["zip", "born", "age"], Problems())
    {'zip': ('category', ''), 'born': ('date', '%d.%m.%Y')}
    """
    given = [kinds] if isinstance(kinds, str) else kinds
    entries = [f"{k}:{v}" for k, v in given.items()] if isinstance(given, Mapping) else [str(k) for k in given]
    found: dict[str, tuple[str, str]] = {}
    for entry in entries:
        if (match := _DECLARED.fullmatch(entry)) is None:
            kind = entry.rpartition(":")[2]
            problems.add(f'kinds: "{entry}": must be COLUMN:KIND: {suggest(kind, KINDS)}')
            continue
        pattern, kind, format = match.groups()
        name = spelled(pattern) or pattern
        matching = [name] if name in names else fnmatch.filter(names, name)
        if not matching:
            problems.add(f'kinds: "{pattern}" is no input column: {suggest(pattern, names)}')
        if format and kind != "date":
            problems.add(f'kinds: "{entry}": only dates have a format')
        elif format and not is_format(format):
            problems.add(f'kinds: "{entry}": "{format}" is no format of dates, as %d.%m.%Y is')
            format = ""
        found |= dict.fromkeys(matching, (kind, format or ""))
    return found


def decide(cells: Mapping[str, Cells], rules: Rules) -> tuple[list[Column], list[str]]:
    """Return (what each column is taken for, a sentence on each with the option that changes it).

    Args:
      cells: of the input columns.
      rules: see ``Rules``.
    """
    marks = {name: decimal_of(_present(c)) for name, c in cells.items() if c.numbers is None}
    said = [mark for mark in marks.values() if mark]
    common = rules.decimal or (("," if said.count(",") >= said.count(".") else ".") if said else rules.likely)
    columns, told = [], []
    for name, own in cells.items():
        mark = rules.decimal or marks.get(name) or common
        column, why = _decide(name, own, mark, rules)
        if column.kind not in ("id", "constant") and not own.there.all():
            column = dataclasses.replace(column, gaps=True)
            why += f", {int((~own.there).sum()):,} missing"
        doubtful = column.decimal if column.kind == "number" and not marks.get(name) and _doubtful(own) else ""
        change = f'decimal="{"," if doubtful == "." else "."}" reads them otherwise, ' if doubtful else ""
        other = "number" if column.kind in ("id", "constant") and own.numbers is not None else "category"
        other = "text" if column.kind == other else other
        change += f'kinds={{"{name}": "{other}"}}'
        change += " keeps it" if column.kind in ("id", "constant") else f' or ignore="{name}" changes that'
        columns.append(column)
        told.append(f'column "{name}": {why}; {change}')
    return columns, told


def _decide(name: str, cells: Cells, mark: str, rules: Rules) -> tuple[Column, str]:
    """Return (a column, what it is taken for in words)."""
    wanted, format = rules.kinds.get(name, ("", ""))
    decimal: Literal[".", ","] = "," if mark == "," else "."
    if not wanted and len(cells.texts) < 2 and (cells.there.all() or not cells.texts):
        value = f'always "{cells.texts[0][:40]}"' if cells.texts else "blank in every row"
        return Column(name, "constant"), f"dropped, as it is {value}"
    if not wanted and (why := _is_id(name, cells)):
        return Column(name, "id"), f"an id, dropped ({why})"
    if wanted == "boolean" or not wanted:
        pair = ordered(cells.texts) or (_binary(cells) if cells.numbers is not None else ())
        if pair or wanted:
            levels = pair or tuple(sorted(cells.texts, key=level_of))[:2]
            levels = levels if len(levels) == 2 else ("no", "yes")
            return Column(name, "boolean", levels=levels), f'booleans, 1 is "{levels[1]}" and 0 "{levels[0]}"'
    if cells.numbers is not None and wanted in ("", "number"):
        return Column(name, "number"), "numbers"
    there = units(_present(cells), decimal) if wanted in ("", "number") else []
    if wanted == "number" or there:
        unit = unit_of(there)
        read = figures(cells.texts, decimal, unit)
        if wanted or mostly(cells, [value is not None for value in read]):
            comma = " with a decimal comma" if decimal == "," and _marked(cells) else ""
            return Column(name, "number", decimal, unit), f"numbers{comma}{f' in {unit}' if unit else ''}"
    texts = _present(cells)
    formats = [format] if format else _formats(cells) if wanted in ("", "date") else []
    if wanted == "date" or formats:
        written = formats[0] if formats else ISO
        parts = parts_of(days(cells.texts, written), written)
        as_well = [f for f in formats[1:] if {f[:5], written[:5]} == {"%d/%m", "%m/%d"}]
        doubt = f' (the day first: "{name}:date:{as_well[0]}" in kinds= for the month)' if as_well else ""
        around = f", and where in the {' and the '.join(parts)}" if parts else ""
        return Column(name, "date", format=written, parts=parts), f"dates as {written}{doubt}: days{around}"
    words = sum(len(text.split()) for text in texts) / max(1, len(texts))
    rows = int(cells.there.sum())
    prose = rows >= ID_ROWS and 2 * len(cells.texts) > rows and words >= 2
    if wanted == "text" or (not wanted and (prose or len(cells.texts) > MOST_LEVELS)):
        return Column(name, "text", bins=rules.bins), f"texts, whose words are hashed into {rules.bins} inputs"
    return _category(name, cells, rules)


def _category(name: str, cells: Cells, rules: Rules) -> tuple[Column, str]:
    """Return a category: its most common levels, those of few rows together."""
    counts: dict[str, int] = {}
    spelling: dict[str, str] = {}
    for text, count in zip(cells.texts, np.bincount(cells.codes[cells.there], minlength=len(cells.texts)), strict=True):
        level = level_of(text)
        counts[level] = counts.get(level, 0) + int(count)
        spelling.setdefault(level, text)
    ranked = sorted(counts, key=lambda level: (-counts[level], level))
    kept = [level for level in ranked[: rules.levels] if counts[level] >= rules.rare] or ranked[: rules.levels]
    levels = tuple(sorted(spelling[level] for level in kept))
    rare = tuple(sorted(spelling[level] for level in set(counts) - set(kept)))
    few = f", {len(rare):,} rare ones together" if rare else ""
    if suspect := [level for level in levels if level.lower() in SUSPECTS]:
        few += f' ("{suspect[0]}" among them: missing=("{suspect[0]}",) if that means missing)'
    column = Column(name, "category", levels=levels, rare=rare)
    return column, f"a category of {len(levels):,} level{'s' if len(levels) > 1 else ''}{few}, of all rows"


def _present(cells: Cells) -> list[str]:
    """Return the distinct texts but for those that usually mean "missing"."""
    return [text for text in cells.texts if text.lower() not in SUSPECTS]


def _formats(cells: Cells) -> list[str]:
    """Return the formats of dates that most cells are in."""
    counts = np.bincount(cells.codes[cells.there], minlength=len(cells.texts))
    own = [i for i, text in enumerate(cells.texts) if text.lower() not in SUSPECTS]
    return formats_of([cells.texts[i] for i in own], MOSTLY, counts[own])


def mostly(cells: Cells, fits: Sequence[bool]) -> bool:
    """Return whether most cells are of a kind, those apart that usually mean "missing"; and any is."""
    counts = np.bincount(cells.codes[cells.there], minlength=len(cells.texts))
    own = np.array([text.lower() not in SUSPECTS for text in cells.texts], bool)
    inside = np.asarray(fits, bool) & own
    return bool(inside.any() and counts[inside].sum() >= MOSTLY * counts[own].sum())


def _marked(cells: Cells) -> bool:
    return any("," in text or "." in text for text in cells.texts)


def _doubtful(cells: Cells) -> bool:
    """Return whether the other decimal mark would give other numbers."""
    return cells.numbers is None and any(figure(t, ".") != figure(t, ",") for t in _present(cells))


def _binary(cells: Cells) -> tuple[str, ...]:
    numbers = [] if cells.numbers is None else cells.numbers.tolist()
    return ("0", "1") if set(numbers) == {0.0, 1.0} else ()


def _is_id(name: str, cells: Cells) -> str:
    """Return why a column is an id; empty if it is none."""
    rows = int(cells.there.sum())
    if rows < ID_ROWS or len(cells.texts) < rows:
        return ""
    named = _ID.fullmatch(name) is not None
    numbers = as_written(cells.texts) if cells.numbers is None else cells.numbers
    if numbers is None:
        exact = [quantity(text) for text in cells.texts]
        if any(q is None for q in exact):
            single = sum(not any(c.isspace() for c in text) for text in cells.texts)
            other = single < MOSTLY * rows or _formats(cells) or _figures(cells)
            return "" if other else f"{rows:,} different codes"
        numbers = np.array([float(q or 0) for q in exact])
    if not np.isfinite(numbers).all() or (numbers != np.floor(numbers)).any():
        return ""
    if np.ptp(numbers) == rows - 1:
        return "it counts the rows"
    return "whole numbers, all different, by its name" if named else ""


def _figures(cells: Cells) -> bool:
    return any(mostly(cells, [figure(t, mark) is not None for t in cells.texts]) for mark in DECIMALS)
