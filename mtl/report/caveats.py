"""What weakens a sweep's answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl.report import phrases
from mtl.report.analysis import Analysis, Scores
from mtl.report.text import row_text

FEW_REPLICATES = 5

#: Below these an interval says less than it seems to: what decides it happens a handful of times.
FEW_OF_A_CLASS, FEW_ERRORS, FEW_GROUPS = 15, 10, 15

#: With fewer validation labels, or fewer of a class, states and candidates are chosen by loss and not by the metric.
FEW_VALIDATED, FEW_VALIDATED_OF_A_CLASS = 50, 10


def caveats(analysis: Analysis) -> tuple[str, ...]:
    """What weakens a sweep's answer: few replicates, missing trials, small test sets, budgets that did not suit.

    Args:
      analysis: cells; its own ``verdict`` and ``warnings`` are not read.

    Returns:
      Sentences, each naming regime, size and count.
    """
    scores, cells = analysis.scores, analysis.cells
    total = len(scores.replicates)
    found = []
    if total < FEW_REPLICATES:
        found.append(
            f"Only {total} replicate{'s' if total != 1 else ''}: intervals "
            + ("are over test examples only." if total == 1 else f"are wide; run at least {FEW_REPLICATES}.")
        )
    if analysis.extra.get("examples") == 1:
        found.append("Scores are one number a replicate: intervals are over replicates only, not test examples.")
    if scores.baseline not in scores.regimes:
        found.append(f"The baseline {scores.baseline} is not in the sweep: no gains could be computed.")
    for r in scores.regimes:
        gone = [(n, c) for n, c in cells[r].items() if c.missing]
        if gone:
            parts = [
                f"{c.missing} of {total} {phrases.with_labels([n], scores.sizes)}"
                + (f" ({c.failed} failed)" if c.failed else "")
                for n, c in gone
            ]
            found.append(f"{row_text(r)}: replicates without a result: {', '.join(parts)}.")
        few = [n for n, c in cells[r].items() if 0 < c.replicates < FEW_REPLICATES <= total]
        if few:
            where = phrases.with_labels(few, scores.sizes)
            found.append(f"{row_text(r)} {where} rests on fewer than {FEW_REPLICATES} replicates.")
    found += _few(analysis)
    worse = [(r, n) for r in scores.regimes for n, c in cells[r].items() if c.mean < 0]
    if scores.metric == "r2" and worse:
        found.append(f"Worse than predicting the mean of the test labels (R² below 0): {_where(worse, scores)}.")
    found += _trained(analysis)
    left_out = analysis.extra.get("draws_left_out", 0)
    if left_out:
        found.append(
            f"Up to {left_out} of {analysis.resamples} bootstrap draws were left out of an interval: they "
            "held none of its replicates."
        )
    return tuple(found)


def _few(analysis: Analysis) -> list[str]:
    """What the test set holds too little of for an interval to be trusted."""
    scores, found = analysis.scores, []
    if scores.rarer is not None and scores.rarer < FEW_OF_A_CLASS:
        found.append(
            f"The test set holds {scores.rarer} example{'s' * (scores.rarer != 1)} of the rarer class: with fewer than "
            f"{FEW_OF_A_CLASS} the intervals may be too narrow."
        )
    if scores.groups is not None and (groups := len(np.unique(scores.groups))) < FEW_GROUPS:
        found.append(
            f"The test examples are of {groups} group{'s' * (groups != 1)}: with fewer than {FEW_GROUPS} the intervals "
            "may be too narrow."
        )
    if scores.metric == "accuracy":
        examples = scores.values.shape[-1]
        every = [(r, n, c) for r in scores.regimes for n, c in analysis.cells[r].items() if c.replicates]
        if rare := [(r, n) for r, n, c in every if (1 - c.mean) * examples < FEW_ERRORS]:
            found.append(
                f"Fewer than {FEW_ERRORS} errors on the {examples:,} test examples, so that few examples decide: "
                f"{_where(rare, scores)}."
            )
    return found


def _trained(analysis: Analysis) -> list[str]:
    """What validation says of budgets: of a cell if half of its replicates or more say so."""
    scores, found = analysis.scores, []
    every = [(r, n, c) for r in scores.regimes for n, c in analysis.cells[r].items() if c.replicates]
    if late := [(r, n) for r, n, c in every if c.not_converged]:
        found.append(
            "Not converged, as half of the replicates or more were at their best at the last evaluation: "
            f"{_where(late, scores)}. A larger budget may do better."
        )
    if over := [(r, n) for r, n, c in every if c.overfitted >= c.replicates / 2]:
        found.append(
            "Overfitted, as half of the replicates or more kept a last state that validation says is worse than their "
            f"best by more than a tenth of predicting the prior: {_where(over, scores)}. "
            'select = "best" may do better.'
        )
    if scores.few_validated:
        found.append(
            f"Too few labels for validation (fewer than {FEW_VALIDATED}, or {FEW_VALIDATED_OF_A_CLASS} of a class) "
            f"{phrases.with_labels(scores.few_validated, scores.sizes)}: states and candidates were chosen there by "
            "bounded log loss (of numbers by bounded squared error), not by the metric."
        )
    return found


def _where(cells: Sequence[tuple[str, float]], scores: Scores) -> str:
    return "; ".join(phrases.listed([(row_text(r), n) for r, n in cells], scores.sizes))
