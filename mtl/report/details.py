"""All that a sweep shows, in plain words: gains, harm, equivalence, crossovers, families, controls, its error rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mtl.report import advice, phrases
from mtl.report.analysis import Analysis, Contrast, Crossover, Scores
from mtl.report.budget import budget_sentences
from mtl.report.claims import claims
from mtl.report.controls import control_sentences

_TRANSFER = ("linear_probe", "finetune", "lp_ft", "gradual")


def families(scores: Scores) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The joint regimes and the transfer regimes among the contenders.

    Joint regimes are named ``multitask…``; transfer regimes are the four of the standard table and any other
    that sees source examples before the target's labels.

    Args:
      scores: of a sweep.

    Returns:
      Names of the joint and of the transfer regimes, in the order of the table.
    """
    others = _contenders(scores)
    joint = tuple(r for r in others if r.startswith("multitask"))
    transfer = tuple(
        r
        for r in others
        if r not in joint and (r in _TRANSFER or (r in scores.cost and scores.cost[r].source_examples > 0))
    )
    return joint, transfer


def _spoken_of(analysis: Analysis) -> list[float]:
    """The fewest and the most labels, where two regimes or more were measured: there the verdict names the best."""
    cells = analysis.cells
    names = [r for r in analysis.scores.regimes if r not in analysis.scores.doubled]
    columns = [n for n in analysis.scores.sizes if any(cells[r][n].replicates > 1 for r in names)]
    ends = dict.fromkeys(columns[:1] + columns[-1:])
    return [n for n in ends if sum(cells[r][n].replicates > 0 for r in names) > 1]


def _best(analysis: Analysis) -> str:
    """Which regime is best, or the set that holds the best, with the fewest and with the most labels."""
    scores = analysis.scores
    clauses = []
    for n in _spoken_of(analysis):
        rivals = [r for r in scores.regimes if analysis.cells[r][n].replicates and r not in scores.doubled]
        top = [r for r in rivals if analysis.cells[r][n].best]
        inside = [r for r in rivals if analysis.cells[r][n].not_worse]
        tag = {r: f"{r} (a control)" if r in scores.controls else r for r in rivals}
        if len(inside) == 1:
            clauses.append(f"best {phrases.with_labels([n], scores.sizes)} is {tag[inside[0]]}")
        elif len(inside) == len(rivals):
            clauses.append(f"{phrases.with_labels([n], scores.sizes)} no regime can be told from the best")
        else:
            ordered = [tag[r] for r in top if r in inside] + [tag[r] for r in inside if r not in top]
            clauses.append(f"best {phrases.with_labels([n], scores.sizes)} is one of {phrases.join(ordered, 'or')}")
    return "; ".join(clauses)


def _crossings(found: Sequence[Crossover], intervals: bool, column: str) -> list[str]:
    """Clauses 'a and b overtake c between 100 and 200 labels', one for each leader and place."""
    places: dict[tuple[str, tuple[float, float]], list[Crossover]] = {}
    for c in found:
        places.setdefault((c.leader, c.between), []).append(c)
    clauses = []
    for (passed, (low, high)), here in places.items():
        ends = f"{phrases.number(low)} and {phrases.number(high)}"
        between = f"between {ends} labels" if column == "n" else f"between {column} {ends}"
        verb = "overtakes" if len(here) == 1 else "overtake"
        who = [f"{c.overtaker} [{c.low:.3g}, {c.high:.3g}]" if intervals else c.overtaker for c in here]
        clauses.append(f"{phrases.join(who)} {verb} {passed} {between}")
    return clauses


