"""One self-contained HTML file about a study: question, verdict, tables, figures, trials, configs, origin.

It needs no network, works from ``file://``, in light and dark and on paper. Everything that comes from
outside is escaped; a content security policy in the file forbids it to load anything.
"""

from __future__ import annotations

import html
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from mtl.report import drawing, figures
from mtl.report.analysis import Analysis
from mtl.report.formats import Table, TableCell, to_html
from mtl.report.tables import cost_table, gain_table, result_table
from mtl.report.text import plain, size_text

# What a trial's row may hold: key, title, whether readers may filter by it,
# decimals. Other keys follow.
COLUMNS = (
    ("sweep", "sweep", True, None),
    ("regime", "regime", True, None),
    ("n", "n", True, None),
    ("seed", "seed", True, None),
    ("learning_rate", "learning rate", True, None),
    ("status", "status", True, None),
    ("validation", "validation loss", False, 4),
    ("test", "test metric", False, 4),
    ("examples", "examples", False, None),
    ("seconds", "seconds", False, 2),
    ("hash", "config", False, None),
)


def inline_svg(figure: Any, prefix: str, label: str) -> str:
    """Write a figure as an ``<svg>`` element to stand inside a page.

    Text stays text, what is drawn in ink takes the page's colour (to be read on dark), ids get a prefix
    (several figures share a page), and nothing names another host.

    Args:
      figure: from `mtl.report.figures`, or any of matplotlib's.
      prefix: unique in the page; letters, digits and dashes.
      label: what a screen reader says.

    Returns:
      The element.
    """
    out = io.StringIO()
    drawing.write(figure, out, "svg", fonttype="none")
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.S)  # it would apply to the whole page
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    svg = re.sub(r'(xlink:)?href="#', f'href="#{prefix}-', svg)
    # The paper of the figure is the first patch; the page has its own.
    svg = re.sub(rf'(<g id="{prefix}-patch_1">.*?)fill: #ffffff', r"\1fill: none", svg, count=1, flags=re.S)
    for i, color in enumerate(drawing.COLORS):  # dark pages lighten the darkest
        svg = svg.replace(color, f"var(--c{i}, {color})")
    svg = (
        svg.replace(drawing.SOFT, "var(--soft)")
        .replace(drawing.INK, "currentColor")
        .replace("fill: #ffffff", "fill: var(--paper)")
    )
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    assert size is not None
    svg = svg.replace(size.group(0), f'role="img" aria-label="{html.escape(" ".join(label.split()))}"', 1)
    return "\n".join(line.rstrip() for line in svg.strip().splitlines()) + "\n"


def _script_json(value: Any) -> str:
    """JSON that can stand inside a script element: no ``<`` can close it or open a comment."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _scalar(value: Any) -> Any:
    """A trial's value as a cell: number, string or None; infinity, which JSON lacks, as a string."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    value = plain(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def trial_data(trials: Sequence[Mapping[str, Any]], configs: Mapping[str, Any]) -> dict[str, Any]:
    """Arrange trials for the page's script: the column names once, then bare rows.

    Args:
      trials: one dict a trial; keys as in `COLUMNS`, others follow.
      configs: by name; those named by a trial's ``hash`` are kept.

    Returns:
      ``columns``, ``rows`` and ``configs``, fit for strict JSON.

    >>> trial_data([{"n": 10, "regime": "scratch"}], {})["rows"]
    [['scratch', 10]]
    """
    present = {key: None for trial in trials for key in trial}
    known = {column[0] for column in COLUMNS}
    columns: list[dict[str, Any]] = [
        {"key": key, "title": title, "pick": pick, "digits": digits}
        for key, title, pick, digits in COLUMNS
        if key in present
    ]
    columns += [
        {"key": key, "title": key.replace("_", " "), "pick": False, "digits": None}
        for key in present
        if key not in known
    ]
    hashes = {str(trial["hash"]) for trial in trials if trial.get("hash") is not None}
    return {
        "columns": columns,
        "rows": [[_scalar(trial.get(column["key"])) for column in columns] for trial in trials],
        "configs": {name: plain(config) for name, config in configs.items() if name in hashes},
    }


