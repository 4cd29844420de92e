"""What regimes come to over all targets of a study: means, Δ_m, interquartile means, and how often they are better."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mtl.report import bootstrap, over_tasks, statistics
from mtl.report.analysis import Analysis, Scores

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
      iqm, iqm_low, iqm_high: the interquartile mean of these relative gains over targets × replicates; NaN likewise.
      improvement, improvement_low, improvement_high: the probability that the regime is better than the baseline, on
        one of the targets and in one replicate.
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
    iqm: float = math.nan
    iqm_low: float = math.nan
    iqm_high: float = math.nan
    improvement: float = math.nan
    improvement_low: float = math.nan
    improvement_high: float = math.nan


def means(each: Sequence[Analysis], resamples: int, seed: int) -> dict[str, dict[float, Mean]]:
    """Return what each regime comes to at each size, over all targets.

    Replicates, and test rows (or groups of them) with all the labels that a row has, are resampled together for all
    targets, so what targets have in common by their rows is counted. All is over the replicates that have all targets.

    With M the metric (of AUROC what is above ½), b the baseline and l_t = 1 where less is better,
    Δ_m = 100/T Σ_t (−1)^{l_t} (M_t − M_bt) / M_bt, in percent; its error is that of the expression to first order. The
    interquartile mean is of the same gains in each replicate, the level of the baseline taken as known.

    Args:
      each: the analysis of each target, of the same regimes, sizes and replicates.
      resamples, seed: of the bootstrap.

    Source: Maninis et al., "Attentive single-tasking of multiple tasks", 2019, arXiv:1904.08918 (Δ_m).
    """
    scores = [analysis.scores for analysis in each]
    first = scores[0]
    alike = len({s.metric for s in scores}) == 1
    known = _intervals(scores, resamples, seed)
    found: dict[str, dict[float, Mean]] = {name: {} for name in first.regimes}
    for g, name in enumerate(first.regimes):
        for s, size in enumerate(first.sizes):
            told = {"mean"} if alike else set()
            if "gain" in known and name != first.rival(name):
                told |= {"improvement"} | ({"gain"} if alike else set())
                told |= set() if any(_touches(analysis, name, size) for analysis in each) else {"delta", "iqm"}
            parts: dict[str, float] = {}
            for kind in told:
                ends = ("low", "high") if kind == "mean" else (f"{kind}_low", f"{kind}_high")
                parts |= dict(zip((kind, *ends), known[kind][:, g, s].tolist(), strict=True))
            found[name][size] = Mean(**parts)
    return found


def contrast(
    scores: Sequence[Scores], pair: tuple[int, int], size: int, resamples: int, seed: int, level: float
) -> tuple[float, float, float]:
    """Return by how much one regime is better than another at a size, on average over targets, and its interval.

    Args:
      scores: one a target, of one metric.
      pair: the numbers of the two regimes.
      size: the number of the size.
      resamples, seed: of the bootstrap.
      level: of the interval.
    """
    total = _differences(scores, [(*pair, size)])[0][None, None]
    draws = bootstrap.two_way_bootstrap(total, resamples, seed)
    mean, low, high = _Sum(total, draws).intervals(len(scores), level)[:, 0, 0].tolist()
    return mean, low, high


def compared(scores: Sequence[Scores], pairs: Sequence[tuple[int, int, int]]) -> list[tuple[float, float, float, int]]:
    """Return by how much one regime is better than another on average over targets: gain, se, df and replicates.

    Args:
      scores: one a target, of one metric.
      pairs: the numbers of the two regimes and of the size.

    Returns:
      Of each pair what `mtl.report.statistics.two_way_error` says of the mean.
    """
    errors = [statistics.two_way_error(total / len(scores)) for total in _differences(scores, pairs)]
    return [(float(gain), float(se), float(df), int(replicates)) for gain, se, df, replicates in errors]


def _differences(scores: Sequence[Scores], pairs: Sequence[tuple[int, int, int]]) -> list[Float[np.ndarray, "R U"]]:
    """Return what units add to the difference of each pair (regime, regime, size), summed over targets."""
    units = np.unique(np.concatenate([_names(s) for s in scores]))
    present = np.all([bootstrap.present_replicates(s.values) for s in scores], axis=0)
    totals = [np.zeros((len(scores[0].replicates), len(units))) for _ in pairs]
    for own in scores:  # The outer loop: what all targets' units add need not fit in memory.
        x, weights = _over(own, units)
        for total, (a, b, s) in zip(totals, pairs, strict=True):
            both = (present[a, s] & present[b, s])[:, None]
            one, other = (bootstrap.linear(np.where(both, x[g, s], np.nan), weights) for g in (a, b))
            total += one - other
    return totals


def _intervals(scores: Sequence[Scores], resamples: int, seed: int) -> dict[str, Float[np.ndarray, "3 G S"]]:
    """Return (estimate, low, high) of each of ``Mean``'s; without a baseline of the mean alone."""
    first, units = scores[0], np.unique(np.concatenate([_names(s) for s in scores]))
    present = np.all([bootstrap.present_replicates(s.values) for s in scores], axis=0)
    # Of each regime, the place of what its gain is over.
    over = [first.regimes.index(first.rival(r)) for r in first.regimes if first.baseline in first.regimes]
    paired = present & present[over] if over else present
    # What units add, summed over targets, and draws of the sum.
    metric, gain, delta = _Sum(), _Sum(), _Sum()
    scales = []
    for own in scores:
        x, weights = _over(own, units)

        def drawn(of: np.ndarray, weights: np.ndarray = weights) -> np.ndarray:
            return bootstrap.two_way_bootstrap(of, resamples, seed, weights)

        whole = np.where(present[..., None], x, np.nan)
        draws = drawn(whole)
        metric.add(bootstrap.linear(whole, weights), draws)
        if not over:
            continue
        one, other = (np.where(paired[..., None], v, np.nan) for v in (x, x[over]))
        same = (paired == present).all() and (paired == present[over]).all()
        a, b = (draws, draws[:, over]) if same else (drawn(one), drawn(other))
        mine, theirs = bootstrap.linear(one, weights), bootstrap.linear(other, weights)
        gain.add(mine - theirs, a - b)
        chance = (1.0 if own.higher_is_better else -1.0) * CHANCE.get(own.metric, 0.0)
        mean, level = bootstrap.mean(one), bootstrap.mean(other)
        scales.append(_distance(level, chance))
        slope = np.sign(level - chance) * (mean - level) / scales[-1] ** 2
        delta.add((mine - theirs) / scales[-1] - slope * (theirs - level), (a - b) / _distance(b, chance))
    sign = 1.0 if first.higher_is_better else -1.0
    middle, *ends = sign * metric.intervals(len(scores))
    found = {"mean": np.stack([middle, *np.clip(np.sort(ends, axis=0), *first.bounds)])}
    if not over:
        return found

    def gains(of: int) -> np.ndarray:
        """Return what units add to a target's gains: made anew, as those of all targets need not fit in memory."""
        x, weights = _over(scores[of], units)
        mine, theirs = (np.where(paired[..., None], v, np.nan) for v in (x, x[over]))
        return bootstrap.linear(mine, weights) - bootstrap.linear(theirs, weights)

    quartiles = over_tasks.first_order(over_tasks.interquartile_mean, lambda t: gains(t) / scales[t], len(scores))
    better = over_tasks.first_order(over_tasks.improvement, gains, len(scores))
    iqm = _Sum(quartiles, bootstrap.two_way_bootstrap(quartiles, resamples, seed))
    found |= {"gain": gain.intervals(len(scores)), "delta": 100 * delta.intervals(len(scores))}
    return found | {"iqm": 100 * iqm.intervals(1), "improvement": over_tasks.shares(better)}


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


