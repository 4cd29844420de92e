"""What a reader sees of a sweep: the table of results, of paired gains over the baseline, and of costs.

Each is a `Table`, which has no format yet; ``to_markdown``, ``to_latex``, ``to_csv``, ``to_json`` and
``to_html``, ``to_console`` (from `mtl.report.formats`, at hand here too) write it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mtl.report import phrases
from mtl.report.analysis import DOUBLED, Analysis, Cell, Cost, Scores
from mtl.report.formats import (
    Table,
    TableCell,
    to_console,
    to_csv,
    to_html,
    to_json,
    to_latex,
    to_markdown,
)
from mtl.report.text import gain_unit_text, human, interval_text, metric_text, number_text, p_text, row_text, size_text

__all__ = [
    "Table",
    "TableCell",
    "cost_table",
    "crossover_table",
    "gain_table",
    "result_table",
    "to_console",
    "to_csv",
    "to_html",
    "to_json",
    "to_latex",
    "to_markdown",
]

NOT_WORSE = "†"
CONTROL = "°"
NO_GAIN = "‡"
SIGNS = {"gain": "▲", "harm": "▼", "equivalent": "≈", "inconclusive": "·"}


def _cell(analysis: Analysis, regime: str, size: float) -> Cell | None:
    return analysis.cells.get(regime, {}).get(size)


def _absent(cell: Cell | None) -> TableCell | None:
    """How to show a cell without any result; None when it has one."""
    if cell is not None and cell.replicates > 0:
        return None
    if cell is not None and cell.failed > 0:
        return TableCell("failed", kind="failed")
    return TableCell("—", kind="missing")


def _coverage(cell: Cell) -> str:
    return f"{cell.replicates}/{cell.replicates + cell.missing}" if cell.missing else ""


def name_cell(analysis: Analysis, regime: str) -> TableCell:
    """A regime's name, with what it is."""
    scores = analysis.scores
    if regime in scores.controls:
        return TableCell(row_text(regime), mark=CONTROL, kind="control")
    return TableCell(regime, kind="baseline" if regime == scores.baseline else "")


def records(analysis: Analysis, regimes: Iterable[str]) -> tuple[dict[str, Any], ...]:
    """The numbers behind a table, one dict a regime and size."""
    scores = analysis.scores
    names = [field.name for field in dataclasses.fields(Cell)]
    found = []
    for regime in regimes:
        for size in scores.sizes:
            cell = _cell(analysis, regime, size)
            found.append(
                {
                    "study": scores.study,
                    "sweep": scores.sweep,
                    "metric": scores.metric,
                    "higher_is_better": scores.higher_is_better,
                    "baseline": scores.baseline,
                    "margin": scores.margin,
                    "regime": regime,
                    "control": regime in scores.controls,
                    phrases.column(scores.sizes): int(size) if float(size).is_integer() else size,
                    **{name: None if cell is None else getattr(cell, name) for name in names},
                }
            )
    return tuple(found)


def control_footnotes(scores: Scores, regimes: Iterable[str]) -> list[str]:
    """Sentences for what marks controls, where there are some."""
    controls = [regime for regime in regimes if regime in scores.controls]
    notes = [f"{CONTROL} control: shows what a part of the recipe does alone; not a contender."] if controls else []
    if any(regime in scores.doubled for regime in controls):
        double = row_text(f"{scores.baseline}{DOUBLED}")
        notes.append(
            f"×2: at a doubled budget of updates; gains are over {double}, that of {double} over {scores.baseline}."
        )
    return notes


def shared_footnotes(analysis: Analysis, regimes: Iterable[str]) -> list[str]:
    """Sentences for signs that occur in both the result and the gain table, and only for those that occur."""
    scores, regimes = analysis.scores, list(regimes)
    cells = [_cell(analysis, regime, size) for regime in regimes for size in scores.sizes]
    notes = []
    notes += control_footnotes(scores, regimes)
    if any(cell is not None and cell.replicates and cell.missing for cell in cells):
        notes.append("k/R after a cell: it rests on k of R replicates; the others are missing or failed.")
    shown = {"" if (gap := _absent(cell)) is None else gap.text for cell in cells}
    if "failed" in shown:
        notes.append("failed: no replicate gave a result, and at least one trial failed or diverged.")
    if "—" in shown:
        notes.append("—: no result yet.")
    return notes


def sampled(analysis: Analysis) -> str:
    """What stands for the test set in an interval."""
    groups = analysis.scores.groups
    return "test examples" if groups is None else f"{len(np.unique(groups)):,} groups of test examples"