def unanswered(analysis: Analysis) -> str | None:
    """The sentence that says why nothing can be said of any contender, if that is so.

    Args:
      analysis: cells; its own sentences are not read.
    """
    scores = analysis.scores
    contenders = _contenders(scores)
    cells = {(r, n): analysis.cells[r][n] for r in contenders for n in scores.sizes}
    judged = {k: c for k, c in cells.items() if c.claim}
    if not any(analysis.cells[r][n].replicates for r in scores.regimes for n in scores.sizes):
        return "Nothing was measured, so nothing can be said."
    if not judged:
        seen = scores.baseline in scores.regimes and any(
            analysis.cells[scores.baseline][n].replicates for n in scores.sizes
        )
        measured = [r for r in contenders if any(analysis.cells[r][n].replicates for n in scores.sizes)]
        if not seen:
            best = _best(analysis)
            first = f"{scores.baseline}, the baseline, was not measured, so no gain over it can be stated"
            return f"{first}; {best}." if best else f"{first}."
        if not measured:
            return f"No contender was measured beside {scores.baseline}, so there is nothing to compare."
        return (
            f"{phrases.join(measured)} and {scores.baseline} share no replicate at any size, "
            "so they cannot be compared."
        )
    if all(math.isnan(c.p) for c in judged.values()):
        (r, n), c = max(judged.items(), key=lambda item: item[1].gain)
        at = (
            f"the greatest gain observed, {phrases.amount(c.gain, c.gain_low, c.gain_high, scores)} by {r} "
            f"{phrases.with_labels([n], scores.sizes)}, has an interval over test examples only"
        )
        return (
            f"Inconclusive: one replicate cannot tell a regime's gain over {scores.baseline} from the luck "
            f"of a draw; {at}."
        )
    return None


def _contenders(scores: Scores) -> list[str]:
    return [r for r in scores.regimes if r != scores.baseline and r not in scores.controls]


def _answer(analysis: Analysis, contenders: Sequence[str]) -> list[str]:
    """The gains, and the harm, equivalence and uncertainty beside them."""
    scores = analysis.scores
    if (why := unanswered(analysis)) is not None:
        return [why]
    cells = {(r, n): analysis.cells[r][n] for r in contenders for n in scores.sizes}
    judged = {k: c for k, c in cells.items() if c.claim}
    best = _best(analysis)
    gains, harm = (claims(analysis, contenders, claim) for claim in ("gain", "harm"))
    ending = f"; {best}" if best else ""
    sentences = []
    if gains:
        # Where the regime with the greatest gain is first overtaken belongs to the answer.
        claimed = [item for item in judged.items() if item[1].claim == "gain"]
        column = phrases.column(scores.sizes)
        (leader, _), _ = max(claimed, key=lambda item: item[1].gain)
        passed = _crossings([c for c in analysis.crossovers if c.leader == leader], False, column)[:1]
        if len({r for (r, _), _ in claimed}) == 1:
            passed = [text.replace(f" {leader} ", " it ", 1) for text in passed]
        sentences.append(phrases.capital("; ".join([*gains, *passed]), scores.regimes) + ending + ".")
        if harm:
            sentences.append("Harm: " + "; ".join(harm) + ".")
    elif harm:
        sentences.append(f"Harm: {'; '.join(harm)}; no regime is shown to beat {scores.baseline} at any size{ending}.")
    elif all(c.claim == "equivalent" for c in judged.values()):
        who = "no regime differs" if len({r for r, _ in judged}) > 1 else f"{next(iter(judged))[0]} does not differ"
        sizes = [n for n in scores.sizes if any(k[1] == n for k in judged)]
        return [
            f"Equivalent: {who} from {scores.baseline} by more than the margin of {phrases.margin(scores)} "
            f"{phrases.with_labels(sizes, scores.sizes)}{ending}."
        ]
    else:
        sentences.append(f"Inconclusive: no regime is shown to gain over {scores.baseline} or to do harm{ending}.")
    same, open_ = (
        phrases.listed([key for key, c in cells.items() if c.claim == claim], scores.sizes)
        for claim in ("equivalent", "inconclusive")
    )
    if same:
        sentences.append(f"Equivalent to {scores.baseline} (within ±{phrases.margin(scores)}): {'; '.join(same)}.")
    if open_ and (gains or harm or same):
        sentences.append(f"Inconclusive (neither gain, harm nor equivalence is shown): {'; '.join(open_)}.")
    return sentences