def _touches(analysis: Analysis, regime: str, size: float) -> bool:
    """Return whether the interval of what a regime's gain is over touches what is 0 for Δ_m, or there is none."""
    scores = analysis.scores
    cell, zero = analysis.cells[scores.rival(regime)][size], CHANCE.get(scores.metric, 0.0)
    return not (cell.low > zero or cell.high < zero)


class _Sum:
    """A sum over targets: what units add to it [G, S, R, U], and draws of it [B, G, S]."""

    def __init__(self, parts: np.ndarray | float = 0.0, draws: np.ndarray | float = 0.0) -> None:
        """Begin with what is there."""
        self.parts, self.draws = parts, draws

    def add(self, parts: np.ndarray, draws: np.ndarray) -> None:
        """Add a target's."""
        self.parts, self.draws = self.parts + parts, self.draws + draws

    def intervals(self, count: int, level: float = 0.95) -> Float[np.ndarray, "3 G S"]:
        """Return the (mean, low, high) of the sum over its ``count`` targets; NaN where nothing was added."""
        if not (isinstance(self.parts, np.ndarray) and isinstance(self.draws, np.ndarray)):
            return np.zeros((3, 0, 0))
        mean, se, df, _ = statistics.two_way_error(self.parts / count)
        found = np.stack([mean, mean, mean])
        for at in np.ndindex(*mean.shape):
            own = self.draws[(slice(None), *at)] / count
            estimate, error, freedom = (float(v[at]) for v in (mean, se, df))
            ends = bootstrap.two_way_interval(own, estimate, error, freedom, level)
            found[(slice(1, None), *at)] = ends
        return found


def _distance(level: np.ndarray, chance: float) -> np.ndarray:
    """Return by how much something is off chance; NaN where it is not."""
    found = np.abs(level - chance)
    return np.where(found > 0, found, np.nan)