def metric_cell(analysis: Analysis, regime: str, size: float) -> TableCell:
    """The metric of a regime at a size, with its interval."""
    scores, cell = analysis.scores, _cell(analysis, regime, size)
    gap = _absent(cell)
    if gap is not None or cell is None:
        return gap or TableCell("—", kind="missing")
    return TableCell(
        number_text(cell.mean, scores.unit),
        interval_text(cell.low, cell.high, scores.unit),
        note=_coverage(cell),
        mark=NOT_WORSE if cell.not_worse else "",
        bold=cell.best,
    )


def gain_cell(analysis: Analysis, regime: str, size: float) -> TableCell:
    """The paired gain of a regime at a size, with its interval and what it lets us claim."""
    scores, cell = analysis.scores, _cell(analysis, regime, size)
    gap = _absent(cell)
    if gap is not None or cell is None:
        return gap or TableCell("—", kind="missing")
    text = number_text(cell.gain, scores.unit, signed=True)
    return TableCell(
        f"{SIGNS[cell.claim]} {text}" if cell.claim in SIGNS else text,
        interval_text(cell.gain_low, cell.gain_high, scores.unit),
        note=" ".join(filter(None, (_coverage(cell), _disagrees(cell)))),
        mark=NO_GAIN if math.isnan(cell.gain) else "",
        kind=cell.claim,
    )


def _disagrees(cell: Cell) -> str:
    """The corrected p where the interval alone would let a reader claim something else."""
    excluded = cell.gain_low > 0 or cell.gain_high < 0
    return (
        f"p {p_text(cell.p_holm)}"
        if excluded == (cell.claim not in ("gain", "harm")) and cell.p_holm == cell.p_holm
        else ""
    )


def result_table(analysis: Analysis) -> Table:
    """Make the table of the metric: rows regimes, columns target sizes.

    Args:
      analysis: of one sweep.

    Returns:
      Mean and interval a cell, the column's best bold, everything not shown to be worse marked.
    """
    scores = analysis.scores
    rows = [
        (name_cell(analysis, regime), *(metric_cell(analysis, regime, size) for size in scores.sizes))
        for regime in scores.regimes
    ]
    metric, column = metric_text(scores.metric, scores.unit), phrases.column(scores.sizes)
    better = "higher" if scores.higher_is_better else "lower"
    footnotes = [
        f"Mean and 95 % interval over {len(scores.replicates)} replicates and the {sampled(analysis)} "
        f"(two-way bootstrap, {analysis.resamples:,} resamples); {better} is better.",
        f"Bold: best mean of the column. {NOT_WORSE} not shown to be worse: in the set that holds the "
        "column's best with 95 % confidence (Hsu).",
        *shared_footnotes(analysis, scores.regimes),
        *scores.data_notes,
    ]
    return Table(
        name="result",
        title=f"{scores.study} / {scores.sweep}: {metric} by {'target labels n' if column == 'n' else column}",
        header=(scores.row, *(f"{column}={size_text(size)}" for size in scores.sizes)),
        rows=tuple(rows),
        footnotes=tuple(footnotes),
        records=records(analysis, scores.regimes),
    )


def gain_table(analysis: Analysis) -> Table:
    """Make the table of paired gains over the baseline, with what they let us claim.

    Args:
      analysis: of one sweep.

    Returns:
      A row for every regime but the baseline; the claim's sign, the gain and its interval in a cell.
    """
    scores = analysis.scores
    regimes = [regime for regime in scores.regimes if regime != scores.baseline]
    rows = [
        (name_cell(analysis, regime), *(gain_cell(analysis, regime, size) for size in scores.sizes))
        for regime in regimes
    ]
    margin = number_text(scores.margin, scores.unit)
    footnotes = [
        "Differences within replicates and test examples, positive is better, with 95 % intervals.",
        f"{SIGNS['gain']} gain and {SIGNS['harm']} harm: significant at 5 % after Holm over the whole sweep. "
        f"{SIGNS['equivalent']} equivalent: within ± {margin}, at 5 % after Holm likewise. "
        f"{SIGNS['inconclusive']} inconclusive.",
        *shared_footnotes(analysis, regimes),
    ]
    if any(cell.mark == NO_GAIN for row in rows for cell in row[1:]):
        footnotes.append(
            f"{NO_GAIN} no gain: there is a result, but none of {scores.baseline} in the same replicates to compare "
            "with."
        )
    points = gain_unit_text(scores.metric, scores.unit)
    return Table(
        name="gain",
        title=f"{scores.study} / {scores.sweep}: paired gain over {scores.baseline} in {points}",
        header=(scores.row, *(f"{phrases.column(scores.sizes)}={size_text(size)}" for size in scores.sizes)),
        rows=tuple(rows),
        footnotes=tuple(footnotes),
        records=records(analysis, regimes),
    )


