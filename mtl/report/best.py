"""The set of regimes that holds the best of a column: Hsu's multiple comparisons with the best."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

#: Draws of the multivariate t: the critical value is then known to about 0.01, and no † hangs on them.
DRAWS = 50_000


def _normals(directions: np.ndarray) -> np.ndarray:
    """Draws of normals whose covariances are the products of ``directions`` [J, F]: float32 [J, DRAWS]."""
    # By eigenvectors: twins make the matrix singular, which Cholesky's factor would not survive.
    spread, vectors = np.linalg.eigh(directions @ directions.T)
    root = (vectors * np.sqrt(np.maximum(spread, 0.0))).astype(np.float32)
    return np.asarray(root @ np.random.default_rng(0).standard_normal((len(root), DRAWS), dtype=np.float32))


def _quantile(normals: Iterable[np.ndarray], df: float, level: float) -> float:
    """The quantile of the largest of some normals of variance 1, over the √(χ²_df / df) they share."""
    scale = np.sqrt(np.random.default_rng(1).chisquare(df, DRAWS) / df)
    return float(np.quantile(functools.reduce(np.maximum, normals) / scale, level))


def critical_value(directions: Float[np.ndarray, "J F"], df: float, level: float = 0.95) -> float:
    """The ``level`` quantile of the largest of J correlated Student's t, max_j T_j.

    T = Z / √(χ²_df / df) with Z normal of mean 0, variances 1 and correlations ⟨f_j, f_k⟩ / (|f_j| |f_k|), from
    50,000 draws that are the same whenever and for whatever they are used.

    Args:
      directions: f_j, one row a comparison: their products are proportional to the covariances; no row of zeros.
      df: degrees of freedom.
      level: probability.

    Returns:
      The quantile; for J = 1 it is Student's own, to about 0.01.

    Source: Dunnett, "A multiple comparison procedure for comparing several treatments with a control", 1955.

    >>> one, two = (critical_value(np.eye(2)[:k], 1e6) for k in (1, 2))
    >>> abs(one - 1.645) < 0.02, abs(two - 1.955) < 0.02
    (True, True)
    """
    length = np.linalg.norm(directions, axis=1)
    return _quantile((z / x for z, x in zip(_normals(directions), length, strict=True)), df, level)


def best_set(
    gain: Float[np.ndarray, "G G"],
    se: Float[np.ndarray, "G G"],
    df: Float[np.ndarray, "G G"],
    replicates: Int[np.ndarray, "G G"],
    directions: Callable[[list[int], int], Float[np.ndarray, "J F"]],
    level: float = 0.95,
    exclude: tuple[int, ...] = (),
    means: Float[np.ndarray, "G F"] | None = None,
) -> Bool[np.ndarray, " G"]:
    """Hsu's multiple comparisons with the best: the set that holds the true best with confidence ``level``.

    Regime i stays in the set unless some j is better by more than what would happen were i the best:
    max_j gain_ji / se_ji > q_i, with q_i the ``level`` quantile of the largest of J correlated t with ν degrees of
    freedom, ν the least of i's comparisons. If i is the true best, then all true gain_ji ≤ 0 and it is dropped with
    probability 1 − level at most. Nothing is chosen by the observed means, so the claim needs no correction for having
    looked. The set holds each regime that the data cannot tell from the best.

    Whatever the correlations, q_i lies between t_ν(level) and t_ν(1 − (1 − level)/J) (Bonferroni); it is drawn only
    where these leave the answer open.

    Args:
      gain: gain[j, i], paired mean gain of j over i; antisymmetric; NaN where they cannot be compared.
      se: standard errors of ``gain``; NaN as above.
      df: degrees of freedom of ``se``.
      replicates: replicates that both have.
      directions: of (the j, i), vectors whose products are proportional to the covariances of gain[j, i]; see
        `mtl.report.contrasts.Pairs.directions`.
      level: confidence.
      exclude: indices of regimes that do not take part; they are not in the set.
      means: vectors of the regimes' means, whose differences are the ``directions``, where all that take part have
        the same replicates: then the draws for one regime serve them all.

    Returns:
      Whether each regime is in the set. Regimes that nothing could be compared with are in it.

    Raises:
      IndexError: if ``exclude`` names an index that does not exist.

    Source: Hsu, "Constrained simultaneous confidence intervals for multiple comparisons with the best", 1984;
    Edwards & Hsu, "Multiple comparisons with the best treatment", 1983.

    >>> g = np.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> args = np.full((2, 2), 0.1), np.full((2, 2), 19.0), np.full((2, 2), 20), lambda j, i: np.ones((1, 1))
    >>> best_set(g, *args).tolist(), best_set(g / 20, *args).tolist()
    ([True, False], [True, True])
    """
    groups = len(gain)
    for index in exclude:
        if not 0 <= index < groups:
            raise IndexError(f"exclude: {index}; indices go from 0 to {groups - 1}")
    inside = np.ones(groups, dtype=bool)
    inside[list(exclude)] = False
    drawn: np.ndarray | None = None
    for i in np.flatnonzero(inside).tolist():
        others = [j for j in range(groups) if j != i and j not in exclude and not np.isnan(se[j, i])]
        # A standard error of 0 estimates nothing; the sign test decides (as in `p_value`, here one-sided).
        exact = [j for j in others if se[j, i] == 0]
        noisy = [j for j in others if se[j, i] > 0]
        if any(gain[j, i] > 0 and 0.5 ** int(replicates[j, i]) <= 1 - level for j in exact):
            inside[i] = False
        elif noisy:
            largest = float(max(gain[j, i] / se[j, i] for j in noisy))
            nu = float(min(df[j, i] for j in noisy))
            least, most = special.stdtrit(nu, [level, 1 - (1 - level) / len(noisy)])
            if largest <= least or largest > most:
                inside[i] = largest <= least
            elif means is None:
                inside[i] = largest <= critical_value(directions(noisy, i), nu, level)
            else:
                drawn = _normals(means) if drawn is None else drawn
                length = np.linalg.norm(means - means[i], axis=1)
                inside[i] = largest <= _quantile(((drawn[j] - drawn[i]) / length[j] for j in noisy), nu, level)
    return inside
