"""What weakens a sweep's answer."""

from __future__ import annotations

import numpy as np

from mtl.report import phrases
from mtl.report.analysis import Analysis

FEW_REPLICATES = 5


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
    for g, r in enumerate(scores.regimes):
        if len(scores.grid) < 2:
            break
        for end, value in (("lower", scores.grid[0]), ("upper", scores.grid[-1])):
            parts = []
            for s, n in enumerate(scores.sizes):
                tuned = scores.chosen[g, s][~np.isnan(scores.chosen[g, s])]
                count = int(np.isclose(tuned, value, rtol=1e-6, atol=0.0).sum())
                if count and count >= len(tuned) / 2:
                    parts.append(f"{count} of {len(tuned)} replicates {phrases.with_labels([n], scores.sizes)}")
            if parts:
                found.append(
                    f"{r}: the tuned value lies at the {end} edge of its grid ({value:g}) in "
                    f"{', '.join(parts)}; a wider grid may do better."
                )
    left_out = analysis.extra.get("draws_left_out", 0)
    if left_out:
        found.append(
            f"Up to {left_out} of {analysis.resamples} bootstrap draws were left out of an interval: they "
            "held none of its replicates."
        )
    return tuple(found)
