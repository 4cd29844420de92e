"""Several targets at once: each one's analysis, corrected over all of them, and what regimes come to on average."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mtl.report import bootstrap, phrases, references, statistics
from mtl.report.analyse import analyse, claimed
from mtl.report.analysis import Analysis, Cell, Cost, Scores
from mtl.report.budget import budget_sentences

#: Metrics whose value without any knowledge is not 0: Δ_m takes what is above it.
CHANCE = {"auroc": 0.5}


@dataclasses.dataclass(frozen=True)
class Mean:
    """What a regime comes to at one size, over all targets.

    Attributes:
      mean, low, high: the mean of the targets' metric and its 95 % interval; NaN if their metrics differ.
      gain, gain_low, gain_high: the mean of the paired gains over the baseline, likewise; positive is better.
      delta, delta_low, delta_high: Δ_m, the mean of the gains relative to the baseline, with its interval; NaN where
        the interval of some target's baseline touches zero.
    """

    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    gain: float = math.nan
    gain_low: float = math.nan
    gain_high: float = math.nan
    delta: float = math.nan
    delta_low: float = math.nan
    delta_high: float = math.nan


@dataclasses.dataclass(frozen=True)
class Targets:
    """Everything a table says about one sweep of several targets.

    Attributes:
      of: the analysis of each target, in the study's order; Holm's correction is over targets, regimes and sizes.
      means: ``means[regime][size]``.
      networks: how many networks a regime trains to have all targets.
      cost: of these networks together, on average over replicates.
    """

    of: Mapping[str, Analysis]
    means: Mapping[str, Mapping[float, Mean]]
    networks: Mapping[str, int]
    cost: Mapping[str, Cost]

    @property
    def scores(self) -> Scores:
        """The scores of the first target: what all have in common is in them."""
        return next(iter(self.of.values())).scores

    @property
    def verdict(self) -> tuple[str, ...]:
        """A sentence a regime: what it comes to on average, where it is better and does harm; and those of budgets.

        One of each reference too, with the targets on which it is better than every network.
        """
        contenders = [r for r in self.scores.regimes if r not in (self.scores.baseline, *self.scores.controls)]
        each = (*contenders, *references.references(self.scores))
        return (*map(self._told, each), *budget_sentences(self.of))

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
        means = [
            f"{phrases.amount(mean.gain, mean.gain_low, mean.gain_high, scores)} with n = {size:g}"
            for size, mean in self.means[regime].items()
            if not math.isnan(mean.gain)
        ]
        average = f"on average over {len(self.of)} targets {phrases.join(means)}; " if means else ""
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
    over targets × regimes × sizes. Means over targets and Δ_m have two-way intervals of their own: replicates, and
    test rows (or groups of them) with all the labels that a row has, are resampled together for all targets, so what
    targets have in common by their rows is counted. They are over the replicates that have all targets.

    With M the metric (of AUROC what is above ½), b the baseline and l_t = 1 where less is better,
    Δ_m = 100/T Σ_t (−1)^{l_t} (M_t − M_bt) / M_bt, in percent; its error is that of the expression to first order.

    Args:
      scores: one a target, of the same regimes, sizes and replicates.
      networks: of each regime, how many networks it trains to have all targets.
      resamples, seed: of the bootstrap.

    Source: Maninis et al., "Attentive single-tasking of multiple tasks", 2019, arXiv:1904.08918 (Δ_m).
    """
    each = _corrected([analyse(s, resamples, seed) for s in scores])
    of = {s.task: a for s, a in zip(scores, each, strict=True)}
    first = scores[0]
    cost = {
        name: _together([s.cost[name] for s in scores], networks[name])
        for name in first.regimes
        if all(name in s.cost for s in scores)
    }
    return Targets(of, _means(each, resamples, seed), networks, cost)


