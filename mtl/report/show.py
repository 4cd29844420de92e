"""What ``mtl table`` prints: the tables of some sweeps, of one kind or all, as one text or on the console."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from collections.abc import Callable, Sequence

from mtl.report.analysis import Analysis
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
KINDS: dict[str, Callable[[Analysis], Table]] = {"result": result_table, "gain": gain_table, "cost": cost_table}

#: The same of several targets.
OF_TARGETS: dict[str, Callable[[Targets], Table]] = {
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


def print_analysis(analysis: Analysis | Targets, kind: str = "all", width: int | None = None) -> None:
    """Print a sweep's tables on the console; with all of them its verdict and warnings.

    Args:
      analysis: of the sweep.
      kind: a name in ``KINDS``, or ``all``.
      width: characters in a line; the terminal's by default.
    """
    from rich.console import Console

    columns = width or shutil.get_terminal_size((120, 40)).columns
    # Names are shown as they are: neither [bold] nor :key: means anything in them.
    console = Console(width=columns, highlight=False, markup=False, emoji=False)
    for _, table in tables_of([analysis], kind):
        console.print(to_console(table, columns))
        console.print()
    if kind == "all":
        for sentence in analysis.verdict:
            console.print(sentence)
        for sentence in analysis.warnings:
            console.print(f"warning: {sentence}")
        console.print()
