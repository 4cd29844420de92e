"""Tasks × replicates as one sample: the interquartile mean of gains, and the probability of improvement.

Both are functions of the gains g_tr of task t in replicate r, tasks being given and replicates and test rows drawn. To
first order each is a mean over replicates × test rows, so that its error is that of any other mean
(`mtl.report.statistics.two_way_error`): with l_tri what row i adds to g_tr, whose mean over rows it is,

    y_ri = 1/T Σ_t [parts_tr + slopes_tr (l_tri − g_tr)].

Source: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", 2021, arXiv:2108.13264.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from mtl.report import statistics


class OverTasks(NamedTuple):
    """A function of gains, to first order.

    Attributes:
      value: what it is.
      parts: what each task and replicate adds; their mean is the value.
      slopes: how much it changes (T R times) with the gain measured there.
    """

    value: float
    parts: Float[np.ndarray, "T R"]
    slopes: Float[np.ndarray, "T R"]


def interquartile_mean(gains: Float[np.ndarray, "T R"]) -> OverTasks:
    """The mean of all gains but a quarter at each end.

    It is less moved by one task that gains (or loses) much than the mean, and by luck less than the median. Gains
    beyond the quartiles count as the quartile (Winsor) in its error.

    Args:
      gains: in any unit that tasks have in common.

    >>> found = interquartile_mean(np.array([[0.0, 1.0, 2.0, 90.0], [-50.0, 1.0, 2.0, 3.0]]))
    >>> found.value, round(float(found.parts.mean()), 9)
    (1.5, 1.5)
    """
    ordered = np.sort(gains, axis=None)
    cut = len(ordered) // 4
    kept = ordered[cut : len(ordered) - cut]
    share = len(ordered) / len(kept)
    held = np.clip(gains, kept[0], kept[-1])
    return OverTasks(float(kept.mean()), kept.mean() + share * (held - held.mean()), share * (held == gains))


def improvement(gains: Float[np.ndarray, "T R"]) -> OverTasks:
    """The probability that a regime is better on a task of these, in one replicate and on one test set like this one.

    It is the share of tasks and replicates with a gain above 0, ties counting half. How test rows move it depends on
    how dense gains are at 0: a normal density for each task.

    Args:
      gains: in any unit.

    >>> improvement(np.array([[0.1, 0.2, -0.1, 0.3], [0.0, 0.1, 0.1, -0.2]])).value
    0.6875
    """
    signs = (np.sign(gains) + 1) / 2
    mean = gains.mean(axis=1, keepdims=True)
    spread = gains.std(axis=1, ddof=1, keepdims=True) if gains.shape[1] > 1 else np.zeros_like(mean)
    spread = np.where(spread > 0, spread, np.inf)  # Where gains do not vary, rows do not move it.
    density = np.exp(-0.5 * (mean / spread) ** 2) / (math.sqrt(2 * math.pi) * spread)
    return OverTasks(float(signs.mean()), signs, np.broadcast_to(density, gains.shape))


def share_interval(share: float, se: float, df: float, replicates: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share that is known as well as one of p(1 − p)/se² independent draws would be.

    A share of 0 or 1 has no spread to judge by: it is one of as many draws as there are replicates.

    Args:
      share: p, in [0, 1].
      se, df: its standard error and the degrees of freedom of that; NaN with fewer than two replicates.
      replicates: R.
      level: confidence.

    Returns:
      The ends, within [0, 1]; NaN if ``se`` is.

    Source: Wilson, 1927; Korn & Graubard, "Confidence intervals for proportions with small expected number of positive
    counts estimated from survey data", 1998 (the number of draws, and Student's t).

    >>> [round(end, 3) for end in share_interval(1.0, 0.0, 19.0, 20)]
    [0.82, 1.0]
    """
    if math.isnan(se):
        return math.nan, math.nan
    varies = se > 0 and 0 < share < 1
    t2 = float(special.stdtrit(df if varies else replicates - 1, (1 + level) / 2)) ** 2
    draws = share * (1 - share) / se**2 if varies else float(replicates)
    middle = (draws * share + t2 / 2) / (draws + t2)
    half = math.sqrt(t2 * (draws * share * (1 - share) + t2 / 4)) / (draws + t2)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def first_order(
    function: Callable[[np.ndarray], OverTasks], gains: Callable[[int], np.ndarray], count: int
) -> Float[np.ndarray, "G S R U"]:
    """Return what units add to a function of the gains of all targets, to first order.

    Args:
      function: of gains [T, R].
      gains: what units add to the gains of a target, by its number; NaN where a replicate is missing.
      count: the number of targets.
    """
    values = np.stack([gains(t).mean(axis=-1) for t in range(count)])
    parts, slopes = np.full_like(values, np.nan), np.full_like(values, np.nan)
    there = ~np.isnan(values).any(axis=0)
    for g, s in np.argwhere(there.any(axis=-1)):
        at = (slice(None), g, s, there[g, s])
        found = function(values[at])
        parts[at], slopes[at] = found.parts, found.slopes
    total: np.ndarray | float = 0.0
    for t in range(count):
        total = total + parts[t][..., None] + slopes[t][..., None] * (gains(t) - values[t][..., None])
    return np.asarray(total) / count


def shares(better: Float[np.ndarray, "G S R U"]) -> Float[np.ndarray, "3 G S"]:
    """Return (share, low, high) of what units add to shares."""
    share, se, df, replicates = statistics.two_way_error(better)
    found = np.stack([share, share, share])
    for at in np.argwhere(replicates > 0):
        own = tuple(at)
        ends = share_interval(float(share[own]), float(se[own]), float(df[own]), int(replicates[own]))
        found[(slice(1, None), *own)] = ends
    return found
