"""One self-contained HTML file about a study: question, decision, figures; folded, all that they rest on.

It needs no network, works from ``file://``, in light and dark and on paper. This file gathers what the page says,
``templates/page.html`` writes it and escapes all of it. A content security policy in the page forbids it to load
anything.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtl.report import alt, figures, forest
from mtl.report.analysis import Analysis
from mtl.report.formats import Table
from mtl.report.index import index
from mtl.report.render import render
from mtl.report.show import tables_of
from mtl.report.supplement import Supplement
from mtl.report.svg import inline_svg
from mtl.report.tables import crossover_table
from mtl.report.target_tables import SHOWN
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

#: A note on the data that begins so stands in the box of warnings.
WARNING = "Warning: "

#: What folds a table away, by the table's name.
HEADINGS = {
    "targets": "What to do for single targets",
    "gain": "Paired gains",
    "cost": "Cost",
    "crossover": "Where curves cross",
    "metrics": "Other metrics",
}


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


def _section(analysis: Analysis | Targets, beside: Supplement, index: int) -> dict[str, Any]:
    """Return what ``section.html`` takes; ids in it begin with its own."""
    scores, name = analysis.scores, f"s{index}"
    several = len(scores.regimes) > 1
    first: list[tuple[Any, str]] = []
    more: dict[str, list[tuple[Any, str]]] = {}
    crossings: Table | None = None
    if isinstance(analysis, Targets):
        if several:
            shown = forest.middle(analysis)
            first.append((forest.forest_figure(analysis, titled=False), alt.forest_alt(analysis)))
            others = [n for n in scores.sizes if n != shown] if len(analysis.of) <= forest.NAMED else []
            figures_of = [(forest.forest_figure(analysis, False, n), alt.forest_alt(analysis, n)) for n in others]
            more["Gain at the other sizes"] = figures_of
    else:
        if several:
            first.append((figures.gain_figure(analysis, titled=False), alt.gain_alt(analysis)))
        first.append((figures.metric_figure(analysis, titled=False), alt.metric_alt(analysis)))
        drawn = {title: value for title, value in analysis.extra.items() if hasattr(value, "savefig")}
        more |= {title: [(figure, title)] for title, figure in drawn.items()}
        crossings = crossover_table(analysis) if analysis.crossovers else None
    if beside.curves is not None:
        told = f"Losses of training and validation of {len(scores.regimes)} rows over training steps, a panel a size."
        more["Learning curves of training and validation"] = [(beside.curves, told)]
    if beside.calibration is not None:
        told = f"Predicted probabilities against how often it was so, of {len(scores.regimes)} rows."
        more["Calibration"] = [(beside.calibration, told)]
    tables = {table.name: table for _, table in tables_of([analysis])}
    leaks = [note.removeprefix(WARNING) for note in scores.data_notes if note.startswith(WARNING)]
    numbers = itertools.count()

    def inline(pairs: Iterable[tuple[Any, str]]) -> list[Any]:
        return [inline_svg(figure, f"{name}-f{next(numbers)}", told) for figure, told in pairs]

    decision, single = tables.pop("decision"), []
    if isinstance(analysis, Targets) and len(analysis.of) > SHOWN and analysis.decisions:
        single = [dataclasses.replace(decision, name="targets")]  # Some of hundreds, by chance of their order.
        decision = dataclasses.replace(decision, rows=decision.rows[: len(analysis.decisions)])
    return {
        "id": name,
        "analysis": analysis,
        "warnings": list(dict.fromkeys([*analysis.warnings, *leaks, *beside.data_warnings])),
        "figures": inline(first),
        "more": {title: inline(pairs) for title, pairs in more.items() if pairs},
        "decision": decision,
        "result": tables.pop("result"),
        "tables": [
            *single,
            *tables.values(),
            *([crossings] if crossings else []),
            *([beside.others] if beside.others else []),
        ],
        "headings": HEADINGS,
        "beside": beside,
    }


def page(
    analyses: Sequence[Analysis | Targets],
    *,
    title: str,
    provenance: dict[str, Any],
    trials: list[dict[str, Any]],
    configs: dict[str, dict[str, Any]],
    command: str,
    beside: Mapping[str, Supplement] | None = None,
    made: str = "",
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
      beside: of some sweeps, by name, what is shown beside their analysis.
      made: when and by what the trials were trained, in a sentence.

    Returns:
      The HTML, the same for the same arguments; write it as UTF-8.
    """
    data, beside = trial_data(trials, configs), beside or {}
    summary = [f"{len(trials):,} trials"] if trials else []
    summary += [f"{len(analyses)} sweeps"] if len(analyses) > 1 else []
    summary += [made] if made else []
    return render(
        "page.html",
        title=title,
        summary=" · ".join(summary),
        index=index(analyses) if len(analyses) > 1 else [],
        sections=[
            _section(analysis, beside.get(analysis.scores.sweep, Supplement()), i)
            for i, analysis in enumerate(analyses)
        ],
        trials=data,
        configs={
            name: json.dumps(plain(config), indent=2, ensure_ascii=False)
            for name, config in configs.items()
            if name not in data["configs"]
        },
        command=command,
        provenance=plain(provenance),
    )