def _corrected(each: Sequence[Analysis]) -> list[Analysis]:
    """Return the analyses with Holm's correction, and the claims that follow from it, over all targets."""
    keys = [(regime, size) for regime in each[0].scores.regimes for size in each[0].scores.sizes]

    def holm(field: str) -> np.ndarray:
        return statistics.holm(np.array([[getattr(a.cells[r][n], field) for r, n in keys] for a in each]))

    p, p_margin, found = holm("p"), holm("p_margin"), []
    against = iter(statistics.holm(np.array([c.p for a in each for c in a.against])))
    for t, analysis in enumerate(each):
        cells: dict[str, dict[float, Cell]] = {regime: {} for regime in analysis.scores.regimes}
        for k, (regime, size) in enumerate(keys):
            cell = analysis.cells[regime][size]
            claim = claimed(cell.gain, float(p[t, k]), float(p_margin[t, k])) if cell.claim else ""
            cells[regime][size] = dataclasses.replace(
                cell, p_holm=float(p[t, k]), p_margin_holm=float(p_margin[t, k]), claim=claim
            )
        contrasts = tuple(dataclasses.replace(c, p_holm=float(next(against))) for c in analysis.against)
        found.append(dataclasses.replace(analysis, cells=cells, against=contrasts))
    return found


def _names(scores: Scores) -> np.ndarray:
    """Return what is resampled: the group of each test example, or its row."""
    names = scores.rows if scores.groups is None else scores.groups
    assert names is not None
    return names


def _over(scores: Scores, units: np.ndarray) -> tuple[Float[np.ndarray, "G S R U"], Float[np.ndarray, " U"]]:
    """Return a target's scores, more is better, as sums over all units, and each unit's size (see ``by_group``).

    A unit without a label of the target adds nothing, and has size 0.
    """
    sign = 1.0 if scores.higher_is_better else -1.0
    sums, sizes = bootstrap.by_group(sign * scores.values, _names(scores))
    at = np.searchsorted(units, np.unique(_names(scores)))
    share = len(units) / len(at)
    found = np.zeros((*sums.shape[:-1], len(units)))
    found[..., at] = share * sums
    found[np.isnan(sums).all(axis=-1)] = np.nan
    whole = np.zeros(len(units))
    whole[at] = share * sizes
    return found, whole


def _means(each: Sequence[Analysis], resamples: int, seed: int) -> dict[str, dict[float, Mean]]:
    """Return what each regime comes to at each size, over all targets."""
    scores = [analysis.scores for analysis in each]
    first, units = scores[0], np.unique(np.concatenate([_names(s) for s in scores]))
    regimes, sizes = first.regimes, first.sizes
    base = regimes.index(first.baseline) if first.baseline in regimes else None
    present = np.all([bootstrap.present_replicates(s.values) for s in scores], axis=0)
    # Of each regime, the place of what its gain is over.
    over = [] if base is None else [regimes.index(first.rival(name)) for name in regimes]
    paired = present if base is None else present & present[over]
    # Of the metric, of its gain and of Δ_m: what units add, summed over targets, and draws of the sum.
    sums = {kind: _Sum() for kind in ("", "gain", "delta")}
    for own in scores:
        x, weights = _over(own, units)

        def drawn(of: np.ndarray, weights: np.ndarray = weights) -> np.ndarray:
            return bootstrap.two_way_bootstrap(of, resamples, seed, weights)

        whole = np.where(present[..., None], x, np.nan)
        draws = drawn(whole)
        sums[""].add(_linear(whole, weights), draws)
        if base is None:
            continue
        one, other = (np.where(paired[..., None], v, np.nan) for v in (x, x[over]))
        same = (paired == present).all() and (paired == present[over]).all()
        a, b = (draws, draws[:, over]) if same else (drawn(one), drawn(other))
        mine, theirs = _linear(one, weights), _linear(other, weights)
        sums["gain"].add(mine - theirs, a - b)
        chance = (1.0 if own.higher_is_better else -1.0) * CHANCE.get(own.metric, 0.0)
        mean, level = _mean(one), _mean(other)
        scale = _distance(level, chance)
        slope = np.sign(level - chance) * (mean - level) / scale**2
        sums["delta"].add((mine - theirs) / scale - slope * (theirs - level), (a - b) / _distance(b, chance))
    alike = len({s.metric for s in scores}) == 1
    sign = 1.0 if first.higher_is_better else -1.0
    metric, gain, delta = (total.intervals(len(scores)) for total in sums.values())
    found: dict[str, dict[float, Mean]] = {name: {} for name in regimes}
    for g, name in enumerate(regimes):
        for s, size in enumerate(sizes):
            parts: dict[str, float] = {}
            if alike:
                low, high = np.clip(sorted(sign * metric[1:, g, s]), *first.bounds)
                parts |= {"mean": float(sign * metric[0, g, s]), "low": float(low), "high": float(high)}
            if alike and base not in (None, g):
                parts |= dict(zip(("gain", "gain_low", "gain_high"), gain[:, g, s].tolist(), strict=True))
            if base not in (None, g) and not any(_touches(a, name, size) for a in each):
                ends = (100 * delta[:, g, s]).tolist()
                parts |= dict(zip(("delta", "delta_low", "delta_high"), ends, strict=True))
            found[name][size] = Mean(**parts)
    return found