def winners(rivals: Sequence[Contrast]) -> dict[float, tuple[str, str, Contrast]]:
    """The sizes at which a regime of one family beats every regime of the other, and by what.

    Args:
      rivals: joint regimes (first) against transfer regimes (second).

    Returns:
      At each such size the side (``first`` or ``second``), the regime and its contrast with the nearest of the other
      side; of several regimes the one that is farthest from it.
    """
    found = {}
    for n in dict.fromkeys(c.size for c in rivals):
        clear = []
        for side, sign in (("first", 1), ("second", -1)):
            for name in dict.fromkeys(getattr(c, side) for c in rivals if c.size == n):
                mine = [c for c in rivals if c.size == n and getattr(c, side) == name]
                if all(c.sign == sign for c in mine):
                    nearest = min(mine, key=lambda c: abs(c.gain))
                    clear.append((abs(nearest.gain), side, name, nearest))
        if clear:
            _, side, name, nearest = max(clear, key=lambda c: c[0])
            found[n] = side, name, nearest
    return found


def _rivalry(analysis: Analysis, rivals: Sequence[Contrast]) -> list[str]:
    """Multi-task against transfer: at which sizes a regime of one family beats every regime of the other."""
    if not rivals:
        return []
    scores = analysis.scores
    won: dict[tuple[str, str], list[tuple[float, Contrast]]] = {}
    for n, (side, name, nearest) in winners(rivals).items():
        won.setdefault((side, name), []).append((n, nearest))
    decided = [n for at in won.values() for n, _ in at]
    open_ = [n for n in scores.sizes if n not in decided and any(c.size == n for c in rivals)]
    joint, transfer = (tuple(dict.fromkeys(getattr(c, s) for c in rivals)) for s in ("first", "second"))
    clauses = []
    for (side, name), at in won.items():
        losers = transfer if side == "first" else joint
        kind = "transfer" if side == "first" else "joint"
        n, c = max(at, key=lambda item: abs(item[1].gain))
        ends = (c.gain, c.low, c.high) if side == "first" else (-c.gain, -c.high, -c.low)
        other = c.second if side == "first" else c.first
        beaten = other if len(losers) == 1 else f"every {kind} regime"
        near = "" if len(losers) == 1 else f" over {other}, the nearest,"
        most = "" if len(at) == 1 else f" {phrases.with_labels([n], scores.sizes)}"
        clauses.append(
            f"{phrases.with_labels([n for n, _ in at], scores.sizes)} {name} beats {beaten} "
            f"({phrases.amount(*ends, scores)}{near}{most})".replace(",)", ")")
        )
    if open_:
        clauses.append(
            f"{phrases.with_labels(open_, scores.sizes)} "
            + (
                f"neither {joint[0]} nor {transfer[0]} is shown to beat the other"
                if len(joint) == len(transfer) == 1
                else "neither side has a regime that is shown to beat every regime of the other"
            )
        )
    heads = f"Multi-task ({phrases.join(joint)}) against transfer ({phrases.join(transfer)}), compared directly: "
    return [heads + "; ".join(clauses) + "."]


def _over_sizes(analysis: Analysis) -> list[str]:
    """What each contender comes to over all sizes."""
    scores, found = analysis.scores, []
    for name in _contenders(scores):
        over = analysis.over_sizes.get(name)
        if over is None or len(over.sizes) < 2 or math.isnan(over.gain):
            continue
        gain = phrases.amount(over.gain, over.gain_low, over.gain_high, scores)
        text = f"Over all sizes {name} gains {gain} on average"
        if not math.isnan(over.iqm):
            iqm = phrases.amount(over.iqm, over.iqm_low, over.iqm_high, scores)
            text += f" (interquartile mean {iqm})"
        if not math.isnan(over.improvement):
            ends = f"{100 * over.improvement_low:.0f}, {100 * over.improvement_high:.0f}"
            text += f", is better in {100 * over.improvement:.0f} % [{ends}] of replicates and sizes"
        if over.worth is not None:
            text += f", and is {advice.multiplier(over.worth)}"
        found.append(f"{text}.")
    return found


def _detectable(analysis: Analysis) -> list[str]:
    """The minimum detectable effect at each size, from the best to the worst known of the contenders."""
    scores, clauses = analysis.scores, []
    for n in scores.sizes:
        effects = [
            power[n].effect
            for name, power in analysis.power.items()
            if n in power and math.isfinite(power[n].effect) and name not in (*scores.controls, *scores.doubled)
        ]
        ends = list(dict.fromkeys(phrases.value(e, scores) for e in (min(effects), max(effects)))) if effects else []
        if ends:
            clauses.append(f"{phrases.column(scores.sizes)} = {phrases.number(n)}: {' to '.join(ends)}")
    unit = "points" if scores.unit == 100 else f"in {scores.metric}"
    told = f"The least true gain that is shown with a power of 80 % (minimum detectable effect), {unit}, by regime"
    return [f"{told}: {'; '.join(clauses)}."] if clauses else []