def _list(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _facts(value: Any) -> str:
    """Nested dicts as nested tables of two columns."""
    if isinstance(value, dict):
        rows = [
            f'<tr><th scope="row">{html.escape(str(key))}</th><td>{_facts(v)}</td></tr>' for key, v in value.items()
        ]
        return f"<table><tbody>{''.join(rows)}</tbody></table>" if rows else "—"
    if isinstance(value, list):
        return "<br>".join(_facts(item) for item in value) or "—"
    return "—" if value is None else html.escape(str(value))


def _crossover_table(analysis: Analysis) -> Table:
    rows = []
    for cross in analysis.crossovers:
        between = " and ".join(size_text(size) for size in cross.between)
        known = math.isfinite(cross.low) and math.isfinite(cross.high)
        span = f"{cross.low:.3g} to {cross.high:.3g}" if known else "—"
        texts = (cross.leader, cross.overtaker, between, span, f"{100 * cross.share:.0f} %")
        rows.append(tuple(TableCell(text) for text in texts))
    note = "Share: part of the bootstrapped pairs of curves that cross exactly so."
    header = ("better with few labels", "overtaken by", "between n", "95 % interval of n", "share")
    title = f"{analysis.scores.study} / {analysis.scores.sweep}: where curves cross"
    return Table("crossover", title, header, tuple(rows), (note,), ())


def _drawing(figure: Any, prefix: str, label: str) -> str:
    return f"<figure>{inline_svg(figure, prefix, label)}</figure>"


def _section(analysis: Analysis, index: int) -> list[str]:
    scores, prefix = analysis.scores, f"s{index}"
    out = [f'<section id="{prefix}">']
    out.append(f'<p class="eyebrow">{html.escape(scores.study)} / {html.escape(scores.sweep)}</p>')
    out.append(f"<h2>{html.escape(scores.question)}</h2>")
    if analysis.verdict:
        rest = _list(analysis.verdict[1:]) if analysis.verdict[1:] else ""
        answer = html.escape(analysis.verdict[0])
        long = " long" if len(analysis.verdict[0]) > 240 else ""  # a paragraph in bold is hard to read
        out.append(f'<div class="verdict"><p class="answer{long}">{answer}</p>{rest}</div>')
    if analysis.warnings:
        out.append(f'<div class="warnings"><p>What weakens it</p>{_list(analysis.warnings)}</div>')
    out.append("<h3>Results</h3>")
    label = f"{scores.metric} against target labels, by regime; the numbers are in the table below"
    out.append(_drawing(figures.metric_figure(analysis, titled=False), f"{prefix}-metric", label))
    out.append(to_html(result_table(analysis)))
    out.append(f"<h3>Paired gain over {html.escape(scores.baseline)}</h3>")
    if len(scores.regimes) > 1:
        label = f"gain over {scores.baseline} against target labels; the numbers are in the table below"
        out.append(_drawing(figures.gain_figure(analysis, titled=False), f"{prefix}-gain", label))
    out.append(to_html(gain_table(analysis)))
    if analysis.crossovers:
        out.append(to_html(_crossover_table(analysis)))
    drawn = {name: value for name, value in analysis.extra.items() if hasattr(value, "savefig")}
    for i, (name, figure) in enumerate(drawn.items()):
        out += [f"<h3>{html.escape(name)}</h3>", _drawing(figure, f"{prefix}-extra{i}", name)]
    told = {name: value for name, value in analysis.extra.items() if name not in drawn}
    if told:
        out += ["<h3>Further figures</h3>", f'<div class="provenance">{_facts(plain(told))}</div>']
    out += ["<h3>Cost</h3>", to_html(cost_table(analysis))]
    if scores.notes:
        out += ["<h3>How it was done</h3>", _list(scores.notes)]
    return [*out, "</section>"]


def page(
    analyses: Sequence[Analysis],
    *,
    title: str,
    provenance: dict[str, Any],
    trials: list[dict[str, Any]],
    configs: dict[str, dict[str, Any]],
    command: str,
) -> str:
    """Make the page of a study.

    Args:
      analyses: one a sweep, in the order of the page.
      title: the page's heading.
      provenance: facts by name, nested as it suits: git commit, versions, hardware, times.
      trials: one dict a trial: ``sweep, regime, n, seed, learning_rate, status, validation, test, examples,
        seconds, hash`` and whatever else is worth a column; ``None`` or NaN where unknown, all keys optional.
      configs: by name. One that is named by a trial's ``hash`` (its overrides) unfolds from that trial's row,
        the others (the base config) stand in the page, folded.
      command: what reproduces it.

    Returns:
      The HTML, the same for the same arguments; write it as UTF-8.
    """
    files = resources.files("mtl.report")
    style, script = (files.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    data = trial_data(trials, configs)
    shared = {name: config for name, config in configs.items() if name not in data["configs"]}
    out = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        # Nothing may be loaded, whatever a name smuggled in; data: is for the icon that browsers ask for.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>",
        f"<header>\n<h1>{html.escape(title)}</h1>",
    ]
    facts = plain(provenance)
    brief = [
        f"{len(trials):,} trials" if trials else "",
        f"{len(analyses)} sweeps" if len(analyses) > 1 else "",
    ]
    brief += [f"{key} {facts[key]}" for key in facts if isinstance(facts[key], (str, int, float))][:3]
    out.append(f'<p class="meta">{html.escape(" · ".join(part for part in brief if part))}</p>')
    if len(analyses) > 1:
        links = [
            f'<li><a href="#s{i}">{html.escape(a.scores.sweep)}</a>'
            f"<span>{html.escape(a.verdict[0] if a.verdict else a.scores.question)}</span></li>"
            for i, a in enumerate(analyses)
        ]
        out.append(f'<nav aria-label="sweeps"><ol>{"".join(links)}</ol></nav>')
    out.append("</header>\n<main>")
    for i, analysis in enumerate(analyses):
        out += _section(analysis, i)
    out += ['<section id="trials">', "<h2>Trials</h2>"]
    if trials:
        out += [
            "<p>Click a heading to sort, a config's hash to see what it changes.</p>",
            '<div id="trial-table"><noscript><p>This table needs JavaScript. Its rows are in this file, in '
            "the JSON element <code>trial-data</code>.</p></noscript></div>",
            f'<script type="application/json" id="trial-data">{_script_json(data)}</script>',
        ]
    else:
        out.append("<p>No trials were given.</p>")
    out += ["</section>", '<section id="configs">', "<h2>Configuration</h2>"]
    for name, config in shared.items():
        text = html.escape(json.dumps(plain(config), indent=2, ensure_ascii=False))
        out.append(f"<details><summary>{html.escape(name)}</summary><pre>{text}</pre></details>")
    if data["configs"]:
        out.append(f"<p>{len(data['configs']):,} trials' own settings unfold from their rows above.</p>")
    if not configs:
        out.append("<p>No configs were given.</p>")
    out += [
        "</section>",
        '<section id="provenance">',
        "<h2>Provenance</h2>",
        f"<pre><code>{html.escape(command)}</code></pre>",
        f'<div class="provenance">{_facts(facts)}</div>',
        "</section>\n</main>",
        "<footer>Made by mtl. This file is complete in itself and loads nothing.</footer>",
        f"<script>\n{script}</script>\n</body>\n</html>",
    ]
    return "\n".join(out) + "\n"
