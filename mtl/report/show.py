"""What ``mtl table`` prints: the tables of some sweeps, of one kind or all, as one text or on the console."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from collections.abc import Callable, Sequence

from mtl.report.analysis import Analysis
from mtl.report.decision_table import decision_table, target_decision_table
from mtl.report.formats import no_formulas
from mtl.report.tables import (
    Table,
    cost_table,
    gain_table,
    result_table,
    to_console,
    to_html,
    to_latex,
    to_markdown,
)
from mtl.report.target_tables import target_cost_table, target_gain_table, target_result_table
from mtl.report.targets import Targets
from mtl.report.text import plain

#: The kinds of tables, in the order in which they are shown.
KINDS: dict[str, Callable[[Analysis], Table]] = {
    "decision": decision_table,
    "result": result_table,
    "gain": gain_table,
    "cost": cost_table,
}

#: The same of several targets.
OF_TARGETS: dict[str, Callable[[Targets], Table]] = {
    "decision": target_decision_table,
    "result": target_result_table,
    "gain": target_gain_table,
    "cost": target_cost_table,
}


def tables_of(analyses: Sequence[Analysis | Targets], kind: str = "all") -> list[tuple[str, Table]]:
    """Return (sweep, table) of each sweep and kind, sweep by sweep.

    Args:
      analyses: one a sweep.
      kind: a name in ``KINDS``, or ``all``.
    """
    found = []
    for a in analyses:
        for name in [name for name in KINDS if kind in (name, "all")]:
            found.append((a.scores.sweep, OF_TARGETS[name](a) if isinstance(a, Targets) else KINDS[name](a)))
    return found


def as_csv(tables: Sequence[tuple[str, Table]]) -> str:
    """Write tables as one CSV table in long form: one header, one line a measured thing, full precision.

    The first column, ``table``, says which kind a line belongs to; then come the columns of all kinds, ``study`` and
    ``sweep`` among them, empty where a kind does not have them. A kind's lines are the same whatever other kinds are
    there.

    Args:
      tables: as ``tables_of`` returns them.

    Returns:
      The CSV; empty if no table holds a number.
    """
    rows = [{"table": table.name, **record} for _, table in tables for record in table.records]
    if not rows:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(no_formulas, plain(rows)))
    return out.getvalue()


def as_json(tables: Sequence[tuple[str, Table]]) -> str:
    """Write tables as one strict JSON document: a list, also of one table; NaN is null.

    Args:
      tables: as ``tables_of`` returns them.

    Returns:
      A list of objects with ``sweep, name, title, header, rows, footnotes, records``.
    """
    found = [{"sweep": sweep, **dataclasses.asdict(table)} for sweep, table in tables]
    return json.dumps(plain(found), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _one_after_the_other(write: Callable[[Table], str]) -> Callable[[Sequence[tuple[str, Table]]], str]:
    return lambda tables: "\n".join(write(table) for _, table in tables)


#: The formats for files and programs, and how tables are written in each.
FORMATS: dict[str, Callable[[Sequence[tuple[str, Table]]], str]] = {
    "markdown": _one_after_the_other(to_markdown),
    "latex": _one_after_the_other(to_latex),
    "csv": as_csv,
    "json": as_json,
    "html": _one_after_the_other(to_html),
}


#: What the console shows of a decision without ``full``: so many rows, and sentences that weaken it.
ROWS, WARNINGS = 8, 2


def print_analysis(
    analysis: Analysis | Targets, kind: str = "", width: int | None = None, full: bool = False, more: str = ""
) -> None:
    """Print what a sweep's reader should do: the question, the verdict, the decision table and what weakens it.

    It is at most 40 lines of 80 columns. In full it also has all tables, all that is claimed, and all warnings.

    Args:
      analysis: of the sweep.
      kind: a name in ``KINDS``, to print that table alone, or ``all`` for all tables.
      width: characters in a line; the terminal's by default.
      full: whether to print everything.
      more: what prints everything, to be said where that is not printed.
    """
    from rich.console import Console

    columns = width or shutil.get_terminal_size((120, 40)).columns
    # Names are shown as they are: neither [bold] nor :key: means anything in them.
    console = Console(width=columns, highlight=False, markup=False, emoji=False)
    tables = [table for _, table in tables_of([analysis], kind or "all")]
    if not kind:
        console.print(analysis.scores.question, style="bold")
        console.print()
        for sentence in analysis.verdict:
            console.print(sentence)
        console.print()
    if not kind and not full:
        tables = [_short(tables[0])]
    for table in tables:
        console.print(to_console(table, columns))
        console.print()
    if not kind:
        said = (*analysis.details, *(f"warning: {w}" for w in analysis.warnings))
        for sentence in said if full else [f"warning: {w}" for w in analysis.warnings[:WARNINGS]]:
            console.print(sentence)
        if not full:
            left = len(analysis.warnings) - WARNINGS
            warnings = f" and {left} more warning{'s' * (left > 1)}" if left > 0 else ""
            console.print(f"All tables, all that is claimed{warnings}: {more or 'mtl table --full'}", style="dim")
        console.print()


def _short(table: Table) -> Table:
    """Return a decision table as the console shows it without ``full``: its first rows, and how to read its signs."""
    hidden = len(table.rows) - ROWS
    more = (f"{hidden:,} more rows: --full",) if hidden > 0 else ()
    notes = [note for note in table.footnotes if not note.startswith("Do: ")]
    return dataclasses.replace(table, title="What to do", rows=table.rows[:ROWS], footnotes=(*more, *notes))
