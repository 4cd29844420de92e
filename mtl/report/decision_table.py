"""The decision as a table: for each size, or target, what to do, what it gains and costs, and what is as good."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from mtl.report import phrases
from mtl.report.advice import two_digits
from mtl.report.analysis import Analysis, Decision, Scores
from mtl.report.decision import to_settle
from mtl.report.estimates import Worth
from mtl.report.formats import Table, TableCell
from mtl.report.tables import CONTROL, SIGNS
from mtl.report.target_tables import SHOWN
from mtl.report.targets import Targets
from mtl.report.text import gain_unit_text, interval_text, number_text, p_text, row_text, size_text


def decision_table(analysis: Analysis) -> Table:
    """Make the table of what to do: a row a size.

    Args:
      analysis: of one sweep.

    Returns:
      What to do, its gain over the baseline with the corrected p, its operations over the baseline's, and which other
      rows cannot be told from the best.
    """
    scores = analysis.scores
    rows = tuple(
        (TableCell(size_text(d.size)), *decision_cells(d, scores, analysis.worth.get(d.do, {}).get(d.size)))
        for d in analysis.decisions
    )
    open_ = {phrases.with_labels([d.size], scores.sizes): to_settle(analysis, d) for d in analysis.decisions}
    settle = tuple(f"To settle it {at}, {told}." for at, told in open_.items() if told)
    return Table(
        name="decision",
        title=f"{scores.study} / {scores.sweep}: what to do",
        header=(phrases.column(scores.sizes), *HEADER),
        rows=rows,
        footnotes=(*settle, *decision_footnotes(scores, analysis.decisions, "the whole sweep")),
        records=tuple(decision_record(d, scores, analysis) for d in analysis.decisions),
        words=(1, 6),
    )


def target_decision_table(targets: Targets) -> Table:
    """Make the table of what to do for all targets together, and for each alone.

    Args:
      targets: of one sweep.

    Returns:
      A row a size for all together, if they have a mean, and then a row a target and size.
    """
    scores, several = targets.scores, len(targets.scores.sizes) > 1
    shown = list(targets.of.items())[:SHOWN]
    of: list[tuple[str, Scores, Decision, Worth | None]] = [("all", scores, d, None) for d in targets.decisions]
    of += [(task, a.scores, d, a.worth.get(d.do, {}).get(d.size)) for task, a in shown for d in a.decisions]
    rows = tuple(
        (TableCell(name), *((TableCell(size_text(d.size)),) if several else ()), *decision_cells(d, own, worth))
        for name, own, d, worth in of
    )
    found = [{"target": "mean over targets", **decision_record(d, scores)} for d in targets.decisions]
    found += [
        {"target": task, **decision_record(d, a.scores, a)} for task, a in targets.of.items() for d in a.decisions
    ]
    keys = dict.fromkeys(key for record in found for key in record)  # The same for all, as CSV has it.
    hidden = len(targets.of) - SHOWN
    more = (f"{hidden:,} more targets are in the CSV and JSON of this table.",) if hidden > 0 else ()
    together = (f"all: one row for all {len(targets.of)} targets, by the mean of their metric.",)
    return Table(
        name="decision",
        title=f"{scores.study} / {scores.sweep}: what to do",
        header=("target", *((phrases.column(scores.sizes),) if several else ()), *HEADER),
        rows=rows,
        footnotes=(
            *more,
            *(together if targets.decisions else ()),
            *decision_footnotes(scores, [d for _, _, d, _ in of], "targets and the whole sweep"),
        ),
        records=tuple({key: record.get(key) for key in keys} for record in found),
        words=(1 + several, 6 + several),
    )


#: The columns of ``decision_cells``.
HEADER = ("do", "gain", "p", "labels", "cost", "not told from the best")


def decision_cells(decision: Decision, scores: Scores, worth: Worth | None = None) -> tuple[TableCell, ...]:
    """Make the cells of what to do at one size; ``worth`` is by how many times the labels it is worth."""
    if not decision.do:
        return (TableCell("—", kind="missing"),) * 6
    mark = CONTROL if decision.do in scores.controls else ""
    if math.isnan(decision.gain):
        gain = TableCell("—", kind="missing")
    else:
        text = number_text(decision.gain, scores.unit, signed=True)
        gain = TableCell(
            f"{SIGNS[decision.claim]} {text}",
            interval_text(decision.low, decision.high, scores.unit),
            kind=decision.claim,
        )
    others = ", ".join(f"{row_text(r)}{CONTROL * (r in scores.controls)}" for r in decision.also)
    times = f"{decision.operations:.2g}×" if math.isfinite(decision.operations) else "—"
    return (
        TableCell(row_text(decision.do), mark=mark, bold=decision.claim == "gain"),
        gain,
        TableCell(p_text(decision.p)),
        _worth_cell(worth),
        TableCell(times),
        TableCell(others or "—"),
    )


def _worth_cell(worth: Worth | None) -> TableCell:
    if worth is None or not (worth.least > 0 or math.isfinite(worth.most)):
        return TableCell("—", kind="missing")
    bound = "" if worth.least == worth.most else ">" if worth.least > 0 else "<"
    times = worth.least if worth.least > 0 else worth.most
    if bound and two_digits(times) == "1":  # That is said by the gain's sign.
        return TableCell("—", kind="missing")
    known = worth.low > 0 and math.isfinite(worth.high)
    ends = f"[{two_digits(worth.low)}, {two_digits(worth.high)}]" if known else ""
    return TableCell(f"{bound}{two_digits(times)}×", ends)


def decision_footnotes(scores: Scores, decisions: Iterable[Decision], family: str) -> tuple[str, ...]:
    """Sentences that say how to read a decision table, and where harm is shown."""
    decisions, margin = list(decisions), phrases.margin(scores)
    operations = any(math.isfinite(d.operations) for d in decisions)
    taken = f"the cheapest; cost: operations, {scores.baseline}'s are 1×" if operations else "the best"
    notes = [
        f"Do: of the rows that cannot be told from the best (Hsu, 95 %) and lie within {margin} of the best mean, "
        f"those that are shown to gain if there are any, and of these {taken}."
    ]
    claims = [claim for claim in SIGNS if any(d.claim == claim for d in decisions)]
    words = {"gain": "gain", "equivalent": f"equivalent (± {margin})", "inconclusive": "not shown", "harm": "harm"}
    if claims:
        signs = ", ".join(f"{SIGNS[claim]} {words[claim]}" for claim in claims)
        unit = gain_unit_text(scores.metric, scores.unit)
        notes.append(
            f"Gain over {scores.baseline} in {unit}, with its 95 % interval: {signs}, at 5 % after Holm over {family}; "
            f"p is the corrected one.{_looks(scores)}"
        )
    if phrases.column(scores.sizes) == "n" and len(scores.sizes) > 1:
        notes.append(
            f"Labels: with so many times as many {scores.baseline} has the same metric; >, <: beyond what was measured."
        )
    controls = {r for d in decisions for r in (d.do, *d.also)} & set(scores.controls)
    if controls:
        notes.append(f"{CONTROL} control: not a contender.")
    return tuple(notes)


def _looks(scores: Scores) -> str:
    """How the level is spent, where there are several looks."""
    if scores.looks == 1:
        return ""
    return (
        f" The level is spent in equal parts over {scores.looks} looks at the test set: p is multiplied by them, and "
        "intervals hold at all of them together."
    )


def decision_record(decision: Decision, scores: Scores, analysis: Analysis | None = None) -> dict[str, Any]:
    """Return the numbers behind a row; of an analysis also what labels are worth, and what would settle it."""
    about = {"study": scores.study, "sweep": scores.sweep, "metric": scores.metric, "baseline": scores.baseline}
    found = about | {phrases.column(scores.sizes): int(decision.size) if decision.size.is_integer() else decision.size}
    rest = dataclasses.asdict(decision) | {"also": " ".join(decision.also), "harm": " ".join(decision.harm)}
    del rest["size"]
    found["regime"] = rest.pop("do")
    if analysis is None:
        return found | rest
    worth = analysis.worth.get(decision.do, {}).get(decision.size)
    power = analysis.power.get(decision.do, {}).get(decision.size)
    names = ("effect", "replicates_needed", "examples_needed", "labels_needed")
    more = {f"worth_{name}": getattr(worth, name, None) for name in ("least", "most", "low", "high")}
    return found | rest | more | {name: getattr(power, name, None) for name in names}