def _error_rate(analysis: Analysis, rivals: Sequence[Contrast], against: Sequence[Contrast]) -> list[str]:
    """How often a verdict made like this one holds a false claim, at most: the families of tests it draws on, added up.

    Whatever the tests have to do with each other, the chance that any claim is false is at most the sum of the
    families' (Bonferroni).
    """
    scores = analysis.scores
    tests = sum(not math.isnan(c.p) for row in analysis.cells.values() for c in row.values())
    if not tests:
        return []
    further = ["the hypothesis (Bonferroni)"] if any(not math.isnan(a.low) for a in analysis.answers) else []
    further += [f"the best {phrases.with_labels([n], scores.sizes)} (Hsu)" for n in _spoken_of(analysis)]
    if len(scores.sizes) > 1 and sum(r not in scores.controls for r in scores.regimes) > 1:
        further.append("crossovers (Holm)")
    if any(not math.isnan(c.p) for c in rivals):
        further.append("multi-task against transfer (Holm)")
    if any(not math.isnan(c.p) for c in against):
        further.append("gains against controls (Holm)")
    also = f", and at 5 % each {phrases.join(further)}" if further else ""
    over = "replicates and test examples" if scores.groups is None else "replicates and groups of test examples"
    at_looks = f", at any of {scores.looks} looks at the test set" if scores.looks > 1 else ""
    return [
        f"Claims are made at 5 % over the sweep's {tests} comparison{'s' if tests > 1 else ''} with "
        f"{scores.baseline} together (Holm), equivalences at 5 % over the same together (Holm){also}: so at most "
        f"{5 * (2 + len(further))} % of such verdicts hold any false claim (the sum){at_looks}; intervals are 95 % "
        f"each, over {over}."
    ]


def details(
    analysis: Analysis,
    rivals: Sequence[Contrast] = (),
    against: Sequence[Contrast] = (),
) -> tuple[str, ...]:
    """Says in plain words all that a sweep found; what to do about it, `mtl.report.verdict` says.

    Only what is claimed in the cells is said: "beats" and "is worse than" after Holm, "equivalent" after two
    one-sided tests and Holm, "best" after Hsu, "overtakes" for supported crossovers. Controls are never spoken of as
    contenders. The last sentence adds up how often any of it is false.

    Args:
      analysis: cells and crossovers; its own sentences are not read.
      rivals: joint regimes (first) against transfer regimes (second), of `mtl.report.contrasts.family`.
      against: networks (first) against controls (second), one family.

    Returns:
      Sentences.

    >>> import numpy as np
    >>> from mtl.report.analysis import Cell
    >>> none, values = np.zeros((1, 1), int), np.zeros((1, 1, 0, 1))
    >>> scores = Scores("s", "w", "?", (), "accuracy", True, 100.0, ("scratch",), (10.0,), (), values, none,
    ...     none, values[..., 0], "scratch", 0.02, {})
    >>> nan = float("nan")
    >>> cell = Cell(nan, nan, nan, 0, 0, 0, nan, nan, nan, nan, nan, nan, nan, "", False, False, 0, 0, nan)
    >>> details(Analysis(scores, {"scratch": {10.0: cell}}, (), (), (), 0))
    ('Nothing was measured, so nothing can be said.',)
    """
    scores = analysis.scores
    sentences = _answer(analysis, _contenders(scores)) + budget_sentences({"": analysis})
    if analysis.crossovers:
        told = _crossings(analysis.crossovers, True, phrases.column(scores.sizes))
        sentences.append(f"Crossovers shown, with 95 % intervals: {'; '.join(told)}.")
    if any(not math.isnan(c.p) for c in rivals):
        sentences += _rivalry(analysis, rivals)
    for name in scores.controls:
        if name != scores.baseline and name not in scores.doubled:
            sentences += control_sentences(analysis, name, [c for c in against if c.second == name])
    sentences += _over_sizes(analysis) + _detectable(analysis)
    return (*sentences, *_error_rate(analysis, rivals, against))
