import csv
import dataclasses
import html.parser
import io
import json
import math
import re
import shutil
import subprocess

import pandas as pd
import pytest
from rich.console import Console

from mtl.report.analysis import Cell
from mtl.report.tables import (
    cost_table,
    gain_table,
    result_table,
    to_console,
    to_csv,
    to_html,
    to_json,
    to_latex,
    to_markdown,
)
from mtl.report.text import human, number_text, plain, size_text
from tests.report.example import CONTROLS, NASTY, REGIMES, SIZES, example

BUILDERS = {"result": result_table, "gain": gain_table, "cost": cost_table}
FIELDS = [field.name for field in dataclasses.fields(Cell)]


@pytest.fixture(scope="module")
def analysis():
    return example()


@pytest.fixture(scope="module")
def nasty():
    return example(dict(zip(REGIMES, NASTY, strict=False)))


class Rows(html.parser.HTMLParser):
    """Texts of the table's cells, as a browser reads them, and whether the tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.open, self.tags = [], [], set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def same(read, value):
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return read is None or read == "" or (isinstance(read, float) and math.isnan(read))
    return read == value


def test_shape_and_what_is_emphasised(analysis):
    table = result_table(analysis)
    assert table.header == ("regime", "n=10", "n=20", "n=50", "n=100", "n=200", "n=500")
    assert [row[0].text for row in table.rows] == list(REGIMES)
    for row in table.rows:
        for size, shown in zip(SIZES, row[1:], strict=True):
            cell = analysis.cells[row[0].text][size]
            if cell.replicates:
                assert shown.bold == cell.best
                assert (shown.mark == "†") == cell.not_worse
                assert shown.text == f"{100 * cell.mean:.1f}"
                assert shown.detail == f"[{100 * cell.low:.1f}, {100 * cell.high:.1f}]"
    assert all(sum(row[i].bold for row in table.rows) == 1 for i in range(1, 7))
    assert any("†" in note for note in table.footnotes)


def test_missing_failed_and_partial_cells_are_shown_and_explained(analysis):
    table = result_table(analysis)
    rows = {row[0].text: dict(zip(SIZES, row[1:], strict=True)) for row in table.rows}
    assert rows["gradual"][10.0].text == "failed"
    assert rows["multitask_finetune"][500.0].text == "—"
    assert rows["multitask"][50.0].note == "12/20"
    notes = "\n".join(table.footnotes)
    assert "failed:" in notes
    assert "—:" in notes
    assert "k/R" in notes
    whole = "\n".join(result_table(example(holes=False)).footnotes)
    assert "failed:" not in whole
    assert "k/R" not in whole
    del analysis.cells["lp_ft"][20.0]  # a cell that nobody computed is missing, not an error
    rows = {row[0].text: row for row in result_table(analysis).rows}
    assert rows["lp_ft"][2].text == "—"
    analysis.cells["lp_ft"][20.0] = example().cells["lp_ft"][20.0]


def test_gain_signs_follow_the_claims(analysis):
    table = gain_table(analysis)
    assert [row[0].text for row in table.rows] == [name for name in REGIMES if name != "scratch"]
    signs = {"gain": "▲", "harm": "▼", "equivalent": "≈", "inconclusive": "·"}
    seen = set()
    for row in table.rows:
        for size, shown in zip(SIZES, row[1:], strict=True):
            cell = analysis.cells[row[0].text][size]
            if cell.claim:
                assert shown.text.split()[0] == signs[cell.claim]
                assert float(shown.text.split()[1].replace("−", "-")) == pytest.approx(100 * cell.gain, abs=0.051)
                seen.add(cell.claim)
    assert seen == set(signs)


def test_a_gain_that_has_no_baseline_to_compare_with_is_explained():
    assert not any("‡" in note for note in gain_table(example()).footnotes)
    without = example()  # The baseline failed at the second size.
    for name, row in without.cells.items():
        nan = dict.fromkeys(("gain", "gain_low", "gain_high", "p", "p_holm"), math.nan)
        row[20.0] = dataclasses.replace(row[20.0], claim="", **nan)
        if name == "scratch":
            row[20.0] = dataclasses.replace(row[20.0], mean=math.nan, replicates=0, missing=20, failed=20)
    table = gain_table(without)
    assert {(row[2].text, row[2].mark, row[2].detail) for row in table.rows} == {("—", "‡", "")}
    assert not any(cell.mark == "‡" for row in table.rows for cell in (*row[1:2], *row[3:]))
    assert [note for note in table.footnotes if "‡" in note] == [
        "‡ no gain: there is a result, but none of scratch in the same replicates to compare with."
    ]
    assert r"—\ddag{}".replace("—", "---") in to_latex(table)


def test_costs_and_controls(analysis):
    table = cost_table(analysis)
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert table.header[1:] == (
        "updates",
        "examples",
        "of these source",
        "labelled rows",
        "operations",
        "training time",
    )
    assert rows["linear_probe"] == ["900", "28,800", "19,200", "19,900", "37.7 GFLOP", "361 ms"]
    times = {row[0].text: [cell.note for cell in row[1:]] for row in table.rows}
    assert times["linear_probe"] == ["3×", "3×", "", "28.4×", "3×", "1.86×"]
    assert set(times["scratch"]) == {""}
    assert "k×: times that of scratch." in table.footnotes
    assert {row[0].text for row in table.rows if row[0].mark == "°"} == set(CONTROLS)
    few = dataclasses.replace(analysis, scores=dataclasses.replace(analysis.scores, cost={}))
    assert {cell.text for row in cost_table(few).rows for cell in row[1:]} == {"—"}
    assert to_csv(cost_table(few)) == ""


@pytest.mark.parametrize("name", ["result", "gain"])
def test_csv_and_json_hold_every_number_exactly(analysis, name):
    table = BUILDERS[name](analysis)
    by_csv = list(csv.DictReader(io.StringIO(to_csv(table))))
    by_pandas = pd.read_csv(io.StringIO(to_csv(table)))
    by_json = json.loads(to_json(table), parse_constant=pytest.fail)["records"]
    assert len(by_csv) == len(by_json) == len(by_pandas) == len(table.rows) * len(SIZES)
    for i, (line, record) in enumerate(zip(by_csv, by_json, strict=True)):
        cell = analysis.cells[record["regime"]][float(record["n"])]
        for field in FIELDS:
            value = getattr(cell, field)
            assert same(record[field], value)
            if isinstance(value, float):
                assert same(float(line[field]) if line[field] else None, value)
                assert float(by_pandas[field][i]) == pytest.approx(value, rel=1e-14, nan_ok=True)
            else:
                assert line[field] == str(value)


def test_cost_csv(analysis):
    frame = pd.read_csv(io.StringIO(to_csv(cost_table(analysis))))
    for _, line in frame.iterrows():
        for field in ("updates", "examples", "rows", "flops", "seconds", "source_examples"):
            cost = getattr(analysis.scores.cost[line["regime"]], field)
            assert line[field] == pytest.approx(cost, rel=1e-14)


@pytest.mark.parametrize("name", list(BUILDERS))
def test_nasty_names_survive_each_format(nasty, name):
    table = BUILDERS[name](nasty)
    names = [row[0].text for row in table.rows]
    flat = [" ".join(text.split()) for text in names]

    # CSV and JSON: exactly the names.
    assert [record["regime"] for record in json.loads(to_json(table))["records"]][
        :: len(table.records) // len(names)
    ] == names
    assert list(dict.fromkeys(line["regime"] for line in csv.DictReader(io.StringIO(to_csv(table))))) == names

    # HTML: exactly the names, and no tag of theirs.
    read = Rows(to_html(table))
    assert [row[0].rstrip("°") for row in read.rows[1:]] == names
    assert all(len(row) == len(table.header) for row in read.rows)
    assert not {"script", "a"} & read.tags

    # Markdown: the same count of unescaped pipes in each row; nothing that a renderer takes for markup.
    lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(names)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(table.header) + 1}
    text = "\n".join(lines)
    assert "<" not in text
    assert "](" not in text

    # LaTeX: the specials are escaped, rows are complete.
    check_latex(to_latex(table), len(table.header))

    # Console: shown as they are, on one line, square brackets included.
    shown = console(table, 400)
    assert all(text in shown for text in flat)


def check_latex(text, columns):
    for environment in ("table", "tabular"):
        assert text.count(f"\\begin{{{environment}}}") == text.count(f"\\end{{{environment}}}") == 1
    bare = re.sub(r"\\[#$%&_{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert "%" not in bare
    assert "#" not in bare
    assert bare.count("$") % 2 == 0
    assert "_" not in bare
    assert "~" not in bare
    assert not re.search(r"\\\\\s*[\[*]", bare)
    body = bare.split("\\toprule")[1].split("\\bottomrule")[0].replace("\\midrule", "")
    rows = [row for row in body.split("\\\\\n") if row.strip()]
    assert {row.count("&") for row in rows} == {columns - 1}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(nasty, tmp_path):
    body = "\n".join(to_latex(build(nasty)) for build in BUILDERS.values())
    packages = "\\usepackage[T1]{fontenc}\\usepackage[utf8]{inputenc}\\usepackage{booktabs}"
    source = f"\\documentclass{{article}}{packages}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "t.tex").write_text(source, encoding="utf-8")
    run = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def console(table, width):
    out = Console(width=width, file=io.StringIO(), no_color=True, force_terminal=False)
    out.print(to_console(table, width))
    return out.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("name", list(BUILDERS))
def test_console_shows_everything_within_the_width(analysis, name, width):
    table = BUILDERS[name](analysis)
    text = console(table, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    words = text.replace(",", ", ").replace(",  ", ", ").split()
    for row in table.rows:
        for cell in row:
            for part in (cell.text.replace(",", ", "), cell.detail, cell.note):
                assert all(word in words or word + cell.mark in words for word in part.split()), part


def test_console_layouts(analysis):
    table = result_table(analysis)
    assert "71.2 [69.0, 73.2]" in console(table, 160)  # beside
    assert "[69.0, 73.2]  [80.1" in console(table, 120)  # below
    assert console(table, 100).count("regime ") == 1
    assert console(table, 80).count("regime ") == 2  # cut in two


@pytest.mark.parametrize("write", [to_markdown, to_latex, to_csv, to_json, to_html])
def test_writers_are_deterministic(write):
    assert write(result_table(example())) == write(result_table(example()))


def test_log_loss_and_small_studies():
    analysis = example()
    scores = dataclasses.replace(analysis.scores, unit=1.0, metric="log_loss", higher_is_better=False)
    table = result_table(dataclasses.replace(analysis, scores=scores))
    assert table.rows[0][1].text == f"{analysis.cells['scratch'][10.0].mean:.3f}"
    assert "lower is better" in table.footnotes[0]
    one = dataclasses.replace(analysis, scores=dataclasses.replace(scores, regimes=("scratch",), sizes=(10.0,)))
    for build in BUILDERS.values():
        for write in (to_markdown, to_latex, to_csv, to_json, to_html):
            assert isinstance(write(build(one)), str)
        assert console(build(one), 80)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "s", "0 s"),
        (999.6, "FLOP", "1.00 kFLOP"),
        (1e3, "", "1.00 k"),
        (5.5, "s", "5.50 s"),
        (1e21, "", "1000 E"),
    ],
)
def test_human(value, unit, text):
    assert human(value, unit) == text


def test_numbers():
    assert number_text(-0.00001, 100.0, signed=True) == "0.0"
    assert number_text(float("inf")) == "—"
    assert size_text(0.5) == "0.5"
    assert plain({"a": float("inf"), "b": {3, 1}, "c": b"x"}) == {"a": None, "b": [1, 3], "c": "b'x'"}
