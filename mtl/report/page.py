"""One self-contained HTML file about a study: question, verdict, tables, figures, trials, configs, origin.

It needs no network, works from ``file://``, in light and dark and on paper. This file gathers what the page says,
``templates/page.html`` writes it and escapes all of it. A content security policy in the page forbids it to load
anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mtl.report import figures
from mtl.report.analysis import Analysis
from mtl.report.render import render
from mtl.report.show import tables_of
from mtl.report.svg import inline_svg
from mtl.report.tables import crossover_table
from mtl.report.targets import Targets
from mtl.report.text import plain

# What a trial's row may hold: key, title, whether readers may filter by it,
# decimals. Other keys follow.
COLUMNS = (
    ("sweep", "sweep", True, None),
    ("regime", "regime", True, None),
    ("n", "n", True, None),
    ("seed", "seed", True, None),
    ("learning_rate", "learning rate", True, None),
    ("status", "status", True, None),
    ("validation", "validation score", False, 4),
    ("test", "test metric", False, 4),
    ("examples", "examples", False, None),
    ("seconds", "seconds", False, 2),
    ("hash", "config", False, None),
)


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


def _section(analysis: Analysis | Targets, index: int) -> dict[str, Any]:
    """Return what ``section.html`` takes; ids in it begin with its own."""
    scores, name = analysis.scores, f"s{index}"
    tables = {f"{table.name}_table": table for _, table in tables_of([analysis])}
    if isinstance(analysis, Targets):
        label = f"gain over {scores.baseline} of each target; the numbers are in the table below"
        forest = figures.forest_figure(analysis, titled=False) if len(scores.regimes) > 1 else None
        gain = None if forest is None else inline_svg(forest, f"{name}-gain", label)
        nothing: dict[str, Any] = {
            "metric_figure": None,
            "crossover_table": None,
            "extra_figures": {},
            "extra_facts": {},
        }
        return {"id": name, "analysis": analysis, "gain_figure": gain, **nothing, **tables}
    label = f"{scores.metric} against target labels, by regime; the numbers are in the table below"
    metric = inline_svg(figures.metric_figure(analysis, titled=False), f"{name}-metric", label)
    gain = None
    if len(scores.regimes) > 1:
        label = f"gain over {scores.baseline} against target labels; the numbers are in the table below"
        gain = inline_svg(figures.gain_figure(analysis, titled=False), f"{name}-gain", label)
    drawn = {title: value for title, value in analysis.extra.items() if hasattr(value, "savefig")}
    return {
        "id": name,
        "analysis": analysis,
        "metric_figure": metric,
        "gain_figure": gain,
        "extra_figures": {
            title: inline_svg(figure, f"{name}-extra{i}", title) for i, (title, figure) in enumerate(drawn.items())
        },
        "extra_facts": plain({title: value for title, value in analysis.extra.items() if title not in drawn}),
        "crossover_table": crossover_table(analysis) if analysis.crossovers else None,
        **tables,
    }


def page(
    analyses: Sequence[Analysis | Targets],
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
    data, facts = trial_data(trials, configs), plain(provenance)
    summary = [f"{len(trials):,} trials"] if trials else []
    summary += [f"{len(analyses)} sweeps"] if len(analyses) > 1 else []
    summary += [f"{name} {fact}" for name, fact in facts.items() if isinstance(fact, (str, int, float))][:3]
    return render(
        "page.html",
        title=title,
        summary=" · ".join(summary),
        sections=[_section(analysis, i) for i, analysis in enumerate(analyses)],
        trials=data,
        configs={
            name: json.dumps(plain(config), indent=2, ensure_ascii=False)
            for name, config in configs.items()
            if name not in data["configs"]
        },
        command=command,
        provenance=facts,
    )
