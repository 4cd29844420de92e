"""Whether what a sweep shows is a matter of its budget: what a doubled one says, and harm that ended too early."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mtl.report import phrases
from mtl.report.analysis import DOUBLED, Analysis, Cell, Scores


class _Compared(NamedTuple):
    """A contender's cell, and the one with a doubled budget if that was measured; what to call it, and its scores."""

    name: str
    size: float
    once: Cell
    twice: Cell | None
    scores: Scores


def budget_sentences(analyses: Mapping[str, Analysis]) -> list[str]:
    """Return at most two sentences: which claims hold at a doubled budget, and which harm may be a matter of budget.

    A claim over the baseline holds if the row "X@2" makes it over "baseline@2". A gain or harm that does not, and an
    equivalence that becomes one, comes of a starved budget: with more updates the sweep says something else. Where
    there is no such row, harm by what was not converged is told.

    Args:
      analyses: of one sweep, by target; a single target has no name.
    """
    cells = [cell for task, analysis in analyses.items() for cell in _compared(task, analysis)]
    scores, found = next(iter(analyses.values())).scores, []
    if any(c.twice for c in cells):
        held, starved, new = _turned(cells)
        clauses = [_share(len(held), len(starved), scores.baseline)]
        if starved:
            clauses.append(f"from a starved budget: {_told(starved)} ({_turn(starved)})")
        if new:
            clauses.append(f"shown only there: {_told(new)}")
        found.append(f"At a doubled budget (each ×2 against {scores.baseline} ×2) {'; '.join(clauses)}.")
    if late := [(c.name, c.size) for c in cells if not c.twice and c.once.claim == "harm" and c.once.not_converged]:
        where = "; ".join(phrases.listed(late, scores.sizes))
        found.append(f"Harm that may be a matter of budget, as training was not converged: {where}.")
    return found


def starved_sentence(analyses: Mapping[str, Analysis]) -> str:
    """Return the sentence that says how many claims do not hold at a doubled budget; nothing if all do.

    Args:
      analyses: of one sweep, by target; a single target has no name.
    """
    cells = [cell for task, analysis in analyses.items() for cell in _compared(task, analysis)]
    held, starved, _ = _turned(cells)
    if not starved:
        return ""
    scores = next(iter(analyses.values())).scores
    share = f"{len(starved)} of {len(starved) + len(held)} claims over {scores.baseline}"
    verb = "does" if len(starved) == 1 else "do"
    return f"Beware of a starved budget: at a doubled one {share} {verb} not hold ({_turn(starved, always=True)})."


def _turned(
    cells: Sequence[_Compared],
) -> tuple[list[_Compared], list[tuple[_Compared, str]], list[tuple[_Compared, str]]]:
    """Return the claims that hold at a doubled budget, those that do not, and those that are made only there."""
    doubled = [(c, c.once.claim, c.twice.claim) for c in cells if c.twice]
    held = [c for c, once, twice in doubled if once == twice != "inconclusive"]
    changed = [(c, once, twice) for c, once, twice in doubled if once != twice and {once, twice} & {"gain", "harm"}]
    starved = [(c, once) for c, once, _ in changed if once != "inconclusive"]
    return held, starved, [(c, twice) for c, once, twice in changed if once == "inconclusive"]


def _compared(task: str, analysis: Analysis) -> Iterator[_Compared]:
    scores, cells = analysis.scores, analysis.cells
    for regime in scores.regimes:
        if regime == scores.baseline or regime in scores.controls:
            continue
        double = f"{regime}{DOUBLED}"
        against_its_own = scores.rival(double) != scores.baseline
        for size, once in cells[regime].items():
            twice = cells[double][size] if double in cells and against_its_own else None
            name = f"{regime} on {task}" if task else regime
            yield _Compared(name, size, once, twice if twice and twice.claim else None, scores)


def _share(held: int, starved: int, baseline: str) -> str:
    """'14 of 16 claims over scratch hold'."""
    if not held + starved:
        return f"no claim over {baseline} was made that could change"
    if not starved:
        return f"every claim over {baseline} holds"
    return f"{held} of {held + starved} claims over {baseline} hold" if held else f"no claim over {baseline} holds"


def _told(claims: Sequence[tuple[_Compared, str]]) -> str:
    """'harm by multitask with 500 labels and gain of finetune with 10 labels'."""
    sizes = claims[0][0].scores.sizes
    words = {"gain": "gain of", "harm": "harm by", "equivalent": "equivalence of"}
    found = []
    for claim, word in words.items():
        own = [(c.name, c.size) for c, made in claims if made == claim]
        found += [f"{word} {text}" for text in phrases.listed(own, sizes)]
    return phrases.join(found)


def _turn(claims: Sequence[tuple[_Compared, str]], always: bool = False) -> str:
    """'−12.8, there +2.7 points [1.5, 3.9]', of the gain that changes most, and whose that is.

    Of a single claim that is said where it is asked for ``always``.
    """

    def change(c: _Compared) -> float:
        return abs(c.twice.gain - c.once.gain) * c.scores.unit if c.twice else 0.0

    most = max((c for c, _ in claims), key=change)
    assert most.twice
    there = phrases.amount(most.twice.gain, most.twice.gain_low, most.twice.gain_high, most.scores)
    who = (
        ""
        if len(claims) == 1 and not always
        else f"{'most ' * (len(claims) > 1)}{phrases.listed([(most.name, most.size)], most.scores.sizes)[0]}: "
    )
    return f"{who}{phrases.value(most.once.gain, most.scores, True)}, there {there}"
