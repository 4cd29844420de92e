"""Label efficiency: how many labels of the target a regime is worth, and what it gains over all sizes.

A regime with n labels is worth k(n) times the labels if its baseline reaches with k·n labels what the regime has with
n. With b the baseline's learning curve and g(n) the paired gain,

    k(n) = b⁻¹(b(n) + g(n)) / n,

b isotonic (more labels do not harm) and linear in log n between the sizes, so k(n) > 1 exactly where g(n) > 0. What b
does not reach within the sizes measured is bounded, not extrapolated.

Source: Barlow et al., "Statistical Inference under Order Restrictions", 1972 (isotonic regression, as the maximum of
minima of means); Hestness et al., "Deep learning scaling is predictable, empirically", 2017, arXiv:1712.00409 (curves
in log n).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from mtl.report import bootstrap, over_tasks, statistics
from mtl.report.analysis import Scores, Sizes
from mtl.report.contrasts import Pairs
from mtl.report.estimates import OverSizes, Worth


def isotonic(curves: Float[np.ndarray, "S ..."]) -> Float[np.ndarray, "S ..."]:
    """Isotonic regression of many curves at once, all points of one weight: max_{i ≤ k} min_{j ≥ k} mean(y_i, …, y_j).

    Args:
      curves: in any unit, one in each column.

    >>> isotonic(np.array([1.0, 3.0, 2.0, 2.5])).tolist()
    [1.0, 2.5, 2.5, 2.5]
    """
    found = np.full_like(curves, -np.inf)
    for i in range(len(curves)):
        counts = np.arange(1.0, len(curves) - i + 1).reshape(-1, *(1,) * (curves.ndim - 1))
        means = np.cumsum(curves[i:], axis=0) / counts
        least = np.minimum.accumulate(means[::-1], axis=0)[::-1]
        np.maximum(found[i:], least, out=found[i:])
    return found


def reached(
    sizes: Float[np.ndarray, " S"], at: int, above: Float[np.ndarray, "S B"]
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """By how many times the labels a curve reaches another's value at one of its sizes.

    Args:
      sizes: labels, above 0, ascending.
      at: the number of the size n.
      above: b(n_j) − b(n) − g(n): of each size, by how much b is above what is to be reached, before b is isotonic.

    Returns:
      Bounds of the factor, the same where b reaches it within the sizes; (n_S/n, inf) where it stays below, (0, n_1/n)
      where it is above from the first size on.

    >>> low, high = reached(np.array([10.0, 100.0, 1000.0]), 0, np.array([[-0.1, 0.1, 0.2], [-0.3, -0.2, -0.1]]).T)
    >>> low.round(2).tolist(), high.round(2).tolist()
    ([3.16, 100.0], [3.16, inf])
    """
    curve = isotonic(above)
    curve = curve + (above[at] - curve[at])
    k = (curve < 0).sum(axis=0)
    last = len(sizes) - 1
    log, draws = np.log(sizes / sizes[at]), np.arange(above.shape[1])
    right = np.clip(k, min(1, last), last)
    left = np.maximum(right - 1, 0)
    a, b = curve[left, draws], curve[right, draws]
    inside = (k > 0) & (k <= last)
    share = np.divide(-a, b - a, out=np.zeros_like(a), where=inside)
    between = np.exp(log[left] * (1 - share) + log[right] * share)
    low = np.where(inside, between, np.where(k > last, sizes[-1] / sizes[at], 0.0))
    high = np.where(inside, between, np.where(k > last, np.inf, sizes[0] / sizes[at]))
    same = above[at] == 0
    return np.where(same, 1.0, low), np.where(same, 1.0, high)


class _Curve(NamedTuple):
    """A regime's worth at its sizes, drawn: bounds [1 + B, S], first those of the means."""

    columns: list[int]
    low: np.ndarray
    high: np.ndarray


def worth(
    pairs: Pairs, scores: Scores, over: Mapping[int, int]
) -> tuple[dict[str, dict[float, Worth]], dict[str, OverSizes]]:
    """Return how many labels regimes are worth at each size, and what they come to over all sizes.

    Intervals are of whole curves, drawn with the same replicates and test examples at all sizes; the spread of each
    difference between the regime at n and the baseline at another size is set to its unbiased standard error and
    Student's t (`mtl.report.bootstrap.two_way_interval`). All is over the replicates that the regime has at n and the
    baseline has throughout; over sizes, those that have all of them.

    Over sizes: the geometric mean of the multipliers, with its bounds where some are only bounded; the mean of the
    gains (all sizes count the same: where they are evenly spaced in log n, the area under the curve of the gain over
    log n, but for the halves of its ends); the interquartile mean of the gains over sizes × replicates, and the
    probability of improvement (`mtl.report.over_tasks`, sizes in the place of tasks).

    Args:
      pairs: of `mtl.report.contrasts.compare`.
      scores: what they are of.
      over: of each regime that has one, the place of what its gain is over.

    Returns:
      By regime and size, of sizes at which both were measured; empty where columns are not target sizes. And by
      regime, of regimes with such a size.
    """
    each: dict[str, dict[float, Worth]] = {}
    total: dict[str, OverSizes] = {}
    labels = getattr(scores.sizes, "field", Sizes.field) == Sizes.field
    for g, rival in over.items():
        name = scores.regimes[g]
        whole = None
        if labels:
            curve = _worth(pairs, scores, g, rival)
            each[name] = {
                scores.sizes[s]: _told(curve.low[:, k], curve.high[:, k]) for k, s in enumerate(curve.columns)
            }
            if curve.columns:
                with np.errstate(divide="ignore"):
                    whole = _told(*(np.exp(np.log(v).mean(axis=1)) for v in (curve.low, curve.high)))
        columns = np.flatnonzero(pairs.replicates[g, rival] > 0).tolist()
        if columns:
            total[name] = _over_sizes(pairs, scores, g, rival, columns, whole)
    return each, total


