"""The decision as a table: for each size, or target, what to do, what it gains and costs, and what is as good."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from mtl.report import phrases
from mtl.report.analysis import Analysis, Decision, Scores
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
    rows = tuple((TableCell(size_text(d.size)), *decision_cells(d, scores)) for d in analysis.decisions)
    return Table(
        name="decision",
        title=f"{scores.study} / {scores.sweep}: what to do",
        header=(phrases.column(scores.sizes), *decision_header(scores)),
        rows=rows,
        footnotes=decision_footnotes(scores, analysis.decisions, "the whole sweep"),
        records=tuple(decision_record(d, scores) for d in analysis.decisions),
        words=(1, 5),
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
    of = [("all", scores, d) for d in targets.decisions]
    of += [(task, a.scores, d) for task, a in shown for d in a.decisions]
    rows = tuple(
        (TableCell(name), *((TableCell(size_text(d.size)),) if several else ()), *decision_cells(d, own))
        for name, own, d in of
    )
    found = [{"target": "mean over targets", **decision_record(d, scores)} for d in targets.decisions]
    found += [{"target": task, **decision_record(d, a.scores)} for task, a in targets.of.items() for d in a.decisions]
    hidden = len(targets.of) - SHOWN
    more = (f"{hidden:,} more targets are in the CSV and JSON of this table.",) if hidden > 0 else ()
    together = (f"all: one row for all {len(targets.of)} targets, by the mean of their metric.",)
    return Table(
        name="decision",
        title=f"{scores.study} / {scores.sweep}: what to do",
        header=("target", *((phrases.column(scores.sizes),) if several else ()), *decision_header(scores)),
        rows=rows,
        footnotes=(
            *more,
            *(together if targets.decisions else ()),
            *decision_footnotes(scores, [d for *_, d in of], "targets and the whole sweep"),
        ),
        records=tuple(found),
        words=(1 + several, 5 + several),
    )


def decision_header(scores: Scores) -> tuple[str, ...]:
    """The columns of ``decision_cells``."""
    return ("do", f"gain over {scores.baseline}", "p", "operations", "not told from the best")


def decision_cells(decision: Decision, scores: Scores) -> tuple[TableCell, ...]:
    """Make the cells of what to do at one size."""
    if not decision.do:
        return (TableCell("—", kind="missing"),) * 5
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
        TableCell(times),
        TableCell(others or "—"),
    )


def decision_footnotes(scores: Scores, decisions: Iterable[Decision], family: str) -> tuple[str, ...]:
    """Sentences that say how to read a decision table, and where harm is shown."""
    decisions, margin = list(decisions), phrases.margin(scores)
    operations = any(math.isfinite(d.operations) for d in decisions)
    taken = f"the cheapest; {scores.baseline} is 1× the operations" if operations else "the best"
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
            f"Gain in {unit}, with its 95 % interval: {signs}, at 5 % after Holm over {family}; p is the corrected one."
        )
    controls = {r for d in decisions for r in (d.do, *d.also)} & set(scores.controls)
    if controls:
        notes.append(f"{CONTROL} control: not a contender.")
    return tuple(notes)


def decision_record(decision: Decision, scores: Scores) -> dict[str, Any]:
    """Return the numbers behind a row."""
    about = {"study": scores.study, "sweep": scores.sweep, "metric": scores.metric, "baseline": scores.baseline}
    found = about | {phrases.column(scores.sizes): int(decision.size) if decision.size.is_integer() else decision.size}
    rest = dataclasses.asdict(decision) | {"also": " ".join(decision.also), "harm": " ".join(decision.harm)}
    del rest["size"]
    return found | rest
