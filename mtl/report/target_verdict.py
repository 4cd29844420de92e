"""What to do about several targets: one row for all of them, and at most three sentences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from mtl.report import hypothesis, phrases, statistics
from mtl.report.analyse import LEVEL, claimed
from mtl.report.analysis import Analysis, Answer, Cost, Decision, Scores
from mtl.report.budget import starved_sentence
from mtl.report.decision import decide_at, operations_over
from mtl.report.means import Mean, compared
from mtl.report.text import row_text
from mtl.report.verdict import MOST, use

#: So many targets are named; of more their number is told.
NAMED = 4


def decide_mean(
    scores: Sequence[Scores], means: Mapping[str, Mapping[float, Mean]], cost: Mapping[str, Cost]
) -> tuple[Decision, ...]:
    """What to do for all targets together, at each size: by the mean of their metric.

    A row cannot be told from the best unless the row with the best mean is better than it at 5 % / J, one-sided, of J
    others (comparisons with the best, Bonferroni). p values of gains are corrected over rows × sizes (Holm), those of
    means apart from those of single targets.

    Args:
      scores: one a target.
      means: of `mtl.report.means.means`.
      cost: of all targets' networks, by row.

    Returns:
      Nothing if the targets' metrics differ.

    Source: Hsu, "Constrained simultaneous confidence intervals for multiple comparisons with the best", 1984.
    """
    first = scores[0]
    if len({s.metric for s in scores}) > 1:
        return ()
    sign = 1.0 if first.higher_is_better else -1.0
    rows = [r for r in first.regimes if r not in first.doubled]
    at = {r: g for g, r in enumerate(first.regimes)}
    grid = [(s, size) for s, size in enumerate(first.sizes)]
    tests = [(r, s) for r in rows for s, _ in grid if r != first.baseline and first.baseline in at]
    found = compared(scores, [(at[r], at[first.baseline], s) for r, s in tests])
    p = statistics.holm(np.array([statistics.p_value(*of) for of in found]), first.looks)
    p_margin = statistics.holm(np.array([statistics.tost(*of[:3], first.margin) for of in found]), first.looks)
    p_values = dict(zip(tests, p.tolist(), strict=True))
    claims = {
        key: claimed(of[0], own, own_margin)
        for key, of, own, own_margin in zip(tests, found, p.tolist(), p_margin.tolist(), strict=True)
        if not math.isnan(of[0])
    }
    operations, decisions = operations_over(cost, first.baseline), []
    for s, size in grid:
        measured = {r: means[r][size] for r in rows if not math.isnan(means[r][size].mean)}
        inside = []
        if measured:
            top = max(measured, key=lambda r: sign * measured[r].mean)
            others = [r for r in measured if r != top]
            beaten = compared(scores, [(at[top], at[r], s) for r in others])
            inside = [top] + [
                r for r, of in zip(others, beaten, strict=True) if not _better(of, len(others) * first.looks)
            ]
        here = {r: claim for (r, at_size), claim in claims.items() if at_size == s}
        corrected = {r: value for (r, at_size), value in p_values.items() if at_size == s}
        decisions.append(decide_at(first, size, measured, inside, here, corrected, operations))
    return tuple(decisions)


def _better(of: tuple[float, float, float, int], count: int) -> bool:
    """Whether a gain is shown, one-sided at 5 % over ``count`` comparisons."""
    gain, se, df, replicates = of
    alpha = (1 - LEVEL) / count
    if math.isnan(se):
        return False
    if se == 0:
        return gain > 0 and 0.5**replicates <= alpha
    return gain / se > float(special.stdtrit(df, 1 - alpha))


def target_verdict(
    of: Mapping[str, Analysis],
    decisions: Sequence[Decision],
    networks: Mapping[str, int],
    cost: Mapping[str, Cost],
    answers: Sequence[Answer],
) -> tuple[str, ...]:
    """Says what a reader should do about several targets, in at most three sentences.

    First comes what became of the study's hypothesis, if it stated one; then what to use for all targets together, on
    which of them it is better and where it does harm; then what one network for all costs, and whether claims hold at a
    doubled budget.

    Args:
      of: each target's analysis, corrected over all.
      decisions: for all targets together; nothing if their metrics differ.
      networks: how many networks a row trains to have all targets.
      cost: of these networks.
      answers: what became of the hypothesis, on average over targets.
    """
    scores = next(iter(of.values())).scores
    each = {task: analysis.answers for task, analysis in of.items()}
    stated = [hypothesis.sentence(scores, answers, each)] if scores.hypothesis else []
    sentences = [*stated, *_advice(of, decisions), starved_sentence(of), _cost(decisions, networks, cost, scores)]
    return tuple(s for s in sentences if s)[:MOST]


def _advice(of: Mapping[str, Analysis], decisions: Sequence[Decision]) -> list[str]:
    """What to use for all targets together, and on which of them it is better or worse; else what for each."""
    scores = next(iter(of.values())).scores
    if not any(d.do for d in decisions):
        found = []
        for s, size in enumerate(scores.sizes):
            by: dict[str, list[str]] = {}
            for task, analysis in of.items():
                if do := analysis.decisions[s].do:
                    by.setdefault(do, []).append(task)
            for_each = [f"{row_text(do)} for {_named(tasks, len(of))}" for do, tasks in by.items()]
            found += [f"{phrases.with_labels([size], scores.sizes)} {phrases.join(for_each)}"] if for_each else []
        return [f"Use {'; '.join(found)}."] if found else ["Nothing was measured, so nothing can be said."]
    names = Counter(d.do for d in decisions if d.do and d.do != scores.baseline)
    sentences = [use(scores, decisions, f"for all {len(of)} targets together ")]
    for name in names:
        claims: dict[str, list[str]] = {"gain": [], "harm": []}
        for task, analysis in of.items():
            made = [analysis.cells[name][d.size].claim for d in decisions if d.do == name]
            for claim, tasks in claims.items():
                tasks += [task] if claim in made else []
        better, worse = (_named(claims[claim], len(of)) if claims[claim] else "none" for claim in ("gain", "harm"))
        sentences.append(f"Of single targets {row_text(name)} is shown better on {better} and worse on {worse}.")
    return sentences


def _named(tasks: Sequence[str], total: int) -> str:
    """'a and b', or '7 of 12'."""
    return phrases.join(list(tasks)) if len(tasks) <= NAMED else f"{len(tasks):,} of {total:,}"


def _cost(decisions: Sequence[Decision], networks: Mapping[str, int], cost: Mapping[str, Cost], scores: Scores) -> str:
    """What one network for all targets costs against one for each."""
    joint = next((d.do for d in decisions if d.do and networks.get(d.do) == 1 < networks.get(scores.baseline, 0)), "")
    if joint not in cost or scores.baseline not in cost:
        return ""
    mine, theirs = cost[joint], cost[scores.baseline]
    ratios = {"operations": mine.flops / theirs.flops, "parameters": mine.parameters / theirs.parameters}
    known = [f"{ratio:.2g}× the {what}" for what, ratio in ratios.items() if math.isfinite(ratio)]
    if not known:
        return ""
    return f"One network for all targets takes {phrases.join(known)} of {networks[scores.baseline]:,} networks."