def _worth(pairs: Pairs, scores: Scores, g: int, rival: int) -> _Curve:
    """Return the worth of a regime at each size."""
    sizes = np.asarray(scores.sizes, dtype=np.float64)
    measured = [s for s in range(len(sizes)) if sizes[s] > 0 and pairs.present[rival, s].any()]
    base, common = pairs.better[rival][measured], pairs.present[rival, measured].all(axis=0)
    columns: list[int] = []
    low: list[np.ndarray] = []
    high: list[np.ndarray] = []
    for at, s in enumerate(measured):
        shared = common & pairs.present[g, s]
        if not shared.any():
            continue
        other = base - np.where(shared[:, None], pairs.better[g, s], np.nan)
        mean, se, df, _ = statistics.two_way_error(other, pairs.sizes)
        draws = np.stack([pairs.means_drawn(rival, j, shared) for j in measured]) - pairs.means_drawn(g, s, shared)
        here = ~np.isnan(draws).any(axis=0)
        spread = draws[:, here].std(axis=1) if here.any() else np.zeros(len(measured))
        known = (spread > 0) & ~np.isnan(se)
        t = special.stdtrit(np.where(known, df, 1.0), 0.975) / special.ndtri(0.975)
        # One replicate: draws of the test examples only, as they are.
        stretch = np.where(known, np.nan_to_num(se) * t, np.where(np.isnan(se), spread, 0.0))
        scale = np.divide(stretch, spread, out=np.zeros_like(spread), where=spread > 0)
        middle = mean[:, None]
        curves = np.concatenate([middle, middle + (draws - middle) * scale[:, None]], axis=1)
        bounds = reached(sizes[measured], at, curves)
        columns.append(s)
        for kept, found in zip((low, high), bounds, strict=True):
            kept.append(np.where(np.isnan(curves).any(axis=0), np.nan, found))
    return _Curve(columns, *(np.stack(v, axis=1) if columns else np.zeros((1, 0)) for v in (low, high)))


def _told(low: Float[np.ndarray, " B"], high: Float[np.ndarray, " B"]) -> Worth:
    """Return a multiplier and its interval, of bounds of which the first are those of the means."""
    there = np.flatnonzero(~np.isnan(low[1:])) + 1
    if not there.size:
        return Worth(float(low[0]), float(high[0]), 0.0, np.inf)
    ends = np.quantile(low[there], 0.025, method="lower"), np.quantile(high[there], 0.975, method="higher")
    return Worth(float(low[0]), float(high[0]), *(float(v) for v in ends))


def _over_sizes(
    pairs: Pairs, scores: Scores, g: int, rival: int, columns: list[int], multiplier: Worth | None
) -> OverSizes:
    """Return what a regime comes to over the sizes at which it was measured."""
    shared = (pairs.present[g, columns] & pairs.present[rival, columns]).all(axis=0)
    sizes = tuple(scores.sizes[s] for s in columns)
    if not shared.any():
        return OverSizes(sizes, 0, multiplier)
    units = [
        bootstrap.linear((pairs.better[g, s] - pairs.better[rival, s])[shared], pairs.sizes)[None, None]
        for s in columns
    ]
    mean, se, df, _ = (v.item() for v in statistics.two_way_error(np.mean(units, axis=0)))
    draws = np.mean([pairs.means_drawn(g, s, shared) - pairs.means_drawn(rival, s, shared) for s in columns], axis=0)
    quartiles, better = (
        over_tasks.first_order(function, lambda t: units[t], len(columns))
        for function in (over_tasks.interquartile_mean, over_tasks.improvement)
    )
    middle, error, freedom, _ = (v.item() for v in statistics.two_way_error(quartiles))
    half = error * special.stdtrit(freedom, 0.975)
    return OverSizes(
        sizes,
        int(shared.sum()),
        multiplier,
        mean,
        *bootstrap.two_way_interval(draws, mean, se, df),
        *(float(v) for v in (middle, middle - half, middle + half)),
        *over_tasks.shares(better)[:, 0, 0].tolist(),
    )
