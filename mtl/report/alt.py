"""What a figure shows, in a sentence, for who cannot see it."""

from __future__ import annotations

import math

from mtl.report import phrases
from mtl.report.analysis import Analysis, Decision, Scores
from mtl.report.forest import middle
from mtl.report.targets import Targets
from mtl.report.text import metric_text, number_text, row_text, size_text


def metric_alt(analysis: Analysis) -> str:
    """Say which mean is the best at the ends of the sizes, and what the baseline's is there.

    Args:
      analysis: of one sweep.
    """
    scores, said = analysis.scores, []
    for size in dict.fromkeys((scores.sizes[0], scores.sizes[-1])):
        cells = {r: c[size] for r, c in analysis.cells.items() if size in c and c[size].replicates}
        best = next((r for r, c in cells.items() if c.best), None)
        if best is not None:
            base = cells.get(scores.baseline) if best != scores.baseline else None
            against = f", {scores.baseline} {number_text(base.mean, scores.unit)}" if base else ""
            top = f"{row_text(best)} is best with {number_text(cells[best].mean, scores.unit)}"
            said.append(f"{_at(scores, size)} {top}{against}")
    told = f": {'; '.join(said)}" if said else ": nothing was measured"
    return f"{metric_text(scores.metric, scores.unit)} of {len(scores.regimes)} rows by {_axis(scores)}{told}."


def gain_alt(analysis: Analysis) -> str:
    """Say the decision at each size, with its gain.

    Args:
      analysis: of one sweep.
    """
    scores = analysis.scores
    told = "; ".join(_decided(d, scores) for d in analysis.decisions if d.do)
    return f"Gain over {scores.baseline} by {_axis(scores)}{f': {told}' if told else ''}."


def forest_alt(targets: Targets, size: float | None = None) -> str:
    """Say of each regime on how many targets it is better and worse, and its mean gain.

    Args:
      targets: of one sweep.
      size: which; the middle one of several if not given.
    """
    scores, size, said = targets.scores, middle(targets) if size is None else size, []
    for regime in (r for r in scores.regimes if r != scores.baseline):
        claims = [a.cells[regime][size].claim for a in targets.of.values()]
        mean = targets.means[regime][size]
        average = ""
        if math.isfinite(mean.gain):
            average = f", on average {phrases.amount(mean.gain, mean.gain_low, mean.gain_high, scores)}"
        said.append(f"{row_text(regime)} better on {claims.count('gain')}, worse on {claims.count('harm')}{average}")
    return f"Gain over {scores.baseline} on each of {len(targets.of)} targets {_at(scores, size)}: {'; '.join(said)}."


def _axis(scores: Scores) -> str:
    return "target labels" if phrases.column(scores.sizes) == "n" else phrases.column(scores.sizes)


def _at(scores: Scores, size: float) -> str:
    return f"at {phrases.column(scores.sizes)} = {size_text(size)}"


def _decided(decision: Decision, scores: Scores) -> str:
    if decision.do == scores.baseline or not math.isfinite(decision.gain):
        return f"{_at(scores, decision.size)} {row_text(decision.do)}"
    shown = {"gain": "shown", "equivalent": "equivalent"}.get(decision.claim, "not shown")
    amount = phrases.amount(decision.gain, decision.low, decision.high, scores)
    return f"{_at(scores, decision.size)} {row_text(decision.do)} {amount} ({shown})"
