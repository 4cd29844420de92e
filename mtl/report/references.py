"""Where a reference, a model of scikit-learn on the same labels, is better than every network: verdicts say so."""

from __future__ import annotations

from mtl.regimes import REFERENCES
from mtl.report import phrases
from mtl.report.analysis import Analysis, Scores


def references(scores: Scores) -> tuple[str, ...]:
    """The references among the controls of a sweep."""
    return tuple(name for name in scores.controls if name in REFERENCES and name != scores.baseline)


def better_at(analysis: Analysis, name: str) -> dict[float, tuple[float, str]]:
    """The sizes at which a reference is shown better than the baseline and every other network.

    Args:
      analysis: of a sweep.
      name: a reference.

    Returns:
      At each size, by how much it is better than the nearest of the others, which have a network each, and the text of
      that; nothing at a size where it is not shown to be better than all of them, or there are none.
    """
    scores = analysis.scores
    found: dict[float, tuple[float, str]] = {}
    networks = [r for r in scores.regimes if r not in (scores.baseline, *REFERENCES)]
    for size, cell in analysis.cells[name].items():
        measured = [r for r in networks if analysis.cells[r][size].replicates]
        here = [c for c in analysis.against if c.second == name and c.size == size and c.first in measured]
        if measured and len(here) == len(measured) and cell.claim == "gain" and all(c.sign < 0 for c in here):
            ends = [(cell.gain, cell.gain_low, cell.gain_high, scores.baseline)]
            ends += [(-c.gain, -c.high, -c.low, c.first) for c in here]
            gain, low, high, nearest = min(ends)
            found[size] = gain, f"{phrases.amount(gain, low, high, scores)} over {nearest}"
    return found


def told(analysis: Analysis, name: str) -> list[str]:
    """The sentence that says where a control is a reference that is better than every network; none if nowhere."""
    scores = analysis.scores
    if name not in REFERENCES or not (found := better_at(analysis, name)):
        return []
    size, (_, least) = min(found.items(), key=lambda item: item[1][0])
    most = f" {phrases.with_labels([size], scores.sizes)}" if len(found) > 1 else ""
    at = phrases.capital(phrases.with_labels(list(found), scores.sizes), scores.regimes)
    return [f"{at} {name} is better than every network (by at least {least}{most})."]
