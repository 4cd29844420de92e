"""One neutral table (text, emphasis, footnotes, and the exact numbers behind them) and its writers.

The writers only spell what the table says: Markdown, LaTeX, HTML and the console print its text, CSV and JSON
carry its numbers in full precision and in the metric's own unit.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from typing import Any

from mtl.report.text import plain


@dataclasses.dataclass(frozen=True)
class TableCell:
    """One cell as a reader sees it.

    Attributes:
      text: the number or name.
      detail: what qualifies it, set smaller where the format can: the interval.
      note: what is wrong with it, for instance ``12/20`` replicates.
      mark: a footnote sign set right after the text.
      bold: whether it is emphasised.
      kind: its meaning, for colours: a claim, ``failed``, ``missing``, ``control``, ``baseline`` or empty.
    """

    text: str
    detail: str = ""
    note: str = ""
    mark: str = ""
    bold: bool = False
    kind: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table before it has a format.

    Attributes:
      name: short name, good for files: ``result``, ``gain``, ``cost``.
      title: the caption.
      header: the column names; the first column holds the rows' names.
      rows: cells, as many in each row as in the header.
      footnotes: sentences below the table.
      records: the numbers behind it, one flat dict a measured thing, for CSV and JSON.
      words: which columns hold words: they are set to the left, and fold.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    footnotes: tuple[str, ...]
    records: tuple[dict[str, Any], ...]
    words: tuple[int, ...] = ()


def _line(text: str) -> str:
    """One line: formats that end a row at a newline must not meet one."""
    return " ".join(text.split())


def _markdown(text: str) -> str:
    text = re.sub(r"([\\`*~|$])", r"\\\1", _line(text).replace("&", "&amp;"))
    # An underscore inside a word cannot start emphasis, and lp_ft should stay readable in the source.
    text = re.sub(r"(?<![A-Za-z0-9_])_+|_+(?![A-Za-z0-9_])", lambda m: "\\_" * len(m.group()), text)
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("](", "]\\(")


def to_markdown(table: Table) -> str:
    """Write GitHub-flavoured Markdown.

    Args:
      table: what to write.

    Returns:
      Title, table and footnotes, ending in a newline.

    >>> print(to_markdown(Table("t", "T", ("regime", "n=10"), ((TableCell("a|b"), TableCell("1", "[0, 2]",
    ...     mark="†", bold=True)),), (), ())))
    **T**
    <BLANKLINE>
    | regime | n=10 |
    |:--|--:|
    | a\\|b | **1**† [0, 2] |
    <BLANKLINE>
    """

    def cell(c: TableCell) -> str:
        text = f"**{_markdown(c.text)}**" if c.bold else _markdown(c.text)
        parts = (text + _markdown(c.mark), _markdown(c.detail), f"({_markdown(c.note)})" if c.note else "")
        return " ".join(part for part in parts if part)

    lines = [f"**{_markdown(table.title)}**", ""]
    lines.append("| " + " | ".join(_markdown(name) for name in table.header) + " |")
    lines.append("|" + "|".join(":--" if i in (0, *table.words) else "--:" for i in range(len(table.header))) + "|")
    lines += ["| " + " | ".join(cell(c) for c in row) + " |" for row in table.rows]
    if table.footnotes:
        lines += ["", *(f"- {_markdown(note)}" for note in table.footnotes)]
    return "\n".join(lines) + "\n"


_LATEX = {char: f"\\{char}" for char in "#$%&_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "−": "$-$", "—": "---", "–": "--", "×": r"$\times$", "±": r"$\pm$", "≈": r"$\approx$", "·": r"$\cdot$",
    "†": r"\dag{}", "‡": r"\ddag{}", "°": r"$^{\circ}$", "▲": r"$\uparrow$", "▼": r"$\downarrow$", "µ": r"$\mu$",
    "…": r"\dots{}",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in _line(text))


def to_latex(table: Table) -> str:
    """Write a LaTeX ``table`` float; the document needs ``\\usepackage{booktabs}`` and ``[T1]{fontenc}``.

    Intervals stand on a row of their own below the means, so that six sizes fit the 12 cm of ``article``.

    Args:
      table: what to write.

    Returns:
      The float, ending in a newline.
    """
    # `{}` first: a row that begins with [ or * would be read as an argument of the \\ before it.
    lines = [
        r"\begin{table}[tbp]",
        r"\centering\footnotesize\setlength{\tabcolsep}{2pt}",
        rf"\caption{{{_latex(table.title)}}}",
    ]
    lines.append(r"\def\interval{\fontsize{6}{7}\selectfont}")  # stays inside the float
    columns = "".join(r"p{3cm}" if i in table.words else "lr"[i > 0] for i in range(len(table.header)))
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(_latex(name) for name in table.header) + r" \\", r"\midrule"]
    for row in table.rows:
        cells = [
            (rf"\textbf{{{_latex(c.text)}}}" if c.bold else _latex(c.text))
            + _latex(c.mark)
            + (rf" {{\interval {_latex(c.note)}}}" if c.note else "")
            for c in row
        ]
        lines.append("{}" + " & ".join(cells) + r" \\")
        details = [_latex(c.detail) for c in row]
        if any(details):
            lines.append(" & ".join(rf"{{\interval {text}}}" if text else "" for text in details) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip{{\footnotesize\raggedright {_latex(note)}\par}}" for note in table.footnotes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def no_formulas(record: dict[str, Any]) -> dict[str, Any]:
    """Return a line of a CSV table whose texts no spreadsheet takes for formulas, which it would compute.

    >>> no_formulas({"regime": "=1+1", "gain": -0.5})
    {'regime': "'=1+1", 'gain': -0.5}
    """
    return {k: f"'{v}" if isinstance(v, str) and v.startswith(("=", "+", "-", "@")) else v for k, v in record.items()}


def to_csv(table: Table) -> str:
    """Write the numbers as tidy CSV: one line a cell, full precision, nothing scaled, empty where not known.

    Args:
      table: what to write.

    Returns:
      The CSV with a header line; only the header's fields of the first record when there are none.
    """
    out = io.StringIO()
    if table.records:
        writer = csv.DictWriter(out, list(table.records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(no_formulas, plain(list(table.records))))
    return out.getvalue()


def to_json(table: Table) -> str:
    """Write strict JSON: the printed cells and the numbers behind them.

    Args:
      table: what to write.

    Returns:
      An object with ``name, title, header, rows, footnotes, records``; NaN is null.
    """
    return json.dumps(plain(dataclasses.asdict(table)), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def to_html(table: Table) -> str:
    """Write an HTML fragment; the page gives it its look (classes ``num, detail, note, is-*``).

    Args:
      table: what to write.

    Returns:
      A ``<div class="table">`` with the table and its footnotes.
    """
    from mtl.report.render import render  # so that jinja2 is imported only where HTML is written

    return render("table.html", table=table)


# Words fold, but no narrower than this.
_WORDS = 18

# The layouts that `to_console` tries, the widest first: where the interval stands, the gap between columns.
_LAYOUTS = (("beside", 2), ("below", 2), ("tight", 1))
_STYLES = {
    "gain": "green",
    "harm": "red",
    "failed": "red",
    "control": "dim",
    "missing": "dim",
    "baseline": "bold",
}


def _console_lines(cell: TableCell, layout: str) -> tuple[str, str, str]:
    """The cell's text, what follows it on its line, and the line below."""
    note = f" {_line(cell.note)}" if cell.note else ""
    text, detail = _line(cell.text) + cell.mark, _line(cell.detail)
    if layout == "beside":
        return text, (f" {detail}" if detail else "") + note, ""
    return text, note, detail.replace(", ", ",") if layout == "tight" else detail


