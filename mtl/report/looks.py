"""When a study that is looked at several times may stop, and what it then says in one sentence.

The level is spent in equal parts over the planned looks (see `mtl.report.statistics.holm`), so stopping at any of them
for what is claimed there costs nothing more. Stopping where nothing would be claimed anyway makes no claim at all, and
spends nothing: a study may stop so whenever it likes.

Source: Jennison & Turnbull, "Group Sequential Methods with Applications to Clinical Trials", 1999, chapters 9 and 10
(intervals that hold at all looks, stopping for futility).
"""

from __future__ import annotations

import math

from mtl.regimes import REFERENCES
from mtl.report import phrases
from mtl.report.advice import two_digits
from mtl.report.analysis import Analysis, Cell, Scores
from mtl.report.estimates import Power
from mtl.report.references import better_at
from mtl.report.text import row_text

SETTLED, FUTILE, OPEN = "settled", "futile", "open"


def rivals(scores: Scores) -> tuple[str, ...]:
    """The rows that could take the baseline's place: contenders, or where there is none the references."""
    rows = [r for r in scores.regimes if r != scores.baseline and r not in scores.doubled]
    return tuple([r for r in rows if r not in scores.controls] or [r for r in rows if r in REFERENCES])


def state(analysis: Analysis, most: int) -> str:
    """Whether what to do at the largest size is settled, or would not be by all the replicates that are planned.

    ``settled``: what to do is shown to gain over the baseline; or each rival is shown to be worse than it, or to be as
    good within the margin. ``futile``: no rival that is open would be settled by twice as many replicates as planned
    with a power of 80 %, were its true gain the one that was observed. Else ``open``.

    Args:
      analysis: of the replicates that there are.
      most: replicates at the last look.
    """
    if not (name := advised(analysis)):
        return OPEN
    if _cell(analysis, name).claim == "gain":
        return SETTLED
    waiting = open_rivals(analysis)
    if not waiting:
        return SETTLED
    needed = [_power(analysis, name) for name in waiting]
    return FUTILE if all(p is not None and p.replicates_needed > 2 * most for p in needed) else OPEN


def advised(analysis: Analysis) -> str:
    """The row to take at the largest size; nothing if none was measured.

    It is the decision's, or if that is not shown to gain a rival that is: of several the best.
    """
    do = analysis.decisions[-1].do if analysis.decisions else ""
    gains = [name for name in rivals(analysis.scores) if _cell(analysis, name).claim == "gain"]
    if not gains or not do or _cell(analysis, do).claim == "gain":
        return do
    return max(gains, key=lambda name: _cell(analysis, name).gain)


def open_rivals(analysis: Analysis) -> list[str]:
    """The rivals of which nothing is shown at the largest size, the greatest gain first."""
    cells = {name: _cell(analysis, name) for name in rivals(analysis.scores)}
    waiting = [name for name, cell in cells.items() if cell.claim not in ("gain", "harm", "equivalent")]
    return sorted(waiting, key=lambda name: -cells[name].gain if not math.isnan(cells[name].gain) else math.inf)


def conclusion(analysis: Analysis, rows: int, most: int) -> str:
    """Return what to do at the largest size in one sentence, or that it cannot be told and what would tell.

    Args:
      analysis: of the replicates that there are.
      rows: labelled rows that it rests on, to learn from and to test on.
      most: replicates at the last look.
    """
    scores = analysis.scores
    if not (do := advised(analysis)):
        return "Nothing was measured, so nothing can be said."
    name, cell = f"{row_text(do)}{', without a network' * (do in REFERENCES)}", _cell(analysis, do)
    if cell.claim == "gain":
        told = f"Do {name}: {_amount(cell, scores)} over {scores.baseline}"
    elif not (waiting := open_rivals(analysis)):
        told = f"Do {name}: {_none_better(analysis, do)}"
    else:
        top = waiting[0]
        cell, power = _cell(analysis, top), _power(analysis, top)
        if math.isnan(cell.gain):
            return f"Cannot tell: {row_text(top)} was not measured."
        yet = power is None or power.replicates_needed <= 2 * most
        when, what = "yet" if yet else "with these labels", "better than" if cell.gain > 0 else "as good as"
        told = (
            f"Cannot tell {when} whether {row_text(top)} is {what} {scores.baseline} ({_amount(cell, scores)}); "
            f"{_would(power, rows, most)}"
        )
    better = [r for r in scores.regimes if r != do and scores.sizes[-1] in better_at(analysis, r)]
    more = f"; {phrases.join(better)} {'is' if len(better) == 1 else 'are'} better than every network" if better else ""
    return f"{told}{more}."


def _none_better(analysis: Analysis, do: str) -> str:
    """Why the baseline is as good as anything, where that is settled."""
    scores = analysis.scores
    claims: dict[str, list[str]] = {"equivalent": [], "harm": []}
    for name in rivals(scores):
        claim = _cell(analysis, name).claim
        if name != do and claim in claims:
            claims[claim].append(row_text(name))
    parts = [f"as good as {scores.baseline} within {phrases.margin(scores)}"] if do != scores.baseline else []
    if alike := claims["equivalent"]:
        also = "also " * bool(parts)
        parts.append(f"{phrases.join(alike)} {'is' if len(alike) == 1 else 'are'} {also}as good within the margin")
    if worse := claims["harm"]:
        parts.append(f"{phrases.join(worse)} {'is' if len(worse) == 1 else 'are'} worse")
    return "; ".join(parts)


def _amount(cell: Cell, scores: Scores) -> str:
    return phrases.amount(cell.gain, cell.gain_low, cell.gain_high, scores)


def _would(power: Power | None, rows: int, most: int) -> str:
    """How many more replicates would tell, or labels where these would not."""
    if power is None:
        return "a second replicate would, before anything can be said"
    if power.replicates_needed <= 2 * most:
        return f"about {two_digits(max(power.replicates_needed - power.replicates, 1.0))} more replicates would"
    if math.isfinite(power.examples_needed):
        more = (power.examples_needed / power.examples - 1) * rows
        return f"about {two_digits(max(more, 1.0))} more would"
    if math.isfinite(power.both_needed):
        more, times = (power.both_needed - 1) * rows, two_digits(power.both_needed)
        return f"about {two_digits(max(more, 1.0))} more would, with {times} times the replicates"
    return "no feasible number would"


def _cell(analysis: Analysis, name: str) -> Cell:
    return analysis.cells[name][analysis.scores.sizes[-1]]


def _power(analysis: Analysis, name: str) -> Power | None:
    return analysis.power.get(name, {}).get(analysis.scores.sizes[-1])
