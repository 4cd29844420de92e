"""What became of a study's hypothesis: whether its contrast lies where it said, by intervals that hold together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from mtl.hypothesis import REGIONS
from mtl.report import phrases
from mtl.report.analysis import Answer, Scores

HOLDS, REFUTED, OPEN = "holds", "is refuted", "is open"

#: A hypothesis in words, by what refutes it: between the names of two regimes.
_WORDS = {
    "upper <= margin": "gains more than {margin} over",
    "upper <= 0": "is better than",
    "upper <= -margin": "is not worse by {margin} than",
    "lower >= margin": "gains less than {margin} over",
    "lower >= 0": "is worse than",
    "lower >= -margin": "is worse by more than {margin} than",
    "ties": "differs by more than {margin} from",
    "differs": "differs by less than {margin} from",
}


def found(low: float, high: float, falsifier: str, margin: float) -> str:
    """Return what an interval says of a hypothesis.

    Args:
      low, high: of the contrast; NaN where it was not measured.
      falsifier: what refutes it.
      margin: in the unit of the contrast.

    >>> found(0.01, 0.04, "upper <= 0", 0.02), found(0.01, 0.04, "upper <= margin", 0.02)
    ('holds', 'is open')
    >>> found(-0.01, 0.01, "upper <= margin", 0.02), found(-0.01, 0.01, "ties", 0.02)
    ('is refuted', 'is refuted')
    """
    start, end = (margin * bound for bound in REGIONS[falsifier])
    inside, outside = low > start and high < end, high <= start or low >= end
    if falsifier == "ties":
        inside, outside = outside, inside
    return HOLDS if inside else REFUTED if outside else OPEN


def answers(
    scores: Scores, interval: Callable[[int, int, int, float], tuple[float, float, float]], targets: int = 1
) -> tuple[Answer, ...]:
    """Return what became of the hypothesis at each size that it names; nothing if there is none.

    Args:
      scores: of a sweep.
      interval: from the numbers of two regimes and of a size, and a level, to the contrast and its interval. It is
        asked for the level at which the intervals of all ``targets`` and sizes hold together (Bonferroni).
      targets: how many are answered for.
    """
    stated = scores.hypothesis
    if stated is None:
        return ()
    sizes = [size for size in scores.sizes if size in stated.sizes or not stated.sizes]
    level, told = 1 - 0.05 / (max(1, len(sizes)) * targets * scores.looks), []
    for size in sizes:
        ends = (math.nan, math.nan, math.nan)
        if {stated.first, stated.second} <= set(scores.regimes):
            first, second = (scores.regimes.index(name) for name in (stated.first, stated.second))
            ends = interval(first, second, scores.sizes.index(size), level)
        told.append(Answer(size, *ends, found(ends[1], ends[2], stated.falsifier, scores.margin)))
    return tuple(told)


def sentence(scores: Scores, told: Sequence[Answer], each: Mapping[str, Sequence[Answer]] | None = None) -> str:
    """Return what became of the hypothesis, in words.

    Args:
      scores: of the sweep.
      told: the answers, of one target or of the mean over several.
      each: of several targets, each one's.
    """
    stated = scores.hypothesis
    assert stated is not None
    words = _WORDS[stated.falsifier].format(margin=phrases.margin(scores))
    when = "when results were there" if stated.late else "beforehand"
    mean = f" on average over {len(each)} targets" if each else ""
    said = f"Stated {when}: {stated.first} {words} {stated.second} (refuted by: {stated.falsifier})."
    clauses = []
    for finding in (HOLDS, REFUTED, OPEN):
        at = [_amount(answer, scores) for answer in told if answer.finding == finding]
        clauses += [f"{finding} {phrases.join(at)}"] if at else []
    if clauses:
        together = f"; intervals of 95 % for the {len(told)} sizes together" if len(told) > 1 else ""
        said += f" It {phrases.join(clauses)}{mean}{together}."
    if each:
        parts = []
        for finding in (HOLDS, REFUTED, OPEN):
            of = {task: [a.size for a in own if a.finding == finding] for task, own in each.items()}
            at = [f"{task} {phrases.with_labels(sizes, scores.sizes)}" for task, sizes in of.items() if sizes]
            parts += [f"{finding} on {phrases.join(at)}"] if at else []
        said += f" Of single targets (95 % for all and all sizes together) it {phrases.join(parts)}."
    return said


def _amount(answer: Answer, scores: Scores) -> str:
    at = phrases.with_labels([answer.size], scores.sizes)
    if math.isnan(answer.gain):
        return f"{at} (not measured)"
    return f"{at} ({phrases.amount(answer.gain, answer.low, answer.high, scores)})"
