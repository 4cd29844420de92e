"""Several targets at once: each one's analysis, corrected over all of them, and what regimes come to on average."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from mtl.report import hypothesis, phrases, references, settle, statistics
from mtl.report.analyse import analyse, claimed
from mtl.report.analysis import Analysis, Answer, Cell, Cost, Decision, Scores
from mtl.report.budget import budget_sentences
from mtl.report.decision import decide
from mtl.report.means import Mean, contrast, means
from mtl.report.target_verdict import decide_mean, target_verdict


@dataclasses.dataclass(frozen=True)
class Targets:
    """Everything a table says about one sweep of several targets.

    Attributes:
      of: the analysis of each target, in the study's order; Holm's correction is over targets, regimes and sizes.
      means: ``means[regime][size]``.
      networks: how many networks a regime trains to have all targets.
      cost: of these networks together, on average over replicates.
      answers: what became of the hypothesis at each size, on average over targets; empty if their metrics differ.
      decisions: what to do for all targets together, at each size; likewise.
    """

    of: Mapping[str, Analysis]
    means: Mapping[str, Mapping[float, Mean]]
    networks: Mapping[str, int]
    cost: Mapping[str, Cost]
    answers: tuple[Answer, ...] = ()
    decisions: tuple[Decision, ...] = ()

    @property
    def scores(self) -> Scores:
        """The scores of the first target: what all have in common is in them."""
        return next(iter(self.of.values())).scores

    @property
    def verdict(self) -> tuple[str, ...]:
        """What to do, in at most three sentences."""
        return target_verdict(self.of, self.decisions, self.networks, self.cost, self.answers)

    @property
    def details(self) -> tuple[str, ...]:
        """What became of the study's hypothesis, and a sentence a regime; and those of budgets.

        A regime's is what it comes to on average, on which targets it is better, and where it does harm; one of each
        reference too, with the targets on which it is better than every network.
        """
        contenders = [r for r in self.scores.regimes if r not in (self.scores.baseline, *self.scores.controls)]
        each = {task: analysis.answers for task, analysis in self.of.items()}
        stated = [hypothesis.sentence(self.scores, self.answers, each)] if self.scores.hypothesis else []
        told = (*contenders, *references.references(self.scores))
        return (*stated, *map(self._told, told), *budget_sentences(self.of))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What weakens the answer; what does so for all targets is said once."""
        said: dict[str, list[str]] = {}
        for task, analysis in self.of.items():
            for sentence in analysis.warnings:
                said.setdefault(sentence, []).append(task)
        return tuple(s if len(of) == len(self.of) else f"{phrases.join(of)}: {s}" for s, of in said.items())

    def _told(self, regime: str) -> str:
        scores, reference = self.scores, regime in references.references(self.scores)
        what = ", without a network," if reference else ""
        claims: dict[str, list[str]] = {"gain": [], "harm": []}
        for task, analysis in self.of.items():
            for claim, tasks in claims.items():
                if sizes := [size for size, cell in analysis.cells[regime].items() if cell.claim == claim]:
                    tasks.append(f"{task} {phrases.with_labels(sizes, scores.sizes)}")
        column = phrases.column(scores.sizes)
        averages = [
            f"{phrases.amount(mean.gain, mean.gain_low, mean.gain_high, scores)} with {column} = {size:g}"
            for size, mean in self.means[regime].items()
            if not math.isnan(mean.gain)
        ]
        average = f"on average over {len(self.of)} targets {phrases.join(averages)}; " if averages else ""
        better = f"better on {phrases.join(claims['gain'])}" if claims["gain"] else "shown to be better on none"
        worse = "worse" if reference else "negative transfer: worse"
        harm = f"; {worse} on {phrases.join(claims['harm'])}" if claims["harm"] else ""
        if best := [
            f"{task} {phrases.with_labels(list(at), scores.sizes)}"
            for task, analysis in self.of.items()
            if reference and (at := references.better_at(analysis, regime))
        ]:
            better += f"; better than every network on {phrases.join(best)}"
        return f"{regime}{what} against {scores.baseline}: {average}{better}{harm}."


def analyse_targets(
    scores: Sequence[Scores], networks: Mapping[str, int], resamples: int = 4000, seed: int = 0
) -> Targets:
    """Analyse the scores of several targets, tested on rows of one test set.

    Each target is analysed as one alone would be (`mtl.report.analyse.analyse`), but for Holm's correction, which is
    over targets × regimes × sizes. Of means over targets see `mtl.report.means.means`.

    Args:
      scores: one a target, of the same regimes, sizes and replicates.
      networks: of each regime, how many networks it trains to have all targets.
      resamples, seed: of the bootstrap.
    """
    each = _corrected([analyse(s, resamples, seed, targets=len(scores)) for s in scores])
    of = {s.task: a for s, a in zip(scores, each, strict=True)}
    first = scores[0]
    cost = {
        name: _together([s.cost[name] for s in scores], networks[name])
        for name in first.regimes
        if all(name in s.cost for s in scores)
    }

    def mean(a: int, b: int, s: int, level: float) -> tuple[float, float, float]:
        return contrast(scores, (a, b), s, resamples, seed, level)

    answers = hypothesis.answers(first, mean) if len({s.metric for s in scores}) == 1 else ()
    together = means(each, resamples, seed)
    return Targets(of, together, networks, cost, answers, decide_mean(scores, together, cost))


def _corrected(each: Sequence[Analysis]) -> list[Analysis]:
    """Return the analyses with Holm's correction, and the claims that follow from it, over all targets."""
    keys = [(regime, size) for regime in each[0].scores.regimes for size in each[0].scores.sizes]
    looks = each[0].scores.looks

    def holm(field: str) -> np.ndarray:
        return statistics.holm(np.array([[getattr(a.cells[r][n], field) for r, n in keys] for a in each]), looks)

    p, p_margin, found = holm("p"), holm("p_margin"), []
    against = iter(statistics.holm(np.array([c.p for a in each for c in a.against]), looks))
    for t, analysis in enumerate(each):
        cells: dict[str, dict[float, Cell]] = {regime: {} for regime in analysis.scores.regimes}
        for k, (regime, size) in enumerate(keys):
            cell = analysis.cells[regime][size]
            claim = claimed(cell.gain, float(p[t, k]), float(p_margin[t, k])) if cell.claim else ""
            cells[regime][size] = dataclasses.replace(
                cell, p_holm=float(p[t, k]), p_margin_holm=float(p_margin[t, k]), claim=claim
            )
        contrasts = tuple(dataclasses.replace(c, p_holm=float(next(against))) for c in analysis.against)
        power = {
            regime: {size: settle.claimed(own, size, cells[regime][size].claim) for size, own in row.items()}
            for regime, row in analysis.power.items()
        }
        analysis = dataclasses.replace(analysis, cells=cells, against=contrasts, power=power)
        found.append(dataclasses.replace(analysis, decisions=decide(analysis)))
    return found


def _together(costs: Sequence[Cost], networks: int) -> Cost:
    """Return the cost of all of a regime's networks: of one that every target has, or of one a target."""
    if networks == 1:
        return costs[0]
    whole = Cost(*(math.fsum(getattr(c, f.name) for c in costs) for f in dataclasses.fields(Cost)))
    return dataclasses.replace(whole, rows=max(c.rows for c in costs))  # Several networks see the same rows.