#: The columns of what a regime costs; of all but the second, how many times that of the baseline it is stands beside.
COSTS = ("updates", "examples", "of these source", "labelled rows", "operations", "training time")


def cost_cells(cost: Cost | None, base: Cost | None) -> list[TableCell]:
    """Make the cells of ``COSTS``: absolute, and relative to the baseline's where that is known and not 0."""
    if cost is None:
        return [TableCell("—", kind="missing")] * len(COSTS)

    def times(name: str) -> str:
        ratio = getattr(cost, name) / own if base and (own := getattr(base, name)) else math.nan
        return f"{ratio:.3g}×" if cost is not base and math.isfinite(ratio) else ""

    def count(number: float) -> str:
        return f"{number:,.0f}" if math.isfinite(number) else "—"

    ends = [human(end, "s") for end in (cost.seconds_low, cost.seconds_high)]
    known = math.isfinite(cost.seconds_low) and math.isfinite(cost.seconds_high)
    return [
        TableCell(count(cost.updates), note=times("updates")),
        TableCell(count(cost.examples), note=times("examples")),
        TableCell(count(cost.source_examples)),
        TableCell(count(cost.rows), note=times("rows")),
        TableCell(human(cost.flops, "FLOP"), note=times("flops")),
        TableCell(human(cost.seconds, "s"), f"[{', '.join(ends)}]" if known else "", note=times("seconds")),
    ]


def cost_footnotes(scores: Scores, rows: Iterable[Sequence[TableCell]]) -> list[str]:
    """Sentences on the columns of ``COSTS``."""
    rows = list(rows)
    notes = ["Labelled rows: distinct rows with a training label of a task that some phase trains on."]
    if any(cell.note for row in rows for cell in row):
        notes.append(f"k×: times that of {scores.baseline}.")
    if any(cell.detail for row in rows for cell in row):
        notes.append(
            "Training time: in brackets the least and the most of the replicates' means; it depends on the machine and "
            "on what else ran there, which operations do not."
        )
    return [*notes, *control_footnotes(scores, scores.regimes)]


def cost_table(analysis: Analysis) -> Table:
    """Make the table of what one trial of each regime cost.

    Args:
      analysis: of one sweep.

    Returns:
      Updates, examples seen, how many of them before the target's labels, labelled rows, operations, and seconds with
      their range; and each relative to the baseline's.
    """
    scores = analysis.scores
    rows, records = [], []
    for regime in scores.regimes:
        if (cost := scores.cost.get(regime)) is not None:
            records.append({"study": scores.study, "sweep": scores.sweep, "regime": regime} | dataclasses.asdict(cost))
        rows.append((name_cell(analysis, regime), *cost_cells(cost, scores.cost.get(scores.baseline))))
    footnotes = ["Mean over trials; the source phases that a regime rests on are charged to it in full."]
    footnotes += cost_footnotes(scores, rows)
    return Table(
        name="cost",
        title=f"{scores.study} / {scores.sweep}: cost of one trial",
        header=(scores.row, *COSTS),
        rows=tuple(rows),
        footnotes=tuple(footnotes),
        records=tuple(records),
    )


def crossover_table(analysis: Analysis) -> Table:
    """Make the table of where one regime overtakes another as labels become more.

    Args:
      analysis: of one sweep.

    Returns:
      A row for every crossover; no records, as the page alone shows it.
    """
    rows, column = [], phrases.column(analysis.scores.sizes)
    few = "few labels" if column == "n" else f"little {column}"
    for cross in analysis.crossovers:
        known = math.isfinite(cross.low) and math.isfinite(cross.high)
        texts = (
            cross.leader,
            cross.overtaker,
            " and ".join(map(size_text, cross.between)),
            f"{cross.low:.3g} to {cross.high:.3g}" if known else "—",
            f"{100 * cross.share:.0f} %",
        )
        rows.append(tuple(map(TableCell, texts)))
    return Table(
        name="crossover",
        title=f"{analysis.scores.study} / {analysis.scores.sweep}: where curves cross",
        header=(f"better with {few}", "overtaken by", f"between {column}", f"95 % interval of {column}", "share"),
        rows=tuple(rows),
        footnotes=("Share: part of the bootstrapped pairs of curves that cross exactly so.",),
        records=(),
    )