def _console_widths(table: Table, layout: str) -> list[int]:
    from rich.cells import cell_len

    widths = [cell_len(_line(name)) for name in table.header]
    for row in table.rows:
        for i, cell in enumerate(row):
            text, after, below = _console_lines(cell, layout)
            widths[i] = max(widths[i], cell_len(text + after), cell_len(below))
    return [min(width, _WORDS) if i in table.words else width for i, width in enumerate(widths)]


def to_console(table: Table, width: int = 100) -> Any:
    """Make what ``rich.console.Console().print`` shows well within a width.

    Intervals stand beside the numbers if that fits, else below them; if even that is too wide, the columns
    are cut into several tables below each other.

    Args:
      table: what to write.
      width: characters in a line.

    Returns:
      A rich renderable (`rich.console.Group`). Nothing in it is read as rich's markup.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    for layout, gap in _LAYOUTS:
        widths = _console_widths(table, layout)
        widths[0] = min(widths[0], max(12, width // 3))  # a very long name folds, the numbers keep their room
        if fits := sum(widths) + gap * (len(widths) - 1) <= width:
            break
    else:
        layout, gap = "below", 2
        widths = [widths[0], *_console_widths(table, layout)[1:]]

    # The fewest blocks in which every column finds room, then cut evenly: 3 + 3 reads better than 5 + 1.
    columns = list(range(1, len(widths)))
    room = len(columns) if fits else (width - widths[0]) // (max(widths[1:], default=1) + gap)
    room = max(1, room)
    count = max(1, -(-len(columns) // room))
    each = -(-len(columns) // count)
    blocks = [columns[i : i + each] for i in range(0, len(columns), each)] if columns else [[]]

    parts: list[Any] = [Text(_line(table.title), style="bold")]
    for block in blocks:
        # SIMPLE_HEAD puts one column between two; padding makes up the rest of the gap.
        grid = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
        grid.add_column(Text(_line(table.header[0])), max_width=widths[0], overflow="fold")
        for i in block:
            words = i in table.words
            grid.add_column(Text(_line(table.header[i])), justify="left" if words else "right", no_wrap=not words)
        for row in table.rows:
            line = [Text(_line(row[0].text) + row[0].mark, style=_STYLES.get(row[0].kind, ""))]
            for cell in (row[i] for i in block):
                text, after, below = _console_lines(cell, layout)
                shown = Text(text, style="bold" if cell.bold else _STYLES.get(cell.kind, ""))
                shown.append(after + ("\n" + below if below else ""), style="not bold dim")
                line.append(shown)
            grid.add_row(*line)
        parts += [Text(""), grid]
    parts += [Text(""), *(Text(_line(note), style="dim") for note in table.footnotes)]
    return Group(*parts)
