"""A table of the metrics that results hold beside the study's own."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mtl.report.analysis import Analysis
from mtl.report.formats import Table, TableCell
from mtl.report.phrases import column
from mtl.report.picked import Picked
from mtl.report.tables import name_cell
from mtl.report.targets import Targets
from mtl.report.text import human, metric_name, number_text, size_text


def other_metrics_table(analysis: Analysis | Targets, trials: Iterable[Picked]) -> Table | None:
    """Make the table of all metrics of the targets: means over replicates, and over targets.

    Args:
      analysis: of the sweep.
      trials: its chosen trials.

    Returns:
      A row a regime and size, a column a metric; nothing if results hold no metric but the study's own.
    """
    scores = analysis.scores
    targets = {scores.task: 0} if isinstance(analysis, Analysis) else dict.fromkeys(analysis.of, 0)
    sums: dict[tuple[str, float], dict[str, list[float]]] = {}
    for trial in trials:
        for task, values in trial.result.get("test", {}).items():
            if task in targets and trial.target in ("", task):
                cell = sums.setdefault((trial.row, trial.size), {})
                for metric, value in values.items():
                    cell.setdefault(metric, []).append(math.nan if value is None else value)
    metrics = list(dict.fromkeys(name for cell in sums.values() for name in cell))
    if len(metrics) < 2:
        return None
    first = analysis if isinstance(analysis, Analysis) else next(iter(analysis.of.values()))
    several = len(scores.sizes) > 1
    rows, undefined = [], False
    for size in scores.sizes:
        for regime in scores.regimes:
            cells = []
            for metric in metrics:
                values = sums.get((regime, size), {}).get(metric, [])
                known = [v for v in values if math.isfinite(v)]
                undefined |= len(known) < len(values)
                mean = math.fsum(known) / len(known) if known else math.nan
                cells.append(TableCell(number_text(mean) if abs(mean) < 1000 else human(mean)))
            rows.append((name_cell(first, regime), *((TableCell(size_text(size)),) if several else ()), *cells))
    over = "replicates" if len(targets) == 1 else f"replicates and the {len(targets):,} targets"
    return Table(
        name="metrics",
        title=f"{scores.study} / {scores.sweep}: other metrics",
        header=(scores.row, *((column(scores.sizes),) if several else ()), *map(metric_name, metrics)),
        rows=tuple(rows),
        footnotes=(
            f"Means over {over} of the chosen trials, in each metric's own unit. What is claimed rests on "
            f"{metric_name(scores.metric)} alone.",
            *(["Means are over those replicates and targets for which a metric is defined."] if undefined else []),
        ),
        records=(),
    )
