"""What may be claimed from means over replicates × test examples: errors, tests, corrections."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from mtl.report import bootstrap


class MeanSquares(NamedTuple):
    """Mean squares of a two-way table x_ri = μ + a_r + b_i + e_ri, divided by RI; see `two_way_error`.

    Attributes:
      replicates: U_a, of expectation σ_a²/R + σ_e²/(RI).
      examples: U_b, of expectation σ_b²/I + σ_e²/(RI).
      interaction: U_e, of expectation σ_e²/(RI).
      df: ν_b, degrees of freedom of U_b.
    """

    replicates: float
    examples: float
    interaction: float
    df: float


def mean_squares(x: Float[np.ndarray, "R I"]) -> MeanSquares:
    """Return the mean squares of a table without gaps, of two replicates or more.

    Args:
      x: scores, or paired differences, in any unit. With I = 1 all is put down to the replicates.

    >>> mean_squares(np.array([[1.0], [2.0], [3.0]])).replicates.round(3)
    np.float64(0.333)
    """
    r, examples = x.shape
    mean = x.mean()
    a, b = x.mean(axis=1) - mean, x.mean(axis=0) - mean
    u_a = (a @ a) / (r - 1) / r
    if examples == 1:
        return MeanSquares(u_a, 0.0, 0.0, np.inf)
    b2 = b @ b
    e2 = max(float(np.square(x - mean).sum() - examples * (a @ a) - r * b2), 0.0)
    kurtosis = examples * float((b**4).sum()) / b2**2 if b2 > 0 else 3.0
    nu = min(2 * examples / max(kurtosis - 1, 1e-9), examples - 1.0)
    return MeanSquares(
        u_a, b2 / (examples - 1) / examples, e2 / ((r - 1) * (examples - 1)) / (r * examples), max(nu, 1.0)
    )


def two_way_error(
    values: Float[np.ndarray, "*cells R I"], sizes: Float[np.ndarray, " I"] | None = None
) -> tuple[
    Float[np.ndarray, "*cells"],
    Float[np.ndarray, "*cells"],
    Float[np.ndarray, "*cells"],
    Int[np.ndarray, "*cells"],
]:
    """Mean over replicates × test examples and its standard error when both are random samples.

    With x_ri = μ + a_r + b_i + e_ri the mean has variance σ_a²/R + σ_b²/I + σ_e²/(RI). With the mean squares
    of the two-way table divided by RI, U_a, U_b, U_e, its estimate is

        se² = max(U_a, U_e) + max(U_b − U_e, 0),

    unbiased up to the truncation, which only enlarges it. Its degrees of freedom are Satterthwaite's,
    se⁴ / (U_a²/(R−1) + U_b²/ν_b), but at most R − 1: with two or three replicates their own estimate is too
    noisy (without the bound 10 % of tests at 5 % were false with R = 2). Here ν_b = 2I/(κ − 1) ≤ I − 1 with κ
    the kurtosis of the examples' means: where few images decide, they are few degrees of freedom.

    Where I are groups of examples (`mtl.report.bootstrap.by_group`), the mean is the ratio Σ_k t_k / Σ_k c_k, and
    x_rk = t_rk + (1 − c_k) · mean its linear form: a large group is not far from the mean only for being large.

    Args:
      values: scores, or paired differences of scores; NaN over all of I where a replicate is missing.
      sizes: where I are groups, their relative sizes c.

    Returns:
      mean, in the unit of the scores, NaN without replicates; se, in the same unit, and df, both NaN with
      fewer than two replicates; the number of replicates present. With I = 1 they are those of a one-sample t
      test.

    Raises:
      ValueError: for partly missing replicates.

    Source: Searle, Casella & McCulloch, "Variance Components", 1992, chapter 4; Satterthwaite, "An
    approximate distribution of estimates of variance components", 1946; Owen, 2007, arXiv:0712.1111; Cochran, "Sampling
    Techniques", 1977, section 9A (ratio estimates of clusters).

    >>> mean, se, df, r = two_way_error(np.array([[1.0], [2.0], [3.0]]))
    >>> float(mean), round(float(se), 3), float(df), int(r)
    (2.0, 0.577, 2.0, 3)
    """
    cells = values.shape[:-2]
    present = bootstrap.present_replicates(values)
    mean, se, df = (np.full(cells, np.nan) for _ in range(3))
    for cell in np.ndindex(*cells):
        x = values[cell][present[cell]]
        r = len(x)
        if r == 0:
            continue
        mean[cell] = x.mean()
        if r == 1:
            continue
        if sizes is not None:
            x = x + (1 - sizes) * mean[cell]
        of = mean_squares(x)
        main, extra = max(of.replicates, of.interaction), max(of.examples - of.interaction, 0.0)
        square = main + extra
        noise = main**2 / (r - 1) + of.examples**2 / of.df
        df[cell] = min(max(square**2 / noise, 1.0), r - 1) if noise > 0 else r - 1
        # Rounding leaves crumbs where all scores are alike; they must not pass for a tiny error.
        exact = square <= (1e-12 * max(1e-300, float(np.abs(x).max()))) ** 2
        se[cell] = 0.0 if exact else np.sqrt(square)
    return mean, se, df, np.asarray(present.sum(axis=-1))


def t_interval(x: Float[np.ndarray, " R"], level: float = 0.95) -> tuple[float, float, float]:
    """Student's interval of a mean over replicates, x̄ ± t_{R−1} s/√R.

    Args:
      x: one number a replicate; NaN are left out.
      level: confidence.

    Returns:
      Mean, low, high, in the unit of ``x``; NaN ends with fewer than two replicates.

    Source: Student, "The probable error of a mean", 1908.

    >>> [round(v, 2) for v in t_interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.48, 4.48]
    """
    x = x[~np.isnan(x)]
    if len(x) < 2:
        return (float(x[0]) if len(x) else float("nan")), float("nan"), float("nan")
    half = special.stdtrit(len(x) - 1, (1 + level) / 2) * x.std(ddof=1) / np.sqrt(len(x))
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)


def p_value(gain: float, se: float, df: float, replicates: int) -> float:
    """Two-sided p value of a mean gain, P(|T_df| ≥ |gain| / se).

    Args:
      gain: mean paired gain, any unit.
      se: its standard error, same unit.
      df: degrees of freedom of ``se``.
      replicates: R, used where ``se`` is 0.

    Returns:
      p; NaN if ``se`` is. A standard error of 0 estimates nothing: then p = 1 for gain 0, and otherwise that
      of the sign test, 2^(1−R), as all R replicates point the same way.

    >>> round(p_value(2.093, 1.0, 19.0, 20), 3)
    0.05
    >>> p_value(0.0, 0.0, 19.0, 20), p_value(1.0, 0.0, 4.0, 5)
    (1.0, 0.0625)
    """
    if np.isnan(gain) or np.isnan(se):
        return float("nan")
    if se == 0:
        return 1.0 if gain == 0 else 2.0 ** (1 - replicates)
    return float(2 * special.stdtr(df, -abs(gain) / se))


def paired_t_test(first: Float[np.ndarray, " R"], second: Float[np.ndarray, " R"]) -> float:
    """Paired t test over replicates: the two-sided p value of mean(first − second) = 0.

    Args:
      first, second: one number a replicate, aligned; pairs with a NaN are left out.

    Returns:
      p; NaN with fewer than two pairs; see `p_value` for differences that are all the same.

    Source: Student, 1908.

    >>> paired_t_test(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 4.0]))
    1.0
    """
    mean, se, df, replicates = two_way_error((first - second)[:, None])
    return p_value(float(mean), float(se), float(df), int(replicates))


def holm(p: Float[np.ndarray, "*tests"], looks: int = 1) -> Float[np.ndarray, "*tests"]:
    """Holm's step-down: adjusted p values that control the chance of any false claim among all tests.

    With p_(1) ≤ … ≤ p_(m): adjusted p_(k) = max_{j ≤ k} min(1, L (m − j + 1) p_(j)).

    Args:
      p: p values, any shape; NaN where there was no test: passed through and not counted.
      looks: L, how often the data are looked at, as was planned: at each look an equal part of the level is spent
        (Bonferroni), so that the chance of any false claim at any of them is controlled.

    Returns:
      Adjusted p values, same shape; reject where they are at most the level.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    >>> holm(np.array([0.01, np.nan, 0.04, 0.03])).round(3).tolist()
    [0.03, nan, 0.06, 0.06]
    """
    adjusted = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    kept = p[tested]
    order = np.argsort(kept, kind="stable")
    steps = np.maximum.accumulate(kept[order] * looks * np.arange(len(kept), 0, -1)) if len(kept) else kept
    back = np.empty_like(kept)
    back[order] = np.minimum(steps, 1.0)
    adjusted[tested] = back
    return adjusted


def tost(gain: float, se: float, df: float, margin: float) -> float:
    """Two one-sided tests: the p value of |true gain| ≥ margin.

    p = max(P(T_df ≥ (gain + margin)/se), P(T_df ≥ (margin − gain)/se)); p < 0.05 exactly when the 90 % t
    interval lies inside ± margin.

    Args:
      gain: mean paired gain, any unit.
      se: its standard error.
      df: its degrees of freedom.
      margin: half-width of the equivalence region, same unit.

    Returns:
      p; NaN if ``se`` is. With a standard error of 0: 0 inside the margin, 1 outside.

    Raises:
      ValueError: if the margin is negative or not finite.

    Source: Schuirmann, "A comparison of the two one-sided tests procedure and the power approach", 1987.

    >>> tost(0.0, 0.01, 19.0, 0.02) < 0.05, tost(0.01, 0.01, 19.0, 0.02) < 0.05
    (True, False)
    """
    if not (np.isfinite(margin) and margin >= 0):
        raise ValueError(f"margin: {margin}; give a finite number, 0 or more")
    if np.isnan(gain) or np.isnan(se):
        return float("nan")
    if se == 0:
        return 0.0 if abs(gain) < margin else 1.0
    return float(special.stdtr(df, (abs(gain) - margin) / se))
