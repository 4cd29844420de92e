"""What to do at each target size: the cheapest row of those that cannot be told from the best."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from mtl.report import advice
from mtl.report.analysis import Analysis, Cell, Cost, Decision, Scores
from mtl.report.means import Mean


def choose(values: Mapping[str, float], shown: Collection[str], operations: Mapping[str, float], margin: float) -> str:
    """The row to take of those that cannot be told from the best.

    Of the rows whose mean is within the margin of the best mean among them those count which are shown to gain; if none
    is, any row that is shown to gain; if none is, all within the margin. Of these it is the cheapest, of equally cheap
    ones the best.

    Args:
      values: the mean of each row, more is better, in the order of the table.
      shown: rows that are shown to gain over the baseline.
      operations: what each costs; where one's is not known the best mean decides.
      margin: half-width of the equivalence region, in the unit of ``values``.

    >>> rows = {"scratch": 0.70, "linear_probe": 0.79, "finetune": 0.80}
    >>> choose(rows, ("linear_probe", "finetune"), {"scratch": 1.0, "linear_probe": 0.4, "finetune": 2.0}, 0.02)
    'linear_probe'
    >>> choose(rows, ("finetune",), {"scratch": 1.0, "linear_probe": 0.4, "finetune": 2.0}, 0.02)
    'finetune'
    """
    top = max(values.values())
    near = [name for name, value in values.items() if value >= top - margin]
    near = [name for name in near if name in shown] or [name for name in values if name in shown] or near
    known = all(math.isfinite(operations.get(name, math.nan)) for name in near)
    return min(near, key=lambda name: (operations[name] if known else 0.0, -values[name]))


def operations_over(cost: Mapping[str, Cost], baseline: str) -> dict[str, float]:
    """How many times the baseline's operations each row takes; nothing of rows whose operations are not known."""
    own = cost[baseline].flops if baseline in cost else math.nan
    return {name: c.flops / own for name, c in cost.items() if own > 0 and math.isfinite(c.flops)}


def decide(analysis: Analysis) -> tuple[Decision, ...]:
    """What to do at each target size.

    Candidates are the contenders and the baseline that are in the set which holds the best (Hsu), harm apart; see
    ``choose`` for which of them. Where only controls are in that set one of them is named: a forest, say, that is
    better than every network.

    Args:
      analysis: cells; its own sentences are not read.
    """
    scores, decisions = analysis.scores, []
    operations = operations_over(scores.cost, scores.baseline)
    for size in scores.sizes:
        cells = {r: analysis.cells[r][size] for r in scores.regimes if r not in scores.doubled}
        rows = {r: c for r, c in cells.items() if c.replicates}
        claims, p = {r: c.claim for r, c in rows.items()}, {r: c.p_holm for r, c in rows.items()}
        best = [r for r, c in rows.items() if c.not_worse]
        decisions.append(decide_at(scores, size, rows, best, claims, p, operations))
    return tuple(decisions)


def decide_at(
    scores: Scores,
    size: float,
    rows: Mapping[str, Cell] | Mapping[str, Mean],
    best: Collection[str],
    claims: Mapping[str, str],
    p: Mapping[str, float],
    operations: Mapping[str, float],
) -> Decision:
    """What to do at one target size: see ``decide``.

    Args:
      scores: of the sweep.
      size: the target size.
      rows: what was measured of each row, in the order of the table.
      best: the rows that cannot be told from the best.
      claims: what is claimed of each row's gain.
      p: its corrected p value.
      operations: of ``operations_over``.
    """
    inside = [r for r in rows if r in best and claims.get(r) != "harm"]
    candidates = [r for r in inside if r not in scores.controls or r == scores.baseline] or inside
    if not candidates:
        return Decision(size)
    sign = 1.0 if scores.higher_is_better else -1.0
    gains = [r for r in candidates if claims.get(r) == "gain"]
    do = choose({r: sign * rows[r].mean for r in candidates}, gains, operations, scores.margin)
    return Decision(
        size=size,
        do=do,
        gain=rows[do].gain,
        low=rows[do].gain_low,
        high=rows[do].gain_high,
        p=p.get(do, math.nan),
        claim=claims.get(do, ""),
        operations=operations.get(do, math.nan),
        also=tuple(r for r in inside if r != do),
        harm=tuple(r for r in rows if claims.get(r) == "harm" and r not in scores.controls),
    )


def to_settle(analysis: Analysis, decision: Decision) -> str:
    """What would settle what to do at one size, in words: nothing where it is settled.

    What is open is the comparison of what to do with the baseline; where that is to be done, of the contender that is
    nearest to a gain over it.

    Args:
      analysis: with its power.
      decision: one of its own.
    """
    scores, size = analysis.scores, decision.size
    rows = [decision.do] if decision.claim else [r for r in decision.also if r not in scores.controls]
    rows = [r for r in rows if analysis.cells[r][size].claim == "inconclusive"]
    if not rows:
        return ""
    name = max(rows, key=lambda r: analysis.cells[r][size].gain)
    power = analysis.power.get(name, {}).get(size)
    told = advice.settles(power, scores.groups is not None)
    labels = "" if power is None else advice.labels_settle(power, size, scores.sizes[-1])
    return f"{name} against {scores.baseline}: {told}" + (f" (or {labels})" if labels.startswith("about") else "")