def _touches(analysis: Analysis, regime: str, size: float) -> bool:
    """Return whether the interval of what a regime's gain is over touches what is 0 for Δ_m, or there is none."""
    scores = analysis.scores
    cell, zero = analysis.cells[scores.rival(regime)][size], CHANCE.get(scores.metric, 0.0)
    return not (cell.low > zero or cell.high < zero)


class _Sum:
    """A sum over targets: what units add to it [G, S, R, U], and draws of it [B, G, S]."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.parts: np.ndarray | float = 0.0
        self.draws: np.ndarray | float = 0.0

    def add(self, parts: np.ndarray, draws: np.ndarray) -> None:
        """Add a target's."""
        self.parts, self.draws = self.parts + parts, self.draws + draws

    def intervals(self, count: int) -> Float[np.ndarray, "3 G S"]:
        """Return the (mean, low, high) of the sum over its ``count`` targets; NaN where nothing was added."""
        if not (isinstance(self.parts, np.ndarray) and isinstance(self.draws, np.ndarray)):
            return np.zeros((3, 0, 0))
        mean, se, df, _ = statistics.two_way_error(self.parts / count)
        found = np.stack([mean, mean, mean])
        for at in np.ndindex(*mean.shape):
            own = self.draws[(slice(None), *at)] / count
            found[(slice(1, None), *at)] = bootstrap.two_way_interval(own, *(float(v[at]) for v in (mean, se, df)))
        return found


def _linear(x: Float[np.ndarray, "*cells R U"], sizes: Float[np.ndarray, " U"]) -> Float[np.ndarray, "*cells R U"]:
    """Return what each unit adds to a mean that is a ratio, to first order (see ``statistics.two_way_error``)."""
    return x + (1 - sizes) * _mean(x)


def _mean(x: Float[np.ndarray, "*cells R U"]) -> Float[np.ndarray, "*cells 1 1"]:
    """Return the mean over the replicates that are there."""
    here = ~np.isnan(x)
    return np.where(here, x, 0.0).sum(axis=(-2, -1), keepdims=True) / np.maximum(
        here.sum(axis=(-2, -1), keepdims=True), 1
    )


def _distance(level: np.ndarray, chance: float) -> np.ndarray:
    """Return by how much something is off chance; NaN where it is not."""
    found = np.abs(level - chance)
    return np.where(found > 0, found, np.nan)


def _together(costs: Sequence[Cost], networks: int) -> Cost:
    """Return the cost of all of a regime's networks: of one that every target has, or of one a target."""
    if networks == 1:
        return costs[0]
    whole = Cost(*(math.fsum(getattr(c, f.name) for c in costs) for f in dataclasses.fields(Cost)))
    return dataclasses.replace(whole, rows=max(c.rows for c in costs))  # Several networks see the same rows.
