"""The verdict: at most three sentences that say what to do, what not to do, and what is left open."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mtl.regimes import REFERENCES
from mtl.report import hypothesis, phrases
from mtl.report.analysis import DOUBLED, Analysis, Contrast, Decision, Scores
from mtl.report.budget import starved_sentence
from mtl.report.decision import to_settle
from mtl.report.details import unanswered, winners
from mtl.report.text import p_text, row_text

#: A verdict has no more sentences.
MOST = 3


def verdict(analysis: Analysis, decisions: Sequence[Decision], rivals: Sequence[Contrast] = ()) -> tuple[str, ...]:
    """Says what a sweep's reader should do, in at most three sentences.

    First comes what became of the study's hypothesis, if it stated one; then what to use; then of harm, claims that do
    not hold at a doubled budget, joint training against transfer, and what would settle what is open, the first that
    there are.
    `mtl.report.details` says all that is claimed.

    Args:
      analysis: cells; its own sentences are not read.
      decisions: of `mtl.report.decision.decide`.
      rivals: joint regimes (first) against transfer regimes (second), of `mtl.report.contrasts.family`.
    """
    if (why := unanswered(analysis)) is not None:
        return (why,)
    scores, told = analysis.scores, analysis.answers
    sentences = [hypothesis.sentence(scores, told)] if told else []
    sentences += [use(scores, decisions), avoid(analysis), starved_sentence({"": analysis})]
    sentences += [_rivalry(scores, decisions, rivals), _settle(analysis, decisions)]
    return tuple(s for s in sentences if s)[:MOST]


def use(scores: Scores, decisions: Sequence[Decision], whom: str = "") -> str:
    """Says which row to use at which sizes: first where a gain is shown, then where there is none to be had or seen.

    Args:
      scores: of a sweep.
      decisions: one a size.
      whom: "for all 12 targets together ", or nothing.
    """
    by: dict[tuple[str, str], list[Decision]] = {}
    for d in decisions:
        if d.do:
            by.setdefault((d.claim if d.claim in ("gain", "equivalent", "") else "open", d.do), []).append(d)

    def at(those: Sequence[Decision]) -> str:
        return phrases.with_labels([d.size for d in those], scores.sizes)

    used, over = [], f" over {scores.baseline}"
    for (claim, name), those in sorted(
        by.items(), key=lambda item: ("gain", "equivalent", "", "open").index(item[0][0])
    ):
        if claim == "gain":
            text = f"{_most(those, scores)}{over}"
            if all(max(abs(d.low), abs(d.high)) < scores.margin for d in those):
                text += f", less than the margin of {phrases.margin(scores)}"
            over = ""
        elif claim == "equivalent":
            text = f"as good as {scores.baseline} within {phrases.margin(scores)}"
            if (times := max(d.operations for d in those)) < 1:
                text += f", at {times:.2g}× the operations"
        elif claim == "open":
            continue
        else:
            text = "no regime is shown to beat it"
        network = ", without a network," if name in REFERENCES else ""
        used.append(f"{row_text(name)}{network} {at(those)} ({text})")
    clauses = [f"use {phrases.join(used)}"] if used else []
    if open_ := [d for (claim, _), those in by.items() if claim == "open" for d in those]:
        top = max(open_, key=lambda d: d.gain)
        best = f"{row_text(top.do)} {_most([top], scores)}, p = {p_text(top.p)}".replace("p = <", "p < ")
        which = "most " if len(open_) > 1 else ""
        open_sizes = at(sorted(open_, key=lambda d: d.size))
        clauses.append(f"{open_sizes} it is open whether a regime beats {scores.baseline} ({which}{best})")
    return phrases.capital(f"{whom}{'; '.join(clauses)}.", scores.regimes)


def _most(decisions: Sequence[Decision], scores: Scores) -> str:
    """'+4.1 points [2.9, 5.3]', of several the greatest: 'most with 20 labels: +4.1 points [2.9, 5.3]'."""
    top = max(decisions, key=lambda d: d.gain)
    most = "" if len(decisions) == 1 else f"most {phrases.with_labels([top.size], scores.sizes)}: "
    return f"{most}{phrases.amount(top.gain, top.low, top.high, scores)}"


def avoid(analysis: Analysis) -> str:
    """Says which contenders are shown to do harm, and how much at most."""
    scores = analysis.scores
    cells = {
        (r, n): c
        for r in scores.regimes
        if r not in scores.controls
        for n, c in analysis.cells[r].items()
        if c.claim == "harm"
    }
    if not cells:
        return ""
    (name, size), worst = min(cells.items(), key=lambda item: item[1].gain)
    amount = phrases.amount(worst.gain, worst.gain_low, worst.gain_high, scores)
    where = phrases.listed(cells, scores.sizes)
    most = "" if len(cells) == 1 else f"most {name} {phrases.with_labels([size], scores.sizes)}: "
    # Rows with a doubled budget say by themselves whether harm is a matter of it.
    late = any(c.not_converged and f"{r}{DOUBLED}" not in scores.regimes for (r, _), c in cells.items())
    budget = "; it had not converged, so a larger budget may change that" if late else ""
    return f"Avoid {phrases.join(where)}: worse than {scores.baseline} ({most}{amount}){budget}."


def _rivalry(scores: Scores, decisions: Sequence[Decision], rivals: Sequence[Contrast]) -> str:
    """Says at which sizes joint training beats transfer, or transfer joint training, where one of them is of use."""
    of_use = [d.size for d in decisions if d.do and d.do != scores.baseline]
    measured = [n for n in of_use if any(c.size == n and not math.isnan(c.p) for c in rivals)]
    sides: dict[str, list[float]] = {"first": [], "second": [], "": []}
    won = winners(rivals)
    for n in measured:
        sides[won[n][0] if n in won else ""].append(n)
    words = {"first": "joint training beats every transfer regime", "second": "transfer beats every joint regime"}
    clauses = [
        f"{told} {phrases.with_labels(sides[side], scores.sizes)}" for side, told in words.items() if sides[side]
    ]
    if at := sides[""]:
        also = "neither" if clauses else "neither joint training nor transfer"
        clauses.append(f"{also} is shown to be better than the other {phrases.with_labels(at, scores.sizes)}")
    return f"{phrases.capital('; '.join(clauses), scores.regimes)}." if clauses else ""


def _settle(analysis: Analysis, decisions: Sequence[Decision]) -> str:
    """Says what would settle what is open: at the size where that is most of a question, by the gain observed."""
    told = {d.size: text for d in decisions if (text := to_settle(analysis, d))}
    if not told:
        return ""
    gains = {d.size: d.gain if d.claim else 0.0 for d in decisions}
    size = max(told, key=lambda n: gains[n])
    return f"To settle it {phrases.with_labels([size], analysis.scores.sizes)}, {told[size]}."
