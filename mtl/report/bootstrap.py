"""Resampling replicates and test examples (or groups of them) together; what is read off the draws."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

# Draws are made in blocks, and of some cells at a time, so that neither the weights of a large test set nor a second
# copy of all scores ever lies in memory at once.
_BLOCK = 512
_SCORES_TOGETHER = 2**21


def _weights(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """Multinomial(n; 1/n, ..., 1/n) counts, [draws, n]."""
    drawn = rng.integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)


def _blocks(
    resamples: int, seed: int, replicates: int, examples: int, sizes: np.ndarray | None
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yields which draws, their weights of the replicates [n, R], and of the test examples, of sum 1, [I, n]."""
    # Two streams, so that the weights of the replicates do not depend on the number of examples.
    of_replicates, of_examples = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    for start in range(0, resamples, _BLOCK):
        n = min(_BLOCK, resamples - start)
        w, v = _weights(of_replicates, n, replicates), _weights(of_examples, n, examples)
        yield slice(start, start + n), w, v.T / (examples if sizes is None else v @ sizes)


def present_replicates(values: Float[np.ndarray, "*cells R I"]) -> np.ndarray:
    """Which replicates have scores: a replicate has all of its examples, or none.

    Args:
      values: scores, NaN over all of I where a replicate is missing.

    Returns:
      bool [*cells, R].

    Raises:
      ValueError: if a replicate has scores for some test examples only, or one is infinite, or I = 0.

    >>> present_replicates(np.array([[0.5, 1.0], [np.nan, np.nan]]))
    array([ True, False])
    """
    if values.shape[-1] == 0:
        raise ValueError("values: the last axis (test examples) is empty; give at least one example")
    absent = np.isnan(values)
    missing = absent.all(axis=-1)
    if (absent.any(axis=-1) != missing).any():
        raise ValueError(
            "values: a replicate has scores for some test examples and NaN for others; "
            "drop examples without a label from all replicates, or set the whole replicate to NaN"
        )
    if np.isinf(values).any():
        raise ValueError("values: a score is infinite; scores must be finite, or NaN for a missing replicate")
    return ~missing


def by_group(
    values: Float[np.ndarray, "*cells R I"], groups: Int[np.ndarray, " I"] | None
) -> tuple[Float[np.ndarray, "*cells R K"], Float[np.ndarray, " K"]]:
    """What each group of test examples adds to a mean, so that groups can stand where examples stand.

    With groups of n_k of the I examples: t_rk = (K/I) Σ_{i in k} x_ri, whose mean over the K groups is the mean over
    the examples, and the relative sizes c_k = n_k K/I, whose mean is 1. Persons, scaffolds and writers are what is
    sampled, not their rows: rows of one group are alike, and count for less than as many rows of others.

    Args:
      values: scores, in any unit.
      groups: the group of each test example; without it each is its own, and ``values`` come back as they are.

    Returns:
      t, in the unit of ``values``, and c; both in ascending order of the groups' numbers.

    >>> t, c = by_group(np.array([[1.0, 3.0, 8.0]]), np.array([7, 7, 9]))
    >>> t.round(3).tolist(), c.round(3).tolist()
    ([[2.667, 5.333]], [1.333, 0.667])
    """
    examples = values.shape[-1]
    if groups is None:
        return values, np.ones(examples)
    _, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order, starts = np.argsort(codes, kind="stable"), np.cumsum(counts) - counts
    scale = len(counts) / examples
    found = np.empty((*values.shape[:-1], len(counts)))
    for cell in np.ndindex(*values.shape[:-2]):  # One cell at a time: sorting makes a copy.
        found[cell] = np.add.reduceat(values[cell][:, order], starts, axis=-1) * scale
    return found, counts * scale


