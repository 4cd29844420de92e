"""What weakens a sweep's answer."""

from __future__ import annotations

import numpy as np

from mtl.report import phrases
from mtl.report.analysis import Analysis, Scores

FEW_REPLICATES = 5

#: Below these an interval says less than it seems to: what decides it happens a handful of times.
FEW_OF_A_CLASS, FEW_ERRORS, FEW_GROUPS = 15, 10, 15


def caveats(analysis: Analysis) -> tuple[str, ...]:
    """What weakens a sweep's answer: few replicates, missing trials, tuned values at the edge of their grid.

    The edge is warned of where half of a cell's replicates or more chose the same end of the grid; a flat
    choice among four candidates alone puts a quarter at each end.

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
            found.append(f"{r}: replicates without a result: {', '.join(parts)}.")
        few = [n for n, c in cells[r].items() if 0 < c.replicates < FEW_REPLICATES <= total]
        if few:
            found.append(
                f"{r} {phrases.with_labels(few, scores.sizes)} rests on fewer than {FEW_REPLICATES} replicates."
            )
    found += _few(analysis)
    if scores.metric == "r2":
        worse = {r: [n for n, c in cells[r].items() if c.mean < 0] for r in scores.regimes}
        parts = [f"{r} {phrases.with_labels(at, scores.sizes)}" for r, at in worse.items() if at]
        if parts:
            found.append(f"Worse than predicting the mean of the test labels (R² below 0): {'; '.join(parts)}.")
    if len(scores.grid) > 1:
        found += [_edge(scores, "lower", scores.grid[0]), _edge(scores, "upper", scores.grid[-1])]
    left_out = analysis.extra.get("draws_left_out", 0)
    if left_out:
        found.append(
            f"Up to {left_out} of {analysis.resamples} bootstrap draws were left out of an interval: they "
            "held none of its replicates."
        )
    return tuple(filter(None, found))


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
        rare = {
            r: [n for n, c in analysis.cells[r].items() if c.replicates and (1 - c.mean) * examples < FEW_ERRORS]
            for r in scores.regimes
        }
        parts = [f"{r} {phrases.with_labels(at, scores.sizes)}" for r, at in rare.items() if at]
        if parts:
            found.append(
                f"Fewer than {FEW_ERRORS} errors on the {examples:,} test examples, so that few examples decide: "
                f"{'; '.join(parts)}."
            )
    return found


def _edge(scores: Scores, end: str, value: float) -> str:
    """One sentence for all cells that chose an end of the grid, or nothing."""
    parts = []
    for g, r in enumerate(scores.regimes):
        at: dict[float, tuple[int, int]] = {}
        for s, n in enumerate(scores.sizes):
            tuned = scores.chosen[g, s][~np.isnan(scores.chosen[g, s])]
            count = int(np.isclose(tuned, value, rtol=1e-6, atol=0.0).sum())
            if count and count >= len(tuned) / 2:
                at[n] = (count, len(tuned))
        if at:
            least, of = min(at.values(), key=lambda c: c[0] / c[1])
            often = f"{least} of {of}" if len(at) == 1 else f"at least {least} of {of}"
            parts.append(f"{r} {phrases.with_labels(list(at), scores.sizes)} ({often} replicates)")
    if not parts:
        return ""
    return (
        f"The tuned value lies at the {end} edge of its grid ({value:g}) in half of the replicates or more: "
        f"{'; '.join(parts)}. A wider grid may do better."
    )
