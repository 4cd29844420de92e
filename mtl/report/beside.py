"""From a work directory to what a page shows of a sweep beside its analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl.report.analysis import Analysis
from mtl.report.calibration import calibration
from mtl.report.curves import learning_curves
from mtl.report.data_words import data_sentence, data_table, data_warnings
from mtl.report.other_metrics import other_metrics_table
from mtl.report.picked import Picked, picked
from mtl.report.regime_words import regime_lines
from mtl.report.supplement import Supplement
from mtl.report.targets import Targets
from mtl.sweep.chosen import axes
from mtl.sweep.store import Workdir


def supplement_of(workdir: Workdir, entry: Mapping[str, Any], analysis: Analysis | Targets) -> Supplement:
    """Return what a work directory holds beside an analysis.

    Args:
      workdir: the work directory.
      entry: the sweep, from ``study.json``.
      analysis: of it.
    """
    base, trials = entry["base"], picked(workdir, entry)
    sources = base["data.source"]
    targets = list(analysis.of) if isinstance(analysis, Targets) else [analysis.scores.task]
    facts = entry.get("data")
    return Supplement(
        data=data_sentence(facts, targets, sources) if facts else "",
        data_table=data_table(facts, targets, sources) if facts else None,
        data_warnings=data_warnings(facts) if facts else (),
        regimes=_regimes(base, analysis, trials),
        curves=learning_curves(analysis, trials),
        calibration=calibration(workdir.predictions, analysis, trials),
        others=other_metrics_table(analysis, trials),
    )


def _regimes(base: Mapping[str, Any], analysis: Analysis | Targets, trials: Sequence[Picked]) -> dict[str, str]:
    """Return a line on each regime of a table, or on the only one where rows are something else."""
    phases = {trial.row: trial.result["config"]["phases"] for trial in trials}
    if axes(base)[0] == "regime":
        return regime_lines(analysis.scores.regimes, base.get("regimes", {}), phases)
    one = base["regime"]
    return regime_lines([one], base.get("regimes", {}), {one: next(iter(phases.values()), ())})