def mean(x: Float[np.ndarray, "*cells R U"]) -> Float[np.ndarray, "*cells 1 1"]:
    """Return the mean over the replicates that are there."""
    here = ~np.isnan(x)
    return np.where(here, x, 0.0).sum(axis=(-2, -1), keepdims=True) / np.maximum(
        here.sum(axis=(-2, -1), keepdims=True), 1
    )


def linear(x: Float[np.ndarray, "*cells R U"], sizes: Float[np.ndarray, " U"]) -> Float[np.ndarray, "*cells R U"]:
    """Return what each unit adds to a mean that is a ratio, to first order (`mtl.report.statistics.two_way_error`)."""
    return x + (1 - sizes) * mean(x)


def two_way_bootstrap(
    values: Float[np.ndarray, "*cells R I"],
    resamples: int = 4000,
    seed: int = 0,
    sizes: Float[np.ndarray, " I"] | None = None,
) -> Float[np.ndarray, " B *cells"]:
    """Pigeonhole bootstrap of means over replicates × test examples.

    Draw b takes W ~ Multinomial(R; 1/R, …) and V ~ Multinomial(I; 1/I, …), the same for all cells, and gives
    m*_b = Σ_r W_r Σ_i V_i x_ri / (I · Σ_r W_r), sums over the replicates that the cell has. As the weights
    are shared, draws of cells with the same replicates are paired: the draws of a difference are the
    differences of the draws. With crossed effects x_ri = μ + a_r + b_i + e_ri the draws have variance
    ≈ σ_a²/R + σ_b²/I + 3 σ_e²/(RI), which counts the interaction three times where the mean has it once; see
    `two_way_interval` for the remedy. Groups of examples are drawn as wholes: with their sums and relative sizes
    c_k (`by_group`) the draw is Σ_r W_r Σ_k V_k t_rk / (Σ_k V_k c_k · Σ_r W_r).

    Args:
      values: scores, in any unit; NaN over all of I where a replicate is missing.
      resamples: B.
      seed: of the weights; the same seed, R, I and B give the same weights whatever the cells are.
      sizes: where I are groups, their relative sizes.

    Returns:
      Means, in the unit of ``values``; NaN in draws that hold none of the cell's replicates (never, if none
      is missing), so that they can be left out and counted.

    Raises:
      ValueError: for partly missing replicates, infinite scores, or ``resamples`` below 1.

    Source: McCullagh, "Resampling and exchangeable arrays", 2000; Owen, "The pigeonhole bootstrap", 2007,
    arXiv:0712.1111.

    >>> x = np.random.default_rng(0).normal(size=(3, 20, 50))
    >>> draws = two_way_bootstrap(x, resamples=500)
    >>> draws.shape
    (500, 3)
    >>> bool(np.allclose(two_way_bootstrap(x[0] - x[1], resamples=500), draws[:, 0] - draws[:, 1]))
    True
    """
    if resamples < 1:
        raise ValueError(f"resamples: {resamples}; give at least 1")
    *cells, replicates, examples = values.shape
    count = int(np.prod(cells, dtype=int))
    present = present_replicates(values).reshape(count, replicates)
    flat = values.reshape(count, replicates, examples)
    together = max(1, _SCORES_TOGETHER // (replicates * examples))
    draws = np.empty((resamples, count))
    for block, w, v in _blocks(resamples, seed, replicates, examples, sizes):
        for first in range(0, count, together):
            part = slice(first, first + together)
            here = present[part]
            rows = np.where(here[..., None], flat[part], 0.0).reshape(-1, examples)
            total = np.einsum("crn,nr->nc", (rows @ v).reshape(len(here), replicates, len(w)), w)
            weight = w @ here.T.astype(np.float64)
            draws[block, part] = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
    return draws.reshape(resamples, *cells)


class Drawn:
    """Draws of `two_way_bootstrap` of means over any of the replicates, from one pass over the scores.

    Args:
      values, resamples, seed, sizes: as there.

    >>> x = np.random.default_rng(0).normal(size=(2, 5, 9))
    >>> some = np.array([True, True, False, True, True])
    >>> draws = two_way_bootstrap(np.where(some[:, None], x[1], np.nan), 100)
    >>> bool(np.allclose(Drawn(x, 100).mean((1,), some), draws, equal_nan=True))
    True
    """

    def __init__(
        self,
        values: Float[np.ndarray, "*cells R I"],
        resamples: int = 4000,
        seed: int = 0,
        sizes: Float[np.ndarray, " I"] | None = None,
    ) -> None:
        """Draws the means of every replicate."""
        *cells, replicates, examples = values.shape
        rows = np.where(np.isnan(values), 0.0, values).reshape(-1, examples)
        self._means = np.empty((len(rows), resamples))
        self._weights = np.empty((replicates, resamples))
        for block, w, v in _blocks(resamples, seed, replicates, examples, sizes):
            self._means[:, block], self._weights[:, block] = rows @ v, w.T
        self._means = self._means.reshape(*cells, replicates, resamples)

    def mean(self, cell: tuple[int, ...], of: Bool[np.ndarray, " R"]) -> Float[np.ndarray, " B"]:
        """Return draws of a cell's mean over some replicates, which it has; NaN in draws that hold none of them."""
        weights = self._weights[of]
        total = weights.sum(axis=0)
        drawn = np.einsum("rb,rb->b", weights, self._means[cell][of])
        return np.divide(drawn, total, out=np.full_like(total, np.nan), where=total > 0)


def percentile_interval(draws: Float[np.ndarray, " B"], level: float = 0.95) -> tuple[float, float]:
    """The percentile interval, [q_{(1−level)/2}, q_{(1+level)/2}] of the draws.

    Args:
      draws: bootstrap draws; NaN are left out.
      level: confidence.

    Returns:
      Its ends, in the unit of the draws; NaN if no draw is left.

    Source: Efron, "Nonparametric standard errors and confidence intervals", 1981.

    >>> low, high = percentile_interval(np.arange(101.0), level=0.9)
    >>> round(low, 6), round(high, 6)
    (5.0, 95.0)
    """
    kept = draws[~np.isnan(draws)]
    if not kept.size:
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def two_way_interval(
    draws: Float[np.ndarray, " B"], mean: float, se: float, df: float, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of two-way draws whose spread is set to that of Student's t with an unbiased error.

    The draws' deviations from the mean are multiplied by (se / sd(draws)) · (t_{df} / z), both quantiles at
    (1 + level)/2. The first factor removes the interaction that the pigeonhole bootstrap counts three times
    and its factor (R−1)/R; the second accounts for the error being estimated from few replicates. The draws
    keep giving the shape: an interval of an accuracy near 1 stays skewed. Where ``se`` is NaN (one replicate)
    it is the plain percentile interval, which then speaks of the test examples only.

    Args:
      draws: of `two_way_bootstrap`; NaN are left out.
      mean: the estimate, in the unit of the draws.
      se: its standard error, of `mtl.report.statistics.two_way_error`.
      df: the degrees of freedom of ``se``.
      level: confidence.

    Returns:
      The ends, in the unit of the draws; NaN if there is no draw.

    Source: Owen, 2007, arXiv:0712.1111 (the bias); Hesterberg, "What teachers should know about the
    bootstrap", 2015, arXiv:1411.5279 (narrowness in small samples).

    >>> draws = np.random.default_rng(0).normal(2.0, 9.0, size=20_000)
    >>> low, high = two_way_interval(draws, mean=2.0, se=1.0, df=19.0)
    >>> round(low, 1), round(high, 1)
    (-0.1, 4.1)
    """
    low, high = percentile_interval(draws, level)
    if np.isnan(low) or np.isnan(se):
        return low, high
    spread = float(np.nanstd(draws))
    if spread == 0 or se == 0:
        return mean, mean
    tail = (1 + level) / 2
    stretch = se / spread * float(special.stdtrit(df, tail) / special.ndtri(tail))
    return mean + stretch * (low - mean), mean + stretch * (high - mean)


def paired_bootstrap(
    first: Float[np.ndarray, " R"],
    second: Float[np.ndarray, " R"],
    resamples: int = 4000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Paired bootstrap over seeds: the mean of first − second and its percentile interval.

    It answers for new seeds *on the same test examples*. For new examples it is too narrow, often by half;
    use `two_way_bootstrap`.

    Args:
      first, second: one number a replicate, aligned; NaN where missing, pairs with a NaN are left out.
      resamples: bootstrap resamples.
      seed: of the resampling.
      level: confidence.

    Returns:
      Mean difference, low, high, in the unit of the inputs; NaN if no pair is complete.

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    >>> a = np.array([0.8, 0.9, 0.7, 0.8])
    >>> difference, low, high = paired_bootstrap(a, a - 0.1)
    >>> round(difference, 3), round(low, 3), round(high, 3)
    (0.1, 0.1, 0.1)
    """
    difference = first - second
    difference = difference[~np.isnan(difference)]
    if not difference.size:
        return float("nan"), float("nan"), float("nan")
    weights = _weights(np.random.default_rng(seed), resamples, difference.size)
    low, high = percentile_interval(weights @ difference / difference.size, level)
    return float(difference.mean()), low, high


def crossing_sizes(
    sizes: Float[np.ndarray, " S"], curves: Float[np.ndarray, "B S"]
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"], Int[np.ndarray, " B"]]:
    """Where curves of differences turn from negative to positive, linear in log n between the sizes.

    Between neighbours with d_k < 0 ≤ d_{k+1} the crossing is at
    log n = log n_k + (log n_{k+1} − log n_k) · (−d_k) / (d_{k+1} − d_k).

    Args:
      sizes: ascending; with a size of 0 the axis is log(1 + n).
      curves: overtaker minus leader, positive where the overtaker is better.

    Returns:
      first, last: sizes of the first and last upward crossing. Without one: both are the smallest size if the
        curve is never negative, both the largest if it is never positive; the smallest and the largest if it
        only falls through zero. So quantiles of ``first`` and ``last`` make an interval that no draw escapes.
      count: +1 where the curve crosses exactly once, upwards; −1 exactly once, downwards; 0 otherwise.

    Raises:
      ValueError: if sizes do not ascend.

    >>> first, last, count = crossing_sizes(np.array([10.0, 100.0]), np.array([[-1.0, 1.0], [1.0, 2.0]]))
    >>> first.round(1).tolist(), count.tolist()
    ([31.6, 10.0], [1, 0])
    """
    if (np.diff(sizes) <= 0).any() or (sizes < 0).any():
        raise ValueError(f"sizes: {sizes.tolist()}; they must ascend from 0 or above")
    shift = 1.0 if sizes[0] == 0 else 0.0
    x = np.log(sizes + shift)
    below = curves < 0
    up, down = below[:, :-1] & ~below[:, 1:], ~below[:, :-1] & below[:, 1:]
    rise = np.where(up, curves[:, 1:] - curves[:, :-1], 1.0)
    at = np.exp(x[:-1] + np.diff(x) * np.where(up, -curves[:, :-1], 0.0) / rise) - shift
    crosses = up.any(axis=1)
    none_low = np.where(below.all(axis=1), sizes[-1], sizes[0])
    none_high = np.where(below.any(axis=1), sizes[-1], sizes[0])
    first = np.where(crosses, np.where(up, at, np.inf).min(axis=1, initial=np.inf), none_low)
    last = np.where(crosses, np.where(up, at, -np.inf).max(axis=1, initial=-np.inf), none_high)
    once = up.sum(axis=1) + down.sum(axis=1) == 1
    return first, last, np.where(once, np.where(crosses, 1, -1), 0)
