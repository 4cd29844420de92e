"""Gains and harm that are claimed, as clauses: rows with the same sizes together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mtl.report import phrases
from mtl.report.analysis import Analysis, Cell


def _groups(
    analysis: Analysis, names: Sequence[str], wanted: Callable[[Cell], bool]
) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
    """Regimes with the same wanted sizes put together: [(regimes, sizes)], in the order of the table."""
    found: dict[tuple[float, ...], list[str]] = {}
    for name in names:
        sizes = tuple(n for n in analysis.scores.sizes if wanted(analysis.cells[name][n]))
        if sizes:
            found.setdefault(sizes, []).append(name)
    return [(tuple(regimes), sizes) for sizes, regimes in found.items()]


def claims(analysis: Analysis, names: Sequence[str], claim: str) -> list[str]:
    """Clauses for all gains (or all harm) of some rows, the greatest first.

    Args:
      analysis: cells.
      names: rows, in the order of the table.
      claim: ``gain`` or ``harm``.
    """
    scores = analysis.scores
    singular, plural = ("beats", "beat") if claim == "gain" else ("is worse than", "are worse than")
    clauses = []
    for regimes, sizes in _groups(analysis, names, lambda c: c.claim == claim):
        cells = [(analysis.cells[r][n], r, n) for r in regimes for n in sizes]
        top, regime, n = max(cells, key=lambda c: abs(c[0].gain))
        amount = phrases.amount(top.gain, top.gain_low, top.gain_high, scores)
        if all(max(abs(c.gain_low), abs(c.gain_high)) < scores.margin for c, _, _ in cells):
            amount += f", less than the margin of {phrases.margin(scores)}"
        verb = singular if len(regimes) == 1 else plural
        text = f"{phrases.with_labels(sizes, scores.sizes)} {phrases.join(regimes)} {verb} {scores.baseline}"
        if len(cells) == 1:
            text += f" by {amount}" if claim == "gain" else f" ({amount})"
        else:
            who = f"{regime} " if len(regimes) > 1 else ""
            text += f" (most {who}{phrases.with_labels([n], scores.sizes)}: {amount})"
        clauses.append((abs(top.gain), text))
    return [text for _, text in sorted(clauses, key=lambda c: -c[0])]
