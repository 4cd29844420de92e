"""The index of a page with several sweeps: what to do in each, and by how much it is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtl.report.analysis import Analysis, Decision
from mtl.report.phrases import column
from mtl.report.tables import SIGNS
from mtl.report.targets import Targets
from mtl.report.text import interval_text, metric_text, number_text, row_text, size_text

#: Of many sizes the first, the middle and the last stand in the index.
_SIZES = 3


def index(analyses: Sequence[Analysis | Targets]) -> list[dict[str, Any]]:
    """Return an entry a sweep, for the page's first table.

    Args:
      analyses: one a sweep.

    Returns:
      Of each the ``id`` of its section, ``sweep``, ``question``, ``metric``, ``replicates`` and ``decisions``:
      at up to three sizes, ``at`` which, what to ``do``, its ``gain`` with ``interval``, and whether it is ``shown``.
    """
    found = []
    for number, analysis in enumerate(analyses):
        scores, decisions = analysis.scores, list(analysis.decisions)
        if len(decisions) > _SIZES:
            decisions = [decisions[0], decisions[len(decisions) // 2], decisions[-1]]
        whole = f", mean over {len(analysis.of):,} targets" if isinstance(analysis, Targets) else ""
        found.append(
            {
                "id": f"s{number}",
                "sweep": scores.sweep,
                "question": scores.question,
                "metric": metric_text(scores.metric, scores.unit) + whole,
                "replicates": len(scores.replicates),
                "decisions": [_entry(decision, analysis) for decision in decisions],
            }
        )
    return found


def _entry(decision: Decision, analysis: Analysis | Targets) -> dict[str, str]:
    scores = analysis.scores
    base = decision.do == scores.baseline
    words = {"gain": "shown", "harm": "harm", "equivalent": "equivalent", "inconclusive": "not shown"}
    return {
        "at": f"{column(scores.sizes)} = {size_text(decision.size)}",
        "do": row_text(decision.do) if decision.do else "—",
        "gain": "" if base else number_text(decision.gain, scores.unit, signed=True),
        "interval": interval_text(decision.low, decision.high, scores.unit),
        "sign": SIGNS.get(decision.claim, ""),
        "shown": words.get(decision.claim, ""),
        "claim": decision.claim,
    }
