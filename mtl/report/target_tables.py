"""What a reader sees of a sweep of several targets: rows regimes, columns targets and their mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from mtl.report.analysis import Analysis
from mtl.report.formats import Table, TableCell
from mtl.report.means import Mean
from mtl.report.phrases import column, join
from mtl.report.tables import (
    COSTS,
    NOT_WORSE,
    SIGNS,
    cost_cells,
    cost_footnotes,
    gain_cell,
    metric_cell,
    name_cell,
    records,
    sampled,
    shared_footnotes,
)
from mtl.report.targets import Targets
from mtl.report.text import gain_unit_text, human, interval_text, metric_text, number_text, size_text

#: Tables to read show so many targets; the records behind them have all.
SHOWN = 12


def target_result_table(targets: Targets) -> Table:
    """Make the table of the metric: rows regimes (at each size), columns targets and their mean."""
    scores = targets.scores
    rows = _rows(targets, scores.regimes, metric_cell, lambda mean: (_mean_cell(mean, scores.unit),))
    better = "higher" if scores.higher_is_better else "lower"
    footnotes = [
        f"Mean and 95 % interval over {len(scores.replicates)} replicates and the {sampled(_first(targets))} (two-way "
        f"bootstrap, {_first(targets).resamples:,} resamples, the same rows for all targets); {better} is better.",
        f"Bold: best mean of a target at an n. {NOT_WORSE} not shown to be worse: in the set that holds the best with "
        "95 % confidence (Hsu).",
        *_footnotes(targets, scores.regimes),
        *scores.data_notes,
    ]
    return Table(
        name="result",
        title=f"{scores.study} / {scores.sweep}: {_metrics(targets, metric_text)} by target",
        header=(*_header(targets), "mean"),
        rows=rows,
        footnotes=tuple(footnotes),
        records=_records(targets, scores.regimes),
    )


def target_gain_table(targets: Targets) -> Table:
    """Make the table of paired gains over the baseline, and what they come to over all targets."""
    scores = targets.scores
    regimes = [regime for regime in scores.regimes if regime != scores.baseline]

    def over_all(mean: Mean) -> tuple[TableCell, ...]:
        return (
            TableCell(
                number_text(mean.gain, scores.unit, signed=True),
                interval_text(mean.gain_low, mean.gain_high, scores.unit),
            ),
            *(
                TableCell(number_text(at / 100, 100, signed=True), interval_text(low / 100, high / 100, 100))
                for at, low, high in (
                    (mean.delta, mean.delta_low, mean.delta_high),
                    (mean.iqm, mean.iqm_low, mean.iqm_high),
                )
            ),
            TableCell(
                number_text(mean.improvement, 100),
                interval_text(mean.improvement_low, mean.improvement_high, 100),
            ),
        )

    margin = number_text(scores.margin, scores.unit)
    footnotes = [
        "Differences within replicates and test examples, positive is better, with 95 % intervals.",
        f"{SIGNS['gain']} gain and {SIGNS['harm']} harm: significant at 5 % after Holm over targets × regimes × n. "
        f"{SIGNS['equivalent']} equivalent: within ± {margin}, at 5 % after Holm likewise. "
        f"{SIGNS['inconclusive']} inconclusive.",
        f"Δ_m: the mean over targets of the gain relative to {scores.baseline}'s metric, of AUROC to what is above ½ "
        "(Maninis et al. 2019); — where the interval of one of these touches zero.",
        "IQM: the mean of the middle half of these gains over targets × replicates. P(better): how often the regime is "
        f"better than {scores.baseline} on one of the targets, in one replicate and on one such test set. "
        "Both: Agarwal et al. 2021, within replicates.",
        *_footnotes(targets, regimes),
    ]
    return Table(
        name="gain",
        title=f"{scores.study} / {scores.sweep}: paired gain over {scores.baseline} in "
        f"{_metrics(targets, gain_unit_text)}",
        header=(*_header(targets), "mean", "Δ_m (%)", "IQM (%)", "P(better) (%)"),
        rows=_rows(targets, regimes, gain_cell, over_all),
        footnotes=tuple(footnotes),
        records=_records(targets, regimes),
    )


def target_cost_table(targets: Targets) -> Table:
    """Make the table of what all targets cost: of one joint network, or of one for each."""
    scores, rows, found = targets.scores, [], []
    for regime in scores.regimes:
        cost, networks = targets.cost.get(regime), targets.networks[regime]
        known = [human(cost.parameters), human(cost.bytes, "B")] if cost is not None else ["—"] * 2
        cells = [TableCell(f"{networks:,}"), *map(TableCell, known)]
        cells += cost_cells(cost, targets.cost.get(scores.baseline))
        if cost is not None:
            about = {"study": scores.study, "sweep": scores.sweep, "regime": regime, "networks": networks}
            found.append(about | dataclasses.asdict(cost))
        rows.append((name_cell(_first(targets), regime), *cells))
    footnotes = [
        f"Of all networks that have the {len(targets.of)} targets, on average over replicates; each is charged the "
        "phases that it rests on in full, also those that several share; labelled rows are those of the network that "
        "has most.",
        *cost_footnotes(scores, rows),
    ]
    return Table(
        name="cost",
        title=f"{scores.study} / {scores.sweep}: cost of all targets",
        header=(scores.row, "networks", "parameters", "memory", *COSTS),
        rows=tuple(rows),
        footnotes=tuple(footnotes),
        records=tuple(found),
    )


def _first(targets: Targets) -> Analysis:
    return next(iter(targets.of.values()))


def _header(targets: Targets) -> tuple[str, ...]:
    sizes = (column(targets.scores.sizes),) if len(targets.scores.sizes) > 1 else ()
    return (targets.scores.row, *sizes, *list(targets.of)[:SHOWN])


def _rows(
    targets: Targets,
    regimes: Sequence[str],
    cell: Callable[[Analysis, str, float], TableCell],
    over_all: Callable[[Mean], tuple[TableCell, ...]],
) -> tuple[tuple[TableCell, ...], ...]:
    scores, shown = targets.scores, list(targets.of.values())[:SHOWN]
    return tuple(
        (
            name_cell(shown[0], regime),
            *((TableCell(size_text(size)),) if len(scores.sizes) > 1 else ()),
            *(cell(analysis, regime, size) for analysis in shown),
            *over_all(targets.means[regime][size]),
        )
        for size in scores.sizes
        for regime in regimes
    )


def _mean_cell(mean: Mean, unit: float) -> TableCell:
    return TableCell(number_text(mean.mean, unit), interval_text(mean.low, mean.high, unit))


def _metrics(targets: Targets, text: Callable[[str, float], str]) -> str:
    """Return the metric, or which targets have which."""
    by_metric: dict[str, list[str]] = {}
    for name, analysis in targets.of.items():
        by_metric.setdefault(text(analysis.scores.metric, analysis.scores.unit), []).append(name)
    if len(by_metric) == 1:
        return next(iter(by_metric))
    return join([f"{metric} of {join(names[:SHOWN])}" for metric, names in by_metric.items()])


def _footnotes(targets: Targets, regimes: Sequence[str]) -> list[str]:
    """Return sentences on signs, each once, and on targets that are not shown."""
    found = dict.fromkeys(note for analysis in targets.of.values() for note in shared_footnotes(analysis, regimes))
    hidden = len(targets.of) - SHOWN
    more = [f"{hidden:,} more targets are in the CSV and JSON of this table, and in its mean."] if hidden > 0 else []
    return [*more, *found]


def _records(targets: Targets, regimes: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Return the numbers behind a table, one dict a target, regime and size; then those of means over targets."""
    scores = targets.scores
    found = [{"target": task, **record} for task, a in targets.of.items() for record in records(a, regimes)]
    alike = len({a.scores.metric for a in targets.of.values()}) == 1
    size = column(scores.sizes)
    over_all = ("study", "sweep", "higher_is_better", "baseline", "margin", "regime", "control", size)
    for record in records(_first(targets), regimes):
        about = {key: record[key] for key in over_all} | {"metric": scores.metric if alike else None}
        mean = dataclasses.asdict(targets.means[record["regime"]][float(record[size])])
        found.append({"target": "mean over targets", **about, **mean})
    keys = dict.fromkeys(key for record in found for key in record)  # The same for all, as CSV has it.
    return tuple({key: record.get(key) for key in keys} for record in found)
